"""`Drift.learner`: choices teach, by a scorer that the engine keeps and closes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from drift_edge import Drift, PreferencePair, Profile
from drift_edge.errors import ClosedError, ProfileMismatchError, UsageError
from drift_edge.learning import learn
from tests.conftest import ASK

PAIRS = [
    PreferencePair(ASK, "With water.", "Hello, it is very good that you make the tea with water."),
    PreferencePair(ASK, "very good tea", "a tea in the world"),
]


@pytest.fixture
def drift(bpe_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drift]:
    monkeypatch.setenv("DRIFT_EDGE_HOME", str(tmp_path / "home"))
    with Drift.load(*bpe_files) as drift:
        yield drift


def test_one_by_one_teaches_what_all_at_once_do(drift: Drift, tmp_path: Path) -> None:
    learner = drift.learner(tmp_path / "one.json")
    assert learner.weights() == {}
    lessons = [learner.learn(pair) for pair in PAIRS]
    assert [lesson.counted for lesson in lessons] == [(pair.id,) for pair in PAIRS]
    assert lessons[1].before == lessons[0].after != lessons[1].after
    at_once = Profile.open(tmp_path / "all.json", slm=drift.slm, attributes=drift.attributes)
    with drift.scorer(cache=False) as scorer:
        list(learn(scorer, at_once, PAIRS, confidence=None))
    assert learner.weights() == pytest.approx(at_once.weights(), abs=1e-9)
    assert drift.complete(ASK, weights=learner.weights(), max_tokens=3).weights == learner.weights()
    assert learner.learn(PAIRS[0]).known


def test_another_number_of_attributes_leaves_what_is_set_by_hand(drift: Drift, tmp_path: Path) -> None:
    learner = drift.learner(tmp_path / "hand.json")
    for pair in PAIRS:
        learner.learn(pair)
    table = learner.profile.table()
    name = min((n for n, weight in table.items() if weight.se), key=lambda n: -(table[n].se or 0.0))
    small = (table[name].se or 0.0) / 1000  # far from sure, had it been learned
    learner.profile.set(name, small)
    assert learner.weights(learner.profile.settings.active) == pytest.approx(learner.weights())
    for active in (1, 3):
        assert learner.weights(active)[name] == small
    learner.profile.set(next(n for n in table if n != name), 0.5)
    with pytest.raises(UsageError, match="2 attributes are pinned or set by hand, but only 1 may be active"):
        learner.weights(1)


def test_the_scorer_is_kept_for_all_profiles_and_closed_with_the_engine(
    drift: Drift, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    make = Drift.scorer
    monkeypatch.setattr(Drift, "scorer", lambda self, **settings: made.append(make(self, **settings)) or made[-1])
    a, b = drift.learner("a"), drift.learner(Profile.open(tmp_path / "b.json", slm=drift.slm))
    assert not made, "a scorer costs memory, and nothing is to be scored yet"
    for learner in (a, b):
        for pair in PAIRS:
            learner.learn(pair)
    assert len(made) == 1
    assert (a.profile.n, b.profile.n) == (2, 2)
    drift.close()
    with pytest.raises(ClosedError):
        made[0].score(PAIRS[0])
    with pytest.raises(ClosedError):
        drift.learner("c").learn(PAIRS[0])
    with Drift.load(drift.pair.llm.path, drift.pair.slm.path) as again:
        caught_up = again.learner("c")
        caught_up.learn(PAIRS[1])
        assert caught_up.profile.n == 2, "the choice that could not be scored was kept"


def test_a_profile_of_another_slm_is_refused(drift: Drift, spm_files: tuple[Path, Path]) -> None:
    drift.learner("me").learn(PAIRS[0])
    with Drift.load(*spm_files) as other, pytest.raises(ProfileMismatchError):
        other.learner("me")
