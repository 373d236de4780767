"""What `drift-edge learn` says at its end: the weights, and how well they predict choices they were not made from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from drift_edge.approximation import (
    ESTIMATORS,
    PAIR_ESTIMATORS,
    estimate_from_rewards,
    leave_one_out,
    length_baseline,
)

from .charts import WeightRow, glyphs, weight_lines

if TYPE_CHECKING:
    from drift_edge.profile import Profile
    from drift_edge.rewards import PairScores

_MANY = 5_000  # pairs from which on the logistic regressions would take long to leave each one out


def accuracy(scores: Sequence[PairScores], reduction: str) -> dict[str, Any]:
    """Leave-one-out accuracy of every estimator, next to what length alone predicts, as JSON values.

    Returns:
        `pairs`; `estimators`: {name: share right}, each in [0, 1]; `length`: going by length, longer or shorter as most
        other pairs have it; `longer`: share of pairs whose chosen answer is the longer one, an equal length half.
    """
    rewards = [pair.rewards(reduction) for pair in scores]
    W, L = (np.stack([pair[side] for pair in rewards]) for side in (0, 1))
    lengths = [pair.n_chosen for pair in scores], [pair.n_rejected for pair in scores]
    names = [name for name in ESTIMATORS if name not in PAIR_ESTIMATORS or len(scores) <= _MANY]
    longer = 0.5 + 0.5 * np.sign(np.subtract(*lengths)).mean()
    return {
        "pairs": len(scores),
        "estimators": {name: leave_one_out(W, L, name) for name in names},
        "length": length_baseline(*lengths),
        "longer": float(longer),
    }


def weights_of(
    scores: Sequence[PairScores], profile: Profile, estimation: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The weights that these pairs alone give, as JSON values in a profile's form.

    Args:
        scores: one or more.
        profile: its pool, pins and blocks are used.
        estimation: reduction, estimator, active, sure, renormalise.
    """
    from drift_edge.profile import weigh

    names = tuple(profile.attributes)
    rewards = [pair.rewards(estimation["reduction"]) for pair in scores]
    W, L = (np.stack([pair[side] for pair in rewards]) for side in (0, 1))
    found = estimate_from_rewards(names, W, L, estimation["estimator"])
    settings = replace(
        profile.settings,
        active=estimation["active"],
        sure=estimation["sure"],
        renormalise=estimation["renormalise"],
        fixed={},
    )
    table = weigh(settings, found, np.full(len(names), float(len(scores))))
    return {name: weight.to_dict() for name, weight in table.items()}


def strongest_lines(weights: Mapping[str, Mapping[str, Any]], most: int, *, color: bool) -> list[str]:
    """The strongest weights as bars."""
    names = sorted(weights, key=lambda name: -abs(weights[name]["weight"]))[:most]
    rows = [
        WeightRow(
            name,
            weights[name]["weight"],
            math.nan if weights[name]["se"] is None else weights[name]["se"],
            "active" if weights[name]["active"] else "",
            not weights[name]["active"],
        )
        for name in names
    ]
    return weight_lines(rows, color=color)


def accuracy_lines(found: Mapping[str, Any], estimator: str) -> list[str]:
    """`accuracy` as a table; the profile's own estimator is marked."""
    n, draw = found["pairs"], glyphs()
    rows = [(name, share, "this profile's" if name == estimator else "") for name, share in found["estimators"].items()]
    rows.append(("length alone", found["length"], f"the chosen answer is the longer one in {found['longer']:.0%}"))
    width = max(len(name) for name, _, _ in rows)
    return [
        f"{name:<{width}}  {share:6.1%} {draw.plus_minus}{math.sqrt(share * (1 - share) / n):.1%}  {note}".rstrip()
        for name, share, note in rows
    ]
