"""PreferencePair: one choice of a person's between two answers to the same prompt, (x, y_w, y_l) of Section 2."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from drift_edge.errors import PreferencesError, UsageError

_ROLES = ("system", "user", "assistant")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOTHING = object()


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
            messages, chosen, rejected = (data.get(name, _NOTHING) for name in ("messages", "chosen", "rejected"))
            return cls(messages, chosen, rejected, **fields)
        except UsageError as error:
            raise PreferencesError(f"at {at}.{error}") from error


def describe(value: object) -> str:
    """A JSON value in a few words."""
    if value is _NOTHING:
        return "nothing"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return repr(value) if len(value) <= 40 else f"{value[:40]!r}…"
    names = {int: "a number", float: "a number", list: "an array", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def field(data: Mapping[str, object], name: str) -> object:
    """The value of a field; one that is missing reads as "nothing" in messages."""
    return data.get(name, _NOTHING)


def is_time(text: str) -> bool:
    """Whether a text is ISO 8601."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def check_text(value: object, at: str) -> str:
    """`value` as text that can be encoded.

    Raises:
        UsageError: not text, or not Unicode.
    """
    if not isinstance(value, str):
        raise UsageError(f"{at}: expected text, got {describe(value)}")
    if not value.isascii() and (found := _SURROGATE.search(value)):
        # JSON can write half a pair, and a byte that is not UTF-8 is read as one.
        raise UsageError(f"{at}: character {found.start() + 1} is not Unicode; save the file as UTF-8")
    return value


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


def check_messages(value: object, at: str) -> tuple[dict[str, str], ...]:
    """Messages as plain dicts of role and content.

    Raises:
        UsageError: not an array of `{"role", "content"}`, or a system message that is not the first.
    """
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"{at}: expected an array of messages, got {describe(value)}")
    messages = []
    for i, message in enumerate(value):
        if not isinstance(message, Mapping):
            raise UsageError(f"{at}[{i}]: expected an object with role and content, got {describe(message)}")
        role = message.get("role", _NOTHING)
        if role not in _ROLES:
            raise UsageError(f"{at}[{i}].role: expected one of {', '.join(_ROLES)}, got {describe(role)}")
        if role == "system" and i:
            raise UsageError(f"{at}[{i}].role: a system message can only be the first")
        messages.append({"role": role, "content": check_text(field(message, "content"), f"{at}[{i}].content")})
    return tuple(messages)


def check_prompt(value: object, at: str) -> tuple[dict[str, str], ...]:
    """Messages that an answer can follow.

    Raises:
        UsageError: as `check_messages`; or the last is not the user's, or empty.
    """
    messages = check_messages(value, at)
    if not messages or messages[-1]["role"] != "user":
        found = f"the last is the {messages[-1]['role']}'s" if messages else "there are none"
        raise UsageError(f"{at}: expected the last to be the user's, but {found}")
    if not messages[-1]["content"].strip():
        raise UsageError(f"{at}: the prompt is empty")
    return messages
