"""What is measured of a pair: figures with their targets, a row for each attribute, and the answers judged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        name: what it is, for people.
        value: a mean (or what the name says) over `n`.
        n: how many it was measured on.
        target: the bound it should keep, or None.
        at_most: True if the bound is an upper one.
        note: anything else a reader needs, such as which attribute it is.
    """

    name: str
    value: float
    n: int
    target: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def ok(self) -> bool | None:
        """Whether the target is kept; None without one."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


@dataclass(frozen=True, slots=True)
class StyleRow:
    """What was measured for one attribute.

    Attributes:
        name: the attribute's.
        auc: of its reward, style against neutral, in held-out cells and phrasings.
        auc_topics: the same on unseen topics.
        plain: share of unsteered answers with the style's marker.
        prompted: the same with the attribute's sentence as the LLM's system prompt.
        paraphrased: the same with a paraphrase that training never saw.
        plus, minus: the same under fused steering with weight +1 and -1.
        on_topic, garbled: shares of the answers with weight +1 that are on topic, and that are garbled.
    """

    name: str
    auc: float
    auc_topics: float
    plain: float
    prompted: float
    paraphrased: float
    plus: float
    minus: float
    on_topic: float
    garbled: float


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer under the base prompt and what was found of it.

    Attributes:
        group: what is unseen in the question.
        asked: the conversation up to the answer.
        text: the answer.
        tokens: how many it has.
        right: whether it is on topic, names the thing asked, or follows up, as its group calls for.
        garbled: whether it did not end, or has a sentence that the corpus could not have said.
        owns_up: whether it says that it does not know.
        repeats: whether it says something twice.
    """

    group: str
    asked: list[str]
    text: str
    tokens: int
    right: bool
    garbled: bool
    owns_up: bool
    repeats: bool


@dataclass(frozen=True, slots=True)
class Results:
    """All that was measured; `flawed` are the answers that were not right, or garbled, or repeat something."""

    seed: int
    figures: list[Figure]
    styles: list[StyleRow]
    flawed: list[Judged]
