"""The rules for a conversation's messages, wherever they come from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from drift_edge.errors import UsageError

ROLES = ("system", "user", "assistant")
NOTHING = object()  # in the place of a field that is missing
_SURROGATE = re.compile("[\ud800-\udfff]")


def describe(value: object) -> str:
    """A JSON value in a few words."""
    if value is NOTHING:
        return "nothing"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return repr(value) if len(value) <= 40 else f"{value[:40]!r}…"
    names = {int: "a number", float: "a number", list: "an array", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def check_text(value: object, at: str) -> str:
    """`value` as text that can be encoded.

    Args:
        at: its place, for error messages.

    Raises:
        UsageError: not text, or not Unicode; names the first character that is not.
    """
    if not isinstance(value, str):
        raise UsageError(f"{at}: expected text, got {describe(value)}")
    if not value.isascii() and (found := _SURROGATE.search(value)):
        # JSON can write half a pair, and a byte that is not UTF-8 is read as one.
        raise UsageError(
            f"{at}: character {found.start() + 1} is not Unicode but half of a surrogate pair; write it as UTF-8"
        )
    return value


def check_messages(value: object, at: str = "messages") -> list[dict[str, str]]:
    """A copy of messages, of their roles and contents alone.

    Args:
        value: an array of `{"role", "content"}`.
        at: its place, for error messages.

    Raises:
        UsageError: it is none, a role or content is of the wrong kind, a content is not Unicode, or a system message
            is not the first; names the message by its index.
    """
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise UsageError(f"{at}: expected an array of messages, got {describe(value)}")
    messages = []
    for i, message in enumerate(value):
        if not isinstance(message, Mapping):
            raise UsageError(f"{at}[{i}]: expected an object with role and content, got {describe(message)}")
        role, content = message.get("role", NOTHING), message.get("content", NOTHING)
        if role not in ROLES:
            raise UsageError(f"{at}[{i}].role: expected one of {', '.join(ROLES)}, got {describe(role)}")
        if role == "system" and i:
            raise UsageError(f"{at}[{i}].role: a system message can only be the first")
        messages.append({"role": role, "content": check_text(content, f"{at}[{i}].content")})
    return messages


def check_prompt(value: object, at: str = "messages") -> list[dict[str, str]]:
    """As `check_messages`, of messages that an answer can follow.

    Raises:
        UsageError: as `check_messages`; or the last is not the user's.
    """
    messages = check_messages(value, at)
    if not messages or messages[-1]["role"] != "user":
        found = f"the last is the {messages[-1]['role']}'s" if messages else "there are none"
        raise UsageError(f"{at}: expected the last to be the user's, but {found}")
    return messages
