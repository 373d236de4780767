"""`python -m benchmarks [--quick] [--json FILE]`: the kernel, the engine and scoring, in one run."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

from benchmarks import engine, kernel, scoring
from drift_edge import __version__
from drift_edge.kernel import active
from drift_edge.llama import library


def main() -> None:
    """Run all benchmarks and print their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args()
    info = active()
    machine = {
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "cores": library.physical_cores(),
        "drift_edge": __version__,
        "llama_cpp_python": library.version(),
        "kernel": f"{info.name} ({info.isa})",
    }
    print("  ".join(f"{key} {value}" for key, value in machine.items()), file=sys.stderr)
    kernel_rows = kernel.run(quick=args.quick)
    kernel.show(kernel_rows)
    engine_rows = engine.run(quick=args.quick)
    engine.show(engine_rows)
    scoring_rows = scoring.run(quick=args.quick)
    scoring.show(scoring_rows)
    if args.json:
        rows = {"kernel": kernel_rows, "engine": engine_rows, "scoring": scoring_rows}
        args.json.write_text(json.dumps({"machine": machine, **rows}, indent=1))


if __name__ == "__main__":
    main()
