"""Approximation: weights by hand, laws they keep, standard errors against the bootstrap, leaving one out by force."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from drift_edge.approximation import (
    ESTIMATORS,
    PAIR_ESTIMATORS,
    Estimate,
    choose_active,
    estimate,
    estimate_from_rewards,
    leave_one_out,
    length_baseline,
)
from drift_edge.errors import UsageError
from drift_edge.rewards import FloatArray
from drift_edge.statistics import Statistics

ALL = sorted(ESTIMATORS)
FROM_STATISTICS = sorted(set(ESTIMATORS) - PAIR_ESTIMATORS)
TWO = ("formal", "concise")
W2, L2 = [[2.0, 0.0], [1.0, 1.0]], [[0.0, -2.0], [0.0, -1.0]]  # d = (2, 2) and (1, 2): m = (1.5, 2), C = (2.5 3; 3 4)


def names(K: int) -> list[str]:
    return [f"a{i}" for i in range(K)]


def person(n: int, K: int, seed: int, noise: float = 1.0) -> tuple[FloatArray, FloatArray]:
    """Rewards with a common mode, judged by a few of the attributes: W and L, (n, K)."""
    print("seed", seed)
    rng = np.random.default_rng(seed)
    theta = np.zeros(K)
    theta[: min(3, K)] = [1.0, -0.7, 0.5][: min(3, K)]
    A, B = (rng.normal(size=(n, K)) + 1.5 * rng.normal(size=(n, 1)) for _ in range(2))
    first = ((A - B) @ theta + noise * rng.logistic(size=n) > 0)[:, None]
    return np.where(first, A, B), np.where(first, B, A)


# -- by hand


@pytest.mark.parametrize(
    ("estimator", "regularisation", "direction"),
    [
        ("closed-form", None, (3, 4)),
        ("whitened", 1.0, (7.25 * 1.5 - 3 * 2, 5.75 * 2 - 3 * 1.5)),  # (5.75 3; 3 7.25)^-1 m, without its determinant
        ("whitened", 2.0, (10.5 * 1.5 - 3 * 2, 9 * 2 - 3 * 1.5)),  # λ trace(C) / 2 = 6.5
        ("standardised", None, (1.5 / 2.5**0.5, 1.0)),
        ("shrunken", 1.0, (1.0, 2.0)),  # standard errors of the means: 0.5 and 0
        ("shrunken", 2.5, (0.25, 2.0)),
        ("shrunken", 3.5, (0.0, 1.0)),
    ],
)
def test_two_attributes_by_hand(estimator: str, regularisation: float | None, direction: tuple[float, float]) -> None:
    expected = np.array(direction) / np.hypot(*direction)
    statistics = Statistics(TWO)
    for W, L in zip(W2, L2, strict=True):
        statistics.add(W, L)
    for found in (
        estimate(statistics, estimator, regularisation=regularisation),
        estimate_from_rewards(TWO, W2, L2, estimator, regularisation=regularisation),
    ):
        np.testing.assert_allclose(found.weights, expected, rtol=1e-14)
        assert (found.names, found.estimator, found.why_zero) == (TWO, estimator, "")
        assert found.as_dict() == dict(zip(TWO, found.weights.tolist(), strict=True))


def test_standard_errors_by_hand() -> None:
    # Covariance of the mean lead: (0.25 0; 0 0). J = (I - p p^T) / 2.5 with p = (.6, .8): its first column is
    # (.64, -.48) / 2.5, so the errors are 0.5 times its absolute values.
    found = estimate_from_rewards(TWO, W2, L2)
    np.testing.assert_allclose(found.standard_errors, [0.128, 0.096], rtol=1e-12)


def test_the_default_is_the_papers() -> None:
    W, L = person(20, 5, seed=0)
    d = (W - L).sum(axis=0)
    found = estimate_from_rewards(names(5), W, L)
    assert found.estimator == "closed-form"
    np.testing.assert_allclose(found.weights, d / np.linalg.norm(d), rtol=1e-14)


def test_no_direction_on_the_sphere_does_better() -> None:
    W, L = person(20, 5, seed=0)
    p = estimate_from_rewards(names(5), W, L).weights
    others = np.random.default_rng(1).normal(size=(1000, 5))
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    assert ((W - L).sum(axis=0) @ p > others @ (W - L).sum(axis=0)).all()  # Eq. 12


def slow_logistic(Z: FloatArray, y: FloatArray, ridge: float, intercept: bool) -> FloatArray:
    """Plain gradient descent on labels 0 and 1, as a textbook has it."""
    Z = Z / np.sqrt((Z**2).mean())
    X = np.column_stack([Z, np.ones(len(Z))]) if intercept else Z
    penalty = np.append(np.full(Z.shape[1], ridge), 0.0) if intercept else ridge
    beta = np.zeros(X.shape[1])
    rate = 1 / (np.linalg.norm(X, 2) ** 2 / 4 + ridge)
    for _ in range(2_000):
        beta -= rate * (X.T @ (1 / (1 + np.exp(-X @ beta)) - y) + penalty * beta)
    p: FloatArray = beta[: Z.shape[1]]
    return p / np.linalg.norm(p)


@pytest.mark.parametrize("ridge", [0.3, 10.0])
def test_logistic_regressions_arrive_where_gradient_descent_does(ridge: float) -> None:
    W, L = person(25, 4, seed=2)
    W += 0.5  # so that the intercept matters
    found = estimate_from_rewards(names(4), W, L, "ridge-bt", regularisation=ridge)
    np.testing.assert_allclose(found.weights, slow_logistic(W - L, np.ones(25), ridge, False), atol=1e-7)
    found = estimate_from_rewards(names(4), W, L, "absolute", regularisation=ridge)
    labels = np.repeat([1.0, 0.0], 25)
    np.testing.assert_allclose(found.weights, slow_logistic(np.vstack([W, L]), labels, ridge, True), atol=1e-7)


@pytest.mark.parametrize("estimator", sorted(PAIR_ESTIMATORS))
@pytest.mark.parametrize("ridge", [1e-6, 1e8])
@pytest.mark.parametrize("n", [1, 2, 30])
def test_logistic_regressions_always_arrive(estimator: str, ridge: float, n: int) -> None:
    rng = np.random.default_rng(3)
    W = rng.standard_cauchy((n, 9)) * 100
    for L in (np.zeros((n, 9)), -W, W / 2, rng.standard_cauchy((n, 9))):
        found = estimate_from_rewards(names(9), W, L, estimator, regularisation=ridge)
        assert np.linalg.norm(found.weights) == pytest.approx(1)


def test_newtons_method_does_not_go_round_in_circles() -> None:
    # With whole steps it jumps to and fro between two points for ever (found by search).
    D = [
        [-0.028, -0.079, 0.069],
        [-1.402, 0.021, 0.115],
        [0.592, -0.025, -0.156],
        [0.033, 0.216, -0.190],
        [-3.477, -0.670, 0.083],
    ]
    p = estimate_from_rewards(names(3), D, np.zeros((5, 3)), "ridge-bt", regularisation=1e-6)
    assert np.linalg.norm(p.weights) == pytest.approx(1)


# -- laws


def same(found: Estimate, expected: Estimate, rtol: float = 1e-9) -> None:
    np.testing.assert_allclose(found.weights, expected.weights, rtol=rtol, atol=1e-10)
    np.testing.assert_allclose(found.standard_errors, expected.standard_errors, rtol=rtol, atol=1e-10)


@pytest.mark.parametrize("estimator", ALL)
@pytest.mark.parametrize("n", [3, 40])
def test_laws(estimator: str, n: int) -> None:
    K = 8
    W, L = person(n, K, seed=n)
    p = estimate_from_rewards(names(K), W, L, estimator)
    assert np.linalg.norm(p.weights) == pytest.approx(1, abs=1e-14)
    for scale in (1e-6, 3.0, 1e6):
        same(estimate_from_rewards(names(K), scale * W, scale * L, estimator), p)
    swapped = estimate_from_rewards(names(K), L, W, estimator)
    np.testing.assert_allclose(swapped.weights, -p.weights, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(swapped.standard_errors, p.standard_errors, rtol=1e-8)
    pairs, attributes = (np.random.default_rng(1).permutation(size) for size in (n, K))
    same(estimate_from_rewards(names(K), W[pairs], L[pairs], estimator), p)
    permuted = estimate_from_rewards(names(K), W[:, attributes], L[:, attributes], estimator)
    np.testing.assert_allclose(permuted.weights, p.weights[attributes], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("estimator", ["closed-form", "whitened", "standardised"])
def test_every_pair_twice_is_the_same_person_known_better(estimator: str) -> None:
    W, L = person(30, 6, seed=5)
    once, twice = (estimate_from_rewards(names(6), np.vstack([W] * n), np.vstack([L] * n), estimator) for n in (1, 2))
    np.testing.assert_allclose(twice.weights, once.weights, atol=1e-12)
    square = 29 / 59
    if estimator == "whitened":  # of n, a ridge of the mean eigenvalue uses up the sum of c / (c + ridge)
        c = np.linalg.eigvalsh((W - L).T @ (W - L) / 30)
        used = float((c / (c + c.mean())).sum())
        square *= (30 - used) / 30 * 60 / (60 - used)
    np.testing.assert_allclose(twice.standard_errors, once.standard_errors * square**0.5, rtol=1e-9)


def test_errors_of_few_choices_among_many_attributes_are_near_what_weights_vary_by() -> None:
    """Attributes that nobody cares for, half as many choices: what the fit uses up must not pass for evidence."""
    K, n, draws, rng = 40, 20, 200, np.random.default_rng(9)
    theta = np.zeros(K)
    theta[:3] = 1
    found = []
    for _ in range(draws):
        D = rng.normal(size=(n, K)) + rng.normal(size=(n, 1))
        D *= np.sign(D @ theta + rng.logistic(size=n))[:, None]
        found.append(estimate_from_rewards(names(K), D, np.zeros_like(D), "whitened"))
    varies = np.array([p.weights[3:] for p in found]).std(axis=0).mean()
    told = np.array([p.standard_errors[3:] for p in found]).mean()
    print("seed 9", told / varies)
    assert 0.7 < told / varies < 1.1


@pytest.mark.parametrize("estimator", ["closed-form", "whitened", "standardised", "shrunken", "ridge-bt"])
def test_what_both_answers_share_changes_nothing(estimator: str) -> None:
    W, L = person(20, 5, seed=6)
    shared = np.random.default_rng(7).normal(0, 10, W.shape)
    same(
        estimate_from_rewards(names(5), W + shared, L + shared, estimator),
        estimate_from_rewards(names(5), W, L, estimator),
        rtol=1e-7,
    )


def test_whitening_undoes_a_common_mode() -> None:
    W, L = person(40, 6, seed=8)
    unseen = np.random.default_rng(9).normal(size=(500, 6))
    mixing = np.eye(6) + 2.0  # every reward leaks into every other one

    def decisions(estimator: str, mixed: bool) -> FloatArray:
        M = mixing if mixed else np.eye(6)
        setting = {"regularisation": 1e-10} if estimator == "whitened" else {}
        return np.sign(unseen @ M @ estimate_from_rewards(names(6), W @ M, L @ M, estimator, **setting).weights)

    assert np.array_equal(decisions("whitened", True), decisions("whitened", False))
    assert (decisions("closed-form", True) != decisions("closed-form", False)).mean() > 0.05


def test_one_pair_whitened_is_the_closed_form() -> None:
    W, L = person(1, 6, seed=10)
    p = estimate_from_rewards(names(6), W, L, "whitened")
    np.testing.assert_allclose(p.weights, estimate_from_rewards(names(6), W, L).weights, atol=1e-12)
    assert np.isnan(p.standard_errors).all()


def test_more_regularisation_brings_the_whitened_to_the_closed_form() -> None:
    W, L = person(30, 6, seed=11)
    p = estimate_from_rewards(names(6), W, L, "whitened", regularisation=1e8)
    np.testing.assert_allclose(p.weights, estimate_from_rewards(names(6), W, L).weights, atol=1e-7)


@pytest.mark.parametrize("estimator", FROM_STATISTICS)
def test_from_rewards_and_from_statistics_alone(estimator: str) -> None:
    for seed, n in ((12, 2), (13, 17), (14, 300)):
        W, L = person(n, 9, seed)
        statistics = Statistics(names(9))
        for w, l in zip(W, L, strict=True):  # noqa: E741
            statistics.add(w, l)
        found, expected = estimate(statistics, estimator), estimate_from_rewards(names(9), W, L, estimator)
        np.testing.assert_allclose(found.weights, expected.weights, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.standard_errors, expected.standard_errors, rtol=0, atol=1e-12)


def test_recent_pairs_count_most_when_old_ones_decay() -> None:
    statistics = Statistics(TWO)
    for j in range(100):
        statistics.decay(half_life=5)
        statistics.add([1.0, 0.0] if j < 80 else [0.0, 1.0], [0.0, 0.0])
    p = estimate(statistics).weights
    assert p[1] / p[0] == pytest.approx(15, rel=1e-4)  # (1 - 1/16) / (1/16), but for what began 100 pairs ago


# -- standard errors


@pytest.mark.parametrize(
    ("estimator", "low", "high"),
    [
        ("closed-form", 0.9, 1.1),
        ("whitened", 0.9, 1.1),
        ("standardised", 0.9, 1.4),
        ("ridge-bt", 0.9, 1.1),
        ("absolute", 0.85, 1.1),
    ],
)
def test_standard_errors_agree_with_the_bootstrap(estimator: str, low: float, high: float) -> None:
    W, L = person(150, 5, seed=15)
    rng = np.random.default_rng(16)
    drawn = []
    for _ in range(200):
        rows = rng.integers(0, 150, 150)
        drawn.append(estimate_from_rewards(names(5), W[rows], L[rows], estimator).weights)
    ratio = estimate_from_rewards(names(5), W, L, estimator).standard_errors / np.std(drawn, axis=0)
    print(ratio)
    assert low < ratio.mean() < high
    assert (ratio > low - 0.1).all()
    assert (ratio < high + 0.1).all()


def test_decay_widens_the_standard_errors() -> None:
    W, L = person(200, 4, seed=17)
    plain, decayed = Statistics(names(4)), Statistics(names(4))
    for w, l in zip(W, L, strict=True):  # noqa: E741
        plain.add(w, l)
        decayed.decay(half_life=20)
        decayed.add(w, l)
    assert decayed.n_effective == pytest.approx(2 * 20 / np.log(2), rel=0.01)  # (1 + f) / (1 - f)
    assert (estimate(decayed).standard_errors > 1.3 * estimate(plain).standard_errors).all()


# -- leaving one out


@pytest.mark.parametrize("estimator", FROM_STATISTICS)
@pytest.mark.parametrize(("n", "K"), [(2, 3), (5, 8), (12, 12), (40, 8)])
def test_leaving_one_out_equals_brute_force(estimator: str, n: int, K: int) -> None:
    for seed in range(4):
        W, L = person(n, K, seed, noise=4.0)
        W[0] *= 10  # one pair that weighs more than all others, so that leaving it out changes the ridge
        right = 0.0
        for j in range(n):
            kept = np.arange(n) != j
            margin = (W - L)[j] @ estimate_from_rewards(names(K), W[kept], L[kept], estimator).weights
            right += (margin > 0) + 0.5 * (margin == 0)
        assert leave_one_out(W, L, estimator) == pytest.approx(right / n, abs=1e-12)


@pytest.mark.parametrize("estimator", sorted(PAIR_ESTIMATORS))
def test_one_newton_step_comes_close_to_brute_force(estimator: str) -> None:
    found, forced = [], []
    for seed in range(4):
        W, L = person(40, 8, seed, noise=4.0)
        found.append(leave_one_out(W, L, estimator))
        margins = []
        for j in range(40):
            kept = np.arange(40) != j
            margins.append((W - L)[j] @ estimate_from_rewards(names(8), W[kept], L[kept], estimator).weights)
        forced.append((np.array(margins) > 0).mean())
    print(found, forced)
    np.testing.assert_allclose(found, forced, atol=0.0251)  # one pair of 40
    assert np.mean(found) == pytest.approx(np.mean(forced), abs=0.015)


@pytest.mark.parametrize("estimator", ALL)
def test_leaving_one_out_is_not_fitting(estimator: str) -> None:
    """Labels of pure chance: what is fitted looks good, what is left out does not."""
    rng = np.random.default_rng(18)
    found = [leave_one_out(*rng.normal(size=(2, 30, 60)), estimator) for _ in range(20)]
    assert 0.4 < np.mean(found) < 0.6


@pytest.mark.parametrize("estimator", ALL)
def test_leaving_one_out_of_too_few(estimator: str) -> None:
    assert leave_one_out(np.empty((0, 3)), np.empty((0, 3)), estimator) == 0.5
    assert leave_one_out([[1.0, 2.0]], [[0.0, 0.0]], estimator) == 0.5
    assert leave_one_out(np.ones((5, 3)), np.ones((5, 3)), estimator) == 0.5


@pytest.mark.parametrize("estimator", FROM_STATISTICS)
def test_what_no_other_pair_shows_predicts_nothing(estimator: str) -> None:
    # Attribute 0 leads in one pair only: without that pair nothing is known of it, and rounding must not decide.
    D = np.zeros((4, 2))
    D[0, 0], D[1:, 1] = 0.1, 0.3
    assert leave_one_out(D, np.zeros((4, 2)), estimator) == pytest.approx((0.5 + 3) / 4)
    for seed in range(20):
        D = np.zeros((6, 9))
        D[seed % 6] = np.random.default_rng(seed).normal(size=9)
        assert leave_one_out(D, np.zeros((6, 9)), estimator) == 0.5, seed


@pytest.mark.parametrize(
    ("chosen", "rejected", "accuracy"),
    [
        ([9, 9, 9, 1], [1, 1, 1, 9], 0.75),  # longer, as two of the other three have it; the short one is missed
        ([1, 2, 3], [9, 9, 9], 1.0),  # shorter
        ([9, 1], [1, 9], 0.0),  # the other one says the opposite
        ([9, 9, 5], [1, 1, 5], (1 + 1 + 0.5) / 3),
        ([5, 5], [5, 5], 0.5),
        ([], [], 0.5),
    ],
)
def test_length_baseline(chosen: list[int], rejected: list[int], accuracy: float) -> None:
    assert length_baseline(chosen, rejected) == pytest.approx(accuracy)


# -- p = 0, with its reason


@pytest.mark.parametrize("estimator", ALL)
@pytest.mark.parametrize(
    ("W", "L", "why"),
    [
        (np.empty((0, 2)), np.empty((0, 2)), "there is no pair yet"),
        (np.ones((3, 2)), np.ones((3, 2)), "all rewards of the chosen and the rejected answers are equal"),
    ],
)
def test_nothing_to_learn_from(estimator: str, W: FloatArray, L: FloatArray, why: str) -> None:
    found = estimate_from_rewards(TWO, W, L, estimator)
    assert found.weights.tolist() == [0, 0]
    assert np.isnan(found.standard_errors).all()
    assert found.why_zero == why


def test_only_ties() -> None:
    statistics = Statistics(TWO)
    statistics.add_tie(5)
    assert estimate(statistics).why_zero == "there is no pair yet"


@pytest.mark.parametrize("estimator", ["closed-form", "whitened", "standardised"])
def test_choices_that_cancel(estimator: str) -> None:
    found = estimate_from_rewards(TWO, [[2.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [2.0, 1.0]], estimator)
    assert (found.weights.tolist(), found.why_zero) == ([0, 0], "the pairs cancel each other out")


@pytest.mark.parametrize("estimator", ["standardised", "shrunken"])
def test_a_scale_needs_two_pairs(estimator: str) -> None:
    found = estimate_from_rewards(TWO, [[2.0, 1.0]], [[0.0, 0.0]], estimator)
    assert (found.weights.tolist(), found.why_zero) == (
        [0, 0],
        f"the estimator '{estimator}' needs 2 pairs or more, there is 1",
    )


def test_nothing_leads_by_more_than_chance() -> None:
    found = estimate_from_rewards(TWO, [[3.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [2.0, 2.0]], "shrunken")
    assert (found.weights.tolist(), found.why_zero) == ([0, 0], "no attribute leads by more than chance")


# -- the active few

P = {"formal": 0.5, "concise": -0.6, "vivid": 0.1, "modest": 0.0, "critical": -0.2}
ERRORS = {"formal": 0.25, "concise": 0.3, "critical": 0.05}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"concise": -0.6, "formal": 0.5, "critical": -0.2, "vivid": 0.1}),
        ({"most": 2}, {"concise": -0.6, "formal": 0.5}),
        ({"most": 2, "blocked": ["concise"]}, {"formal": 0.5, "critical": -0.2}),
        ({"most": 2, "pinned": ["vivid"]}, {"concise": -0.6, "vivid": 0.1}),
        ({"most": 1, "pinned": ["vivid"]}, {"vivid": 0.1}),
        ({"most": 2, "pinned": ["modest"]}, {"concise": -0.6}),  # its place stays empty: it would steer nothing
        ({"most": 2, "pinned": ["vivid", "critical"], "blocked": ["formal"]}, {"critical": -0.2, "vivid": 0.1}),
        (
            {"most": 2, "renormalise": True, "blocked": ["concise"]},
            {"formal": 0.5 / 0.29**0.5, "critical": -0.2 / 0.29**0.5},
        ),
        ({"blocked": list(P), "renormalise": True}, {}),
        ({"most": 2, "by_hand": ["formal"], "renormalise": True}, {"concise": -1.0, "formal": 0.5}),
        # |p| / error is 2 for formal and concise, and 4 for critical
        ({"errors": ERRORS, "sure": 2.0}, {"concise": -0.6, "formal": 0.5, "critical": -0.2, "vivid": 0.1}),
        ({"errors": ERRORS | {"vivid": 0.1}, "sure": 2.0}, {"concise": -0.6, "formal": 0.5, "critical": -0.2}),
        ({"errors": ERRORS | {"vivid": 0.1}, "sure": 2.1}, {"critical": -0.2}),
        ({"errors": ERRORS | {"vivid": 0.1}, "sure": 5.0}, {"critical": -0.2}),  # none is: the surest one
        ({"errors": ERRORS | {"vivid": 0.1}, "sure": 5.0, "pinned": ["vivid"]}, {"vivid": 0.1}),
        ({"errors": dict.fromkeys(P, math.nan), "sure": 5.0, "most": 1}, {"concise": -0.6}),  # of one pair
    ],
)
def test_choosing_the_active_few(settings: dict[str, Any], expected: dict[str, float]) -> None:
    found = choose_active(P, **settings)
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pinned": ["vivid"], "blocked": ["vivid"]}, "vivid: pinned and blocked at once"),
        ({"most": 1, "pinned": ["vivid", "formal"]}, "2 attributes are pinned, but 1 may be active"),
        ({"most": 0}, "active: expected a whole number, 1 or more, got 0"),
    ],
)
def test_what_cannot_be_active(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_active(P, **settings)


# -- bad input


def test_estimators_that_are_wrong() -> None:
    statistics = Statistics.of(TWO, W2, L2)
    with pytest.raises(UsageError, match=r"estimator: expected one of closed-form, whitened, .* got 'best'"):
        estimate(statistics, "best")
    with pytest.raises(UsageError, match="estimator: expected one of"):
        estimate_from_rewards(TWO, W2, L2, "best")
    with pytest.raises(UsageError, match="'ridge-bt' needs the pairs themselves"):
        estimate(statistics, "ridge-bt")
    with pytest.raises(UsageError, match="'closed-form' has no regularisation to set, got 1"):
        estimate(statistics, regularisation=1)
    for value in (0, -1.0, float("nan"), float("inf"), True, "1"):
        with pytest.raises(UsageError, match="regularisation: expected a number over 0"):
            estimate(statistics, "whitened", regularisation=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("estimator", ALL)
def test_rewards_that_are_wrong(estimator: str) -> None:
    with pytest.raises(UsageError, match=r"W: expected rewards of shape \(pairs, 2 attributes\), got \(2, 1\)"):
        estimate_from_rewards(TWO, [[1.0], [2.0]], L2, estimator)
    with pytest.raises(UsageError, match="as many rows in W as in L"):
        estimate_from_rewards(TWO, W2[:1], L2, estimator)
    with pytest.raises(UsageError, match=r"W: expected rewards within .* got nan"):
        leave_one_out([[np.nan, 0.0]], [[0.0, 0.0]], estimator)
    with pytest.raises(UsageError, match="W: expected rewards of shape"):
        leave_one_out([1.0, 2.0], [0.0, 0.0], estimator)
