"""`drift-edge doctor`: what this installation is made of, and what would make this machine faster."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from drift_edge import __version__

from .progress import size

Facts = dict[str, Any]


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Show versions, kernel, llama.cpp's build, folders, the built-in pair, and what would be faster."""
    from .render import Screen, show_log, visible

    show_log(False)
    facts = examine()
    if as_json:
        Screen().json(facts)
        return
    for name, value in facts.items():
        lines = [f"{key}: {_text(item)}" for key, item in value.items()] if isinstance(value, dict) else [_text(value)]
        for i, line in enumerate(lines):
            typer.echo(visible(f"{'' if i else name.replace('_', ' '):<14}  {line}"))


def examine() -> Facts:
    """All facts, by name; what cannot be found out stands as its error."""
    facts: Facts = {
        "versions": {
            "drift-edge": __version__,
            "Python": platform.python_version(),
            "llama-cpp-python": _try(lambda: metadata.version("llama-cpp-python")),
            "numpy": _try(lambda: metadata.version("numpy")),
        },
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "kernel": _try(_kernel),
        "llama_cpp": _try(_llama),
        "backend": _try(_backend),
        "cores": _try(_cores),
        "folders": _try(_folders),
        "built_in_pair": _try(_builtin),
    }
    facts["faster"] = advice(facts)
    return facts


def advice(facts: Facts) -> str:
    """The one thing that would make this machine faster."""
    kernel, llama = facts["kernel"], facts["llama_cpp"]
    if "error" in llama:
        return f"llama.cpp cannot be loaded; install it again: {_pip('llama-cpp-python')}"
    if kernel.get("name") == "numpy":
        if os.environ.get("DRIFT_EDGE_KERNEL") == "numpy":
            return "unset DRIFT_EDGE_KERNEL: it asks for the slower numpy kernel"
        return f"build the C kernel: with a C compiler installed, {_pip('drift-edge', '--no-deps')}"
    if not llama["gpu_offload"]:
        backend = _gpu_backend()
        if backend:
            return (
                f"this build of llama.cpp cannot use the GPU; build it for {backend.capitalize()}: {_install(backend)}"
            )
        if _has_avx2() and "AVX2 = 1" not in llama["system"]:
            return f"this build of llama.cpp does without AVX2; build it here: {_pip('llama-cpp-python')}"
        return "nothing to mend: C kernel, llama.cpp built for this CPU, no GPU found (one would be faster)"
    return "nothing to mend: C kernel, and llama.cpp can offload to the GPU"


def _try(look: Callable[[], Any]) -> Any:
    try:
        return look()
    except Exception as error:  # a doctor must speak of what is broken
        return {"error": f"{type(error).__name__}: {error}"}


def _kernel() -> Facts:
    from drift_edge import kernel

    active = kernel.active()
    return {"name": active.name, "instructions": active.isa, "reason": active.reason}


def _llama() -> Facts:
    from drift_edge.llama import library

    return {"gpu_offload": library.supports_gpu(), "system": library.system_info()}


def _backend() -> Facts:
    """What this machine's llama.cpp should be built for, how to install it so, and the memory it would use."""
    from drift_edge.llama import offload

    backend = _gpu_backend() or "CPU"
    memory = offload.ram()
    facts: Facts = {"best": backend.lower(), "install": _install(backend)}
    if memory is not None:
        facts["memory"] = size(memory)
    for gpu in offload.gpus():
        facts[gpu.name] = f"{size(gpu.free)} of {size(gpu.total)} free"
    return facts


def _cores() -> Facts:
    from drift_edge.llama import library

    return {"physical": library.physical_cores(), "logical": os.cpu_count()}


def _folders() -> Facts:
    from drift_edge.storage import folders

    found = folders()
    return {name: str(getattr(found, name)) for name in ("config", "data", "state", "cache")}


def _builtin() -> Facts:
    from drift_edge.llama.gguf_header import read_header

    from ..models import builtin_pair

    facts: Facts = {}
    for name, path in zip(("llm", "slm"), builtin_pair(), strict=True):
        header = read_header(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        facts[name] = {
            "state": "ok",
            "path": str(path),
            "bytes": header.file_bytes,
            "sha256": digest,
            "fingerprint": header.fingerprint,
        }
    return facts


def _gpu_backend() -> str | None:
    if sys.platform == "darwin":
        return "METAL"
    if shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists():
        return "CUDA"
    if shutil.which("vulkaninfo") or any(Path("/dev/dri").glob("renderD*")):
        return "VULKAN"
    return None


def _has_avx2() -> bool:
    try:
        return " avx2 " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _install(backend: str) -> str:
    """The line that installs llama-cpp-python, built here for `backend`."""
    return _pip("llama-cpp-python", cmake="" if backend == "CPU" else f"-DGGML_{backend}=on")


def _pip(package: str, *options: str, cmake: str = "") -> str:
    line = " ".join([sys.executable, "-m pip install --force-reinstall --no-cache-dir", *options, package])
    if not cmake:
        return line
    return f'$env:CMAKE_ARGS="{cmake}"; {line}' if os.name == "nt" else f'CMAKE_ARGS="{cmake}" {line}'


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
