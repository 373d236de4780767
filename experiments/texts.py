"""A world whose every taste is known: questions, answers in many voices by the built-in pair's grammar, and what shows.

Whether an answer shows an attribute is read from its text by rule (`corpus.reader`); no model has a say in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from drift_edge.attributes import Attributes
from drift_edge.models.nano.corpus import EvalQuestion, heldout_questions, styles
from drift_edge.models.nano.corpus.answers import Voice, plan, render
from drift_edge.models.nano.corpus.reader import marker
from drift_edge.models.nano.corpus.splits import draw_hash
from drift_edge.models.nano.corpus.system import intensity
from drift_edge.preferences import PreferencePair
from drift_edge.rewards import FloatArray
from drift_edge.scoring import Scorer

ANSWERS = 8  # to each question; an even number
_NEUTRAL, _ONE = 0.1, 0.65  # shares of answers without a style and with one; the rest mix two


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Answers to questions, what they show and what the sLM makes of them.

    Attributes:
        test: bool (questions,), True for those on topics of which no training pair is drawn.
        shows: bool (questions, ANSWERS, K): whether the text has the attribute's mark.
        rewards: float64 (questions, ANSWERS, K): log pi(y|x,s_i) - log pi(y|x,s_0), nats, summed over tokens.
        tokens: int (questions, ANSWERS), the end of turn counted.
    """

    test: NDArray[np.bool_]
    shows: NDArray[np.bool_]
    rewards: FloatArray
    tokens: NDArray[np.int64]


def write(n: int, seed: int) -> tuple[list[EvalQuestion], list[list[str]]]:
    """`n` questions in words that training never saw, and `ANSWERS` different answers to each.

    The sLM knows the topics: how rewards fare on unseen ones is for the pair's own report.
    """
    rng = random.Random(f"texts {seed}")
    halves = [heldout_questions((n + 1) // 2, seed, unseen) for unseen in ("cell", "phrasing")]
    questions = list(chain.from_iterable(zip(*halves, strict=True)))[:n]

    def voice() -> Voice:
        draw = rng.random()
        return Voice(tuple(rng.sample(styles(), (draw >= _NEUTRAL) + (draw >= _NEUTRAL + _ONE))), intensity(rng))

    answers = []
    for question in questions:
        texts: list[str] = []
        while len(texts) < ANSWERS:
            text = render(plan(question.topic, question.kind, rng), voice(), rng).text
            if text not in texts:
                texts.append(text)
        answers.append(texts)
    return questions, answers


def measure(scorer: Scorer, n: int, seed: int, tick: Callable[[float], None]) -> Texts:
    """Write `n` questions with their answers, read and score them.

    Args:
        scorer: on the built-in sLM and attributes; with a cache, scores come from there.
        n: how many questions.
        seed: of the texts.
        tick: told 1 for every question.
    """
    questions, answers = write(n, seed)
    names = scorer.names
    K = len(names)
    texts = Texts(
        np.array([draw_hash(f"personas {question.topic.id}") < 0.5 for question in questions]),
        np.array([[[marker(name, text) for name in names] for text in row] for row in answers]),
        np.empty((n, ANSWERS, K)),
        np.empty((n, ANSWERS), np.int64),
    )
    for q, (question, row) in enumerate(zip(questions, answers, strict=True)):
        x = ({"role": "user", "content": question.text},)
        for a in range(0, ANSWERS, 2):
            # Two answers at a time, since that is what a scorer takes; neither is preferred here.
            scores = scorer.score(PreferencePair(x, row[a], row[a + 1]))
            texts.rewards[q, a], texts.rewards[q, a + 1] = scores.rewards()
            texts.tokens[q, a], texts.tokens[q, a + 1] = scores.n_chosen, scores.n_rejected
        tick(1)
    return texts


@dataclass(frozen=True, slots=True, eq=False)
class Persona:
    """A person who likes some attributes and dislikes others, and judges by nothing else.

    Attributes:
        taste: float64 (K,), 0 but for 3 to 5 attributes; the rule is the sum over those that a text shows.
    """

    taste: FloatArray

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Persona:
        """3 to 5 attributes of the pool, each with a sign and a size from 0.5 to 1."""
        taste = np.zeros(len(Attributes.builtin()))
        k = int(rng.integers(3, 6))
        taste[rng.choice(len(taste), k, replace=False)] = rng.choice([-1, 1], k) * rng.uniform(0.5, 1, k)
        return cls(taste)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs of answers to one question each, as a persona judged them.

    Attributes:
        W: float64 (n, K), rewards of the chosen answers.
        L: float64 (n, K), of the rejected ones.
        n_chosen: int (n,), tokens.
        n_rejected: int (n,), tokens.
    """

    W: FloatArray
    L: FloatArray
    n_chosen: NDArray[np.int64]
    n_rejected: NDArray[np.int64]


def judged(texts: Texts, persona: Persona, rng: np.random.Generator, n: int, *, test: bool) -> Pairs:
    """Up to `n` random pairs between which the persona's rule decides, without noise; others it would call a tie."""
    first, second = np.triu_indices(ANSWERS, 1)
    liking = texts.shows @ persona.taste
    lead = np.where((texts.test == test)[:, None], liking[:, first] - liking[:, second], 0.0)
    question, pair = np.nonzero(np.abs(lead) > 1e-9)
    drawn = rng.permutation(len(question))[:n]
    question, pair = question[drawn], pair[drawn]
    forward = lead[question, pair] > 0
    w, l = (np.where(forward, a, b) for a, b in ((first[pair], second[pair]), (second[pair], first[pair])))  # noqa: E741
    return Pairs(
        texts.rewards[question, w], texts.rewards[question, l], texts.tokens[question, w], texts.tokens[question, l]
    )
