"""Profiles under many processes, and under processes that are killed: what is left must be whole and count exactly.

`python -m tests.torture writers 8 200` and `python -m tests.torture kills 500` print their facts as JSON, with the
seed; they are programs of their own, so that they may fork.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from drift_edge import storage
from drift_edge.profile import Profile
from tests.choices import NANO, POOL, pair, scores


def _open(path: Path) -> Profile:
    return Profile.open(path, slm=NANO, attributes=POOL, wait=120)


def _add(profile: Profile, i: int) -> None:
    """Learn from choice i; sums of such rewards are exact."""
    profile.add(pair(i), scores([i % 7, i % 5], [0, i % 3]))


def _fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def facts(path: Path) -> dict[str, object]:
    """What is in a profile, and whether its numbers are those of its choices, exactly."""
    profile = _open(path)
    kept = list(profile.choices())
    asked = [int(choice.pair.messages[0]["content"].split()[1].rstrip("?")) for choice in kept]
    expected = np.sum([[i % 7, i % 5 - i % 3] for i in asked], axis=0) if asked else np.zeros(2)
    lines = profile.path.with_suffix(".jsonl").read_bytes().splitlines() if asked else []
    return {
        "n": profile.n,
        "choices": sorted(asked),
        "distinct": len(set(asked)) == len(asked),
        "exact": profile.statistics.sum_d.tolist() == expected.tolist(),
        "seq_rises": [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1)),
    }


def writers(path: Path, processes: int, updates: int) -> dict[str, object]:
    """Several processes learn at once, each its own choices."""

    def work(first: int) -> None:
        profile = _open(path)
        for i in range(first, first + updates):
            _add(profile, i)

    pids = [_fork(lambda first=k * updates: work(first)) for k in range(processes)]  # type: ignore[misc]
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    found = facts(path)
    complete = found.pop("choices") == list(range(processes * updates))
    return {"expected": processes * updates, "statuses": statuses, "complete": complete, **found}


def kills(path: Path, times: int, seed: int) -> dict[str, object]:
    """A process learns and says after each choice that it is kept; it is killed at a random moment, again and again."""
    rng = random.Random(seed)
    said: dict[str, set[int]] = {"begin": set(), "kept": set(), "undo": set(), "gone": set()}
    begun, problems = 0, []
    scratch = _open(path.with_name("scratch.json"))
    began = time.monotonic()
    for i in range(5):
        _add(scratch, i)
    takes = (time.monotonic() - began) / 5
    for _ in range(times):
        reader, writer = os.pipe()

        def work(first: int = begun, writer: int = writer) -> None:
            profile = _open(path)
            for i in range(first, first + 10_000):
                os.write(writer, f"begin {i}\n".encode())
                _add(profile, i)
                os.write(writer, f"kept {i}\n".encode())
                if i % 5 == 4:
                    os.write(writer, f"undo {i}\n".encode())
                    profile.undo()
                    os.write(writer, f"gone {i}\n".encode())

        pid = _fork(work)
        os.close(writer)
        heard = os.read(reader, 65536)
        until = time.monotonic() + rng.uniform(0, 4 * takes)
        while (left := until - time.monotonic()) > 0:
            if select.select([reader], [], [], left)[0]:
                heard += os.read(reader, 65536)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while more := os.read(reader, 65536):
            heard += more
        os.close(reader)
        for line in heard.decode().splitlines():
            what, number = line.split()
            begun = max(begun, int(number) + 1)
            said[what].add(int(number))
        found = facts(path)
        there = set(found["choices"])  # type: ignore[call-overload]
        if lost := said["kept"] - said["undo"] - there:
            problems.append(f"lost {sorted(lost)}")
        if back := said["gone"] & there:
            problems.append(f"not forgotten {sorted(back)}")
        if not (found["exact"] and found["distinct"] and found["n"] == len(there)):
            problems.append(f"not exact: {found}")
    counts = {what: len(numbers) for what, numbers in said.items()}
    return {
        "seed": seed,
        "kills": times,
        "seconds_each": round(takes, 4),
        "said": counts,
        "n": facts(path)["n"],
        "problems": problems,
    }


def main() -> None:
    """Run what the arguments say."""
    what, *numbers = sys.argv[1:]
    if os.environ.get("TORTURE_FSYNC") == "0":  # whether a disk is waited for changes nothing for a killed process
        for name in ("_sync", "_sync_folder"):
            setattr(storage, name, lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "me.json"
        begin = time.monotonic()
        if what == "writers":
            found = writers(path, int(numbers[0]), int(numbers[1]))
        else:
            seed = int(numbers[1]) if len(numbers) > 1 else random.SystemRandom().randrange(1 << 32)
            found = kills(path, int(numbers[0]), seed)
        print(json.dumps({**found, "seconds": round(time.monotonic() - begin, 1)}))


if __name__ == "__main__":
    main()
