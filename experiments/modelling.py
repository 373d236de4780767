"""What the experiments on preference modelling share: people's pairs, weights from them, accuracy with intervals."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from drift_edge.approximation import estimate_from_rewards
from drift_edge.models import builtin_pair
from drift_edge.rewards import FloatArray
from experiments.world import QUESTIONS, TEMPERATURE, Pairs, Person, World, judge, load, people

KS = (5, 10, 20, 50, 100, 200, 500)
TEST_PAIRS = 300
TUNING, REPORT = 20, 30  # people
DRAWS = 3  # of each person's pairs
CHOSEN, PAPER = ("whitened", "sum"), ("closed-form", "sum")  # estimator and reduction; `estimators` chose
FOLDER = Path(__file__).parent.parent / "docs" / "evidence"


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A person's pairs to learn from, and those to predict, which have no noise."""

    person: Person
    train: Pairs
    test: Pairs


def cases(world: World, n: int, kind: str, *, noise: bool, draws: int = DRAWS, k: int = max(KS)) -> list[list[Case]]:
    """For each of `n` people, `draws` drawings of `k` pairs."""
    return [
        [
            Case(
                person,
                judge(world, person, rng, k, test=False, noise=noise),
                judge(world, person, rng, TEST_PAIRS, test=True, noise=False),
            )
            for _ in range(draws)
        ]
        for person, rng in people(n, kind, world.seed)
    ]


def learned(values: FloatArray, pairs: Pairs, estimator: str, regularisation: float | None = None) -> FloatArray:
    """p of length 1 from what the answers are worth by each column: float64 (K,) of (questions, ANSWERS, K)."""
    names = tuple(map(str, range(values.shape[-1])))
    W, L = values[pairs.question, pairs.chosen], values[pairs.question, pairs.rejected]
    return estimate_from_rewards(names, W, L, estimator, regularisation=regularisation).weights


def right(margins: FloatArray) -> float:
    """Share of positive margins; a margin of 0 counts half."""
    return float(((margins > 0) + 0.5 * (margins == 0)).mean())


def over(people: Sequence[Sequence[Case]], score: Callable[[Case], Sequence[float]]) -> FloatArray:
    """What `score` gives for every person and drawing: float64 (people, draws, …)."""
    return np.array([[score(case) for case in drawings] for drawings in people])


def interval(values: FloatArray) -> dict[str, list[float]]:
    """Mean over people, half of its 95 % interval, and the mean standard deviation over drawings of one person.

    Args:
        values: float64 (people, draws, n).
    """
    by_person = values.mean(axis=1)
    half = 1.96 * by_person.std(axis=0, ddof=1) / np.sqrt(len(by_person))
    spread = values.std(axis=1, ddof=1).mean(axis=0) if values.shape[1] > 1 else np.full(values.shape[2], np.nan)
    return {"mean": by_person.mean(axis=0).tolist(), "half": half.tolist(), "over draws": spread.tolist()}


# --- the command line ------------------------------------------------------------------------------------------------


def options(name: str, about: str | None) -> argparse.ArgumentParser:
    """The parser that all of these experiments begin with."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{name}", description=about)
    parser.add_argument("--llm", type=Path, default=builtin_pair()[0], help="GGUF file (default: the built-in one)")
    parser.add_argument("--slm", type=Path, default=builtin_pair()[1], help="GGUF file (default: the built-in one)")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="of the world, with 8 answers each")
    parser.add_argument("--people", type=int, default=REPORT, help="to report on")
    parser.add_argument("--seed", type=int, default=1, help="of the world and its people")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where NAME.json and NAME.png go")
    return parser


def world_of(given: argparse.Namespace) -> World:
    """The world that the command line asks for."""
    return load(given.questions, given.seed, (given.llm, given.slm))


def keep(name: str, given: argparse.Namespace, world: World, facts: Mapping[str, Any], figure: Figure) -> None:
    """Write the JSON file and the plot."""
    about = {
        "models": world.models,
        "seed": given.seed,
        "questions": given.questions,
        "people": given.people,
        "temperature": TEMPERATURE,
    }
    write(name, given.out, about | dict(facts), figure)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(name: str, folder: Path, facts: Mapping[str, Any], figure: Figure) -> None:
    """Write `name`.json and `name`.png into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    figure.savefig(folder / f"{name}.png", dpi=110)
    print(f"wrote {folder / name}.json and .png", file=sys.stderr)
