"""Profiles: what is learned, forgotten, set and refused, by numbers that can be followed by hand."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drift_edge import storage
from drift_edge.approximation import estimate_from_rewards
from drift_edge.attributes import Attribute, Attributes
from drift_edge.errors import ProfileError, ProfileMismatchError, UsageError
from drift_edge.profile import SLM, Profile, profile_path, tally
from drift_edge.rewards import PairScores
from drift_edge.statistics import Statistics
from drift_edge.weights import load_weights
from tests.choices import NANO, OTHER, POOL, fresh, pair, scores

pytestmark = pytest.mark.usefixtures("no_waiting_for_disks")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "me.json"


def learned(path: Path, n: int = 4, seed: int = 5) -> tuple[Profile, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A profile of n choices with random rewards, and these."""
    rng = np.random.default_rng(seed)
    W, L = rng.normal(0, 5, (2, n, 2))
    profile = fresh(path)
    profile.extend((pair(i), scores(W[i], L[i])) for i in range(n))
    # What the scores hold is W and L to rounding.
    _, W, L = profile.rewards()
    return profile, W, L


def texts(folder: Path) -> bytes:
    """All bytes of all files of a folder."""
    return b"".join(path.read_bytes() for path in folder.iterdir())


# -- where


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("default", "profiles/default.json"),
        ("Anna B.", "profiles/Anna B..json"),
        ("work-2_x", "profiles/work-2_x.json"),
    ],
)
def test_names_lie_in_the_data_folder(name: str, expected: str, home: Path) -> None:
    assert profile_path(name) == home / "data" / expected


def test_paths_are_paths(tmp_path: Path) -> None:
    assert profile_path("./me") == Path("me")
    assert profile_path("me.json") == Path("me.json")
    assert profile_path(tmp_path / "me") == tmp_path / "me"
    assert profile_path("~/me.json") == Path.home() / "me.json"


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a\0b", "a:b", "x" * 65, "ä", "a\nb"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(UsageError, match="expected a name"):
        profile_path(name)


def test_names_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFT_EDGE_HOME", str(tmp_path))
    assert Profile.names() == []
    for name in ("zoe", "default", "Anna B."):
        Profile.open(name).set("concise", 0.5)
    assert Profile.names() == ["Anna B.", "default", "zoe"]
    assert storage.folders().profiles.stat().st_mode & 0o777 == 0o700


def test_a_profile_loads_no_model_library() -> None:
    code = (
        "import sys; from drift_edge.profile import Profile; Profile.open('none').table(); "
        "print([m for m in ('llama_cpp', 'gguf', 'typer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


# -- learning


def test_a_new_profile_is_no_file(path: Path) -> None:
    profile = fresh(path)
    assert not profile.exists
    assert list(path.parent.iterdir()) == []
    assert profile.weights() == {}
    assert (profile.n, profile.ties, profile.pending) == (0, 0, 0)
    assert [name for name, weight in profile.table().items() if weight.weight == 0 and not weight.active] == list(POOL)
    assert profile.estimate().why_zero == "there is no pair yet"
    assert profile.settings.blocked == ("conspiracy", "sycophant")


def test_one_choice(path: Path) -> None:
    profile = fresh(path)
    # d = W - L = (3 - 0, 0 - 4), |d| = 5
    change = profile.add(pair(1), scores([3, 0], [0, 4]))
    assert change.ids == (pair(1).id,)
    assert change.before == {"warm": 0.0, "brief": 0.0}
    assert change.after == pytest.approx({"warm": 0.6, "brief": -0.8})
    assert profile.weights() == change.after
    assert list(profile.weights()) == ["brief", "warm"]  # the largest first
    assert profile.exists
    assert profile.n == 1
    assert Profile.open(path).to_dict() == profile.to_dict()


def test_the_file_is_what_the_command_prints(path: Path) -> None:
    profile = fresh(path)
    profile.configure(estimator="closed-form", sure=0)
    profile.add(pair(1), scores([3, 0], [0, 4]))
    profile.add(pair(2), scores([0, 0], [0, 4]))
    # sum d = (3, -8): p = (3, -8) / sqrt(73)
    data = json.loads(path.read_text())
    assert data == profile.to_dict()
    # Mean d = (1.5, -4), of length sqrt(18.25); d varies in warm alone, by 2.25: se = 1.5 |J_i,warm| (delta method)
    se = 1.5 / 18.25**1.5
    assert data["weights"] == {
        "warm": {"weight": pytest.approx(3 / 73**0.5), "se": pytest.approx(16 * se), "n": 2, "active": True},
        "brief": {"weight": pytest.approx(-8 / 73**0.5), "se": pytest.approx(6 * se), "n": 2, "active": True},
    }
    assert data["attributes"] == {"warm": "You are warm.", "brief": "You are brief."}
    assert data["base"] == "Base."
    assert data["slm"] == {"name": "nano", "fingerprint": "0123456789abcdef"}
    assert data["schema"] == 3


def test_the_same_choice_counts_once(path: Path) -> None:
    profile = fresh(path)
    profile.add(pair(1), scores([3, 0], [0, 4]))
    before = path.read_bytes()
    assert profile.add(pair(1), scores([9, 9], [0, 4])).ids == ()
    assert profile.extend([(pair(1), None), (pair(1), scores([1, 1], [0, 0]))]).ids == ()
    assert path.read_bytes() == before
    again = [(pair(i), scores([3, 0], [0, 4])) for i in (1, 2, 2)]
    assert Profile.open(path, slm=NANO).extend(again).ids == (pair(2).id,)
    assert Profile.open(path).n == 2


def test_a_choice_counts_once_it_is_scored(path: Path) -> None:
    profile = fresh(path)
    assert profile.add(pair(1)).ids == (pair(1).id,)
    assert (profile.n, profile.pending) == (0, 1)
    assert [choice.scores for choice in Profile.open(path).choices()] == [None]
    assert profile.add(pair(1)).ids == ()
    assert profile.add(pair(1), scores([3, 0], [0, 4])).ids == (pair(1).id,)
    assert (profile.n, profile.pending) == (1, 0)
    [choice] = Profile.open(path).choices()
    assert choice.pair == pair(1)
    assert choice.scores is not None
    assert choice.scores.to_dict() == scores([3, 0], [0, 4]).to_dict()


def test_ties_are_counted_apart(path: Path) -> None:
    profile = fresh(path)
    profile.extend([(pair(1, tie=True), None), (pair(2), scores([3, 0], [0, 4])), (pair(3, tie=True), None)])
    assert (profile.n, profile.ties, profile.pending) == (1, 2, 0)
    assert profile.weights() == pytest.approx({"brief": -0.8, "warm": 0.6})
    assert profile.forget(pair(3, tie=True).id).ids == (pair(3, tie=True).id,)
    assert (profile.n, profile.ties) == (1, 1)
    assert Profile.open(path).to_dict() == profile.to_dict()


def test_all_ties_and_all_rewards_zero_leave_weights_at_zero(path: Path) -> None:
    profile = fresh(path)
    profile.extend((pair(i, tie=True), None) for i in range(3))
    assert profile.weights() == {}
    assert profile.estimate().why_zero == "there is no pair yet"
    profile.add(pair(9), scores([1, 2], [1, 2]))
    assert profile.weights() == {}
    assert "are equal" in profile.estimate().why_zero
    assert all(weight.weight == 0 for weight in Profile.open(path).table().values())


def test_reductions_divide_by_tokens(path: Path) -> None:
    profile = fresh(path)
    profile.add(pair(1), scores([8, 0], [0, 9], n_chosen=4, n_rejected=9))
    assert profile.weights() == pytest.approx({"brief": -9 / math.hypot(8, 9), "warm": 8 / math.hypot(8, 9)})
    profile.configure(reduction="mean")  # d = (8/4, -9/9)
    assert profile.weights() == pytest.approx({"warm": 2 / math.sqrt(5), "brief": -1 / math.sqrt(5)})
    profile.configure(reduction="sqrt")  # d = (8/2, -9/3)
    assert profile.weights() == pytest.approx({"warm": 0.8, "brief": -0.6})
    assert Profile.open(path).weights() == profile.weights()


def test_half_life(path: Path) -> None:
    profile = fresh(path)
    given = [([4, 0], [0, 0]), ([0, 2], [0, 0]), ([0, 0], [0, 1])]  # d = (4, 0), (0, 2), (0, -1)
    for i, rewards in enumerate(given):
        profile.add(pair(i), scores(*rewards))
    assert profile.statistics.sum_d == pytest.approx([4, 1])
    profile.configure(half_life=1)  # 1/4, 1/2, 1
    assert profile.statistics.sum_d == pytest.approx([1, 0])
    assert profile.statistics.n == 1.75
    profile.add(pair(3), scores([0, 3], [0, 0]))
    assert profile.statistics.sum_d == pytest.approx([0.5, 3])
    profile.forget(pair(1).id)  # as if it had never been: 1/4 (4, 0) - 1/2 (0, 1) + (0, 3)
    assert profile.statistics.sum_d == pytest.approx([1, 2.5])
    profile.configure(half_life=0)
    assert profile.statistics.sum_d == pytest.approx([4, 2])


@pytest.mark.parametrize("estimator", ["closed-form", "whitened", "standardised", "shrunken", "ridge-bt", "absolute"])
def test_every_estimator_is_made_of_the_same_rewards(estimator: str, path: Path) -> None:
    profile, W, L = learned(path, 12)
    profile.configure(estimator=estimator, sure=0)
    profile.add(pair(99), scores([1, 2], [3, -4]))
    _, W, L = profile.rewards()
    assert W.shape == L.shape == (13, 2)
    expected = estimate_from_rewards(tuple(POOL), W, L, estimator)
    found = Profile.open(path)
    assert [found.table()[name].weight for name in POOL] == pytest.approx(list(expected.weights), abs=1e-12)
    assert [found.table()[name].se for name in POOL] == pytest.approx(list(expected.standard_errors), abs=1e-9)
    assert found.estimate().estimator == estimator


def test_history_is_thinned_from_its_beginning_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "MAX_HISTORY", 8)
    profile = fresh(path)
    for i in range(30):
        profile.add(pair(i), scores([math.cos(i), math.sin(i * i)], [0, 0]))
    history = Profile.open(path).history
    assert 4 < len(history) <= 8
    counts = [snapshot.n for snapshot in history]
    assert (counts[0], counts[-1]) == (1, 30)
    gaps = np.diff(counts)
    assert (gaps > 0).all()
    assert gaps[0] > gaps[-1]
    assert history[-1].weights == {name: pytest.approx(w.weight, abs=5e-5) for name, w in profile.table().items()}


# -- forgetting


@pytest.mark.parametrize("half_life", [0, 3])
def test_forgetting_equals_a_rebuild_without(half_life: float, path: Path) -> None:
    profile, W, L = learned(path, 9)
    profile.configure(half_life=half_life)
    gone = [2, 7]
    profile.forget(*(pair(i).id for i in gone))
    rest = [i for i in range(9) if i not in gone]
    expected = Statistics(tuple(POOL))
    for i in rest:
        if half_life:
            expected.decay(half_life)
        expected.add(W[i], L[i])
    for name in ("sum_w", "sum_l", "sum_d", "sum_dd"):
        np.testing.assert_allclose(getattr(profile.statistics, name), getattr(expected, name), rtol=1e-12, atol=1e-12)
    assert [choice.id for choice in profile.choices()] == [pair(i).id for i in rest]
    assert Profile.open(path).to_dict() == profile.to_dict()


def test_what_is_forgotten_is_gone_from_the_disk(path: Path) -> None:
    profile, *_ = learned(path, 3)
    assert b"Question 1?" in texts(path.parent)
    profile.forget(pair(1).id)
    assert b"Question 1?" not in texts(path.parent)
    assert b"Question 2?" in texts(path.parent)
    profile.reset()
    assert b"Question" not in texts(path.parent)


def test_undo(path: Path) -> None:
    profile = fresh(path)
    with pytest.raises(UsageError, match="there is no choice to undo"):
        profile.undo()
    assert not path.exists()
    profile.add(pair(1), scores([3, 0], [0, 4]))
    once = profile.weights()
    profile.add(pair(2), scores([0, 9], [1, 0]))
    change = profile.undo()
    assert change.ids == (pair(2).id,)
    assert change.after == profile.weights() == once
    profile.add(pair(3))
    assert profile.undo().ids == (pair(3).id,)
    assert profile.pending == 0
    assert profile.undo().ids == (pair(1).id,)
    assert profile.weights() == {}
    with pytest.raises(UsageError, match="there is no choice to undo"):
        profile.undo()
    profile.add(pair(1), scores([3, 0], [0, 4]))  # what was forgotten can be learned again
    assert profile.weights() == once


def test_forgetting_what_is_not_there(path: Path) -> None:
    profile, *_ = learned(path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="there is no choice '0000' in the journal"):
        profile.forget(pair(1).id, "0000")
    assert profile.forget().ids == ()
    assert path.read_bytes() == before
    assert profile.n == 4


def test_beta_and_strength_take_each_others_place(path: Path) -> None:
    profile, *_ = learned(path)
    assert profile.settings.steering == (0.5, None)
    profile.configure(strength=0.3)
    assert Profile.open(path).settings.steering == (None, 0.3)
    profile.configure(active=3)
    profile.reset()
    assert Profile.open(path).settings.steering == (None, 0.3)
    profile.configure(beta=0.25)
    assert Profile.open(path).settings.steering == (0.25, None)


def test_reset_keeps_pins_and_blocks(path: Path) -> None:
    profile, *_ = learned(path)
    profile.pin("warm")
    profile.block("brief")
    profile.set("warm", 0.5)
    profile.configure(beta=0.25, active=3)
    profile.reset()
    settings = Profile.open(path).settings
    assert (settings.pinned, settings.beta, settings.active) == (("warm",), 0.25, 3)
    assert "brief" in settings.blocked
    assert settings.fixed == {}
    assert (profile.n, profile.weights(), profile.history, list(profile.choices())) == (0, {}, (), [])
    profile.add(pair(1), scores([3, 0], [0, 4]))
    assert Profile.open(path).n == 1


# -- by hand


def test_a_weight_set_by_hand(path: Path) -> None:
    profile = fresh(path)
    profile.configure(estimator="closed-form", renormalise=False)
    profile.add(pair(1), scores([3, 0], [0, 4]))
    change = profile.set("warm", -2)
    assert change.after == pytest.approx({"warm": -2, "brief": -0.8})
    assert profile.weights() == change.after
    weight = Profile.open(path).table()["warm"]
    assert (weight.weight, weight.n, weight.active) == (-2, 1, True)
    assert weight.learned == pytest.approx(0.6)
    profile.add(pair(2), scores([0, 0], [3, 0]))  # sum d = (0, -4)
    assert profile.weights() == pytest.approx({"warm": -2, "brief": -1})
    assert profile.table()["warm"].learned == 0
    profile.set("warm", None)
    assert profile.weights() == pytest.approx({"brief": -1})
    assert profile.table()["warm"].learned is None


def test_a_weight_set_by_hand_needs_no_model(path: Path) -> None:
    profile = Profile.open(path)
    profile.set("concise", 0.8)
    assert Profile.open(path).weights() == {"concise": 0.8}
    # and the sLM that comes later is taken.
    profile = Profile.open(path, slm=NANO)
    profile.add(pair(1), scores([1.0] * 41, [0.0] * 41))
    assert Profile.open(path).slm == NANO
    assert Profile.open(path).weights()["concise"] == 0.8


def test_a_small_weight_set_by_hand_is_used(path: Path) -> None:
    pool = Attributes("Base.", [Attribute(f"a{i}", f"You are a{i}.") for i in range(10)])
    profile = Profile.open(path, slm=NANO, attributes=pool)
    profile.add(pair(1), scores([10.0 - i for i in range(10)], [0.0] * 10))
    assert list(profile.weights()) == [f"a{i}" for i in range(7)]
    profile.set("a9", 0.01)
    assert list(profile.weights()) == [*(f"a{i}" for i in range(6)), "a9"]
    profile.pin("a8")
    assert set(profile.weights()) == {*(f"a{i}" for i in range(5)), "a8", "a9"}
    profile.set("a0", 0)  # set to 0 is out
    assert set(profile.weights()) == {*(f"a{i}" for i in range(1, 6)), "a8", "a9"}
    profile.configure(active=2)
    assert set(profile.weights()) == {"a8", "a9"}
    with pytest.raises(UsageError, match="2 attributes are pinned or set by hand, but only 1 may be active"):
        profile.configure(active=1)
    assert Profile.open(path).settings.active == 2
    profile.unpin("a8")
    assert set(profile.weights()) == {"a1", "a9"}


def test_blocked_is_out_of_decoding_but_scored(path: Path) -> None:
    profile = fresh(path)
    profile.configure(renormalise=False)
    profile.block("brief")
    profile.add(pair(1), scores([3, 0], [0, 4]))
    assert profile.weights() == pytest.approx({"warm": 0.6})
    assert profile.table()["brief"].weight == pytest.approx(-0.8)
    profile.set("brief", 1)  # neither way
    assert list(profile.weights()) == ["warm"]
    profile.set("brief", None)
    profile.allow("brief")
    assert profile.weights() == pytest.approx({"warm": 0.6, "brief": -0.8})
    with pytest.raises(UsageError, match="pinned and blocked at once"):
        profile.block("warm"), profile.pin("warm")
    assert profile.settings.pinned == ()


def test_conspiracy_and_sycophant_are_blocked_until_they_are_allowed(path: Path) -> None:
    pool = Attributes.builtin()
    profile = Profile.open(path, slm=NANO)
    W = [5.0 if name in ("conspiracy", "sycophant", "concise") else 0.0 for name in pool]
    profile.add(pair(1), scores(W, [0.0] * 41))
    assert list(profile.weights()) == ["concise"]
    profile.allow("sycophant")
    assert set(profile.weights()) == {"concise", "sycophant"}


def test_renormalised_weights_have_length_one(path: Path) -> None:
    pool = Attributes("Base.", [Attribute(f"a{i}", f"You are a{i}.") for i in range(3)])
    profile = Profile.open(path, slm=NANO, attributes=pool)
    profile.add(pair(1), scores([3, 4, 12], [0, 0, 0]))
    profile.configure(active=2, renormalise=False)
    assert profile.weights() == pytest.approx({"a2": 12 / 13, "a1": 4 / 13})
    profile.configure(renormalise=True)
    length = math.hypot(12, 4)
    assert profile.weights() == pytest.approx({"a2": 12 / length, "a1": 4 / length})
    assert profile.table()["a0"].weight == pytest.approx(3 / length)
    assert load_weights(path, pool) == profile.weights()
    # What is set by hand stays as it was set; what is learned has length 1 by itself.
    profile.set("a0", 0.25)
    assert profile.weights() == pytest.approx({"a2": 1, "a0": 0.25})
    assert profile.table()["a0"].learned == pytest.approx(3 / 12)
    assert Profile.open(path, slm=NANO, attributes=pool).weights() == profile.weights()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda p: p.set("nice", 1), "unknown attribute 'nice'"),
        (lambda p: p.set("warm", math.nan), "expected a number within ±1000, got nan"),
        (lambda p: p.set("warm", math.inf), "got inf"),
        (lambda p: p.set("warm", "1"), "got '1'"),
        (lambda p: p.pin("warm", "nice"), "unknown attribute 'nice'"),
        (lambda p: p.block("nice"), "unknown attribute 'nice'"),
        (lambda p: p.configure(beta=0), "beta: expected a number over 0"),
        (lambda p: p.configure(beta=math.inf), "beta: expected a number over 0"),
        (lambda p: p.configure(strength=1.1), "strength: expected a number from 0"),
        (lambda p: p.configure(strength=math.nan), "strength: expected a number from 0"),
        (lambda p: p.configure(beta=0.5, strength=0.5), "beta and strength exclude each other"),
        (lambda p: p.configure(active=0), "active: expected a whole number"),
        (lambda p: p.configure(reduction="max"), "reduction: expected one of sum, mean, sqrt, got 'max'"),
        (lambda p: p.configure(estimator="best"), "estimator: expected one of closed-form"),
        (lambda p: p.configure(half_life=0.5), "half_life: expected a number of choices, 1 or more"),
        (lambda p: p.configure(half_life=math.nan), "half_life: expected"),
        (lambda p: p.configure(renormalise="yes"), "renormalise: expected true or false, got 'yes'"),
        (lambda p: p.configure(journal=1), "journal: expected true or false"),
        (lambda p: p.add(pair(9), scores([1], [2])), "s_0 and 2 attributes, got 2"),
        (lambda p: p.rebuild({"0000": scores([1, 1], [0, 0])}), "there is no choice '0000'"),
        (lambda p: p.rebuild({pair(0).id: scores([1], [0])}), "s_0 and 2 attributes, got 2"),
    ],
)
def test_changes_that_are_refused(change: Any, expected: str, path: Path) -> None:
    profile, *_ = learned(path)
    before = texts(path.parent)
    with pytest.raises(UsageError, match=expected):
        change(profile)
    assert texts(path.parent) == before
    assert profile.to_dict() == Profile.open(path).to_dict()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite(bad: float) -> None:
    with pytest.raises(UsageError, match="expected finite log-probabilities"):
        PairScores(np.array([-1, bad]), np.array([-1.0, -2]), 1, 1)


# -- another sLM, other prompts


def test_a_profile_of_another_slm_is_refused(path: Path) -> None:
    learned(path)
    before = path.read_bytes()
    with pytest.raises(ProfileMismatchError) as caught:
        Profile.open(path, slm=OTHER)
    assert "made with the sLM 'nano' (0123456789abcdef), not 'other' (fedcba9876543210)" in str(caught.value)
    assert "profile rebuild" in str(caught.value)
    assert caught.value.exit_code == 3
    assert Profile.open(path, slm=SLM("renamed", NANO.fingerprint)).n == 4
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (Attributes("Other.", POOL.values()), "another base prompt"),
        (POOL.extended([Attribute("warm", "You are very warm.")]), "another prompt of 'warm'"),
        (POOL.extended([Attribute("pirate", "Arr.")]), "no attribute 'pirate'"),
        (Attributes("Base.", [POOL["warm"]]), "an attribute 'brief'"),
    ],
)
def test_a_profile_of_other_prompts_is_refused(pool: Attributes, expected: str, path: Path) -> None:
    learned(path)
    with pytest.raises(ProfileMismatchError, match=f"made with {expected}"):
        Profile.open(path, attributes=pool)


def test_a_profile_scored_by_other_lengths_is_refused(path: Path) -> None:
    learned(path)
    before = path.read_bytes()
    expected = "made with up to 500 tokens of each response, not 300: .*`drift-edge profile rebuild --text-length 300`"
    with pytest.raises(ProfileMismatchError, match=expected):
        Profile.open(path, slm=NANO, text_length=300)
    with pytest.raises(ProfileMismatchError, match=r"the sLM 'nano'.*rebuild --text-length 300`"):
        Profile.open(path, slm=OTHER, text_length=300)
    assert path.read_bytes() == before
    assert Profile.open(path, slm=NANO, text_length=500).text_length == 500
    with pytest.raises(UsageError, match="text_length: expected 1 token or more, got 0"):
        Profile.open(path, text_length=0)


def test_a_text_length_stays_with_the_choices(path: Path) -> None:
    profile = Profile.open(path, slm=NANO, attributes=POOL, text_length=300)
    profile.pin("warm")  # a change, but no choice
    assert Profile.open(path).text_length == 300
    profile = Profile.open(path, text_length=200)
    profile.add(pair(1), scores([1, 0], [0, 0]))
    path.unlink()  # the journal knows it too
    assert Profile.open(path, text_length=200).n == 1
    profile.reset()
    assert Profile.open(path, text_length=100).text_length == 100


def test_rebuilding_for_another_length(path: Path) -> None:
    profile = Profile.open(path, slm=NANO, attributes=POOL)
    profile.add(pair(1), scores([3, 0], [0, 4]))
    with pytest.raises(UsageError, match="text_length"):
        profile.rebuild({}, text_length=0)
    profile.rebuild({pair(1).id: scores([0, 1], [0, 0])}, text_length=3)
    found = Profile.open(path, slm=NANO, text_length=3)
    assert found.to_dict() == profile.to_dict()
    assert found.weights() == pytest.approx({"brief": 1})
    found.rebuild({pair(1).id: scores([1, 0], [0, 0])})
    assert found.text_length == 3


def test_a_profile_keeps_its_prompts(path: Path) -> None:
    learned(path)
    attributes = Profile.open(path).attributes
    assert (attributes.base, dict(attributes)) == (POOL.base, dict(POOL))


def test_without_choices_it_goes_with_any(path: Path) -> None:
    profile = fresh(path)
    profile.pin("warm")
    pool = POOL.extended([Attribute("pirate", "Arr.")])
    profile = Profile.open(path, slm=OTHER, attributes=pool)
    profile.add(pair(1), scores([0, 3, 4], [0, 0, 0]))
    found = Profile.open(path)
    assert found.slm == OTHER
    assert list(found.attributes) == ["warm", "brief", "pirate"]
    assert found.weights() == pytest.approx({"pirate": 0.8, "brief": 0.6})
    assert found.settings.pinned == ("warm",)
    profile.undo()
    Profile.open(path, slm=NANO, attributes=POOL).add(pair(2), scores([3, 0], [0, 4]))
    found = Profile.open(path)
    found.configure(reduction="mean")  # counts anew, from the journal
    assert found.slm == NANO
    assert found.weights() == pytest.approx({"warm": 0.6, "brief": -0.8})


def test_rebuilding_for_another_slm_and_pool(path: Path) -> None:
    profile, *_ = learned(path, 3)
    profile.extend([(pair(7, tie=True), None), (pair(8), None)])
    profile.pin("warm")
    profile.set("warm", 0.3)
    profile.block("brief")
    pool = Attributes("New.", [Attribute("brief", "Be brief."), Attribute("bold", "Be bold.")])
    new = {pair(0).id: scores([3, 0], [0, 4]), pair(8).id: scores([0, 1], [0, 1])}
    profile = Profile.open(path)
    times = [choice.time for choice in profile.choices()]
    change = profile.rebuild(new, slm=OTHER, attributes=pool)
    assert set(change.ids) == set(new)
    found = Profile.open(path, slm=OTHER, attributes=pool)
    assert found.to_dict() == profile.to_dict()
    assert (found.n, found.ties, found.pending) == (2, 1, 2)
    # (0.6, -0.8), scaled so that what is active has length 1
    assert {name: w.weight for name, w in found.table().items()} == pytest.approx({"brief": 0.75, "bold": -1})
    assert found.settings.pinned == ()
    assert found.settings.fixed == {}
    assert list(found.weights()) == ["bold"]  # the block holds
    assert [choice.time for choice in found.choices()] == times
    found.add(pair(1), scores([1, 1], [0, 0]))
    assert (found.n, found.pending) == (3, 1)


def test_a_pending_choice_is_of_the_slm_it_was_made_with(path: Path) -> None:
    fresh(path).add(pair(1))
    with pytest.raises(ProfileMismatchError):
        Profile.open(path, slm=OTHER)
    profile = Profile.open(path)
    profile.rebuild({}, slm=OTHER)
    assert Profile.open(path, slm=OTHER).pending == 1


def test_choices_need_an_slm(path: Path) -> None:
    with pytest.raises(UsageError, match="knows no sLM"):
        Profile.open(path, attributes=POOL).add(pair(1))


# -- without a journal


def test_numbers_alone(path: Path) -> None:
    profile = fresh(path, journal=False)
    profile.add(pair(1), scores([3, 0], [0, 4]))
    profile.add(pair(2, tie=True))
    assert (profile.n, profile.ties) == (1, 1)
    assert Profile.open(path).weights() == pytest.approx({"brief": -0.8, "warm": 0.6})
    assert b"Question" not in texts(path.parent)
    assert not path.with_suffix(".jsonl").exists()
    assert list(profile.choices()) == []
    for refused in (
        lambda: profile.add(pair(3)),
        lambda: profile.undo(),
        lambda: profile.forget("x"),
        lambda: profile.rebuild({}),
        lambda: profile.configure(estimator="ridge-bt"),
        lambda: fresh(path, journal=True),
    ):
        with pytest.raises(UsageError, match="journal"):
            refused()
    with pytest.raises(ProfileError, match="counted without being kept"):
        profile.configure(reduction="mean")
    assert Profile.open(path).to_dict() == profile.to_dict()
    profile.reset()
    assert Profile.open(path).n == 0
    assert Profile.open(path).settings.journal is False


def test_turning_the_journal_off_erases_it(path: Path) -> None:
    profile, *_ = learned(path)
    weights = profile.weights()
    profile.add(pair(9))
    with pytest.raises(UsageError, match="1 choices are not scored yet"):
        profile.configure(journal=False)
    profile.undo()
    profile.configure(journal=False)
    assert b"Question" not in texts(path.parent)
    assert Profile.open(path).weights() == weights
    profile.add(pair(5), scores([1, 1], [0, 0]))
    profile.configure(journal=True)
    profile.add(pair(6), scores([3, 0], [0, 4]))
    found = Profile.open(path)
    assert found.n == 6
    assert [choice.id for choice in found.choices()] == [pair(6).id]
    # What was counted before the journal began stays, whatever is forgotten.
    profile.undo()
    assert Profile.open(path).n == 5
    np.testing.assert_allclose(profile.statistics.sum_d, found.statistics.sum_d - [3, -4], atol=1e-12)
    with pytest.raises(ProfileError, match="counted without being kept"):
        profile.rebuild({})
    with pytest.raises(ProfileError, match="needs the choices themselves, but the journal has 0 of 5"):
        profile.configure(estimator="ridge-bt")
    assert Profile.open(path).settings.estimator == "whitened"


# -- to other places


def test_a_profile_is_a_weights_file_of_what_is_active(path: Path) -> None:
    profile = fresh(path)
    profile.add(pair(1), scores([3, 0], [0, 4]))
    assert load_weights(path, POOL) == profile.weights()
    profile.block("brief")
    assert load_weights(path, POOL) == pytest.approx({"warm": 1})


@pytest.mark.parametrize("choices", [True, False])
def test_export_and_import(choices: bool, path: Path, tmp_path: Path) -> None:
    profile, *_ = learned(path)
    profile.extend([(pair(8), None), (pair(9, tie=True), None)])
    profile.pin("warm")
    out = tmp_path / "out.json"
    profile.export(out, choices=choices)
    assert out.stat().st_mode & 0o777 == 0o600
    assert (b"Question" in out.read_bytes()) == choices
    assert load_weights(out, POOL) == profile.weights()
    there = tmp_path / "there.json"
    found = Profile.import_from(out, there)
    assert found.weights() == profile.weights()
    assert found.settings == profile.settings
    assert [choice.id for choice in found.choices()] == ([c.id for c in profile.choices()] if choices else [])
    assert found.pending == (1 if choices else 0)
    found = Profile.open(there, slm=NANO)
    found.add(pair(20), scores([1, 1], [0, 0]))
    assert Profile.open(there).n == 5
    with pytest.raises(UsageError, match="there is a profile already"):
        Profile.import_from(out, there)
    assert Profile.import_from(out, there, replace=True).n == 4
    assert Profile.open(there).n == 4
    with pytest.raises(UsageError, match="the profile itself"):
        profile.export(path)


def test_import_of_what_is_none(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    profile, *_ = learned(path)
    profile.export(out)
    data = json.loads(out.read_text())
    damages: list[tuple[Any, str]] = [
        ("{", "not valid JSON"),
        ({**data, "choices": data["choices"][1:]}, r"at \$.choices\[0\]: expected the journal's beginning"),
        ({**data, "choices": [*data["choices"], 5]}, r"at \$.choices\[5\]: damaged"),
        ({**data, "choices": 5}, r"at \$.choices: expected list, got int"),
        ({**data, "beta": 0}, r"at \$.beta: expected a number over 0"),
    ]
    pair_damaged = json.loads(out.read_text())
    pair_damaged["choices"][1]["pair"]["chosen"] = 5
    damages.append((pair_damaged, r"at \$.choices\[1\]: at \$.pair.chosen: expected text, got a number"))
    for damaged, expected in damages:
        out.write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
        with pytest.raises(ProfileError, match=expected):
            Profile.import_from(out, tmp_path / "new.json")
        assert not (tmp_path / "new.json").exists()
    with pytest.raises(ProfileError, match="there is no such file"):
        Profile.import_from(tmp_path / "none.json", tmp_path / "new.json")


def test_delete_says_what_is_gone(path: Path) -> None:
    profile, *_ = learned(path)
    profile.pin("warm")
    (path.parent / "another.json").write_text("{}")
    (path.parent / ".me.json.new").write_text("left by a killed program")
    gone = profile.delete()
    assert {p.name for p in gone} == {
        "me.json",
        "me.json.bak",
        "me.jsonl",
        "me.json.lock",
        "me.json.lock.turn",
        ".me.json.new",
    }
    assert [p.name for p in path.parent.iterdir()] == ["another.json"]
    assert (profile.exists, profile.n, profile.weights()) == (False, 0, {})
    assert profile.delete() == ()
    assert [p.name for p in path.parent.iterdir()] == ["another.json"]
    profile.add(pair(1), scores([3, 0], [0, 4]))
    assert Profile.open(path).n == 1


# -- told


def test_the_page_names_every_field(path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "profile.md").read_text(encoding="utf-8")
    section = page.partition("## The profile\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    profile, *_ = learned(path)
    assert re.findall(r"`(\w+)`", " ".join(rows)) == list(profile.to_dict())
