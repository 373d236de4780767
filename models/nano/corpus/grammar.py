"""A matcher for sentences made of templates with slots: what the reader of answers is built on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from .styles import styles

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_PIECE = re.compile(r"\{\w+\}|[^{}]+")

Fills = Mapping[str, frozenset[str] | None]
"""What may stand in each slot, as canonical text; None for one or more words of any kind."""


def sentences(text: str) -> list[str]:
    """Split at end marks followed by white space."""
    return [part for part in _SENTENCE_END.split(text.strip()) if part]


@cache
def _same_words() -> Mapping[str, str]:
    """Each word that a style replaces, and each replacement, mapped to one word that stands for all of them."""
    groups: dict[str, set[str]] = {}
    for style in styles():
        for old, new in style.words.items():
            merged = groups.get(old, {old}) | groups.get(new.lower(), {new.lower()})
            for word in merged:
                groups[word] = merged
    return {word: min(group) for word, group in groups.items()}


def canonical_words(text: str) -> list[str]:
    """The words in lower case without punctuation, the replacements of all styles undone."""
    same = _same_words()
    return [same.get(word, word) for word in _WORD.findall(text.lower())]


def canonical(text: str) -> str:
    """`canonical_words` joined by spaces."""
    return " ".join(canonical_words(text))


@dataclass(slots=True)
class _Node:
    words: dict[str, _Node] = field(default_factory=dict)
    slots: dict[str, _Node] = field(default_factory=dict)
    end: bool = False


class Grammar:
    """A set of sentence templates, kept as a tree of words and slots.

    Args:
        templates: one or more sentences each; slots in braces, `{Step}` and `{step}` being the same.
    """

    def __init__(self, templates: Iterable[str] = ()) -> None:
        self._root = _Node()
        for template in templates:
            self.add(template)

    def add(self, template: str) -> None:
        """Add every sentence of a template."""
        for sentence in sentences(template):
            node = self._root
            for piece in _PIECE.findall(sentence):
                if piece.startswith("{"):
                    node = node.slots.setdefault(piece.lower(), _Node())
                else:
                    for word in canonical_words(piece):
                        node = node.words.setdefault(word, _Node())
            node.end = node is not self._root

    def matches(self, sentence: str, fills: Fills) -> bool:
        """True if the sentence is one of the templates with its slots filled from `fills`."""
        return self._match(canonical_words(sentence), 0, self._root, fills)

    def _match(self, words: list[str], start: int, node: _Node, fills: Fills) -> bool:
        if start == len(words):
            return node.end
        following = node.words.get(words[start])
        if following and self._match(words, start + 1, following, fills):
            return True
        for slot, after in node.slots.items():
            allowed = fills.get(slot, frozenset())
            for stop in range(start + 1, len(words) + 1):
                fits = allowed is None or " ".join(words[start:stop]) in allowed
                if fits and self._match(words, stop, after, fills):
                    return True
        return False
