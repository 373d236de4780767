"""What training never sees: whole topics, single (topic, kind) cells, phrasings, nouns. Fixed by hashes of names."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from .questions import KINDS, ask, follow_ups, phrasings
from .topics import Topic, topic_by_id, topics

HELDOUT_TOPICS = 10
HELDOUT_CELLS = 0.06
"""Share of all (topic, kind) cells; at most one kind of a topic is held out, so each fact stays reachable."""

_ALWAYS_TRAINED = frozenset({"tea"})


@dataclass(frozen=True, slots=True)
class EvalQuestion:
    """A question for evaluation, with what is unseen about it: "topic", "cell" or "phrasing"."""

    text: str
    topic: Topic
    kind: str
    unseen: str


@dataclass(frozen=True, slots=True)
class EvalFollowUp:
    """A first question, and a follow-up (of `kind`) that only makes sense after its answer."""

    first: EvalQuestion
    text: str
    kind: str


def draw_hash(text: str) -> float:
    """A number in [0, 1) that depends on the text alone, the same on every machine."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") / 2**64


@cache
def heldout_topics() -> frozenset[str]:
    """Ids of the topics of which training sees nothing."""
    ids = [topic.id for topic in topics() if topic.id not in _ALWAYS_TRAINED]
    return frozenset(sorted(ids, key=lambda name: draw_hash(f"topic {name}"))[:HELDOUT_TOPICS])


@cache
def heldout_cells() -> frozenset[tuple[str, str]]:
    """(topic id, kind) pairs never asked in training, while the topic's other kinds are."""
    cells = []
    for topic in topics():
        if topic.id in heldout_topics() or topic.id in _ALWAYS_TRAINED:
            continue
        if draw_hash(f"cell {topic.id}") < HELDOUT_CELLS * len(KINDS):
            cells.append((topic.id, KINDS[int(draw_hash(f"kind {topic.id}") * len(KINDS))]))
    return frozenset(cells)


@cache
def train_cells() -> tuple[tuple[Topic, str], ...]:
    """Every (topic, kind) that training may ask."""
    return tuple(
        (topic, kind)
        for topic in topics()
        if topic.id not in heldout_topics()
        for kind in KINDS
        if (topic.id, kind) not in heldout_cells()
    )


def is_train_cell(topic: Topic, kind: str) -> bool:
    """True if training may ask this kind of question about this topic."""
    return topic.id not in heldout_topics() and (topic.id, kind) not in heldout_cells()


def heldout_noun(name: str) -> bool:
    """True for the one noun in twenty that training never uses (see `unknown`)."""
    return draw_hash(f"noun {name.lower()}") < 0.05


@cache
def _test_cells() -> dict[str, tuple[tuple[Topic, str], ...]]:
    by_id = topic_by_id()
    return {
        "topic": tuple((by_id[name], kind) for name in sorted(heldout_topics()) for kind in KINDS),
        "cell": tuple((by_id[name], kind) for name, kind in sorted(heldout_cells())),
        "phrasing": train_cells(),
    }


def heldout_questions(n: int, seed: int, unseen: str | None = None) -> list[EvalQuestion]:
    """Draw questions that training never saw.

    Args:
        n: how many; no (topic, kind, text) occurs twice while there are others left.
        seed: of the draw.
        unseen: "topic", "cell" or "phrasing" for that alone; None for the three in turn.

    Returns:
        n questions, typed plainly (capital, end mark).

    Raises:
        ValueError: `unseen` is none of the three.
    """
    pools = _test_cells()
    if unseen is not None and unseen not in pools:
        raise ValueError(f"unseen: expected one of {', '.join(pools)}, got {unseen!r}")
    rng = random.Random(seed)
    wanted = [unseen] if unseen else list(pools)
    seen: set[tuple[str, str]] = set()
    questions: list[EvalQuestion] = []
    attempts = 0
    while len(questions) < n:
        what = wanted[len(questions) % len(wanted)]
        topic, kind = rng.choice(pools[what])
        text = ask(topic, rng.choice(phrasings(kind, heldout=what == "phrasing")))
        attempts += 1
        if (topic.id, text) in seen and attempts < 50 * n:
            continue
        seen.add((topic.id, text))
        questions.append(EvalQuestion(text, topic, kind, what))
    return questions


_FOLLOWS = {
    "how": ("why", "after", "worth", "problem", "about"),
    "start": ("why", "after", "worth", "problem", "about"),
    "what": ("how", "worth", "tip", "problem", "about"),
    "why": ("how", "tip", "problem", "about"),
    "tip": ("how", "why", "about"),
    "worth": ("how", "tip", "problem", "about"),
}


def heldout_follow_ups(n: int, seed: int) -> list[EvalFollowUp]:
    """Draw n two-turn questions: a first one in a phrasing of training, then a follow-up.

    Topics, cells and phrasings are those of training, the pairs of questions are not chosen from it: what is
    tested is the use of the turn before. Half of the follow-ups use a held-out phrasing.
    """
    rng = random.Random(seed)
    cells = [cell for cell in train_cells() if cell[1] in _FOLLOWS]
    drawn: list[EvalFollowUp] = []
    while len(drawn) < n:
        topic, kind = rng.choice(cells)
        follow = rng.choice(_FOLLOWS[kind])
        if not is_train_cell(topic, "how" if follow == "after" else follow):
            continue
        first = EvalQuestion(ask(topic, rng.choice(phrasings(kind))), topic, kind, "pair")
        drawn.append(EvalFollowUp(first, rng.choice(follow_ups(follow, heldout=len(drawn) % 2 == 1)), follow))
    return drawn
