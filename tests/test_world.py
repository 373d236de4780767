"""The world of people and what is counted in it, on answers whose features are made up. No model is loaded."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from drift_edge.attributes import Attributes
from drift_edge.models.nano.corpus.reader import marker
from experiments import cases as cases_command
from experiments import cost, few_shot, generation, junk, kept, wins
from experiments.modelling import Case, cases, interval, learned, right
from experiments.world import ANSWERS, DRIFT, LENGTH, POOL, TEMPERATURE, TOPIC, Person, World, ask, features_of, judge

SHAPE = (80, ANSWERS)


def world(seed: int = 1, noise: float = 0.3) -> World:
    """Answers that show 0 to 4 attributes, with rewards of +2 for those shown, a common mode and noise."""
    print("seed", seed)
    rng = np.random.default_rng(seed)
    features = np.zeros((*SHAPE, LENGTH + 2))
    features[..., :LENGTH] = rng.random((*SHAPE, LENGTH)) < 2 / LENGTH
    features[..., TOPIC] = rng.random(SHAPE) < 0.9
    rewards = rng.normal(size=(*SHAPE, 1)) + noise * rng.normal(size=(*SHAPE, len(POOL)))
    rewards[..., DRIFT] += 2 * features[..., :LENGTH]
    test, tokens = np.arange(SHAPE[0]) % 2 == 1, rng.integers(5, 60, SHAPE)
    return World(seed, (Path("llm"), Path("slm")), "made up", ask(SHAPE[0], seed), [], test, features, rewards, tokens)


def test_features_are_read_off_the_text() -> None:
    question = ask(1, 1)[0]
    short = features_of(question, " ".join(["Blah"] * 30))
    assert short == [0.0] * (LENGTH + 2)  # no mark, 30 words, not a word of the topic
    assert features_of(question, " ".join(["Blah"] * 40))[LENGTH] == 0.5
    assert features_of(question, " ".join(["Blah"] * 900))[LENGTH] == 1.5
    topical = features_of(question, f"{question.topic.noun} lol".capitalize())
    assert topical[TOPIC] == 1
    assert topical[:LENGTH] == [
        marker(name, f"{question.topic.noun} lol".capitalize()) for name in Attributes.builtin()
    ]


def test_held_out_choices_follow_the_taste_and_training_has_other_questions() -> None:
    made, rng = world(), np.random.default_rng(0)
    person = Person.draw(rng)
    assert 3 <= np.count_nonzero(person.taste[:LENGTH]) <= 5
    train, test = (judge(made, person, rng, 10**6, test=test, noise=False) for test in (False, True))
    assert (test.leads(made.features) @ person.taste > 0).all()
    assert (test.leads(made.features)[:, TOPIC] == 0).all()  # both keep to the topic
    assert not set(train.question) & set(test.question)


def test_noise_is_bradley_terry() -> None:
    made = world()
    taste = np.zeros(LENGTH + 2)
    taste[:20] = 0.4  # most leads are 0.4
    pairs = judge(made, Person(taste), np.random.default_rng(0), 10**6, test=False, noise=True)
    leads = pairs.leads(made.features) @ taste
    once = np.isclose(np.abs(leads), 0.4)
    assert once.sum() > 300
    assert (leads[once] > 0).mean() == pytest.approx(1 / (1 + np.exp(-0.4 / TEMPERATURE)), abs=0.06)  # 0.731


def test_what_is_learned_in_a_clear_world() -> None:
    made = world(noise=0.1)
    people = cases(made, 4, "report", noise=False, draws=2, k=100)
    case = people[0][0]
    accuracy = few_shot.by_weights(made.rewards[:, :, DRIFT], "whitened")(case)
    assert accuracy[few_shot.KS.index(100)] > 0.85 > accuracy[0]
    few = kept.by_few(made.rewards[:, :, DRIFT], "whitened")(case)
    assert few[-1] > few[0]
    p = learned(made.rewards[:, :, DRIFT], case.train, "whitened")
    liked = np.flatnonzero(case.person.taste[:LENGTH])
    assert (np.sign(p[liked]) == np.sign(case.person.taste[liked])).all()


def test_length_alone() -> None:
    made, rng = world(), np.random.default_rng(0)
    pairs = judge(made, Person.draw(rng), rng, 50, test=False, noise=False)
    made.tokens[:] = 10
    made.tokens[pairs.question, pairs.chosen] = 20
    longer = Case(Person.draw(rng), pairs.first(20), pairs)
    share = float(((d := pairs.leads(made.tokens.astype(float))) > 0).mean() + 0.5 * (d == 0).mean())
    assert few_shot.by_length(made)(longer)[-1] == pytest.approx(share)


def test_intervals_by_hand() -> None:
    values = np.array([[[0.6], [0.8]], [[0.9], [0.9]]])  # two people, two drawings
    told = interval(values)
    assert told["mean"] == pytest.approx([0.8])
    assert told["half"] == pytest.approx([1.96 * 0.1])  # 0.7 and 0.9: sd 0.1414 over sqrt 2
    assert told["over draws"] == pytest.approx([(0.1414213562 + 0) / 2])
    assert right(np.array([1.0, -1.0, 0.0, 2.0])) == 0.625


def test_win_rates_by_hand() -> None:
    def row(win: float, text: str) -> dict[str, object]:
        return {"way": "Drift", "win": win, "tie": float(win == 0.5), "on topic": 1.0, "words": 3, "text": text}

    found = wins.summed([[row(1.0, "a b c"), row(0.5, "a b c")], [row(0.5, "a b d"), row(0.0, "x y z")]])
    assert found["Drift"]["win rate"] == 0.5
    assert found["Drift"]["half"] == pytest.approx(1.96 * 0.5 / np.sqrt(2) / np.sqrt(2))  # 0.75 and 0.25
    assert found["Drift"]["tie"] == 0.5
    assert found["Drift"]["distinct-1"] == 7 / 12  # a b c d x y z
    assert found["Drift"]["distinct-2"] == 5 / 8  # ab bc bd xy yz of eight


def test_leads_over_the_default_are_by_person() -> None:
    def rows(default: float, other: float) -> list[dict[str, object]]:
        return [{"way": way, "win": win, "text": "a"} for way, win in ((wins.DEFAULT, default), ("other", other))]

    found = wins.summed([rows(1.0, 0.5), rows(0.5, 0.5)])
    assert (found["other"]["lead"], found[wins.DEFAULT]["lead"]) == (-0.25, 0)
    assert found["other"]["half of the lead"] == pytest.approx(1.96 * 0.25)  # -0.5 and 0: sd 0.3536 over sqrt 2


def test_what_is_won_by_dislikes() -> None:
    def rows(*some: float) -> list[dict[str, object]]:
        ways = {wins.DEFAULT: some, "plain": (0.5,)}
        return [{"way": way, "win": win, "tie": float(win == 0.5)} for way, several in ways.items() for win in several]

    tastes = [{"a": 0.8, "b": -0.6}, {"a": -1.0}, {"a": -0.6, "b": 0.5, "c": -0.6}]
    assert wins.by_dislikes(tastes, [rows(1, 0.5), rows(0, 0.5), rows(0.5, 0.5)]) == {
        "1": {"answers": 4, "win": 0.5, "tie": 0.5},
        "2": {"answers": 2, "win": 0.5, "tie": 1},
    }


def test_accuracy_by_taste_in_length() -> None:
    people = [Person(np.eye(LENGTH + 2)[i]) for i in (LENGTH, 0, 1, 2)]
    told = few_shot.by_taste(np.array([0.1, 0.7, 0.8, 0.9]).reshape(4, 1, 1), people)
    assert list(told) == ["in attributes alone"]  # of one person there is no interval
    assert told["in attributes alone"]["mean"] == pytest.approx([0.8])


def test_a_taste_in_words() -> None:
    taste = np.zeros(LENGTH + 2)
    names = list(Attributes.builtin())
    taste[[names.index("vivid"), names.index("easy"), names.index("formal")]] = 0.7, 0.5, -0.6
    taste[LENGTH], taste[TOPIC] = -0.4, 1
    (message,) = generation.stated(Person(taste))
    likes = ", ".join(name for name in names if name in ("vivid", "easy"))
    told = (
        f"The user likes answers that are {likes}, and does not like answers that are formal, and likes short answers."
    )
    assert message == {"role": "system", "content": told}
    only = np.zeros(LENGTH + 2)
    only[0], only[TOPIC] = -1, 1
    assert generation.stated(Person(only))[0]["content"] == f"The user does not like answers that are {names[0]}."


def test_a_taste_as_cases_tell_it() -> None:
    taste = np.zeros(LENGTH + 2)
    names = list(Attributes.builtin())
    taste[[names.index("vivid"), names.index("formal"), LENGTH, TOPIC]] = 0.7, -0.9, -0.4, 1
    assert cases_command.tasted(taste) == "formal -0.90, vivid +0.70, length -0.40"


def test_weights_of_every_sign() -> None:
    rng = np.random.default_rng(3)
    found = junk.weights_of(rng, list(Attributes.builtin()))
    positive, both, negative = (found[sign] for sign in ("positive", "both", "negative"))
    assert list(positive) == list(both) == list(negative)
    assert len(positive) == junk.WEIGHTS
    assert sum(p * p for p in both.values()) == pytest.approx(1)
    assert {p > 0 for p in both.values()} == {True, False}  # with this seed
    for name, p in both.items():
        assert (positive[name], negative[name]) == (abs(p), -abs(p))


def test_junk_by_hand() -> None:
    row = {"sign": "both", "mask": 0.0, "on topic": True, "words": 3, "KL per token": 0.5}
    rows = [
        row | {"way": "plain", "garbled": False, "gain": 0.0},
        row | {"way": "beta 0.5", "garbled": True, "gain": 1.0},
        row | {"way": "beta 0.5", "garbled": False, "gain": -0.5},
    ]
    plain, steered = junk.summed(rows)
    assert (plain["way"], plain["n"], plain["garbled"]) == ("plain", 1, 0.0)
    assert (steered["n"], steered["garbled"], steered["gain"], steered["KL per token"]) == (2, 0.5, 0.25, 0.5)


def test_what_table_3_says() -> None:
    assert [tell(4, 10.0, 1.0) for tell in cost.TOLD.values()] == [14.0, 14.0, 44.0]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all experiments, as they are meant to share it."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name", ["few_shot", "kept", "estimators", "changing", "choosing", "generation", "cost", "junk"]
)
def test_a_small_run_on_the_built_in_pair(
    name: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFT_EDGE_HOME", str(home))
    more = {"generation": ["--asked", "1", "--jobs", "1"], "junk": ["--jobs", "1"], "cost": ["--asked", "1"]}.get(
        name, []
    )
    main = import_module(f"experiments.{name}").main
    main(["--questions", "8", "--people", "2", "--out", str(tmp_path), *more])
    facts = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert facts["asked" if name in ("cost", "junk") else "questions"] == {"cost": 1, "junk": 2}.get(name, 8)
    assert "llm" in facts["models"]
    assert (tmp_path / f"{name}.png").stat().st_size > 5_000
    if name == "generation":
        assert facts["ways"]["plain"]["win rate"] == 0.5  # against itself
        assert 0 < facts["ways"]["Drift, strength 0.5"]["KL per token"] <= 1
        assert facts["ways"]["ARGS, top 10"]["words"] > 2
    if name == "cost":
        assert facts["alone"]["plain LLM"] == 1
        assert facts["times plain"]["Best-of-N"][-1] > facts["times plain"]["Drift, N attributes"][-1] > 1
    if name == "junk":
        assert {row["n"] for row in facts["rows"]} == {4}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_cases(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFT_EDGE_HOME", str(home))
    out = tmp_path / "cases.md"
    cases_command.main(["--write", "--questions", "8", "--people", "2", "--out", str(out)])
    text = out.read_text(encoding="utf-8")
    assert text.count("> **Personalised**") == text.count("> **Rejected**") == 2
