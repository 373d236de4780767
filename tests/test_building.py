"""Persona data: models as judges, scripted judges of the built-in pair's answers, and the file of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import Llama

from drift_edge import CancelToken, Drift, building
from drift_edge.building import Built, PersonaJudge, Records, build
from drift_edge.errors import ContextOverflowError, DriftError, PreferencesError, UsageError
from drift_edge.llama.model import Model
from drift_edge.preferences import read_pairs
from drift_edge.verdict import Verdict
from tests import tiny

PERSONA, QUESTION = "You {answer} are terse.", "How do I {question} make tea?"
MADE: dict[str, object] = {"judge": "j", "llm": "w", "seed": 3}


@dataclass
class Shorter:
    """Likes short answers, by the letter; raises where a question is on its list."""

    hard: tuple[str, ...] = ()
    seen: list[tuple[str, str, str]] = field(default_factory=list)

    def score(self, persona: str, question: str, answer: str) -> float:
        if question in self.hard:
            raise ContextOverflowError("too long for me")
        self.seen.append((persona, question, answer))
        return -len(answer) if persona == "short" else 2.5


# -- a model as the judge


def test_a_score_is_the_mean_over_the_numbers(tmp_path: Path) -> None:
    """llama-cpp-python's own class, given the same text, gives the same mean."""
    path = tiny.write(tmp_path / "judge.gguf", tiny.byte_bpe(), n_ctx=2_048)
    with Model(path) as model, PersonaJudge(model, n_ctx=2_048) as judge:
        score = judge.score(PERSONA, QUESTION, "Boil {water}.")
        assert judge.score(PERSONA, QUESTION, "Something else") != score
        assert judge.score(PERSONA, QUESTION, "Boil {water}.") == pytest.approx(score, abs=1e-6)
        format = judge._verdict._format
        before, rest = building._ASKED.split("{question}")
        between, behind = rest.split("{answer}")
        asked = f"{before}{QUESTION}{between}Boil {{water}}.{behind}"
        messages = [{"role": "system", "content": PERSONA}, {"role": "user", "content": asked}]
        ids, beginnings = format.encode(messages, None, {}), judge._verdict.beginnings
    llama = Llama(str(path), n_ctx=2_048, n_batch=2_048, logits_all=True, flash_attn=False, verbose=False)
    llama.eval(ids)
    p = np.exp(llama.scores[len(ids) - 1].astype(np.float64))
    llama.close()
    weights = [p[ids].sum() for ids in beginnings]
    assert score == pytest.approx(np.average([1, 2, 3, 4, 5], weights=weights), abs=1e-3)


@pytest.mark.parametrize("number", [1, 4])
def test_a_model_that_says_a_number(number: int, tmp_path: Path) -> None:
    vocab = tiny.byte_bpe()
    path = tiny.write_script(
        tmp_path / "j.gguf", vocab, {vocab.id("<|assistant|>"): vocab.id(str(number))}, n_ctx=2_048
    )
    with Model(path) as model, PersonaJudge(model, n_ctx=2_048) as judge:
        assert judge.score(PERSONA, QUESTION, "Boil water.") == pytest.approx(number, abs=1e-9)
        with pytest.raises(ContextOverflowError):
            judge.score(PERSONA, QUESTION, "tea " * 4_000)
        with pytest.raises(UsageError, match="'yes' and 'yell' begin with one token"):
            Verdict(model, ("yes", "no", "yell"), n_ctx=64)


# -- building


def test_the_best_and_the_worst_make_a_pair(builtin: Drift) -> None:
    judge, questions = Shorter(), ["How do I make tea?", "Is a garden worth it?"]
    first = list(build(builtin, judge, ["short", "any"], questions, answers=4, seed=5, max_tokens=40))
    assert [(b.gold_persona, b.prompt) for b in first] == [(p, q) for q in questions for p in ("short", "any")]
    for built in first:
        answers = [
            answer
            for persona, question, answer in judge.seen
            if (persona, question) == (built.gold_persona, built.prompt)
        ]
        assert len(set(answers)) == 4
        if built.gold_persona == "short":
            assert (built.win, built.lose) == (min(answers, key=len), max(answers, key=len))
            assert (built.win_score, built.lose_score) == (-len(built.win), -len(built.lose))
        else:  # a tie, of two that differ
            assert (built.win_score, built.lose_score) == (2.5, 2.5)
            assert built.win != built.lose
    # The answers depend on question and seed alone.
    again = list(build(builtin, Shorter(), ["short"], questions[1:], answers=4, seed=5, max_tokens=40))
    assert again == [built for built in first if (built.gold_persona, built.prompt) == ("short", questions[1])]
    other = list(build(builtin, Shorter(), ["short"], questions[1:], answers=4, seed=6, max_tokens=40))
    assert other[0].win != again[0].win or other[0].lose != again[0].lose


def test_what_is_known_is_not_made_again(builtin: Drift) -> None:
    judge = Shorter()
    known = {("short", "A?"), ("any", "A?"), ("short", "B?")}
    made = list(build(builtin, judge, ["short", "any"], ["A?", "B?"], answers=2, max_tokens=12, known=known))
    assert [(built.gold_persona, built.prompt) for built in made] == [("any", "B?")]
    assert {(persona, question) for persona, question, _ in judge.seen} == {("any", "B?")}


def test_one_question_that_fails_stops_no_other(builtin: Drift, monkeypatch: pytest.MonkeyPatch) -> None:
    made = list(build(builtin, Shorter(("A?",)), ["short"], ["A?", "B?"], answers=2, max_tokens=12))
    assert [built.why for built in made] == ["too long for me", ""]
    long = "tea " * 6_000  # for the LLM
    made = list(build(builtin, Shorter(), ["short", "any"], [long, "B?"], answers=2, max_tokens=12))
    assert ["context" in built.why for built in made] == [True, True, False, False]
    complete = builtin.complete
    monkeypatch.setattr(
        builtin,
        "complete",
        lambda messages, **more: complete(messages, **{**more, "seed": 1, "attempt": 0, "steer": "off"}),
    )
    (alike,) = build(builtin, Shorter(), ["short"], ["B?"], answers=2, max_tokens=12)
    assert alike.why == "6 tries gave 1 different answers, not 2"


def test_cancelled_within_an_answer(builtin: Drift) -> None:
    cancel = CancelToken()
    work = build(builtin, Shorter(), ["short"], ["A?", "B?"], answers=2, max_tokens=12, cancel=cancel)
    assert next(work).prompt == "A?"
    cancel.cancel()
    assert list(work) == []


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"personas": [" "]}, r"personas\[0\]: expected text that is not empty"),
        ({"questions": ["A?", "\ud800"]}, r"questions\[1\]: character 1 is not Unicode"),
        ({"answers": 1}, "answers: expected a whole number from 2 to 39"),
        ({"answers": 99}, "answers: expected a whole number from 2 to 39"),
        ({"max_tokens": 0}, "max_tokens: expected a whole number, 1 or more, got 0"),
    ],
)
def test_bad_arguments(bad: dict[str, Any], told: str, builtin: Drift) -> None:
    given: dict[str, Any] = {"personas": ["short"], "questions": ["A?"], **bad}
    with pytest.raises(UsageError, match=told):
        build(builtin, Shorter(), **given)


# -- the file


def pairs(n: int) -> list[Built]:
    return [Built("a nurse", f"Question {i}, é?", f"good\u2028{i}", f"bad {i}", 4.25, 1.5) for i in range(n)]


def write(path: Path, built: list[Built], made: dict[str, object] = MADE) -> Records:
    records = Records(path, made)
    for pair in built:
        records.add(pair)
    return records


def test_records_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    write(path, [*pairs(3), Built("a nurse", "Z?", why="too long")])
    read = read_pairs(path)
    assert (read.format, read.users, len(read.pairs), read.skipped) == ("perspective", ("a nurse",), 3, ())
    assert (read.pairs[1].messages[-1]["content"], read.pairs[1].chosen) == ("Question 1, é?", "good\u20281")
    assert Records(path, MADE).known == {("a nurse", f"Question {i}, é?") for i in range(3)}


@pytest.mark.parametrize("cut", [1, 5, 17, 40, 100])
def test_a_torn_line_is_written_anew(cut: int, tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    write(whole, pairs(3))
    lines = whole.read_bytes().splitlines(keepends=True)
    torn.write_bytes(b"".join(lines[:2]) + lines[2][:cut])
    records = Records(torn, MADE)
    assert len(records.known) == 2
    records.add(pairs(3)[2])
    assert torn.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("my notes\n", "line 1: no record of this command"),
        ("my notes", "holds no records of this command"),
        ('{"prompt": "A?", "chosen": "b"}\n', "line 1: no record of this command"),
        ('["gold_persona"]\n', "line 1: no record of this command"),
        (
            '{"gold_persona": "a", "prompt": "A?", "win": "b", "lose": "c"}\n',
            "line 1: made in another way .nobody knows how",
        ),
        ("\n", "line 1: no record"),
    ],
)
def test_another_file_is_left_alone(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    with pytest.raises(PreferencesError, match=told):
        Records(path, MADE)
    assert path.read_text() == text


def test_records_of_another_run_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    write(path, pairs(1))
    with pytest.raises(
        PreferencesError, match=r"made in another way \(judge j, llm w, seed 3, not judge j, llm w, seed 4\)"
    ):
        Records(path, {**MADE, "seed": 4})


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.jsonl"
    records = write(path, pairs(1))
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(building, "append", full)
        with pytest.raises(DriftError, match=r"p.jsonl: cannot be written: No space left on device"):
            records.add(pairs(2)[1])
    assert path.read_bytes() == before
    assert ("a nurse", "Question 1, é?") not in records.known
    records.add(pairs(2)[1])
    assert [json.loads(line)["prompt"] for line in path.read_text("utf-8").split("\n")[:-1]] == [
        "Question 0, é?",
        "Question 1, é?",
    ]
    with pytest.raises(DriftError, match="cannot be written"):
        Records(tmp_path / "not-there" / "p.jsonl", MADE)
