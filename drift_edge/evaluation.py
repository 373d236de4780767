"""How well weights predict a person's choices that they were not made from, and by which estimator best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from drift_edge.approximation import (
    ESTIMATORS,
    PAIR_ESTIMATORS,
    check_estimator,
    estimate_from_rewards,
    leave_one_out,
    length_baseline,
)
from drift_edge.errors import UsageError
from drift_edge.rewards import REDUCTIONS, FloatArray, PairScores, check_reduction

DEFAULT_KS = (5, 10, 20, 50, 100, 200, 500)
MOST_FITTED = 5_000  # pairs up to which the logistic regressions leave each one out in no long time
_Z = 1.959964  # 95 % of a normal distribution lie within so many standard deviations


@dataclass(frozen=True, slots=True)
class Share:
    """A share of choices predicted right, with its 95 % interval."""

    right: float
    low: float
    high: float

    @classmethod
    def of(cls, right: float, n: int) -> Share:
        """Wilson's interval, of `n` choices; an undecided one counts half in `right`."""
        center = (right + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * math.sqrt(right * (1 - right) / n + _Z**2 / (4 * n**2))
        return cls(right, max(0.0, center - half), min(1.0, center + half))


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the learning curve.

    Attributes:
        k: choices learned from.
        right: share of the other choices predicted right, mean over drawings.
        spread: standard deviation over drawings.
    """

    k: int
    right: float
    spread: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a person's choices say about the ways to learn from them.

    Attributes:
        pairs: choices with a preference.
        estimator, reduction: those in use.
        accuracy: leave-one-out, of those in use.
        table: leave-one-out accuracy by (estimator, reduction).
        length: going by length alone, longer or shorter as most other choices have it.
        longer: share of choices whose preferred answer is the longer one, an equal length half.
        curve: by the estimator and reduction in use.
    """

    pairs: int
    estimator: str
    reduction: str
    accuracy: Share
    table: Mapping[tuple[str, str], Share]
    length: Share
    longer: float
    curve: tuple[Point, ...]

    @property
    def best(self) -> tuple[str, str]:
        """The estimator and reduction with the largest share; those in use, where none has a larger one."""
        used = self.estimator, self.reduction
        return max(self.table, key=lambda way: (self.table[way].right, way == used))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [
            {"estimator": estimator, "reduction": reduction, **asdict(share)}
            for (estimator, reduction), share in self.table.items()
        ]
        return {
            "pairs": self.pairs,
            "estimator": self.estimator,
            "reduction": self.reduction,
            "leave_one_out": asdict(self.accuracy),
            "table": rows,
            "best": dict(zip(("estimator", "reduction"), self.best, strict=True)),
            "length": asdict(self.length),
            "longer": self.longer,
            "curve": [asdict(point) for point in self.curve],
        }


def evaluate(
    scores: Sequence[PairScores],
    *,
    estimator: str = "closed-form",
    reduction: str = "sum",
    ks: Sequence[int] = DEFAULT_KS,
    draws: int = 20,
    seed: int = 0,
) -> Evaluation:
    """Evaluate all estimators and reductions on one person's choices.

    Args:
        scores: of 2 choices or more.
        estimator, reduction: those in use.
        ks: how many choices to learn from; those that leave none to predict are left out.
        draws: random drawings of each k.
        seed: of the drawings.

    Raises:
        UsageError: fewer than 2 choices, an unknown estimator or reduction, or a number out of range.
    """
    check_estimator(estimator), check_reduction(reduction)
    if len(scores) < 2:
        raise UsageError(f"scores: expected 2 choices or more, each to be predicted by the others, got {len(scores)}")
    for name, values in (("ks", ks), ("draws", (draws,))):
        if wrong := [value for value in values if not isinstance(value, int) or value < 1]:
            raise UsageError(f"{name}: expected whole numbers, 1 or more, got {wrong[0]!r}")
    n = len(scores)
    rewards = {name: _rewards(scores, name) for name in REDUCTIONS}
    table = {
        (by, how): Share.of(leave_one_out(W, L, by), n)
        for how, (W, L) in rewards.items()
        for by in ESTIMATORS
        if by not in PAIR_ESTIMATORS or n <= MOST_FITTED
    }
    lengths = [pair.n_chosen for pair in scores], [pair.n_rejected for pair in scores]
    W, L = rewards[reduction]
    used = table.get((estimator, reduction)) or Share.of(leave_one_out(W, L, estimator), n)
    return Evaluation(
        pairs=n,
        estimator=estimator,
        reduction=reduction,
        accuracy=used,
        table=table,
        length=Share.of(length_baseline(*lengths), n),
        longer=float(0.5 + 0.5 * np.sign(np.subtract(*lengths)).mean()),
        curve=learning_curve(W, L, estimator, ks=ks, draws=draws, seed=seed),
    )


def learning_curve(
    W: FloatArray, L: FloatArray, estimator: str, *, ks: Sequence[int], draws: int, seed: int
) -> tuple[Point, ...]:
    """Accuracy on the other choices, learned from k of them at random.

    Args:
        W: float64 (n, K), rewards of the chosen responses.
        L: float64 (n, K), of the rejected ones.
        estimator: one of `ESTIMATORS`.
        ks: k's of n or more are left out.
        draws: drawings of each k.
        seed: of the drawings.
    """
    rng, names = np.random.default_rng(seed), [str(i) for i in range(W.shape[1])]
    curve = []
    for k in sorted({k for k in ks if k < len(W)}):
        right = []
        for _ in range(draws):
            order = rng.permutation(len(W))
            p = estimate_from_rewards(names, W[order[:k]], L[order[:k]], estimator).weights
            leads = (W - L)[order[k:]] @ p
            right.append(float((0.5 + 0.5 * np.sign(leads)).mean()))
        curve.append(Point(k, float(np.mean(right)), float(np.std(right))))
    return tuple(curve)


def _rewards(scores: Sequence[PairScores], reduction: str) -> tuple[FloatArray, FloatArray]:
    rewards = [pair.rewards(reduction) for pair in scores]
    return np.stack([w for w, _ in rewards]), np.stack([rejected for _, rejected in rewards])
