"""PreferencePair: one choice of a person's between two answers to the same prompt, (x, y_w, y_l) of Section 2."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from drift_edge import messages as rules
from drift_edge.errors import PreferencesError, UsageError
from drift_edge.messages import NOTHING, check_text, describe


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """One choice between two answers.

    An empty answer is refused: that any answer is better than none says nothing about a person's taste, and its
    reward would hardly be more than the other answer's length. So are two equal answers.

    Args:
        messages: x, `{"role", "content"}` each, oldest first; the last is the user's, a system message only the first.
            Kept as a tuple.
        chosen: y_w, of any length; scoring cuts it at its `text_length`.
        rejected: y_l.
        source: where it comes from, for people to read.
        time: when it was made, ISO 8601; empty where unknown.
        tie: neither was preferred; chosen and rejected are then in no order.

    Raises:
        UsageError: a field of the wrong kind, an empty answer, or answers that differ in nothing but blanks at their
            ends; the message begins with the field's name.
    """

    messages: Sequence[Mapping[str, str]]
    chosen: str
    rejected: str
    source: str = ""
    time: str = ""
    tie: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages", check_prompt(self.messages, "messages"))
        check_responses(self.chosen, self.rejected, ("chosen", "rejected"))
        check_text(self.source, "source")
        if check_text(self.time, "time") and not is_time(self.time):
            raise UsageError(f"time: expected ISO 8601, as in 2025-02-20T12:00:00Z, got {describe(self.time)}")
        if not isinstance(self.tie, bool):
            raise UsageError(f"tie: expected true or false, got {describe(self.tie)}")

    @property
    def id(self) -> str:
        """16 hex digits of SHA-256 over messages, chosen, rejected and tie: the same choice has the same id."""
        told = [[[m["role"], m["content"]] for m in self.messages], self.chosen, self.rejected, self.tie]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, object]:
        """A JSON object of all fields, which `from_dict` and the `jsonl` reader take back."""
        return {**asdict(self), "messages": [dict(m) for m in self.messages]}

    @classmethod
    def from_dict(cls, data: object, at: str = "$") -> PreferencePair:
        """The pair of a JSON object; fields of other names are ignored.

        Args:
            data: what `to_dict` gave.
            at: its place, for messages.

        Raises:
            PreferencesError: a field is missing or wrong; names its place.
        """
        if not isinstance(data, Mapping):
            raise PreferencesError(f"at {at}: expected an object, got {describe(data)}")
        fields = {name: data[name] for name in ("source", "time", "tie") if name in data}
        try:
            messages, chosen, rejected = (data.get(name, NOTHING) for name in ("messages", "chosen", "rejected"))
            return cls(messages, chosen, rejected, **fields)
        except UsageError as error:
            raise PreferencesError(f"at {at}.{error}") from error


def field(data: Mapping[str, object], name: str) -> object:
    """The value of a field; one that is missing reads as "nothing" in messages."""
    return data.get(name, NOTHING)


def is_time(text: str) -> bool:
    """Whether a text is ISO 8601."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def check_responses(chosen: object, rejected: object, names: tuple[str, str]) -> tuple[str, str]:
    """Both answers, if something can be learned from them.

    Args:
        names: their fields, for messages.

    Raises:
        UsageError: not text, empty, or the same but for blanks at their ends.
    """
    texts = check_text(chosen, names[0]), check_text(rejected, names[1])
    for text, name in zip(texts, names, strict=True):
        if not text.strip():
            raise UsageError(f"{name}: empty; that any answer is better than none says nothing about taste")
    if texts[0].strip() == texts[1].strip():
        raise UsageError(f"{names[1]}: the same text as {names[0]}; nothing can be learned from it")
    return texts


def check_prompt(value: object, at: str) -> tuple[dict[str, str], ...]:
    """Messages that an answer can follow.

    Raises:
        UsageError: as `drift_edge.messages.check_prompt`, or the last is empty.
    """
    messages = rules.check_prompt(value, at)
    if not messages[-1]["content"].strip():
        raise UsageError(f"{at}: the prompt is empty")
    return tuple(messages)
