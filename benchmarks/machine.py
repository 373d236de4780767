"""What was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from drift_edge import __version__
from drift_edge.kernel import active
from drift_edge.llama import library


def describe() -> dict[str, str]:
    """Facts that every figure goes with."""
    kernel = active()
    return {
        "processor": _processor(),
        "cores": str(library.physical_cores()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "drift_edge": __version__,
        "llama_cpp_python": library.version(),
        "kernel": f"{kernel.name} ({kernel.isa})",
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
    }


def _processor() -> str:
    try:
        found = {
            key.strip(): value.strip()
            for key, _, value in (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        }
        return f"{found['model name']} (family {found['cpu family']}, model {found['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()
