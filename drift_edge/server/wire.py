"""Answers and profiles as JSON values: OpenAI's forms, and `drift` beside them for what they have no place for."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from drift_edge.errors import ClosedError
from drift_edge.events import Answer, Finish, Notice, Token
from drift_edge.learner import Lesson
from drift_edge.preferences import PreferencePair
from drift_edge.profile import Choice, Profile

Json = dict[str, Any]


class Reply:
    """One reply, whole or in chunks.

    Args:
        model: name of the model.
    """

    def __init__(self, model: str) -> None:
        self.id = f"chatcmpl-{secrets.token_hex(12)}"
        self._head = {"id": self.id, "created": int(time.time()), "model": model}

    def whole(self, choices: Sequence[Json], usage: Json, **more: object) -> Json:
        """The reply at once."""
        return {**self._head, "object": "chat.completion", "choices": list(choices), "usage": usage, **more}

    def chunk(self, choices: Sequence[Json], **more: object) -> Json:
        """A part of it."""
        return {**self._head, "object": "chat.completion.chunk", "choices": list(choices), **more}


class Gathered:
    """One answer, as its events come.

    Args:
        index: of the answer in its reply.
        logprobs: whether they are asked for.
    """

    def __init__(self, index: int = 0, logprobs: bool = False) -> None:
        self.index, self._wanted = index, logprobs
        self.notices: list[Json] = []
        self._logprobs: list[Json] = []
        self._answer: Answer | None = None

    def take(self, event: Token | Notice | Finish) -> Json | None:
        """Take in an event; returns the choice of a chunk that tells of it, if there is anything to tell."""
        if isinstance(event, Notice):
            self.notices.append({"kind": event.kind, "text": event.text})
            return None
        told = None
        if isinstance(event, Token):
            if self._wanted:
                self._logprobs.append(_logprob(event))
                told = {"content": self._logprobs[-1:], "refusal": None}
        else:
            self._answer = event.answer
        return self.delta({"content": event.text}, told) if event.text or told else None

    def delta(self, delta: Json, logprobs: Json | None = None, finish_reason: str | None = None) -> Json:
        """The choice of a chunk."""
        return {"index": self.index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}

    def end(self) -> Json:
        """The choice of the chunk that ends the answer."""
        return self.delta({}, None, self.answer.finish_reason)

    def choice(self) -> Json:
        """The choice of a whole reply."""
        logprobs = {"content": self._logprobs, "refusal": None} if self._wanted else None
        message = {"role": "assistant", "content": self.answer.text, "refusal": None}
        return {
            "index": self.index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": self.answer.finish_reason,
        }

    @property
    def answer(self) -> Answer:
        """The answer.

        Raises:
            ClosedError: it was ended by the server, before its end.
        """
        if self._answer is None or self._answer.finish_reason == "cancelled":
            raise ClosedError("the server is shutting down, so the answer was ended")
        return self._answer

    def drift(self, profile: str | None, **more: object) -> Json:
        """What OpenAI's form has no place for."""
        told = self.answer.to_dict()
        kept = {name: told[name] for name in ("seed", "steering", "entropy_bits", "speculation", "timings")}
        return {"profile": profile, **kept, "notices": self.notices, **more}


def usage(answers: Sequence[Answer]) -> Json:
    """Tokens of the prompt, which is the same for all answers, and of the answers."""
    prompt = max((answer.timings.prompt_tokens for answer in answers), default=0)
    completion = sum(len(answer.tokens) for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def profile_part(profile: Profile, name: str) -> Json:
    """A profile as it is read."""
    return {
        "name": name,
        "exists": profile.exists,
        "n": profile.n,
        "ties": profile.ties,
        "pending": profile.pending,
        "settings": asdict(profile.settings),
        "weights": {key: weight.to_dict() for key, weight in profile.table().items()},
        "attributes": {key: attribute.prompt for key, attribute in profile.attributes.items()},
    }


def lesson_part(lesson: Lesson, pair: PreferencePair) -> Json:
    """What became of a choice."""
    why = lesson.refused.get(pair.id, "")
    with_others = not (lesson.known or lesson.left or pair.tie or why)  # counted when the turn of another came
    return {
        "id": pair.id,
        "known": lesson.known,
        "learned": pair.id in lesson.counted or with_others,
        "why": why,
        **moved(lesson.before, lesson.after),
    }


def moved(before: Mapping[str, float], after: Mapping[str, float]) -> Json:
    """Weights before and after."""
    return {"before": dict(before), "after": dict(after)}


def choice_part(choice: Choice) -> Json:
    """A choice of the journal."""
    pair = choice.pair
    return {
        "id": choice.id,
        "time": choice.time,
        "question": pair.messages[-1]["content"],
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "tie": pair.tie,
        "scored": choice.scores is not None,
        "source": pair.source,
    }


def _logprob(token: Token) -> Json:
    own, *likeliest = (
        {"token": told.piece.decode("utf-8", "replace"), "logprob": told.logprob, "bytes": list(told.piece)}
        for told in token.logprobs
    )
    return {**own, "top_logprobs": likeliest}
