"""Personas: how well weights learned from a few choices predict the next ones, by estimator and reduction.

`python -m experiments.personas` draws 20 personas of 3 to 5 signed attributes each, lets them judge pairs of answers by
rule, and learns their weights from the built-in sLM's rewards. Training and test questions are about different topics.
What can be set is set on 20 other personas. The scores are kept in the cache folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drift_edge.approximation import (
    ESTIMATORS,
    REGULARISATION,
    check_estimator,
    estimate_from_rewards,
    leave_one_out,
    length_baseline,
)
from drift_edge.attributes import Attributes
from drift_edge.llama.chat import ChatFormat
from drift_edge.llama.model import Model
from drift_edge.models import builtin_pair
from drift_edge.models.nano.report import Progress, aligned
from drift_edge.reward_cache import RewardCache
from drift_edge.rewards import REDUCTIONS, FloatArray
from drift_edge.scoring import Scorer
from drift_edge.storage import folders
from experiments.texts import Pairs, Persona, Texts, judged, measure

KS = (10, 20, 50, 100)
AT = KS.index(50)  # where figures for one k are taken
TEST_PAIRS = 300
ACTIVE = 7
GRID = {
    "whitened": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    "shrunken": (0.25, 0.5, 1.0, 2.0),
    "ridge-bt": (1.0, 3.0, 10.0, 30.0, 100.0),
    "absolute": (1.0, 3.0, 10.0, 30.0, 100.0),
}
AIMS = {"accuracy": 0.78, "active": 0.75}


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What one way of estimating achieves.

    Attributes:
        estimator, reduction: the way.
        regularisation: what the tuning personas chose; None where there is nothing to set.
        accuracy: float64 (personas, KS): share of the unseen pairs predicted right.
        active: float64 (personas, KS): share of the persona's attributes among the seven largest weights, sign right.
        seven: float64 (personas,): accuracy at k = 50 with the seven largest weights alone.
        left_out: float64 (personas,): leave-one-out accuracy on the 50 pairs.
    """

    estimator: str
    reduction: str
    regularisation: float | None
    accuracy: FloatArray
    active: FloatArray
    seven: FloatArray
    left_out: FloatArray

    def to_dict(self) -> dict[str, object]:
        """A JSON object: means, with standard errors over personas."""
        told: dict[str, object] = {
            "estimator": self.estimator,
            "reduction": self.reduction,
            "regularisation": self.regularisation,
        }
        for name in ("accuracy", "active", "seven", "left_out"):
            values = getattr(self, name)
            told[name] = {"mean": values.mean(axis=0).tolist(), "se": _error(values).tolist()}
        return told


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A persona's pairs to learn from, and those to predict."""

    persona: Persona
    train: Pairs
    test: Pairs


def cases(texts: Texts, n: int, draws: int, seed: str) -> list[list[Case]]:
    """For each of `n` personas, `draws` drawings of its pairs."""
    found = []
    for i in range(n):
        rng = np.random.default_rng([*seed.encode(), i])
        persona = Persona.draw(rng)
        found.append(
            [
                Case(
                    persona,
                    judged(texts, persona, rng, max(KS), test=False),
                    judged(texts, persona, rng, TEST_PAIRS, test=True),
                )
                for _ in range(draws)
            ]
        )
    return found


def reduced(pairs: Pairs, reduction: str) -> tuple[FloatArray, FloatArray]:
    """W and L, each (n, K)."""
    by = np.vectorize(REDUCTIONS[reduction], otypes=[float])
    return pairs.W / by(pairs.n_chosen)[:, None], pairs.L / by(pairs.n_rejected)[:, None]


def accuracy(p: FloatArray, W: FloatArray, L: FloatArray) -> float:
    """Share of pairs whose chosen answer p rewards more; equal rewards count half."""
    margins = (W - L) @ p
    return float(((margins > 0) + 0.5 * (margins == 0)).mean())


def seven(p: FloatArray) -> NDArray[np.int64]:
    """The attributes that would be active."""
    return np.argsort(-np.abs(p), kind="stable")[:ACTIVE]


def judge(
    people: Sequence[Sequence[Case]], estimator: str, reduction: str, regularisation: float | None, extras: bool = True
) -> Row:
    """Learn every persona in one way; figures are means over its drawings."""
    names = tuple(Attributes.builtin())
    shape = (len(people), len(people[0]))
    found, active = np.empty((*shape, len(KS))), np.empty((*shape, len(KS)))
    few, left_out = np.zeros(shape), np.zeros(shape)
    for at in np.ndindex(shape):
        case = people[at[0]][at[1]]
        (W, L), unseen = reduced(case.train, reduction), reduced(case.test, reduction)
        liked = np.flatnonzero(case.persona.taste)
        for i, k in enumerate(KS):
            p = estimate_from_rewards(names, W[:k], L[:k], estimator, regularisation=regularisation).weights
            right = np.isin(liked, seven(p)) & (p[liked] * case.persona.taste[liked] > 0)
            found[at][i], active[at][i] = accuracy(p, *unseen), right.mean()
            if i == AT and extras:
                kept = np.zeros_like(p)
                kept[seven(p)] = p[seven(p)]
                few[at] = accuracy(kept, *unseen)
                left_out[at] = leave_one_out(W[:k], L[:k], estimator, regularisation=regularisation)
    return Row(
        estimator,
        reduction,
        regularisation,
        found.mean(axis=1),
        active.mean(axis=1),
        few.mean(axis=1),
        left_out.mean(axis=1),
    )


def by_length(people: Sequence[Sequence[Case]]) -> Row:
    """Going by length alone: longer or shorter, as most of the k pairs have it."""
    shape = (len(people), len(people[0]))
    found, left_out = np.empty((*shape, len(KS))), np.empty(shape)
    for at in np.ndindex(shape):
        case = people[at[0]][at[1]]
        train, test = (np.sign(pairs.n_chosen - pairs.n_rejected)[:, None] for pairs in (case.train, case.test))
        for i, k in enumerate(KS):
            found[at][i] = accuracy(np.array([float(train[:k].sum())]), test, np.zeros(test.shape))
        left_out[at] = length_baseline(case.train.n_chosen[: KS[AT]].tolist(), case.train.n_rejected[: KS[AT]].tolist())
    nothing = np.full((shape[0], len(KS)), np.nan)
    return Row("length only", "", None, found.mean(axis=1), nothing, nothing[:, 0], left_out.mean(axis=1))


def tuned(people: Sequence[Sequence[Case]], estimator: str, reduction: str) -> float | None:
    """The regularisation that is best over all k, on the personas given; None where there is nothing to set."""
    if estimator not in GRID:
        return None
    return max(
        GRID[estimator],
        key=lambda value: float(judge(people, estimator, reduction, value, extras=False).accuracy.mean()),
    )


def verdicts(best: Row) -> list[tuple[str, bool]]:
    """What is aimed at, and whether the best way achieves it."""
    mean, error = best.accuracy.mean(axis=0), _error(best.accuracy)
    falls = [f"{a}-{b}" for (i, a), (j, b) in pairwise(enumerate(KS)) if mean[j] < mean[i] - error[j]]
    active = best.active[:, AT].mean()
    return [
        (f"accuracy at 50: {mean[AT]:.3f} ± {error[AT]:.3f}, aim {AIMS['accuracy']}", mean[AT] >= AIMS["accuracy"]),
        (f"falls by more than a standard error: {', '.join(falls) or 'none'}", not falls),
        (f"persona's attributes among the active seven: {active:.2f}, aim {AIMS['active']}", active >= AIMS["active"]),
    ]


def table(rows: Sequence[Row]) -> str:
    """The rows for a terminal."""
    head = ["estimator", "reduction", "set to", *(f"k = {k}" for k in KS), "active 7", "by 7 alone", "left out"]

    def cells(row: Row) -> list[str]:
        mean, error = row.accuracy.mean(axis=0), _error(row.accuracy)
        figures = [f"{a:.3f} ± {e:.3f}" for a, e in zip(mean, error, strict=True)]
        rest = [row.active[:, AT].mean(), row.seven.mean(), row.left_out.mean()]
        told = "" if row.regularisation is None else f"{row.regularisation:g}"
        return [row.estimator, row.reduction, told, *figures, *("" if np.isnan(x) else f"{x:.3f}" for x in rest)]

    text: str = aligned(head, [cells(row) for row in rows])
    return text


def _error(values: FloatArray) -> FloatArray:
    """Standard error of the mean over the first axis."""
    error: FloatArray = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return error


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.personas", description=__doc__)
    parser.add_argument("--slm", type=Path, help="GGUF file of the sLM (default: the built-in one)")
    parser.add_argument("--questions", type=int, default=240, help="how many, with 8 answers each")
    parser.add_argument("--personas", type=int, default=20, help="how many to report on, and again to tune on")
    parser.add_argument("--draws", type=int, default=3, help="of each persona's pairs")
    parser.add_argument("--estimator", action="append", metavar="NAME", help="one of them, or several")
    parser.add_argument("--seed", type=int, default=1, help="of texts and personas")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    options = parser.parse_args(arguments)
    estimators = [check_estimator(name) for name in options.estimator or ESTIMATORS]

    began = time.monotonic()
    slm = options.slm or builtin_pair()[1]
    with Model(slm) as model, RewardCache(folders().cache / "experiments.sqlite3") as cache:
        with Scorer(model, ChatFormat(model), Attributes.builtin(), cache=cache) as scorer:
            texts = measure(scorer, options.questions, options.seed, Progress(options.questions).tick)
            counters = scorer.counters
        fingerprint = model.fingerprint
    print(
        f"{slm.name} ({fingerprint}): {counters.scored:,} scores computed, {counters.cached:,} from the cache, "
        f"{counters.tokens:,} tokens in {time.monotonic() - began:.0f} s",
        file=sys.stderr,
    )
    tuning, report = (
        cases(texts, options.personas, options.draws, f"{kind} {options.seed}") for kind in ("tuning", "report")
    )
    rows = [by_length(report)]
    on_tuning: dict[tuple[str, str], float] = {}
    progress = Progress(len(estimators) * len(REDUCTIONS))
    for estimator, reduction in product(estimators, REDUCTIONS):
        value = tuned(tuning, estimator, reduction)
        on_tuning[estimator, reduction] = float(judge(tuning, estimator, reduction, value, False).accuracy.mean())
        rows.append(judge(report, estimator, reduction, value))
        progress.tick(1)
    chosen = max(on_tuning, key=lambda way: on_tuning[way])
    best = next(row for row in rows if (row.estimator, row.reduction) == chosen)
    print(
        f"seed {options.seed}: {options.personas} personas, {options.draws} drawings of each; accuracy on unseen pairs"
    )
    print(table(rows), end="\n\n")
    print(f"best on the tuning personas: {best.estimator}, {best.reduction}")
    print(f"the library's own settings: {', '.join(f'{name} {value:g}' for name, value in REGULARISATION.items())}")
    for told, achieved in verdicts(best):
        print(f"  {'ok  ' if achieved else 'miss'}  {told}")
    print(f"{time.monotonic() - began:.0f} s in all", file=sys.stderr)
    if options.json:
        facts = {
            "slm": slm.name,
            "fingerprint": fingerprint,
            "seed": options.seed,
            "personas": options.personas,
            "draws": options.draws,
            "questions": options.questions,
            "ks": KS,
            "best": {"estimator": best.estimator, "reduction": best.reduction},
            "verdicts": [{"what": told, "ok": bool(achieved)} for told, achieved in verdicts(best)],
            "rows": [row.to_dict() for row in rows],
        }
        options.json.write_text(json.dumps(facts, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
