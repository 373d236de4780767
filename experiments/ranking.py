"""Whether two runs of the same experiments, with other master seeds, rank the methods alike and choose the same.

`python -m experiments.ranking FOLDER OTHER` compares what the experiments wrote into two folders. Two methods that come
in another order are told, and whether that is more than chance: their lead is larger than the intervals of both, one
way in the first run and the other way in the second. It ends with 1 if any is, or if another default is chosen.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

Table = dict[str, tuple[float, float]]  # mean and half of the interval, by method
_MEANS = ("mean", "win rate")  # what methods are ranked by


@dataclass(frozen=True, slots=True)
class Comparison:
    """One table in two runs.

    Attributes:
        where: the file, and the place in it.
        orders: the methods of both runs, the best first.
        agreement: Kendall's tau of the orders, from -1 to 1; NaN where they have one method in common.
        swapped: those in another order.
        decided: those of them that are so beyond the intervals.
    """

    where: str
    orders: tuple[list[str], list[str]]
    agreement: float
    swapped: list[tuple[str, str]]
    decided: list[tuple[str, str]]


def tables(facts: Mapping[str, Any], where: str) -> Iterator[tuple[str, Table]]:
    """The tables of a file of results: methods, each with a mean (over all points of its curve) and its interval."""
    table = {name: (float(np.mean(x[mean])), float(np.mean(x["half"]))) for name, x, mean in _methods(facts)}
    if len(table) > 1:
        yield where, table
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from tables(value, f"{where}, {name}")


def _methods(facts: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Entries that have an interval, and what their mean is called."""
    for name, value in facts.items():
        if isinstance(value, Mapping) and "half" in value and (mean := next((x for x in _MEANS if x in value), "")):
            yield name, value, mean


def compared(where: str, first: Table, second: Table) -> Comparison:
    """Two runs' tables; methods that only one has are left out."""
    names = [name for name in first if name in second]
    swapped, decided = [], []
    for one, other in combinations(names, 2):
        leads = [table[one][0] - table[other][0] for table in (first, second)]
        if leads[0] * leads[1] < 0:
            swapped.append((one, other))
            sure = [max(table[one][1], table[other][1]) for table in (first, second)]
            if all(abs(lead) > half for lead, half in zip(leads, sure, strict=True)):
                decided.append((one, other))
    of = len(names) * (len(names) - 1) / 2
    orders = _ordered(names, first), _ordered(names, second)
    return Comparison(where, orders, 1 - 2 * len(swapped) / of if of else np.nan, swapped, decided)


def _ordered(names: Sequence[str], table: Table) -> list[str]:
    return sorted(names, key=lambda name: -table[name][0])


def runs(folder: Path) -> dict[str, Any]:
    """The results in a folder, by experiment."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.ranking", description=__doc__)
    parser.add_argument("folders", type=Path, nargs=2, help="that the experiments wrote to (--out)")
    given = parser.parse_args(arguments)
    first, second = map(runs, given.folders)
    same = True
    for name in (name for name in first if name in second):
        print(f"{name}: seeds {first[name].get('seed')} and {second[name].get('seed')}")
        chosen = [run[name].get("chosen") for run in (first, second)]
        if chosen[0]:
            same &= chosen[0] == chosen[1]
            print(f"  chosen: {chosen[0]}" + ("" if chosen[0] == chosen[1] else f", and {chosen[1]}"))
        others = dict(tables(second[name], name))
        for where, table in tables(first[name], name):
            if where in others:
                found = compared(where, table, others[where])
                same &= not found.decided
                best = " and ".join(dict.fromkeys(order[0] for order in found.orders))
                print(f"  {where}: best {best}; Kendall's tau {found.agreement:.2f}; {len(found.swapped)} swapped")
                for pair in found.decided:
                    print(f"    beyond the intervals: {' and '.join(pair)}")
    print("the same ranking and the same choices" if same else "not the same")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
