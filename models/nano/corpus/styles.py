"""Styles: how each attribute words an answer, read from `styles/*.toml` and checked field by field.

A style is a distribution: openers, asides and closers around the content, frames for single clauses, rates for
each, and a few mechanical rewritings. It never chooses what is said.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from drift_edge.attributes import Attributes

from .topics import CorpusError, capital

SLOTS = ("{gerund}", "{Gerund}", "{noun}", "{verb}")
"""Slots that openers, asides and closers may use."""

_SENTENCES = ("openers", "asides", "closers")
_FRAMES = {"step_frames": "{step}", "fact_frames": "{fact}"}
_RATES = ("opener", "aside", "closer", "frame", "exclaim", "lower")
_WORD = re.compile(r"[A-Za-z0-9']+")
_SLOT = re.compile(r"\{[^}]*\}?")


@dataclass(frozen=True, slots=True)
class Style:
    """One attribute's wording.

    Attributes:
        name: the attribute's name in Table 5.
        prompts: system sentences that ask for it, the Table 5 sentence first.
        heldout_prompt: one more paraphrase, never seen in training.
        openers, asides, closers: complete sentences, some with a slot of `SLOTS`.
        step_frames, fact_frames: sentences around `{step}` / `{Step}` and `{fact}` / `{Fact}`.
        items: least and most number of content clauses.
        opener, aside, closer, frame: probability of each part at full intensity.
        exclaim: probability that a sentence's full stop becomes an exclamation mark.
        lower: probability that the whole answer is in lower case.
        words: whole-word replacements, lower case.
    """

    name: str
    prompts: tuple[str, ...]
    heldout_prompt: str
    openers: tuple[str, ...]
    asides: tuple[str, ...]
    closers: tuple[str, ...]
    step_frames: tuple[str, ...]
    fact_frames: tuple[str, ...]
    items: tuple[int, int]
    opener: float
    aside: float
    closer: float
    frame: float
    exclaim: float
    lower: float
    words: Mapping[str, str]
    bare_openers: tuple[str, ...] = field(init=False)
    bare_closers: tuple[str, ...] = field(init=False)
    _pattern: re.Pattern[str] | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bare_openers", tuple(s for s in self.openers if "{" not in s))
        object.__setattr__(self, "bare_closers", tuple(s for s in self.closers if "{" not in s))
        pattern = None
        if self.words:
            longest_first = sorted(self.words, key=len, reverse=True)
            alternatives = "|".join(re.escape(word) for word in longest_first)
            pattern = re.compile(rf"(?<![\w'-])({alternatives})(?![\w'-])", re.IGNORECASE)
        object.__setattr__(self, "_pattern", pattern)

    @property
    def plain(self) -> bool:
        """True for a style whose only mark is its length."""
        return not self.openers and not self.closers

    def reword(self, text: str) -> str:
        """Replace whole words, keeping a capital at their head."""
        return self._pattern.sub(self._replacement, text) if self._pattern else text

    def _replacement(self, match: re.Match[str]) -> str:
        found = match[0]
        new = self.words[found.lower()]
        return capital(new) if found[0].isupper() else new


def make_style(name: str, table: Mapping[str, object], prompt: str, where: str) -> Style:
    """Check one TOML table and build its Style; `prompt` is the attribute's own sentence.

    Raises:
        CorpusError: a field is missing or malformed, a frame lacks its slot, or a sentence its end mark.
    """
    at = f"{where}, style {name!r}"
    lists: dict[str, tuple[str, ...]] = {}
    for key in ("prompts", *_SENTENCES, *_FRAMES):
        value = table.get(key)
        if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
            raise CorpusError(f"{at}, {key}: expected a list of sentences, got {value!r}")
        if len(set(value)) != len(value):
            raise CorpusError(f"{at}, {key}: a sentence occurs twice")
        lists[key] = tuple(value)
    if len(lists["prompts"]) < 4:
        raise CorpusError(f"{at}, prompts: expected at least 4 paraphrases, got {len(lists['prompts'])}")
    for key in _SENTENCES:
        for text in lists[key]:
            _check_sentence(text, SLOTS, f"{at}, {key}")
    for key, slot in _FRAMES.items():
        for text in lists[key]:
            _check_sentence(text, (slot, slot.title()), f"{at}, {key}")
            if len(_SLOT.findall(text)) != 1:
                raise CorpusError(f"{at}, {key}: expected exactly one {slot} in {text!r}")
    rates = {key: _number(table.get(key), f"{at}, {key}") for key in _RATES}
    items = table.get("items")
    if not isinstance(items, list) or len(items) != 2 or not 1 <= items[0] <= items[1] <= 4:
        raise CorpusError(f"{at}, items: expected [least, most] between 1 and 4, got {items!r}")
    words = table.get("words", {})
    if not isinstance(words, dict) or not all(
        isinstance(word, str) and _WORD.fullmatch(word) for pair in words.items() for word in pair
    ):
        raise CorpusError(f"{at}, words: expected words mapped to words, got {words!r}")
    return Style(
        name=name,
        prompts=(prompt, *lists["prompts"][:-1]),
        heldout_prompt=lists["prompts"][-1],
        openers=lists["openers"],
        asides=lists["asides"],
        closers=lists["closers"],
        step_frames=lists["step_frames"],
        fact_frames=lists["fact_frames"],
        items=(items[0], items[1]),
        opener=rates["opener"],
        aside=rates["aside"],
        closer=rates["closer"],
        frame=rates["frame"],
        exclaim=rates["exclaim"],
        lower=rates["lower"],
        words={old.lower(): new for old, new in words.items()},
    )


def _check_sentence(text: str, slots: tuple[str, ...], where: str) -> None:
    wrong = [slot for slot in _SLOT.findall(text) if slot not in slots]
    if wrong:
        raise CorpusError(f"{where}: slot {wrong[0]!r} in {text!r} is none of {', '.join(slots)}")
    if not text.isascii() or "  " in text or text != text.strip():
        raise CorpusError(f"{where}: {text!r} is not plain ASCII with single spaces")
    if not text.endswith((".", "!", "?", "~", ")")):
        raise CorpusError(f"{where}: {text!r} has no end mark")


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise CorpusError(f"{where}: expected a probability, got {value!r}")
    return float(value)


def read_styles(paths: Iterable[Path], attributes: Attributes) -> tuple[Style, ...]:
    """Read styles from TOML files, in the order of the attribute pool.

    Raises:
        CorpusError: a file is not TOML, a style is malformed, defined twice or no attribute of the pool.
    """
    found: dict[str, Style] = {}
    for path in sorted(paths):
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise CorpusError(f"{path.name}: cannot be read as TOML: {error}") from error
        for name, table in data.items():
            if name in found or name not in attributes or not isinstance(table, dict):
                raise CorpusError(f"{path.name}: [{name}] is defined twice or is no attribute of the pool")
            found[name] = make_style(name, table, attributes[name].prompt, path.name)
    return tuple(found[name] for name in attributes if name in found)


@cache
def styles() -> tuple[Style, ...]:
    """The styles that ship with the package, in the order of Table 5.

    Raises:
        CorpusError: as `read_styles`.
    """
    return read_styles((Path(__file__).parent / "styles").glob("*.toml"), Attributes.builtin())


@cache
def style_by_name() -> Mapping[str, Style]:
    """The shipped styles by the attribute's name."""
    return {style.name: style for style in styles()}
