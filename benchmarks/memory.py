"""`python -m benchmarks.memory`: what an engine keeps in memory, against what llama.cpp says that its buffers take.

Each line is a process of its own, which loads a pair, answers two turns that fill a batch, with k = 7, and scores a
pair of answers where the line says so. Its peak is taken from after the load on, since a load reads weights that it
then repacks. The limit is the sum of the buffers that llama.cpp reports (weights, mapped or repacked; KV caches;
compute), the rows of logits that its contexts may be asked for, and 150 MB for all else: Python, numpy, the kernel's
buffers, vocabularies. Linux alone tells a peak.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from drift_edge import Drift, DriftError
from drift_edge.models import builtin_pair
from drift_edge.preferences import PreferencePair

from .pairs import Shape, write_model
from .questions import QUESTION, WEIGHTS

BESIDES = 150_000_000  # bytes
_BUFFER = re.compile(r"^(\w+): +\S+ +(model|KV|compute) buffer size = +([\d.]+) MiB")
_ROWS = re.compile(r"^llama_context: n_outputs_max += (\d+)")
_LONG = "Tell me of tea, of bicycles and of chess, and of what they have in common. " * 4
#: A larger pair, made on the spot: shapes of Llama-3.2-1B and SmolLM2-135M in few layers.
_SHAPES = Shape(2_048, 3, 8_192, 32, 8), Shape(576, 3, 1_536, 9, 3)


def run(llm: Path, slm: Path, name: str) -> list[dict[str, Any]]:
    """Rows of {name, cache_type, scoring, n_ctx, peak, limit, besides, one of each kind of buffer}, in bytes.

    Raises:
        DriftError: this system does not tell a process's peak.
    """
    if not Path("/proc/self/clear_refs").exists():
        raise DriftError("the peak of a process can be told on Linux alone")
    rows = []
    for cache_type, scoring in (("f16", False), ("q8_0", False), ("f16", True)):
        line = [sys.executable, "-m", f"{__package__}.memory", "--measure", str(llm), str(slm), cache_type]
        done = subprocess.run([*line, *["--scoring"] * scoring], stdout=subprocess.PIPE, check=True)
        rows.append({"name": name, "cache_type": cache_type, "scoring": scoring, **json.loads(done.stdout)})
    return rows


def measure(llm: Path, slm: Path, cache_type: str, scoring: bool) -> dict[str, Any]:
    """In this process: the peak after the load, and llama.cpp's buffers by kind, in bytes."""
    buffers = _Buffers()
    logger = logging.getLogger("drift_edge.llama")
    level = logger.level
    logger.addHandler(buffers)
    logger.setLevel(logging.DEBUG)
    try:
        with Drift.load(llm, slm, cache_type=cache_type) as drift:
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            asked = {"role": "user", "content": QUESTION}
            talk = [{"role": "user", "content": _LONG}]
            for question in (talk, [*talk, {"role": "assistant", "content": "Yes."}, asked]):
                for _ in drift.chat(question, weights=WEIGHTS, max_tokens=8, speculate=3, seed=1):
                    pass
            if scoring:
                with drift.scorer(cache=False) as scorer:
                    scorer.score(PreferencePair((asked,), "First, boil some water.", "No idea."))
            peak, n_ctx = _status("VmHWM"), drift.settings.n_ctx
            n_vocab = drift.pair.n_vocab
    finally:
        logger.removeHandler(buffers)
        logger.setLevel(level)
    found: dict[str, Any] = {kind: round(size) for kind, size in buffers.sizes.items()}
    found["output"] = 4 * n_vocab * buffers.rows
    limit = sum(found.values()) + BESIDES
    return {"n_ctx": n_ctx, "peak": peak, "limit": limit, "besides": peak - (limit - BESIDES), **found}


class _Buffers(logging.Handler):
    """Adds up the buffers of llama.cpp's log, by kind, and the rows of logits of all contexts."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.sizes = dict.fromkeys(("model", "KV", "compute"), 0.0)
        self.rows = 0  # the output buffers' sizes are told before they have grown to that many

    def emit(self, record: logging.LogRecord) -> None:
        """Read one line; those of a context that is freed begin with a tilde."""
        if match := _BUFFER.match(record.getMessage()):
            self.sizes[match[2]] += float(match[3]) * (1 << 20)
        elif match := _ROWS.match(record.getMessage()):
            self.rows += int(match[1])


def _status(name: str) -> int:
    """A field of /proc/self/status, in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[1]) << 10  # type: ignore[index]


def write_larger(folder: Path) -> tuple[Path, Path]:
    """The larger pair, Q4_0, which llama.cpp repacks where it can."""
    files = folder / "llm.gguf", folder / "slm.gguf"
    for path, shape in zip(files, _SHAPES, strict=True):
        write_model(path, shape, "Q4_0", None)
    return files


def lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The rows as a table."""
    head = f"{'MiB':<12} {'cache':<6} {'n_ctx':>6} {'weights':>8} {'KV':>8} {'compute':>8} {'output':>7}"
    yield (f"{head} {'peak RSS':>9} {'besides':>8}")
    for row in rows:
        mib = {kind: row[kind] / (1 << 20) for kind in ("model", "KV", "compute", "output", "peak", "besides")}
        yield (
            f"{row['name']:<12} {row['cache_type']:<6} {row['n_ctx']:>6,} {mib['model']:8.1f} {mib['KV']:8.1f} "
            f"{mib['compute']:8.1f} {mib['output']:7.1f} {mib['peak']:9.1f} {mib['besides']:8.1f}"
            f"{'  and scoring' if row['scoring'] else ''}{'' if row['peak'] <= row['limit'] else '  OVER'}"
        )
    most = max(row["besides"] for row in rows)
    yield (f"most besides llama.cpp's buffers: {most / 1e6:.0f} MB  (aim: at most {BESIDES / 1e6:.0f})")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument(
        "--llm", type=Path, help="GGUF file of the LLM (default: the built-in pair, and one made on the spot)"
    )
    parser.add_argument("--slm", type=Path, help="GGUF file of the sLM")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--scoring", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        llm, slm, cache_type = args.measure
        print(json.dumps(measure(Path(llm), Path(slm), cache_type, args.scoring)))
        return
    if args.llm and args.slm:
        rows = run(args.llm, args.slm, args.llm.stem[:12])
    else:
        rows = run(*builtin_pair(), "built-in")
        with tempfile.TemporaryDirectory() as folder:
            rows += run(*write_larger(Path(folder)), "made")
    print("\n".join(lines(rows)))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
