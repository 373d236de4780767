"""`python -m benchmarks.profile [--quick]`: one more choice in a profile of 10,000, and `profile show` on one of 300.

Every number is a median, by the clock and by the processor's time. Of an added choice the time in fsync is told by
itself: it is the disk's. The first choice in a process reads the journal, to know what it has; later ones do not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np

from drift_edge import Attributes, PreferencePair, Profile
from drift_edge.profile import SLM
from drift_edge.rewards import PairScores

_MANY, _SHOWN = 10_000, 300
_SLM = SLM("benchmark", "0" * 16)
_POOL = Attributes.builtin()


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Rows of {name, rounds, ms, cpu_ms, fsync_ms}: medians, `ms` by the clock and without fsync.

    Args:
        quick: fewer rounds.
    """
    rounds = 3 if quick else 15
    with tempfile.TemporaryDirectory() as folder:
        many, shown = Path(folder, "many.json"), Path(folder, "shown.json")
        for path, n in ((many, _MANY), (shown, _SHOWN)):
            _open(path).extend(_choice(i) for i in range(n))
        firsts, laters = [], []
        for i in range(rounds):
            code = f"from {__package__}.profile import adds; adds({str(many)!r}, {_MANY + 10 * i})"
            told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
            first, *later = json.loads(told)
            firsts.append(first)
            laters.extend(later)
        shows = [_show(shown) for _ in range(rounds)]
    return [
        _row(f"add choice {_MANY + 1:,}, in a process that has added others", laters),
        _row("the same, the first in its process", firsts),
        _row(f"`profile show`, {_SHOWN} choices, the whole program", shows),
    ]


def adds(path: str, start: int, n: int = 5) -> None:
    """Add choices from `start` on, and print what each took as JSON: [ms without fsync, ms of processor, ms of fsync].

    Args:
        path: of the profile.
        start: number of the first.
        n: how many.
    """
    profile, fsync, synced = _open(Path(path)), os.fsync, 0.0

    def timed(fd: int) -> None:
        nonlocal synced
        began = time.perf_counter()
        fsync(fd)
        synced += time.perf_counter() - began

    took = []
    with mock.patch("os.fsync", timed):
        for i in range(start, start + n):
            pair, scores = _choice(i)
            synced, began, cpu = 0.0, time.perf_counter(), time.process_time()
            profile.add(pair, scores)
            wall, cpu = time.perf_counter() - began, time.process_time() - cpu
            took.append([1e3 * (wall - synced), 1e3 * cpu, 1e3 * synced])
    print(json.dumps(took))


def _show(path: Path) -> list[float]:
    code = "from drift_edge.cli import main; main()"
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code, "profile", "show", path], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [1e3 * wall, 1e3 * cpu, 0.0]


def _open(path: Path) -> Profile:
    return Profile.open(path, slm=_SLM, attributes=_POOL)


def _choice(i: int) -> tuple[PreferencePair, PairScores]:
    """The i-th choice, of about the size of two answers of the built-in LLM's."""
    rng = np.random.default_rng(i)
    chosen, rejected = rng.normal(-100, 5, (2, len(_POOL) + 1))
    asked = {"role": "user", "content": f"Question {i}: how is tea made, and what for?"}
    pair = PreferencePair((asked,), f"{i}: " + "First, boil the water. " * 10, f"{i}: " + "Oh, what a question! " * 10)
    return pair, PairScores(chosen, rejected, 60, 50)


def _row(name: str, took: list[list[float]]) -> dict[str, Any]:
    ms, cpu, fsync = (median(column) for column in zip(*took, strict=True))
    return {"name": name, "rounds": len(took), "ms": ms, "cpu_ms": cpu, "fsync_ms": fsync}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    print(f"\nProfile: {len(_POOL)} attributes, medians in ms")
    print(f"{'':56} {'rounds':>6} {'clock':>8} {'CPU':>8} {'fsync':>8}")
    for row in rows:
        print(f"{row['name']:56} {row['rounds']:6} {row['ms']:8.2f} {row['cpu_ms']:8.2f} {row['fsync_ms']:8.2f}")
    print("aims: 5 ms by the clock without fsync for a choice, 500 ms for `profile show`")


def main() -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    show(run(parser.parse_args().quick))


if __name__ == "__main__":
    main()
