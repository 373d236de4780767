"""Evaluation of a person's own choices: by hand, by brute force, and as a command."""

from __future__ import annotations

import numpy as np
import pytest

from drift_edge import UsageError
from drift_edge.approximation import estimate_from_rewards
from drift_edge.evaluation import Share, evaluate, learning_curve
from drift_edge.rewards import PairScores


def scores(leads: list[list[float]], longer: list[int]) -> list[PairScores]:
    """Pairs whose sums of log-probabilities lead by so much, the chosen answer being so many tokens longer than 10."""
    return [
        PairScores(np.array([-20.0, *(d - 20 for d in lead)]), np.full(len(lead) + 1, -20.0), 10 + more, 10)
        for lead, more in zip(leads, longer, strict=True)
    ]


def test_wilsons_interval() -> None:
    # 8 of 10, z = 1.96: Wilson 1927 gives 0.490 to 0.943.
    share = Share.of(0.8, 10)
    assert (share.low, share.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert Share.of(1.0, 5).high == 1.0
    assert Share.of(0.0, 5).low == pytest.approx(0)


def test_by_hand() -> None:
    # One attribute. Leads 1, 1, 1, -1: of the three that lead, each is predicted right by the sum of the others (1);
    # the last one's others sum to 3, and predict it wrong.
    found = evaluate(scores([[1.0], [1.0], [1.0], [-1.0]], [2, 2, 0, -1]), ks=[1, 4])
    assert found.accuracy.right == found.table["closed-form", "sum"].right == 0.75
    assert found.longer == (1 + 1 + 0.5 + 0) / 4
    # Longer, longer, even, shorter: the others' majority says longer (0), longer (0): undecided, even counts half,
    # and for the last one "longer", which is wrong.
    assert found.length.right == (0.5 + 0.5 + 0.5 + 0) / 4
    assert [point.k for point in found.curve] == [1]  # none is left to predict with 4


def test_every_choice_is_predicted_by_the_others_alone() -> None:
    seed = 5
    rng = np.random.default_rng(seed)
    leads = rng.normal(0.3, 1, (30, 6))
    found = evaluate(scores(leads.tolist(), [0] * 30), estimator="whitened")
    names, right = [str(i) for i in range(6)], 0
    for j in range(30):
        rest = np.delete(leads, j, axis=0)
        p = estimate_from_rewards(names, rest, np.zeros_like(rest), "whitened").weights
        right += p @ leads[j] > 0
    assert found.accuracy.right == right / 30, seed
    assert found.best in found.table
    assert found.table[found.best].right == max(share.right for share in found.table.values())


def test_the_curve_rises_for_a_person_who_can_be_learned() -> None:
    seed = 3
    rng = np.random.default_rng(seed)
    taste = rng.normal(size=8)
    d = rng.normal(size=(400, 8))
    d *= np.sign(d @ taste)[:, None]
    curve = learning_curve(d, np.zeros_like(d), "closed-form", ks=(2, 20, 200, 400), draws=10, seed=1)
    assert [point.k for point in curve] == [2, 20, 200]
    assert curve[0].right < curve[1].right < curve[2].right
    assert curve[2].right > 0.9
    assert learning_curve(d, np.zeros_like(d), "closed-form", ks=(2,), draws=10, seed=1) == curve[:1]


def test_what_is_refused() -> None:
    two = scores([[1.0], [1.0]], [0, 0])
    with pytest.raises(UsageError, match="2 choices or more"):
        evaluate(two[:1])
    with pytest.raises(UsageError, match="ks: expected whole numbers"):
        evaluate(two, ks=[0])
    with pytest.raises(UsageError, match="draws: expected whole numbers"):
        evaluate(two, draws=0)
    with pytest.raises(UsageError, match="estimator"):
        evaluate(two, estimator="magic")
