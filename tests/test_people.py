"""People who change, questions that are chosen, annotators, and two runs compared. No model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from drift_edge.preferences import PreferencePair
from drift_edge.rewards import PairScores
from experiments import annotators, changing, choosing, ranking
from experiments.world import DRIFT, LENGTH, TIE, Person, judge
from tests.test_world import world


def taste(**likes: float) -> Person:
    """Somebody who likes attributes by their places, and the topic."""
    liked = np.zeros(LENGTH + 2)
    for place, size in likes.items():
        liked[int(place[1:])] = size
    liked[-1] = 1
    return Person(liked)


def test_a_change_is_forgotten_sooner_with_decay() -> None:
    made, rng = world(noise=0.1), np.random.default_rng(0)
    before, after = taste(a3=1.0, a5=0.7), taste(a3=-1.0, a9=0.7)
    streams = [changing.judged(made, person, rng, 60) for person in (before, after)]
    tests = [judge(made, person, rng, 200, test=True, noise=False) for person in (before, after)]
    curves = changing.curves(made.rewards[:, :, DRIFT], streams, tests)
    found = dict(zip((*changing.ways(), changing.ANEW), curves, strict=True))
    at = {n: i for i, n in enumerate(changing.AT)}
    plain, decayed, anew = (np.array(found[name]) for name in (changing.NONE, "half-life 10", changing.ANEW))
    assert plain[at[60]] > 0.9 > 0.5 > plain[at[65]]  # what was liked most is disliked now
    assert plain[: at[60] + 1] == pytest.approx(anew[: at[60] + 1])
    assert decayed[at[100]] > plain[at[100]] + 0.1
    assert anew[at[100]] > 0.8


def test_who_has_few_pairs_judges_some_again() -> None:
    made, rng = world(), np.random.default_rng(0)
    person = taste(a3=1.0)
    few = len(judge(made, person, rng, 10**6, test=False, noise=False).question)
    again = changing.judged(made, person, rng, few + 5)
    assert len(again.question) == few + 5
    assert not made.test[again.question].any()


def test_back_at_the_old_level_by_hand() -> None:
    curve = np.full(len(changing.AT), 0.8)
    curve[changing.OLD + 1 :] = np.minimum(0.6 + 0.05 * np.arange(len(curve) - changing.OLD - 1), 0.8)
    assert changing.back_after(curve, 0.8) == 25  # 0.6 after 5 pairs, 0.65, 0.7, 0.75, and 0.8; asked is 0.76
    assert changing.back_after(curve, 0.9) is None


def test_chosen_questions_teach_sooner() -> None:
    found = choosing.measured(world(noise=0.1), 4, "report", TIE)
    assert all(values.shape == (4, choosing.DRAWS, len(choosing.AFTER)) for values in found.values())
    random, active = (found[name].mean(axis=(0, 1)) for name in (choosing.RANDOM, choosing.ACTIVE))
    assert active[-1] > random[-1] + 0.02


def test_a_tie_is_a_question_that_teaches_nothing() -> None:
    made, rng = world(), np.random.default_rng(0)
    person = taste(a3=1.0, a5=-0.7, a9=0.8)
    pool, test = (judge(made, person, rng, 80, test=test, noise=False, least=0.0) for test in (False, True))
    leads = np.abs(pool.leads(made.features) @ person.taste)
    assert (leads < TIE).any()
    for way in choosing.WAYS.values():
        found = choosing.ask(made.rewards[:, :, DRIFT], pool, np.ones(80, bool), test, way)
        assert found == [0.5] * len(choosing.AFTER)


def test_share_of_questions_by_hand() -> None:
    random, active = (np.interp(choosing.AFTER, (0, 60), (0.5, top)) for top in (0.62, 0.74))
    assert choosing.share_needed(random, active, 40) == pytest.approx(0.5)  # 0.58: after 40, and after 20
    assert choosing.share_needed(active, random, 40) == np.inf  # 0.66 is never reached
    scores = {name: np.tile(curve, (3, 2, 1)) for name, curve in zip(choosing.WAYS, (random, active), strict=True)}
    assert choosing.needed(scores, seed=1)["20"] == pytest.approx([0.5] * 3)


def pair(question: str, chosen: str, rejected: str, *, tie: bool = False) -> PreferencePair:
    return PreferencePair(({"role": "user", "content": question},), chosen, rejected, tie=tie)


def scores(W: list[float], L: list[float]) -> PairScores:
    zero = [np.zeros(1)]
    chosen, rejected = (np.concatenate([*zero, np.resize(x, LENGTH)]) for x in (W, L))
    return PairScores(chosen, rejected, 4, 4)


def test_the_others_choice_by_hand() -> None:
    mine = [(pair("x", "a", "b"), scores([1.0], [0.0])), (pair("x", "c", "b"), scores([1.0], [0.0]))]
    others = [pair("x", "a", "b"), pair("x", "a", "b", tie=True), pair("x", "b", "c"), pair("y", "c", "b")]
    assert annotators.as_others(mine, others) == 0.5  # the first alike, the second not
    assert annotators.as_others(mine, []) == 0.5


def test_pairs_of_the_same_instruction_are_not_learned_from() -> None:
    # Where instruction x alone tells that the first attributes are liked, nothing is known of its own pairs.
    x = [(pair("x", "a", str(i)), scores([1.0, -1.0], [0.0])) for i in range(3)]
    y = [(pair("y", "a", str(i)), scores([-1.0, 1.0], [0.0])) for i in range(3)]
    assert annotators.by_other_instructions(x, x, ("closed-form", "sum")) == 0.5
    assert annotators.by_other_instructions([*x, *y], [*x, *y], ("closed-form", "sum")) == 0.0
    assert annotators.by_other_instructions(x, [*x, *x, *y], ("closed-form", "sum")) == 0.0


def test_two_runs_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(name: str, chosen: str, **means: float) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        accuracy = {method: {"mean": [mean, mean + 0.1], "half": [0.01, 0.03]} for method, mean in means.items()}
        facts = {"seed": name, "chosen": chosen, "accuracy": accuracy}
        (folder / "few.json").write_text(json.dumps(facts))
        return folder

    first = run("one", "whitened", a=0.7, b=0.69, c=0.6)

    def told(second: Path) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            ranking.main([str(first), str(second)])
        return int(str(end.value.code)), capsys.readouterr().out

    code, out = told(run("two", "whitened", a=0.7, b=0.72, c=0.6))  # within the intervals, 0.02 on the whole
    assert (code, "1 swapped" in out, "beyond" in out) == (0, True, False)
    assert "best a and b; Kendall's tau 0.33" in out  # one of three pairs: 1 - 2/3
    code, out = told(run("three", "whitened", a=0.6, b=0.7, c=0.7))
    assert code == 1
    assert "beyond the intervals: a and c" in out
    assert "a and b" not in out.split("few, accuracy")[1].split("beyond")[1].split("\n")[0]
    code, out = told(run("four", "closed-form", a=0.7, b=0.69, c=0.6))
    assert (code, "whitened, and closed-form" in out) == (1, True)
