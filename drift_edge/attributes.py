"""Attributes: the system prompts s_1..s_K whose contrast with s_0 gives a reward (Section 3.1, Table 5)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from drift_edge.errors import UsageError

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_MAX_PROMPT = 2_000
_MAX_FILE = 1_000_000


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute: a short name and the system prompt s_i that evokes it.

    Raises:
        UsageError: the name is not `[a-z0-9_-]` (64 at most) or the prompt is empty or over 2,000 characters.
    """

    name: str
    prompt: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise UsageError(
                f"attribute name {self.name!r}: expected 1-64 of a-z, 0-9, '-' and '_', starting with a letter or digit"
            )
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise UsageError(f"attribute {self.name!r}: expected a prompt that is not empty, got {self.prompt!r}")
        if len(self.prompt) > _MAX_PROMPT:
            raise UsageError(
                f"attribute {self.name!r}: its prompt has {len(self.prompt)} characters, at most {_MAX_PROMPT} allowed"
            )


class Attributes(Mapping[str, Attribute]):
    """The pool of attributes, in order, with the base prompt s_0.

    Args:
        base: s_0, the system prompt that every reward is measured against.
        attributes: the pool; names must differ.

    Raises:
        UsageError: a name occurs twice, or the base prompt is empty.
    """

    def __init__(self, base: str, attributes: Iterable[Attribute]) -> None:
        if not isinstance(base, str) or not base.strip():
            raise UsageError(f"base prompt: expected text that is not empty, got {base!r}")
        self.base = base
        self._pool: dict[str, Attribute] = {}
        for attribute in attributes:
            if attribute.name in self._pool:
                raise UsageError(f"attribute {attribute.name!r} is defined twice")
            self._pool[attribute.name] = attribute

    def __getitem__(self, name: str) -> Attribute:
        return self._pool[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pool)

    def __len__(self) -> int:
        return len(self._pool)

    def require(self, name: str) -> Attribute:
        """The attribute of that name.

        Raises:
            UsageError: unknown; the message names the closest known ones.
        """
        found = self._pool.get(name)
        if found is None:
            name = str(name)
            from difflib import get_close_matches

            close = get_close_matches(name, self._pool, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else "`drift-edge attributes list` shows them all"
            raise UsageError(f"unknown attribute {name!r}; {hint}")
        return found

    def extended(self, more: Attributes | Iterable[Attribute]) -> Attributes:
        """A new pool with `more` added; an attribute of the same name is replaced."""
        added = list(more.values()) if isinstance(more, Attributes) else list(more)
        return Attributes(self.base, {**self._pool, **{a.name: a for a in added}}.values())

    @classmethod
    def builtin(cls) -> Attributes:
        """The 41 attributes of the paper's Table 5."""
        return _builtin()

    @classmethod
    def from_toml(cls, path: str | Path) -> Attributes:
        """Read `[base] prompt = "…"` (optional) and `[attributes] name = "prompt"` from a TOML file.

        Raises:
            UsageError: unreadable, not TOML, or a field is missing or of the wrong type; names the file and the field.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                raw = file.read(_MAX_FILE + 1)
        except OSError as error:
            raise UsageError(f"{path}: cannot read the attributes file: {error.strerror}") from error
        except ValueError as error:  # a path with a NUL in it
            raise UsageError(f"{str(path)!r}: cannot read the attributes file: {error}") from error
        if len(raw) > _MAX_FILE:
            raise UsageError(f"{path}: an attributes file may have at most {_MAX_FILE:,} bytes")
        return cls._parse(raw, str(path))

    @classmethod
    def _parse(cls, raw: bytes, where: str) -> Attributes:
        try:
            data = tomllib.loads(raw.decode("utf-8"))
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
            raise UsageError(f"{where}: not valid TOML: {error}") from error
        table = data.get("attributes")
        if not isinstance(table, dict) or not table:
            raise UsageError(f'{where}: expected a table [attributes] with lines like  formal = "You are …"')
        base_table = data.get("base", {})
        base = base_table.get("prompt") if isinstance(base_table, dict) else None
        if base is None:
            base = _builtin().base
        try:
            return cls(base, [Attribute(name, prompt) for name, prompt in table.items()])
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error


@cache
def _builtin() -> Attributes:
    return Attributes._parse((files("drift_edge") / "data" / "attributes.toml").read_bytes(), "attributes.toml")
