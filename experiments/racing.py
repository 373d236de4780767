"""Racing: how many tokens it saves, and how often the active attributes are other ones than by all scores.

`python -m experiments.racing` lets personas judge the texts of `experiments.personas`, all of which are scored once,
and then races on those scores at several confidences. What a race has scored is also given to whitening, which does not
race by itself; and learning from the first few pairs alone shows what as many tokens would buy without a race.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from drift_edge.approximation import choose_active, estimate
from drift_edge.attributes import Attributes
from drift_edge.models import builtin_pair
from drift_edge.models.nano.report import Progress, aligned
from drift_edge.profile import DEFAULT_BLOCKED
from drift_edge.racing import DEFAULT_CONFIDENCE, Race
from drift_edge.rewards import PairScores
from drift_edge.statistics import Statistics
from experiments.personas import ACTIVE, TEST_PAIRS, accuracy
from experiments.texts import Pairs, Persona, Texts, judged, measure

CONFIDENCES = (0.5, 0.7, 0.85, 0.95, 0.98, DEFAULT_CONFIDENCE, 0.999)
SHARES = (0.2, 0.35, 0.5, 0.75, 1.0)  # of the pairs, for learning from the first few
ESTIMATORS = ("closed-form", "whitened")
AIMS = {"tokens": 0.35, "same": 0.9}


@dataclass(frozen=True, slots=True)
class Row:
    """What one way of scoring less gives; means over personas.

    Attributes:
        way: `race` or `first pairs`.
        setting: the confidence, or the share of the pairs.
        tokens: share of the tokens of all responses under all prompts that were scored.
        same: by estimator, share of personas whose active attributes are those of all scores.
        shared: by estimator, how many of the active attributes are.
        accuracy: by estimator, share of unseen pairs that the active attributes predict right.
    """

    way: str
    setting: float
    tokens: float
    same: dict[str, float]
    shared: dict[str, float]
    accuracy: dict[str, float]


def raced(pairs: Pairs, confidence: float) -> tuple[Statistics, float]:
    """Statistics of what a race scores, and the share of tokens that took."""
    names = tuple(Attributes.builtin())
    statistics = Statistics(names)
    race = Race(statistics, len(pairs.W), active=ACTIVE, blocked=DEFAULT_BLOCKED, confidence=confidence)
    tokens = pairs.n_chosen + pairs.n_rejected
    prompts = np.empty(len(tokens))
    for j, (W, L) in enumerate(zip(pairs.W, pairs.L, strict=True)):
        prompts[j] = 1 + race.racing.sum()
        chosen, rejected = (np.append(0.0, np.where(race.racing, rewards, np.nan)) for rewards in (W, L))
        scores = PairScores(chosen, rejected, int(pairs.n_chosen[j]), int(pairs.n_rejected[j]))
        statistics.add(*scores.rewards(), scored=scores.scored)
        race.add(scores)
    return statistics, float(prompts @ tokens / (tokens.sum() * (1 + len(names))))


def first(pairs: Pairs, share: float) -> tuple[Statistics, float]:
    """Statistics of the first pairs, all attributes scored, and the share of tokens that took."""
    n = round(share * len(pairs.W))
    tokens = pairs.n_chosen + pairs.n_rejected
    statistics = Statistics.of(tuple(Attributes.builtin()), pairs.W[:n], pairs.L[:n])
    return statistics, float(tokens[:n].sum() / tokens.sum())


def compared(texts: Texts, personas: int, pairs: int, seed: int) -> list[Row]:
    """All ways on the same personas."""
    people = []
    for i in range(personas):
        rng = np.random.default_rng([*f"racing {seed}".encode(), i])
        persona = Persona.draw(rng)
        people.append(
            (judged(texts, persona, rng, pairs, test=False), judged(texts, persona, rng, TEST_PAIRS, test=True))
        )
    whole = [_active(first(train, 1.0)[0]) for train, _ in people]
    ways = [("race", confidence) for confidence in CONFIDENCES] + [("first pairs", share) for share in SHARES]
    progress, rows = Progress(len(ways)), []
    for way, setting in ways:
        found = [(raced if way == "race" else first)(train, setting) for train, _ in people]
        active = [_active(statistics) for statistics, _ in found]
        same, shared, right = (dict.fromkeys(ESTIMATORS, 0.0) for _ in range(3))
        for mine, exact, (_, test) in zip(active, whole, people, strict=True):
            for name in ESTIMATORS:
                common = len(mine[name].keys() & exact[name].keys())
                same[name] += (mine[name].keys() == exact[name].keys()) / personas
                shared[name] += common / personas
                right[name] += _predicts(mine[name], test) / personas
        rows.append(Row(way, setting, float(np.mean([tokens for _, tokens in found])), same, shared, right))
        progress.tick(1)
    return rows


def _active(statistics: Statistics) -> dict[str, dict[str, float]]:
    """The active weights, by estimator."""
    return {
        name: choose_active(estimate(statistics, name).as_dict(), ACTIVE, blocked=DEFAULT_BLOCKED)
        for name in ESTIMATORS
    }


def _predicts(active: dict[str, float], test: Pairs) -> float:
    p = np.array([active.get(name, 0.0) for name in Attributes.builtin()])
    return accuracy(p, test.W, test.L)


def table(rows: Sequence[Row]) -> str:
    """The rows for a terminal."""
    head = ["", "setting", "tokens"]
    head += [f"{name}: {what}" for name in ESTIMATORS for what in ("same", f"of {ACTIVE}", "accuracy")]
    cells = [
        [row.way, f"{row.setting:g}", f"{row.tokens:.0%}"]
        + [
            text
            for name in ESTIMATORS
            for text in (f"{row.same[name]:.0%}", f"{row.shared[name]:.2f}", f"{row.accuracy[name]:.3f}")
        ]
        for row in rows
    ]
    text: str = aligned(head, cells)
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.racing", description=__doc__)
    parser.add_argument("--slm", type=Path, help="GGUF file of the sLM (default: the built-in one)")
    parser.add_argument("--questions", type=int, default=240, help="how many, with 8 answers each")
    parser.add_argument("--personas", type=int, default=50, help="how many")
    parser.add_argument("--pairs", type=int, default=50, help="that each of them judges")
    parser.add_argument("--seed", type=int, default=1, help="of texts and personas")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    options = parser.parse_args(arguments)

    began = time.monotonic()
    texts, told = measure(options.slm or builtin_pair()[1], options.questions, options.seed)
    print(f"{told} in {time.monotonic() - began:.0f} s", file=sys.stderr)
    rows = compared(texts, options.personas, options.pairs, options.seed)
    print(f"seed {options.seed}: {options.personas} personas of {options.pairs} pairs; races by the closed form")
    print(table(rows), end="\n\n")
    default = next(row for row in rows if (row.way, row.setting) == ("race", DEFAULT_CONFIDENCE))
    for name, value, met in (
        ("tokens", default.tokens, default.tokens <= AIMS["tokens"]),
        ("same", default.same["closed-form"], default.same["closed-form"] >= AIMS["same"]),
    ):
        print(f"  {'ok  ' if met else 'miss'}  {name} at {DEFAULT_CONFIDENCE}: {value:.0%}, aim {AIMS[name]:.0%}")
    print(f"{time.monotonic() - began:.0f} s in all", file=sys.stderr)
    if options.json:
        facts = {"scored": told, "seed": options.seed, "personas": options.personas, "pairs": options.pairs}
        told_rows = [{name: getattr(row, name) for name in Row.__slots__} for row in rows]
        options.json.write_text(json.dumps(facts | {"rows": told_rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
