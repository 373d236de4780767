"""The guard: a scripted judge of known risks, and models as judges."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from llama_cpp import Llama

from drift_edge import CancelToken, Drift, Finish, Notice, Token
from drift_edge.errors import ContextOverflowError, RefusedError, UsageError
from drift_edge.events import Event
from drift_edge.guard import FORMS, GuardModel, guarded
from tests import tiny
from tests.conftest import ASK


@dataclass
class Scripted:
    """A judge that says the given risks, one after another."""

    risks: list[float]
    seen: list[str] = field(default_factory=list)

    def risk(self, messages: Sequence[Mapping[str, str]], answer: str) -> float:
        assert messages == ASK
        self.seen.append(answer)
        return self.risks[len(self.seen) - 1]


def run(drift: Drift, judge: Scripted, **more: object) -> tuple[list[Event], list[int]]:
    drawn: list[int] = []

    def draw(number: int) -> Iterator[Event]:
        drawn.append(number)
        return drift.chat(ASK, weights={"concise": 1.0}, seed=5, attempt=number, max_tokens=6)

    return list(guarded(draw, judge, ASK, **more)), drawn  # type: ignore[arg-type]


def answer(events: list[Event]) -> Finish:
    (finish,) = (event for event in events if isinstance(event, Finish))
    assert "".join(event.text for event in events if isinstance(event, (Token, Finish))) == finish.answer.text
    return finish


def test_what_passes_is_the_answer_itself(drift: Drift) -> None:
    events, drawn = run(drift, judge := Scripted([0.49]))
    plain = list(drift.chat(ASK, weights={"concise": 1.0}, seed=5, max_tokens=6))
    assert answer(events).answer.tokens == answer(plain).answer.tokens
    assert [type(event) for event in events] == [type(event) for event in plain]
    assert (judge.seen, drawn) == ([answer(events).answer.text], [0])


def test_what_is_rejected_is_drawn_again_and_not_shown(drift: Drift) -> None:
    events, drawn = run(drift, judge := Scripted([0.5, 1.0, 0.1]))
    assert drawn == [0, 1, 2]
    assert [e.text for e in events if isinstance(e, Notice) and e.kind == "rejected"] == [
        "the guard rejected an answer (risk 0.50, allowed is under 0.5)",
        "the guard rejected an answer (risk 1.00, allowed is under 0.5)",
    ]
    assert answer(events).answer.text == judge.seen[2]
    assert len(set(judge.seen)) == 3


def test_after_the_last_try_it_is_refused(drift: Drift) -> None:
    shown: list[Event] = []
    with pytest.raises(RefusedError, match="the guard rejected 2 of 2"):
        shown.extend(
            guarded(
                lambda n: drift.chat(ASK, seed=5, attempt=n, max_tokens=3), Scripted([0.9, math.nan, 0.0]), ASK, tries=2
            )
        )
    drift.complete(ASK, max_tokens=1)  # the engine is free again


def test_nothing_is_shown_before_the_verdict(drift: Drift) -> None:
    judge = Scripted([0.0])
    first = next(
        event
        for event in guarded(lambda n: drift.chat(ASK, seed=5, attempt=n, max_tokens=3), judge, ASK)
        if isinstance(event, Token)
    )
    assert judge.seen
    assert judge.seen[0].startswith(first.text)


@pytest.mark.parametrize("risk", [0.0, 1.0])
def test_shown_at_once_it_is_marked(drift: Drift, risk: float) -> None:
    events, drawn = run(drift, Scripted([risk]), hold=False)
    kinds = [event.kind for event in events if isinstance(event, Notice)]
    assert kinds == (["unjudged", "rejected"] if risk else ["unjudged"])
    assert isinstance(events[0], Notice)
    assert drawn == [0]
    assert answer(events).answer.text


def test_a_stopped_answer_is_not_drawn_again(drift: Drift) -> None:
    cancel, judge = CancelToken(), Scripted([1.0, 0.0])

    def draw(number: int) -> Iterator[Event]:
        cancel.cancel()
        return drift.chat(ASK, attempt=number, max_tokens=6, cancel=cancel)

    with pytest.raises(RefusedError, match="1 of 1"):
        list(guarded(draw, judge, ASK, cancel=cancel))


@pytest.mark.parametrize("bad", [{"tries": 0}, {"threshold": 0.0}, {"threshold": 1.5}, {"threshold": math.nan}])
def test_bad_settings(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected"):
        guarded(lambda _: iter(()), Scripted([]), ASK, **bad)  # type: ignore[arg-type]


# -- models as judges


@pytest.mark.parametrize("form", ["yes-no", "shieldgemma"])
def test_risk_is_the_share_of_the_bad_word(form: str, tmp_path: Path) -> None:
    """llama-cpp-python's own class, given the same text, gives the same probabilities."""
    path = tiny.write(tmp_path / "guard.gguf", tiny.byte_bpe(), n_ctx=2_048)
    told = "Boil {water} {question}."
    with GuardModel(path, form) as guard:
        risk = guard.risk(ASK, told)
        assert guard.risk(ASK, "Something else") != risk
        assert guard.risk(ASK, told) == pytest.approx(risk, abs=1e-6)
        bad, good = guard._verdict.beginnings
    before, between = str(FORMS[form].question).split("{question}")
    between, behind = between.split("{answer}")
    text = f"<|user|>{before}{ASK[0]['content']}{between}{told}{behind}<|end|><|assistant|>"
    llama = Llama(str(path), n_ctx=2_048, n_batch=2_048, logits_all=True, flash_attn=False, verbose=False)
    ids = llama.tokenize(text.encode(), add_bos=False, special=True)
    llama.eval(ids)
    p = np.exp(llama.scores[len(ids) - 1].astype(np.float64))
    llama.close()
    assert risk == pytest.approx(p[bad].sum() / (p[bad].sum() + p[good].sum()), abs=1e-3)


@pytest.mark.parametrize(("form", "letters"), [("yes-no", "YN"), ("llama-guard", "us")])
def test_a_model_that_says_the_word(form: str, letters: str, tmp_path: Path) -> None:
    vocab = tiny.byte_bpe()
    for letter, expected in zip(letters, (1.0, 0.0), strict=True):
        follow = {vocab.id("<|assistant|>"): vocab.id(letter)}
        path = tiny.write_script(tmp_path / f"{letter}.gguf", vocab, follow, n_ctx=2_048)
        with GuardModel(path, form) as guard:
            assert guard.risk(ASK, "Boil water.") == pytest.approx(expected, abs=1e-9)


def test_the_builtin_llm_judges_and_the_pair_answers(builtin_files: tuple[Path, Path], builtin: Drift) -> None:
    with GuardModel(builtin_files[0], n_ctx=1_024) as guard:
        risk = guard.risk(ASK, "Boil some fresh water.")
        assert 0 < risk < 1
        passes = guarded(lambda n: builtin.chat(ASK, seed=n), guard, ASK, threshold=1.0)
        assert answer(list(passes)).answer.text
        with pytest.raises(RefusedError):
            list(guarded(lambda n: builtin.chat(ASK, seed=n, max_tokens=4), guard, ASK, threshold=1e-300))
        with pytest.raises(ContextOverflowError):
            guard.risk(ASK, "tea " * 2_000)


def test_forms(tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "guard.gguf", tiny.byte_bpe())
    with pytest.raises(UsageError, match="form: expected one of yes-no, shieldgemma, llama-guard, got 'maybe'"):
        GuardModel(path, "maybe")
    for form in FORMS.values():
        assert form.question is None or (form.question.count("{question}"), form.question.count("{answer}")) == (1, 1)
