"""Statistics: sums by hand, pairs taken out without a trace, decay, JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from drift_edge.approximation import estimate
from drift_edge.errors import UsageError
from drift_edge.rewards import FloatArray
from drift_edge.statistics import Statistics

NAMES = ("formal", "concise")
SUMS = ("sum_w", "sum_l", "sum_d", "sum_dd")


def of(*pairs: tuple[list[float], list[float]]) -> Statistics:
    statistics = Statistics(NAMES)
    for W, L in pairs:
        statistics.add(W, L)
    return statistics


def rewards(n: int, K: int, seed: int) -> tuple[FloatArray, FloatArray]:
    print("seed", seed)
    rng = np.random.default_rng(seed)
    return rng.normal(1, 5, (n, K)), rng.normal(0, 5, (n, K))


def test_sums_by_hand() -> None:
    statistics = of(([2, 0], [0, -2]), ([1, 1], [0, -1]))  # d = (2, 2) and (1, 2)
    assert (statistics.pairs, statistics.ties, statistics.n, statistics.n_squared) == (2, 0, 2.0, 2.0)
    assert statistics.sum_w.tolist() == [3, 1]
    assert statistics.sum_l.tolist() == [0, -3]
    assert statistics.sum_d.tolist() == [3, 4]
    assert statistics.sum_dd.tolist() == [[5, 6], [6, 8]]  # (4, 4, 4) + (1, 2, 4)
    assert statistics.preference.tolist() == [1.5, 2]
    assert statistics.n_effective == 2


def test_weighted_pairs_by_hand() -> None:
    statistics = Statistics(NAMES)
    statistics.add([2, 0], [0, 0], times=3)
    statistics.add([0, 1], [0, 0], times=1)
    assert (statistics.n, statistics.n_squared) == (4, 10)
    assert statistics.sum_d.tolist() == [6, 1]
    assert statistics.sum_dd.tolist() == [[12, 0], [0, 1]]
    assert statistics.n_effective == 1.6  # 16 / 10


def test_decay_by_hand() -> None:
    statistics = Statistics(["formal"])
    for reward in (1.0, 2.0, 4.0):
        statistics.decay(half_life=1)
        statistics.add([reward], [0.0])
    assert statistics.sum_d.tolist() == [5.25]  # 1/4 + 2/2 + 4
    assert statistics.sum_dd.tolist() == [[18.25]]  # 1/4 + 4/2 + 16
    assert (statistics.pairs, statistics.n, statistics.n_squared) == (3, 1.75, 1.3125)


def test_a_pair_weighs_half_after_a_half_life() -> None:
    statistics = Statistics(["formal"])
    statistics.add([1.0], [0.0])
    for _ in range(20):
        statistics.decay(half_life=20)
    assert statistics.n == pytest.approx(0.5, rel=1e-14)
    assert statistics.sum_d == pytest.approx(0.5, rel=1e-14)


def test_ties_are_counted_apart() -> None:
    statistics = of(([1, 0], [0, 0]))
    statistics.add_tie()
    statistics.add_tie()
    statistics.add_tie(-1)
    assert (statistics.pairs, statistics.ties, statistics.n) == (1, 1, 1.0)
    assert statistics.sum_d.tolist() == [1, 0]
    with pytest.raises(UsageError, match="no tie to remove"):
        statistics.add_tie(-2)


def test_all_at_once_equals_one_by_one() -> None:
    W, L = rewards(60, 7, seed=1)
    one_by_one = Statistics([f"a{i}" for i in range(7)])
    for w, l in zip(W, L, strict=True):  # noqa: E741
        one_by_one.add(w, l)
    at_once = Statistics.of(one_by_one.names, W, L)
    assert (at_once.pairs, at_once.n, at_once.n_squared) == (60, 60.0, 60.0)
    for name in SUMS:
        np.testing.assert_allclose(getattr(at_once, name), getattr(one_by_one, name), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(
    ("kept", "gone", "scale"),
    [(50, 1, 1.0), (5, 1, 100.0), (5, 1, 1000.0), (2, 1, 1000.0), (10, 3000, 1.0), (3, 3, 1e7)],
)
def test_what_is_removed_leaves_no_trace(kept: int, gone: int, scale: float) -> None:
    W, L = rewards(kept + gone, 12, seed=kept + gone)
    W[kept:] *= scale
    names = [f"a{i}" for i in range(12)]
    statistics, rebuilt = Statistics(names), Statistics(names)
    order = np.random.default_rng(7).permutation(kept + gone)
    for j in order:
        statistics.add(W[j], L[j])
    for j in range(kept + gone - 1, kept - 1, -1):
        statistics.remove(W[j], L[j])
    for j in range(kept):
        rebuilt.add(W[j], L[j])
    assert statistics.pairs == kept
    for name in SUMS:
        expected = getattr(rebuilt, name)
        np.testing.assert_allclose(getattr(statistics, name), expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    for estimator in ("closed-form", "whitened", "standardised", "shrunken"):
        found, expected = estimate(statistics, estimator), estimate(rebuilt, estimator)
        np.testing.assert_allclose(found.weights, expected.weights, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.standard_errors, expected.standard_errors, rtol=1e-9)


def test_without_its_last_pair_nothing_is_left() -> None:
    statistics = of(([0.1, 0.2], [0.3, 1e-9]), ([1 / 3, 0], [0, 0]))
    statistics.remove([1 / 3, 0], [0, 0])
    statistics.remove([0.1, 0.2], [0.3, 1e-9])
    assert statistics.to_dict() == Statistics(NAMES).to_dict()
    with pytest.raises(UsageError, match="no pair to remove"):
        statistics.remove([0.1, 0.2], [0.3, 1e-9])


def test_a_decayed_pair_is_removed_by_its_weight() -> None:
    W, L = rewards(30, 5, seed=3)
    names = [f"a{i}" for i in range(5)]
    whole, without = Statistics(names), Statistics(names)
    for j in range(30):
        for statistics in (whole, without):
            statistics.decay(half_life=10)
        whole.add(W[j], L[j])
        if j != 12:
            without.add(W[j], L[j])
    whole.remove(W[12], L[12], times=0.5 ** (17 / 10))  # 17 pairs came after it
    np.testing.assert_allclose(estimate(whole).weights, estimate(without).weights, rtol=0, atol=1e-12)
    assert whole.n == pytest.approx(without.n, rel=1e-13)
    assert whole.n_squared == pytest.approx(without.n_squared, rel=1e-13)


# -- JSON


def test_json_keeps_every_bit() -> None:
    W, L = rewards(40, 6, seed=4)
    statistics = Statistics([f"a{i}" for i in range(6)])
    for w, l in zip(W, L, strict=True):  # noqa: E741
        statistics.decay(half_life=30)
        statistics.add(w, l)
    statistics.add_tie(3)
    read = Statistics.from_dict(json.loads(json.dumps(statistics.to_dict(), allow_nan=False)))
    assert read.to_dict() == statistics.to_dict()
    for name in (*SUMS, "pairs", "ties", "n", "n_squared", "names"):
        assert np.array_equal(getattr(read, name), getattr(statistics, name)), name
    # What was lost to rounding is kept too, so that pairs can still be removed without a trace.
    for each in (read, statistics):
        each.remove(W[39], L[39])
    assert read.to_dict() == statistics.to_dict()


def broken(path: str, value: object) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(json.dumps(of(([2, 0], [0, -2]), ([1, 1], [0, -1])).to_dict()))
    *way, last = path.split(".")
    inner = data
    for key in way:
        inner = inner[key]
    inner[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("names", None, r"\$\.here\.names: expected a list of attribute names, got None"),
        ("names", ["formal", 3], r"\$\.here\.names: expected a list"),
        ("names", ["formal", "formal"], "1 or more different attributes"),
        ("names", ["formal"], r"\$\.here\.sum_w\.high: expected a list of 1 numbers, got 2"),
        ("pairs", -1, r"\$\.here\.pairs: expected a whole number, 0 or more, got -1"),
        ("pairs", True, r"\$\.here\.pairs: expected a whole number"),
        ("pairs", 0, r"\$\.here\.n: expected a number that fits 0 pairs, got 2"),
        ("ties", 1.5, r"\$\.here\.ties: expected a whole number, 0 or more, got 1.5"),
        ("n", -2.0, r"\$\.here\.n: expected a number that fits 2 pairs"),
        ("n", "2", r"\$\.here\.n: expected a number within .*, got '2'"),
        ("n_squared", float("nan"), r"\$\.here\.n_squared: expected a number within .*, got nan"),
        ("sum_d", [1, 2], r"\$\.here\.sum_d: expected an object with 'high' and 'low', got list"),
        ("sum_d.high", "many", r"\$\.here\.sum_d\.high: expected a list of 2 numbers, got str"),
        ("sum_d.low", [0.0, float("inf")], r"\$\.here\.sum_d\.low\[1\]: expected a number within .*, got inf"),
        ("sum_w.high", [10**400, 0.0], r"\$\.here\.sum_w\.high\[0\]: expected a number within"),
        ("sum_dd.high", [5.0, 6.0, 8.0, 1.0], r"\$\.here\.sum_dd\.high: expected a list of 3 numbers, got 4"),
        ("sum_dd.high", [5.0, 6.0, -8.0], r"\$\.here\.sum_dd: expected a sum of d d\^T, found a negative eigenvalue"),
        ("sum_dd.high", [0.0, 6.0, 0.0], r"\$\.here\.sum_dd: expected a sum of d d\^T, found a negative eigenvalue"),
    ],
)
def test_json_that_is_wrong(path: str, value: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Statistics.from_dict(broken(path, value), at="$.here")


@pytest.mark.parametrize("data", [None, [], "statistics", 3])
def test_json_that_is_no_object(data: Any) -> None:
    with pytest.raises(UsageError, match=r"\$\.names: expected a list"):
        Statistics.from_dict(data)


# -- bad input


@pytest.mark.parametrize(
    ("W", "L", "message"),
    [
        ([1.0], [1.0, 2.0], r"W: expected rewards of shape \(pairs, 2 attributes\), got \(1, 1\)"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], r"L: expected rewards of shape"),
        ([1.0, float("nan")], [0.0, 0.0], "W: expected rewards within ±1e.09 nats, got nan"),
        ([1.0, 0.0], [0.0, float("-inf")], "L: expected rewards within .* got -inf"),
        ([1.0, 2e9], [0.0, 0.0], "got 2000000000"),
        ([[1.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], "expected one pair, got 2"),
        ([[1.0, 0.0], [1.0, 0.0]], [[0.0, 0.0]], "as many rows in W as in L, got 2 and 1"),
        (["a", "b"], [0.0, 0.0], "W: expected rewards as numbers"),
    ],
)
def test_rewards_that_are_wrong_count_nothing(W: Any, L: Any, message: str) -> None:
    statistics = of(([2, 0], [0, -2]))
    before = statistics.to_dict()
    with pytest.raises(UsageError, match=message):
        statistics.add(W, L)
    assert statistics.to_dict() == before


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), True, "2"])
def test_weights_and_half_lives_are_over_0(value: Any) -> None:
    statistics = of(([2, 0], [0, -2]))
    with pytest.raises(UsageError, match="times: expected a number over 0, got"):
        statistics.add([1, 0], [0, 0], times=value)
    with pytest.raises(UsageError, match="half_life: expected a number over 0, got"):
        statistics.decay(value)
    assert statistics.n == 1


@pytest.mark.parametrize("names", [(), ("formal", "formal")])
def test_names_that_are_wrong(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="1 or more different attributes"):
        Statistics(names)
