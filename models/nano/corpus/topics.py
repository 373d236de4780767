"""Topics: the clauses that the built-in pair knows, read from `topics/*.toml` and checked field by field."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROLES = ("definition", "step", "reason", "fact", "pro", "con", "tip", "fix")
"""What a clause is to its topic. Steps, tips and fixes are imperatives; all others are full clauses."""

IMPERATIVE = frozenset({"step", "tip", "fix"})

_TEXTS = ("id", "noun", "key", "gerund", "verb", "definition", "pro", "con", "tip", "problem", "fix")
_LISTS = {"steps": 4, "reasons": 2, "facts": 2}
_CLAUSE = re.compile(r"[A-Za-z][A-Za-z0-9' ,-]*[A-Za-z0-9]")
_YOURS = {
    "i": "you",
    "my": "your",
    "me": "you",
    "mine": "yours",
    "myself": "yourself",
    "am": "are",
    "i'm": "you're",
}


class CorpusError(ValueError):
    """A topic or style file is malformed; the message names the file, the entry and the field."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One thing an answer can say.

    Attributes:
        role: one of `ROLES`, or "admit" for a clause that owns up to not knowing.
        text: lower-case words without a full stop; an imperative for the roles in `IMPERATIVE`.
        step: 1-4 for the steps of a topic, else 0.
    """

    role: str
    text: str
    step: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Topic:
    """What can be asked about and answered: forms that fit the frames, and clauses by role.

    `noun`, `gerund` and `verb` are the forms that questions and frames use; `problem` is in the user's
    voice and `trouble` the same in the reader's ("your tea tastes bitter"). `known` is False for the
    nouns of `unknown`, about which there is nothing but an honest answer to give.
    """

    id: str
    noun: str
    key: str
    gerund: str
    verb: str
    plural: bool
    problem: str
    clauses: Mapping[str, tuple[Clause, ...]]
    known: bool = True
    trouble: str = field(init=False)
    slots: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "trouble", in_your_voice(self.problem))
        slots = {
            "{noun}": self.noun,
            "{Noun}": capital(self.noun),
            "{gerund}": self.gerund,
            "{Gerund}": capital(self.gerund),
            "{verb}": self.verb,
            "{problem}": self.problem,
            "{Problem}": capital(self.problem),
            "{trouble}": self.trouble,
            "{is}": "are" if self.plural else "is",
        }
        object.__setattr__(self, "slots", slots)

    def all(self) -> Iterator[Clause]:
        """Every clause, role by role."""
        for clauses in self.clauses.values():
            yield from clauses


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def in_your_voice(problem: str) -> str:
    """Turn a clause of the user's into one for the user: "my tea is cold" becomes "your tea is cold"."""
    words: list[str] = []
    for word in problem.split(" "):
        bare = word.rstrip(",")
        turned = _YOURS.get(bare.lower(), bare) + word[len(bare) :]
        if bare == "was" and words and words[-1] == "you":
            turned = "were"
        words.append(turned)
    return " ".join(words)


def make_topic(entry: Mapping[str, object], where: str) -> Topic:
    """Check one TOML entry and build its Topic.

    Raises:
        CorpusError: a field is missing, unknown, of the wrong type or count, or not plain ASCII words.
    """
    name = f"{where}, topic {entry.get('id', '?')!r}"
    unknown = set(entry) - set(_TEXTS) - set(_LISTS) - {"plural"}
    if unknown:
        raise CorpusError(f"{name}: unknown field {sorted(unknown)[0]!r}")
    texts = {key: _text(entry.get(key), f"{name}, {key}") for key in _TEXTS}
    lists: dict[str, list[str]] = {}
    for key, count in _LISTS.items():
        value = entry.get(key)
        if not isinstance(value, list) or len(value) != count:
            raise CorpusError(f"{name}, {key}: expected a list of {count} clauses, got {value!r}")
        lists[key] = [_text(clause, f"{name}, {key}") for clause in value]
    plural = entry.get("plural", False)
    if not isinstance(plural, bool):
        raise CorpusError(f"{name}, plural: expected true or false, got {plural!r}")
    definition = f"{texts['noun']} {'are' if plural else 'is'} {texts['definition']}"
    clauses = {
        "definition": (Clause("definition", definition),),
        "step": tuple(Clause("step", text, i) for i, text in enumerate(lists["steps"], 1)),
        "reason": tuple(Clause("reason", text) for text in lists["reasons"]),
        "fact": tuple(Clause("fact", text) for text in lists["facts"]),
        **{role: (Clause(role, texts[role]),) for role in ("pro", "con", "tip", "fix")},
    }
    return Topic(
        id=texts["id"],
        noun=texts["noun"],
        key=texts["key"],
        gerund=texts["gerund"],
        verb=texts["verb"],
        plural=plural,
        problem=texts["problem"],
        clauses=clauses,
    )


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not _CLAUSE.fullmatch(value) or "  " in value:
        raise CorpusError(f"{where}: expected plain words without a full stop, got {value!r}")
    return value


def read_topics(paths: Iterable[Path]) -> tuple[Topic, ...]:
    """Read topics from TOML files, in the order of the files' names.

    Raises:
        CorpusError: a file is not TOML, an entry is malformed, or an id or clause occurs twice.
    """
    topics: list[Topic] = []
    seen: dict[str, str] = {}
    for path in sorted(paths):
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise CorpusError(f"{path.name}: cannot be read as TOML: {error}") from error
        entries = data.get("topic")
        if not isinstance(entries, list):
            raise CorpusError(f"{path.name}: expected [[topic]] tables")
        for entry in entries:
            topic = make_topic(entry, path.name)
            for text in (f"id {topic.id}", *(clause.text for clause in topic.all())):
                if text in seen:
                    raise CorpusError(f"{path.name}, topic {topic.id!r}: {text!r} also stands in {seen[text]!r}")
                seen[text] = topic.id
            topics.append(topic)
    return tuple(topics)


@cache
def topics() -> tuple[Topic, ...]:
    """The topics that ship with the package.

    Raises:
        CorpusError: as `read_topics`.
    """
    return read_topics((Path(__file__).parent / "topics").glob("*.toml"))


@cache
def topic_by_id() -> Mapping[str, Topic]:
    """The shipped topics by their id."""
    return {topic.id: topic for topic in topics()}
