"""Persona preference data by any model that can judge (the paper's Appendix D.1, Perspective).

One model answers every question in several manners; a model that is told who it is scores each answer, and the best
and the worst make a pair. The score is the mean of 1 to 5 by how likely each is as the verdict (G-Eval, Liu et al.,
2023), which ties less often than the likeliest number alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from drift_edge.engine import Drift
from drift_edge.errors import (
    ChatTemplateError,
    ContextOverflowError,
    DecodeError,
    DriftError,
    PreferencesError,
    UsageError,
)
from drift_edge.events import CancelToken
from drift_edge.llama.model import Model
from drift_edge.messages import check_text
from drift_edge.storage import append
from drift_edge.verdict import Verdict
from drift_edge.weights import DEFAULT_BLOCKED

DEFAULT_ANSWERS = 3  # as Perspective, which has its pairs from triplets
DEFAULT_CONTEXT = 4_096
SCORES = ("1", "2", "3", "4", "5")
_ASKED = (
    "A person asked an assistant:\n\n{question}\n\nThe assistant answered:\n\n{answer}\n\n"
    "How good is this answer for you? Say a number from 1, not at all, to 5, just what you want."
)
_TRIES = 3  # answers drawn for each that is wanted
_BEGINNING = b'{"gold_persona": '  # of every record


class Judge(Protocol):
    """Whoever says how good an answer is for somebody."""

    def score(self, persona: str, question: str, answer: str) -> float:
        """How good: a finite number, more is better."""
        ...


class PersonaJudge:
    """A model that scores answers as somebody would.

    Args:
        model: stays open when this is closed.
        n_ctx: tokens that persona, question and answer may have together.

    Raises:
        ModelError: no memory for the context.
        UsageError: the model's tokenizer begins two of the numbers 1 to 5 alike.
    """

    def __init__(self, model: Model, *, n_ctx: int = DEFAULT_CONTEXT) -> None:
        self._verdict = Verdict(model, SCORES, n_ctx=n_ctx)

    def score(self, persona: str, question: str, answer: str) -> float:
        """As `Judge.score`, 1 to 5; the persona is the model's system prompt.

        Raises:
            ContextOverflowError: they do not fit.
            ChatTemplateError, DecodeError, ClosedError: as their names say.
        """
        # Not `format`: all texts may hold braces.
        before, _, rest = _ASKED.partition("{question}")
        between, _, behind = rest.partition("{answer}")
        asked = "".join((before, question, between, answer, behind))
        shares = self._verdict.shares([{"role": "system", "content": persona}, {"role": "user", "content": asked}])
        if np.isnan(shares).any():
            raise DecodeError("the judge's logits cannot be used: there is NaN among them")
        return float(shares @ np.arange(1, len(SCORES) + 1))

    def close(self) -> None:
        """Free the context."""
        self._verdict.close()

    def __enter__(self) -> PersonaJudge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Built:
    """What became of one question for one persona.

    Attributes:
        gold_persona, prompt: as given.
        win, lose: the answers with the highest and the lowest score; empty where there is no pair.
        win_score, lose_score: the judge's, to 4 digits; where equal, it is a tie.
        why: why there is no pair; else empty.
    """

    gold_persona: str
    prompt: str
    win: str = ""
    lose: str = ""
    win_score: float = 0.0
    lose_score: float = 0.0
    why: str = ""


def build(
    drift: Drift,
    judge: Judge,
    personas: Sequence[str],
    questions: Sequence[str],
    *,
    answers: int = DEFAULT_ANSWERS,
    seed: int = 0,
    max_tokens: int = 512,
    known: Collection[tuple[str, str]] = (),
    cancel: CancelToken | None = None,
) -> Generator[Built, None, None]:
    """Answer all questions and have all personas judge, a question after another.

    The answers to a question are the same for every persona, and depend on it and the seed alone.

    Args:
        drift: its LLM answers, each time under another attribute of its pool as the system prompt.
        judge: scores the answers.
        personas: texts, each what the judge is told that it is.
        questions: texts.
        answers: to each question, 2 or more, no two alike.
        seed: of manners and answers.
        max_tokens: most tokens of an answer.
        known: persona and question of what is not to be made again; nothing is yielded for them.
        cancel: ends it, within an answer too; what was yielded stands.

    Raises:
        UsageError: an argument is out of range, a text is empty or not Unicode, or the pool has too few attributes.
    """
    for kind, texts in (("personas", personas), ("questions", questions)):
        for i, text in enumerate(texts):
            if not check_text(text, f"{kind}[{i}]").strip():
                raise UsageError(f"{kind}[{i}]: expected text that is not empty")
    names = [name for name in drift.attributes if name not in DEFAULT_BLOCKED]
    if not isinstance(answers, int) or not 2 <= answers <= len(names):
        raise UsageError(f"answers: expected a whole number from 2 to {len(names)}, the attributes, got {answers!r}")
    if not isinstance(max_tokens, int) or max_tokens < 1:
        raise UsageError(f"max_tokens: expected a whole number, 1 or more, got {max_tokens!r}")
    return _build(
        drift, judge, personas, questions, names, answers, seed, max_tokens, frozenset(known), cancel or CancelToken()
    )


def _build(
    drift: Drift,
    judge: Judge,
    personas: Sequence[str],
    questions: Sequence[str],
    names: Sequence[str],
    answers: int,
    seed: int,
    max_tokens: int,
    known: Collection[tuple[str, str]],
    cancel: CancelToken,
) -> Generator[Built, None, None]:
    for question in questions:
        left = [persona for persona in personas if (persona, question) not in known]
        if not left:
            continue
        try:
            texts, why = _answers(drift, question, names, answers, seed, max_tokens, cancel), ""
        except (ContextOverflowError, ChatTemplateError, DecodeError) as error:  # of this question; others may do
            texts, why = [], str(error)
        if not why and len(texts) < answers:
            why = f"{answers * _TRIES} tries gave {len(texts)} different answers, not {answers}"
        for persona in left:
            if cancel.cancelled:
                return
            yield Built(persona, question, why=why) if why else _judged(judge, persona, question, texts)


def _answers(
    drift: Drift, question: str, names: Sequence[str], n: int, seed: int, max_tokens: int, cancel: CancelToken
) -> list[str]:
    rng = random.Random(f"{seed} {question}")
    texts: list[str] = []
    for attempt, name in enumerate(rng.sample(names, min(n * _TRIES, len(names)))):
        answer = drift.complete(
            [{"role": "user", "content": question}],
            weights={name: 1.0},
            steer="prompt",
            seed=seed,
            attempt=attempt,
            max_tokens=max_tokens,
            cancel=cancel,
        )
        text = answer.text.strip()
        if text and text not in texts:
            texts.append(text)
        if len(texts) == n or cancel.cancelled:
            break
    return texts


def _judged(judge: Judge, persona: str, question: str, texts: Sequence[str]) -> Built:
    try:
        scores = [round(judge.score(persona, question, text), 4) for text in texts]
    except (ContextOverflowError, ChatTemplateError, DecodeError) as error:
        return Built(persona, question, why=str(error))
    best, worst = max(range(len(texts)), key=scores.__getitem__), min(range(len(texts)), key=scores.__getitem__)
    if best == worst:  # all scores are equal
        worst = (best + 1) % len(texts)
    return Built(persona, question, texts[best], texts[worst], scores[best], scores[worst])


class Records:
    """A file of Perspective's records, a line each, that a stopped run goes on with.

    Args:
        path: JSON lines; made where missing. A last line that was cut off is written anew.
        made: by which models and settings, as JSON values; it stands in every record.

    Attributes:
        known: persona and question of all records.

    Raises:
        PreferencesError: the file holds something else, or was made in another way; it is as it was.
        DriftError: it cannot be read or written.
    """

    def __init__(self, path: Path, made: dict[str, object]) -> None:
        self._path, self._made = path, made
        self.known: set[tuple[str, str]] = set()
        try:
            path.touch()
            data = path.read_bytes()
        except OSError as error:
            raise DriftError(f"{path}: cannot be written: {error.strerror}") from error
        self._end = data.rfind(b"\n") + 1
        for number, line in enumerate(data[: self._end].split(b"\n")[:-1], 1):
            self.known.add(self._read(line, f"{path}: line {number}"))
        if not _BEGINNING.startswith(data[self._end :][: len(_BEGINNING)]):
            raise PreferencesError(f"{path}: holds no records of this command: name another file")

    def _read(self, line: bytes, where: str) -> tuple[str, str]:
        try:
            record = json.loads(line)
            persona, prompt = record["gold_persona"], record["prompt"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise PreferencesError(f"{where}: no record of this command: name another file") from None
        made = record.get("made")
        if made != self._made:
            found = _told(made) if isinstance(made, dict) else "nobody knows how"
            raise PreferencesError(
                f"{where}: made in another way ({found}, not {_told(self._made)}): name another file"
            )
        return persona, prompt

    def add(self, built: Built) -> None:
        """Append a pair; one that is none is passed over.

        Raises:
            DriftError: it cannot be written; the file ends with the record before.
        """
        if built.why:
            return
        record = {name: value for name, value in asdict(built).items() if name != "why"} | {"made": self._made}
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        try:
            append(self._path, line, self._end)
        except OSError as error:
            raise DriftError(f"{self._path}: cannot be written: {error.strerror}") from error
        self._end += len(line)
        self.known.add((built.gold_persona, built.prompt))


def _told(made: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in made.items())
