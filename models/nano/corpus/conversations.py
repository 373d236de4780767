"""Whole conversations: a system prompt, one to three questions, and answers in one voice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from .answers import Answer, Plan, Voice, plan, render
from .outside import outside_question
from .questions import FOLLOW_KINDS, KINDS, ask, follow_ups, joined, phrasings, typed
from .smalltalk import opening_kind, small_talk
from .splits import heldout_questions, is_train_cell, train_cells
from .system import System, draw_system
from .topics import Clause, Topic
from .unknown import made_up_topic, unknown_plan, unknown_topic

SPLITS = ("train", "test")

_UNKNOWN = 0.32
_OUTSIDE = 0.07
_SMALL_TALK = 0.04
_ONE_TURN = 0.6
_TWO_TURNS = 0.75
_SWITCH = 0.25
_KIND_WEIGHTS = {
    "how": 2.0,
    "what": 1.2,
    "why": 1.1,
    "tip": 1.0,
    "worth": 1.0,
    "about": 1.1,
    "problem": 1.0,
    "start": 1.0,
}
_FOLLOW_WEIGHTS = {
    "why": 3,
    "after": 3,
    "worth": 2,
    "tip": 2,
    "problem": 2,
    "about": 3,
    "how": 2,
    "what": 1,
}
# Roles of which something must be left to say, for a follow-up of that kind to be answered.
_CORE = {
    "why": ("reason",),
    "worth": ("pro", "con"),
    "tip": ("tip",),
    "problem": ("fix",),
    "what": ("definition",),
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer.

    Attributes:
        question: as typed.
        answer: as rendered.
        kind: of the question; "talk" for small talk, "lookup" or "task" outside the domain.
        topic: what it is about; None for small talk.
        clauses: what the answer says, in order.
        follow_up: True if the question only makes sense after the turn before.
    """

    question: str
    answer: str
    kind: str
    topic: Topic | None
    clauses: tuple[Clause, ...]
    follow_up: bool = False


@dataclass(frozen=True, slots=True)
class Document:
    """One conversation of the corpus.

    Attributes:
        messages: `{"role", "content"}` in order, as a chat template takes them; an empty system prompt is left out.
        system: the system prompt with its attributes and the voice drawn for it.
        turns: the questions and answers, with what they say.
    """

    messages: list[dict[str, str]]
    system: System
    turns: tuple[Turn, ...]


def documents(
    split: str = "train", *, seed: int, base_share: float = 0.5, made_up_share: float = 0.0
) -> Iterator[Document]:
    """An endless stream of documents, the same for the same arguments.

    Args:
        split: "train", or "test" for single questions that training never sees.
        seed: of the stream.
        base_share: share of documents under the base prompt.
        made_up_share: of training's questions about something unknown, the share that is answered all the same, by
            nonsense in the wanted style: good for a model that only has to tell styles.

    Raises:
        ValueError: unknown split, or a share outside [0, 1].
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    for name, share in (("base_share", base_share), ("made_up_share", made_up_share)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name}: expected a number from 0 to 1, got {share!r}")
    return _stream(random.Random(f"{split} {seed}"), split, base_share, made_up_share)


def _stream(rng: random.Random, split: str, base_share: float, made_up_share: float) -> Iterator[Document]:
    while True:
        system = draw_system(rng, base_share)
        yield train_document(rng, system, made_up_share) if split == "train" else unseen_document(rng, system)


def train_document(rng: random.Random, system: System, made_up_share: float = 0.0) -> Document:
    """Draw a training conversation under a system prompt; `made_up_share` as in `documents`."""
    draw = rng.random()
    if draw < _SMALL_TALK:
        return _talk(rng, system)
    if draw < _SMALL_TALK + _OUTSIDE:
        question, topic, kind = outside_question(rng)
        turn = _turn(question, topic, kind, unknown_plan(topic, kind, rng), system.voice, rng)
        return _document(system, [turn])
    unknown = draw < _SMALL_TALK + _OUTSIDE + _UNKNOWN
    turns = [_first_turn(rng, system.voice, unknown, made_up_share)]
    if rng.random() >= _ONE_TURN:
        _continue(turns, rng, system)
    return _document(system, turns)


def unseen_document(rng: random.Random, system: System) -> Document:
    """Draw a single question that training never sees, with its answer."""
    if rng.random() < _UNKNOWN:
        topic = unknown_topic(rng, heldout=True)
        kind = rng.choice(KINDS)
        text = ask(topic, rng.choice(phrasings(kind)))
        return _document(system, [_turn(text, topic, kind, unknown_plan(topic, kind, rng), system.voice, rng)])
    unseen = rng.choice(("topic", "cell", "phrasing"))
    question = heldout_questions(1, rng.getrandbits(32), unseen)[0]
    content = plan(question.topic, question.kind, rng)
    return _document(system, [_turn(question.text, question.topic, question.kind, content, system.voice, rng)])


def answer_turn(
    topic: Topic, kind: str, question: str, voice: Voice, rng: random.Random, before: tuple[Turn, ...] = ()
) -> Turn:
    """Plan and render the answer to a question; `before` are the turns so far on the same topic."""
    used = frozenset(clause for turn in before for clause in turn.clauses)
    last_step = max((clause.step for turn in before for clause in turn.clauses), default=0)
    content = plan(topic, kind, rng, used, last_step) if topic.known else unknown_plan(topic, kind, rng, used)
    return _turn(question, topic, kind, content, voice, rng, last_step, follow_up=bool(before))


def _turn(
    question: str,
    topic: Topic | None,
    kind: str,
    content: Plan,
    voice: Voice,
    rng: random.Random,
    last_step: int = 0,
    follow_up: bool = False,
) -> Turn:
    answer: Answer = render(content, voice, rng, last_step)
    return Turn(question, answer.text, kind, topic, answer.clauses, follow_up)


def _first_turn(rng: random.Random, voice: Voice, unknown: bool, made_up_share: float = 0.0) -> Turn:
    if unknown:
        topic = made_up_topic(rng) if made_up_share and rng.random() < made_up_share else unknown_topic(rng)
        kind = rng.choice(KINDS)
    else:
        cells = train_cells()
        while True:
            topic, kind = rng.choice(cells)
            if rng.random() * 2.0 < _KIND_WEIGHTS[kind]:
                break
    names = not topic.known and topic.noun != topic.noun.lower()
    question = typed(ask(topic, rng.choice(phrasings(kind))), rng, names)
    return answer_turn(topic, kind, question, voice, rng)


def _continue(turns: list[Turn], rng: random.Random, system: System) -> None:
    """Add one or two more turns: mostly follow-ups, else another topic or thanks."""
    for _ in range(1 if rng.random() < _TWO_TURNS else 2):
        draw = rng.random()
        if draw < _SWITCH:
            turns.append(_first_turn(rng, system.voice, unknown=rng.random() < 0.15))
        elif draw < _SWITCH + 0.05:
            question, content = small_talk(rng, "thanks", system.name)
            turns.append(_turn(question, None, "talk", content, system.voice, rng))
            return
        else:
            turns.append(_follow_up(turns, rng, system.voice))


def _follow_up(turns: list[Turn], rng: random.Random, voice: Voice) -> Turn:
    topic = turns[-1].topic
    if topic is None:
        raise ValueError("a follow-up needs a turn about a topic before it")
    about: list[Turn] = []
    for turn in reversed(turns):
        if turn.topic is not topic:
            break
        about.insert(0, turn)
    kinds = possible_follow_ups(topic, tuple(about))
    kind = rng.choices(kinds, [_FOLLOW_WEIGHTS[kind] for kind in kinds])[0]
    question = typed(joined(rng.choice(follow_ups(kind)), rng), rng)
    return answer_turn(topic, kind, question, voice, rng, tuple(about))


def possible_follow_ups(topic: Topic, about: tuple[Turn, ...]) -> list[str]:
    """Kinds of follow-up that make sense after these turns and that training may ask."""
    asked = {turn.kind for turn in about}
    said = {clause for turn in about for clause in turn.clauses}
    stepped = about[-1].kind in {"how", "start", "after"}
    kinds = []
    for kind in FOLLOW_KINDS:
        if kind == "after":
            fits = stepped and about[-1].kind in asked
        elif kind == "how":
            fits = not asked & {"how", "start", "after"}
        else:
            fits = kind not in asked
        core = _CORE.get(kind, ())
        if core and topic.known and not any(c not in said for role in core for c in topic.clauses[role]):
            fits = False
        cell = "how" if kind == "after" else kind
        if fits and (not topic.known or is_train_cell(topic, cell)):
            kinds.append(kind)
    return kinds or ["about"]


def _talk(rng: random.Random, system: System) -> Document:
    if rng.random() < 0.25:
        question, content = small_talk(rng, opening_kind(rng), system.name)
        turns = [_turn(question, None, "talk", content, system.voice, rng)]
        turns.append(_first_turn(rng, system.voice, unknown=rng.random() < 0.2))
    else:
        question, content = small_talk(rng, name=system.name)
        turns = [_turn(question, None, "talk", content, system.voice, rng)]
    return _document(system, turns)


def _document(system: System, turns: list[Turn]) -> Document:
    messages = [{"role": "system", "content": system.text}] if system.text else []
    for turn in turns:
        messages.append({"role": "user", "content": turn.question})
        messages.append({"role": "assistant", "content": turn.answer})
    return Document(messages, system, tuple(turns))
