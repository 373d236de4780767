"""Racing: who is dropped, by hand and by brute force, and what becomes of those that were."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drift_edge.approximation import choose_active, estimate
from drift_edge.attributes import Attribute, Attributes
from drift_edge.errors import UsageError
from drift_edge.kernel import AbortFlag
from drift_edge.learning import learn
from drift_edge.preferences import PreferencePair
from drift_edge.profile import Profile
from drift_edge.racing import LEAST_PAIRS, Race, beaten
from drift_edge.rewards import FloatArray, PairScores
from drift_edge.scoring import ScoringCounters
from drift_edge.statistics import Statistics
from tests.choices import NANO, pair

K = 12
NAMES = tuple(f"a{i}" for i in range(K))
POOL = Attributes("Base.", [Attribute(name, f"You are {name}.") for name in NAMES])
ALL = np.ones(K, bool)


def scores_of(W: FloatArray, L: FloatArray, scored: np.ndarray) -> PairScores:
    """Scores of one pair whose rewards, where scored, are W and L."""
    chosen, rejected = (np.append(-50.0, np.where(scored, -50.0 + r, np.nan)) for r in (W, L))
    return PairScores(chosen, rejected, 1, 1)


def person(n: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Rewards of a person with three strong tastes among attributes that have noise in common."""
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(n, K)) + rng.normal(size=(n, 1))
    W[:, :3] += np.array([2.0, -1.6, 1.2])
    return W, rng.normal(size=(n, K))


def run(W: FloatArray, L: FloatArray, race: Race) -> Statistics:
    """The statistics of pairs that are scored as the race says."""
    statistics = Statistics(NAMES)
    for w, l in zip(W, L, strict=True):  # noqa: E741
        found = scores_of(w, l, race.racing)
        statistics.add(*found.rewards(), scored=found.scored)
        race.add(found)
    return statistics


# -- the rule


def test_beaten_by_hand() -> None:
    v = np.array([3.0, -2.5, 1.0])
    # errors of the differences, variances 0.5 each: 1. |v| of 1 lies 2 behind the first, 1.5 behind the second
    covariance = 0.5 * np.eye(3)
    rivals = np.ones(3, bool)
    assert beaten(v, covariance, rivals, 2, 1.49).tolist() == [False, False, True]
    assert beaten(v, covariance, rivals, 2, 1.51).tolist() == [False, False, False]
    assert beaten(v, covariance, rivals, 1, 1.51).tolist() == [False, False, True]
    assert beaten(v, covariance, rivals, 1, 0.4).tolist() == [False, True, True]
    assert beaten(v, covariance, np.array([True, False, True]), 2, 0.0).tolist() == [False, False, False]


def test_what_errors_have_in_common_does_not_count() -> None:
    v = np.array([3.0, 2.0])
    common = np.full((2, 2), 100.0)
    assert beaten(v, common + 0.01 * np.eye(2), np.ones(2, bool), 1, 2.0).tolist() == [False, True]
    # Of opposite signs, the same common error moves the sizes apart: 3 - x against 2 + x.
    assert not beaten(v * [1, -1], common + 0.01 * np.eye(2), np.ones(2, bool), 1, 2.0).any()


def test_nobody_is_dropped_early_or_late_or_without_rivals_enough() -> None:
    W, L = person(30, seed=1)
    race = Race(Statistics(NAMES), 30, active=2, confidence=0.6)
    for j in range(LEAST_PAIRS - 1):
        race.add(scores_of(W[j], L[j], ALL))
        assert race.names == NAMES
    race.add(scores_of(W[LEAST_PAIRS], L[LEAST_PAIRS], ALL))
    assert len(race.names) < K
    for active in (K, K + 3):
        wide = Race(Statistics(NAMES), 30, active=active, confidence=0.5)
        run(W, L, wide)
        assert wide.names == NAMES


def test_with_one_pair_to_come_the_order_is_all_but_settled() -> None:
    W, L = person(40, seed=2)
    statistics = Statistics.of(NAMES, W, L)
    assert set(Race(statistics, 1, active=3).names) == {"a0", "a1", "a2"}
    assert len(Race(statistics, 1000, active=3).names) > 3
    assert Race(statistics, 0, active=3).names == NAMES  # nothing is to come: nothing to save


def test_pinned_are_scored_and_blocked_beat_nobody() -> None:
    W, L = person(2000, seed=3)
    race = Race(Statistics.of(NAMES, W, L), 1, active=2, pinned=["a11"], blocked=["a0"])
    assert set(race.names) == {
        "a0",
        "a1",
        "a2",
        "a11",
    }  # a0 would be ahead of all, so it has not lost; it counts no win


def test_scaling_and_turning_rewards_changes_nothing() -> None:
    W, L = person(60, seed=4)
    signs = np.where(np.arange(K) % 2, 1.0, -1.0)
    dropped = []
    for factor in (1.0, 37.0 * signs):
        race = Race(Statistics(NAMES), 60, active=2, confidence=0.9)
        run(W * factor, L * factor, race)
        dropped.append(race.names)
    assert dropped[0] == dropped[1]
    assert len(dropped[0]) < K


def test_the_active_set_is_nearly_always_that_of_all_scores() -> None:
    same, scored = {0.99: 0, 0.5: 0}, {0.99: 0.0, 0.5: 0.0}
    for seed in range(30):
        W, L = person(50, seed=100 + seed)
        exact = set(choose_active(estimate(Statistics.of(NAMES, W, L)).as_dict(), 3))
        for confidence in same:
            statistics = run(W, L, Race(Statistics(NAMES), 50, active=3, confidence=confidence))
            same[confidence] += set(choose_active(estimate(statistics).as_dict(), 3)) == exact
            scored[confidence] += statistics.n_scored.sum() / (50 * K) / 30
    print(same, scored)
    assert same[0.99] >= 28
    assert same[0.5] < 25
    assert scored[0.5] < scored[0.99] < 0.8


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"estimator": "whitened"}, "the estimator 'whitened' makes each weight from the rewards of all attributes"),
        ({"estimator": "best"}, "estimator: expected one of"),
        ({"confidence": 1.0}, "confidence: expected a number from 0.5 to below 1, got 1.0"),
        ({"confidence": float("nan")}, "confidence: expected"),
        ({"active": 0}, "active: expected"),
        ({"reduction": "max"}, "reduction: expected"),
    ],
)
def test_bad_arguments(given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Race(Statistics(NAMES), 10, **given)  # type: ignore[arg-type]


# -- scores and statistics of attributes that were not scored in every pair


def test_scores_that_lack_attributes() -> None:
    few = PairScores([-9.0, -8.0, -6.0], [-9.0, -9.5, -5.0], 3, 2)  # type: ignore[arg-type]
    wide = few.among(np.array([False, True, False, True]))
    assert wide.scored.tolist() == [False, True, False, True]
    W, L = wide.rewards("mean")
    assert W.tolist() == [0, 1 / 3, 0, 1]
    assert L.tolist() == [0, -0.25, 0, 2]
    told = json.loads(json.dumps(wide.to_dict(), allow_nan=False))
    assert told["chosen"] == [-9.0, None, -8.0, None, -6.0]
    again = PairScores.from_dict(told)
    assert np.array_equal(again.chosen, wide.chosen, equal_nan=True)
    assert np.array_equal(again.rejected, wide.rejected, equal_nan=True)
    nan = float("nan")
    for chosen, rejected in (([-1, nan], [-1, -2]), ([-1, -2], [-1, nan]), ([nan, -2], [nan, -2])):
        with pytest.raises(UsageError, match="expected finite log-probabilities, got nan"):
            PairScores(chosen, rejected, 1, 1)  # type: ignore[arg-type]


def test_statistics_by_brute_force() -> None:
    rng = np.random.default_rng(5)
    W, L = rng.normal(size=(2, 9, K))
    scored = rng.random((9, K)) < 0.6
    scored[:, 0], scored[:, 1] = True, False
    statistics = Statistics(NAMES)
    for j in range(9):
        statistics.add(W[j] * scored[j], L[j] * scored[j], scored=scored[j])
    D = np.where(scored, W - L, 0)
    n = scored.sum(axis=0)
    assert statistics.n_scored.tolist() == n.tolist()
    expected = D.sum(axis=0) / np.maximum(n, 1)
    assert statistics.preference == pytest.approx(expected, abs=1e-12)
    assert estimate(statistics).weights == pytest.approx(expected / np.linalg.norm(expected), abs=1e-12)
    assert np.isfinite(estimate(statistics, "whitened").standard_errors).all()
    again = Statistics.from_dict(json.loads(json.dumps(statistics.to_dict())))
    assert np.array_equal(again.unscored, statistics.unscored)
    assert np.array_equal(estimate(again, "whitened").weights, estimate(statistics, "whitened").weights)
    for j in range(8):
        statistics.remove(W[j] * scored[j], L[j] * scored[j], scored=scored[j])
    assert statistics.n_scored.tolist() == scored[8].tolist()
    statistics.decay(1.0)
    assert statistics.n_scored.tolist() == (scored[8] / 2).tolist()
    with pytest.raises(UsageError, match="rewards of 0 for the others"):
        statistics.add(W[0], L[0], scored=scored[0])


def test_fewer_pairs_make_a_wider_error() -> None:
    # One attribute outweighs the other, so p_1 is close to m_1 / m_0, and its error to that of m_1 over m_0.
    statistics = Statistics(("a", "b"))
    d = np.array([1.0, -1.0, 2.0, 0.0] * 4)
    for j in range(16):
        scored = np.array([True, j < 4])
        statistics.add(np.array([1e6, d[j] * (j < 4)]), np.zeros(2), scored=scored)
    found = estimate(statistics)
    # mean 0.5, mean square 1.5 of the four: variance 1.25 over 16 - 1, times 16 / 4
    assert found.standard_errors[1] * 1e6 == pytest.approx(np.sqrt(1.25 / 15 * 4), rel=1e-4)
    assert found.weights[1] * 1e6 == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("unscored", [[-1.0, 0.0], [3.0, 0.0], [0.0], "x"])
def test_unscored_of_a_file_is_checked(unscored: object) -> None:
    data = {**Statistics.of(("a", "b"), [[1.0, 2.0]], [[0.0, 0.0]]).to_dict(), "unscored": unscored}
    with pytest.raises(UsageError, match=r"at \$\.unscored: expected"):
        Statistics.from_dict(data)


# -- learning


class ScriptedScorer:
    """Knows the rewards of all pairs, and remembers what it was asked for."""

    text_length, names = 500, NAMES

    def __init__(self, W: FloatArray, L: FloatArray) -> None:
        self.W, self.L = W, L
        self.counters = ScoringCounters()
        self.asked: list[tuple[int, tuple[str, ...]]] = []

    def score(self, of: PreferencePair, *, names: Sequence[str] | None = None, cancel: AbortFlag | None) -> PairScores:
        """As `Scorer.score`."""
        assert cancel is None
        j = int(of.chosen.split()[-1].rstrip("."))
        wanted = [NAMES.index(name) for name in names or NAMES]
        self.asked.append((j, tuple(names or NAMES)))
        self.counters.scored += 1
        both = (np.append(-50.0, -50.0 + rewards[j, wanted]) for rewards in (self.W, self.L))
        return PairScores(*both, 1, 1)


def learned(path: Path, scorer: ScriptedScorer, n: int, confidence: float | None = 0.99, **setting: Any) -> Profile:
    """A profile that has learned from the first n pairs, by the paper's estimator unless another is named."""
    profile = Profile.open(path, slm=NANO, attributes=POOL)
    profile.configure(**{"active": 3, "estimator": "closed-form", **setting})
    list(learn(scorer, profile, map(pair, range(n)), confidence=confidence))  # type: ignore[arg-type]
    return profile


def test_learning_drops_and_an_exact_run_completes(tmp_path: Path) -> None:
    W, L = person(60, seed=6)
    scorer = ScriptedScorer(W, L)
    raced, exact = learned(tmp_path / "raced.json", scorer, 60), learned(tmp_path / "exact.json", scorer, 60, None)
    assert scorer.asked[0][1] == NAMES
    assert 3 <= len(scorer.asked[59][1]) < K
    table = raced.table()
    assert raced.weights().keys() == exact.weights().keys()
    for name in NAMES:
        assert table[name].n == sum(name in names for _, names in scorer.asked[:60])
    assert {weight.n for weight in exact.table().values()} == {60}
    # another program reads the same from the file, and from the journal alone
    assert Profile.open(raced.path).table() == table
    (tmp_path / "raced.json").unlink()
    assert Profile.open(raced.path, slm=NANO, attributes=POOL).statistics.n_scored.tolist() == [
        table[name].n for name in NAMES
    ]


def test_an_exact_run_scores_what_is_missing_alone(tmp_path: Path) -> None:
    W, L = person(60, seed=7)
    scorer = ScriptedScorer(W, L)
    profile = learned(tmp_path / "p.json", scorer, 60)
    short = [j for j, names in scorer.asked if len(names) < K]
    assert 0 < len(short) < 60
    del scorer.asked[:]
    assert learned(tmp_path / "p.json", scorer, 60).table() == profile.table()  # known, so nothing is done
    assert not scorer.asked
    again = learned(tmp_path / "p.json", scorer, 60, None)
    assert [j for j, _ in scorer.asked] == short
    exact = learned(tmp_path / "exact.json", scorer, 60, None)
    assert [w.weight for w in again.table().values()] == pytest.approx(
        [w.weight for w in exact.table().values()], abs=1e-12
    )
    assert again.statistics.unscored.tolist() == [0.0] * K


def test_what_cannot_race_is_scored_whole(tmp_path: Path) -> None:
    W, L = person(60, seed=8)
    for setting in (
        {"estimator": "whitened"},
        {"estimator": "ridge-bt"},
        {"half_life": 20.0, "estimator": "closed-form"},
    ):
        scorer = ScriptedScorer(W, L)
        learned(tmp_path / f"{next(iter(setting.values()))}.json", scorer, 20, 0.5, **setting)
        assert {names for _, names in scorer.asked} == {NAMES}


def test_forgetting_and_rewards_with_dropped_attributes(tmp_path: Path) -> None:
    W, L = person(60, seed=9)
    profile = learned(tmp_path / "p.json", ScriptedScorer(W, L), 60)
    choices, rewards, _ = profile.rewards()
    missing = np.array([~choice.scores.scored for choice in choices if choice.scores])
    assert missing.any()
    assert not rewards[missing].any()
    last = choices[-1]
    assert last.scores is not None
    before = profile.statistics.n_scored
    profile.forget(last.id)
    assert (before - profile.statistics.n_scored).tolist() == last.scores.scored.astype(float).tolist()
