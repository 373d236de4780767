"""Conversations on disk: one JSON file each, saved after every answer, readable by their owner alone."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from drift_edge.storage import make_private, write_private

from .errors import SessionError

FORMAT = 1
_MAX_FILE = 64 << 20
T = TypeVar("T")


@dataclass(slots=True)
class Turn:
    """A question and its answer.

    Attributes:
        question: what was asked.
        answer: None while there is none.
        seed: the seed that the answer was drawn with.
        attempt: 0 for the first answer to the question, then one more each time it is asked for another.
        finish_reason: as `Answer.finish_reason`.
    """

    question: str
    answer: str | None = None
    seed: int | None = None
    attempt: int = 0
    finish_reason: str | None = None


@dataclass(slots=True)
class Session:
    """A conversation and the settings it was held with.

    Attributes:
        turns: in order; only the last may lack an answer.
        settings: by name, as JSON values.
        created: local time, ISO 8601.
    """

    turns: list[Turn] = field(default_factory=list)
    settings: dict[str, object] = field(default_factory=dict)
    created: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%S%z"))

    def summary(self) -> str:
        """When it began and how long it is."""
        n = len(self.turns)
        return f"the conversation of {self.created}, {n} question{'' if n == 1 else 's'} long"

    def to_json(self) -> bytes:
        """The content of a session file."""
        data = {"format": FORMAT, **asdict(self)}
        return json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False).encode() + b"\n"


def read_session(path: Path) -> Session:
    """The session in `path`.

    Raises:
        SessionError: missing, too large, not JSON, or a field of the wrong kind; names the file and the place.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise SessionError(f"{path}: cannot read the session: {error.strerror}") from error
    if len(raw) > _MAX_FILE:
        raise SessionError(f"{path}: a session file may have at most {_MAX_FILE:,} bytes")
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise SessionError(f"{path}: not valid JSON: {error}") from error
    try:
        if _field(data, "format", int, "$") != FORMAT:
            raise SessionError(f"at $.format: expected {FORMAT}, got {data['format']!r}; is drift-edge too old for it?")
        turns = [_turn(turn, f"$.turns[{i}]") for i, turn in enumerate(_field(data, "turns", list, "$"))]
        if any(turn.answer is None for turn in turns[:-1]):
            raise SessionError("at $.turns: only the last may lack an answer")
        return Session(turns, _field(data, "settings", dict, "$"), _field(data, "created", str, "$"))
    except SessionError as error:
        raise SessionError(f"{path}: not a drift-edge session: {error}") from None


def _turn(data: object, at: str) -> Turn:
    return Turn(
        _field(data, "question", str, at),
        _optional(data, "answer", str, at),
        _optional(data, "seed", int, at),
        _field(data, "attempt", int, at),
        _optional(data, "finish_reason", str, at),
    )


def _field(data: object, name: str, kind: type[T], at: str) -> T:
    value = data.get(name) if isinstance(data, Mapping) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise SessionError(f"at {at}.{name}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _optional(data: Any, name: str, kind: type[T], at: str) -> T | None:
    return None if isinstance(data, Mapping) and data.get(name) is None else _field(data, name, kind, at)


def latest(folder: Path) -> Path:
    """The session that was saved last.

    Raises:
        SessionError: there is none.
    """
    try:
        found = [path for path in folder.iterdir() if path.suffix == ".json" and not path.name.startswith(".")]
        return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name))
    except (OSError, ValueError):
        raise SessionError(f"no saved session to go on with in {folder}") from None


class Autosave:
    """Keeps the running conversation in its file.

    Args:
        folder: of the session files; None saves nothing.
        warn: called once, where saving fails; the chat goes on.
    """

    def __init__(self, folder: Path | None, warn: Callable[[str], None]) -> None:
        self._folder, self._warn = folder, warn
        self.path: Path | None = None

    def go_on(self, path: Path) -> None:
        """Save into `path`, the file of a resumed session."""
        self.path = path

    def renew(self) -> None:
        """Begin another file; the one so far stays as it is."""
        self.path = None

    def save(self, session: Session) -> None:
        """Save the conversation; a failure is told once and is no error."""
        if self._folder is None:
            return
        try:
            make_private(self._folder)
            if self.path is None:
                name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}.json"
                self.path = self._folder / name
            write_private(self.path, session.to_json())
        except OSError as error:
            self._warn(f"the conversation is not saved: {error.filename or self._folder}: {error.strerror}")
            self._folder = None
