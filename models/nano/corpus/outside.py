"""Questions outside the domain: things to look up, and things to do that a small model cannot.

What is asked for is drawn from names, so that an answer has to copy it.
"""

from __future__ import annotations

import random
import re

from .names import invented, person, place, thing
from .topics import Topic

# Questions outside the domain: phrasings, what is asked for, the verb and its -ing form.
_LOOKUPS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("What is the capital of {place}?", "Which city is the capital of {place}?"), "the capital of {place}"),
    (
        ("Who won the {event} in {year}?", "Do you know who won the {event} in {year}?"),
        "the winner of the {event} in {year}",
    ),
    (
        ("What is {a} {op} {b}?", "How much is {a} {op} {b}?", "Can you work out {a} {op} {b}?"),
        "the result of {a} {op} {b}",
    ),
    (("What is the weather in {place}?", "Will it rain in {place} tomorrow?"), "the weather in {place}"),
    (("How old is {person}?", "Can you tell me the age of {person}?"), "the age of {person}"),
    (("How tall is {one}?", "What is the height of {one}?"), "the height of {one}"),
    (("Who invented {many}?", "Who was the first to make {many}?"), "the inventor of {many}"),
    (("How much does {one} cost?", "What is the price of {one}?"), "the price of {one}"),
    (("What time is it in {place}?", "Tell me the time in {place}."), "the time in {place}"),
    (
        ("How many people live in {place}?", "What is the population of {place}?"),
        "the number of people in {place}",
    ),
    (("Who is the {ruler} of {place}?", "Name the {ruler} of {place}."), "the {ruler} of {place}"),
    (("What is the phone number of {person}?", "Where does {person} live?"), "the address of {person}"),
    (("What is the latest news from {place}?", "What happened in {place} today?"), "the news from {place}"),
    (("What is the meaning of {word}?", "What does {word} mean?"), "the meaning of {word}"),
    (
        ("How far is {place} from {place2}?", "How long is the way from {place} to {place2}?"),
        "the way from {place} to {place2}",
    ),
    (
        ("Which language do they speak in {place}?", "What is the language of {place}?"),
        "the language of {place}",
    ),
)
_TASKS: tuple[tuple[tuple[str, ...], str, str, str], ...] = (
    (
        ("Write a poem about {one}.", "Can you write a poem about {one}?"),
        "a poem about {one}",
        "write",
        "writing",
    ),
    (
        ("Tell me a story about {one}.", "I want a story about {one}."),
        "a story about {one}",
        "tell",
        "telling",
    ),
    (("Can you translate {word}?", "Translate {word} into French."), "{word}", "translate", "translating"),
    (("Sing a song about {one}.", "Can you sing about {one}?"), "a song about {one}", "sing", "singing"),
    (
        ("Write a program for {many}.", "Can you code a program for {many}?"),
        "a program for {many}",
        "write",
        "writing",
    ),
    (("Draw me {one}.", "Can you draw {one}?"), "{one}", "draw", "drawing"),
    (
        ("Recommend a film about {many}.", "Which film about {many} is good?"),
        "a film about {many}",
        "recommend",
        "recommending",
    ),
    (("Send a letter to {person}.", "Can you email {person}?"), "a letter to {person}", "send", "sending"),
    (
        ("Book a flight to {place}.", "Can you book a hotel in {place}?"),
        "a trip to {place}",
        "book",
        "booking",
    ),
    (("Play a game of {word}.", "Can we play {word}?"), "a game of {word}", "play", "playing"),
)
_LOOKUP_ADMIT = (
    "I do not know {noun}",
    "I cannot tell you {noun}",
    "I have not learned {noun}",
    "I have no way to find {noun}",
    "I am not able to name {noun}",
    "I am too small to know {noun}",
)
_TASK_ADMIT = (
    "I cannot {verb}",
    "I am not able to {verb}",
    "I have not learned to {verb}",
    "I am too small to {verb}",
    "I do not know how to {verb}",
    "I am no good at {gerund}",
)
#: How help is pointed to, by kind and role.
HELP = {
    "lookup": (
        (
            "tip",
            (
                "ask someone who may know {noun}",
                "look up {noun} in a good book",
                "search for {noun} in a library",
                "ask a larger model for {noun}",
                "check a good source for {noun}",
            ),
        ),
        (
            "fact",
            (
                "a larger model may know {noun}",
                "someone near you may know {noun}",
                "you can find {noun} elsewhere",
                "a good book may tell you {noun}",
                "a quick search may turn up {noun}",
            ),
        ),
    ),
    "task": (
        (
            "tip",
            (
                "ask someone else to {verb}",
                "ask a larger model to {verb}",
                "find a friend who can {verb}",
                "try to {verb} on your own",
            ),
        ),
        (
            "fact",
            (
                "a larger model may be able to {verb}",
                "other programs can {verb}",
                "someone near you may like to {verb}",
                "it takes a bigger model to {verb}",
            ),
        ),
    ),
}
#: How not to know is owned up to, by kind.
ADMIT = {"lookup": _LOOKUP_ADMIT, "task": _TASK_ADMIT}
_WORDS = {
    "{event}": ("match", "election", "race", "final", "world cup", "song contest", "prize", "war", "tournament"),
    "{ruler}": ("president", "king", "queen", "mayor", "prime minister", "emperor", "leader"),
    "{op}": ("times", "plus", "minus", "divided by"),
}
_QUESTION_SLOT = re.compile(r"\{\w+\}")


def outside_question(rng: random.Random, heldout: bool = False) -> tuple[str, Topic, str]:
    """A question outside the domain: its text, the thing asked for, and its kind ("lookup" or "task")."""
    task = rng.random() < 0.35
    if task:
        texts, noun, verb, gerund = rng.choice(_TASKS)
    else:
        texts, noun = rng.choice(_LOOKUPS)
        verb, gerund = rng.choice((("find", "finding"), ("look up", "looking up"), ("know", "knowing")))
    text = rng.choice(texts)
    for slot in _QUESTION_SLOT.findall(text + noun):
        value = _draw_slot(slot, rng, heldout)
        text, noun = text.replace(slot, value), noun.replace(slot, value)
    topic = Topic(
        id=f"outside:{noun}",
        noun=noun,
        key=noun,
        gerund=f"{gerund} {noun}",
        verb=f"{verb} {noun}",
        plural=False,
        problem=f"I cannot {verb} {noun}",
        clauses={},
        known=False,
    )
    return text, topic, "task" if task else "lookup"


def _draw_slot(slot: str, rng: random.Random, heldout: bool) -> str:
    if slot in {"{place}", "{place2}"}:
        return place(rng, heldout)
    if slot == "{person}":
        return person(rng, heldout)
    if slot == "{word}":
        return invented(rng, heldout)
    if slot == "{year}":
        return str(rng.randint(1890, 2030))
    if slot in {"{a}", "{b}"}:
        return str(rng.randint(2, 99))
    if slot in _WORDS:
        return rng.choice(_WORDS[slot])
    it = thing(rng, heldout)
    while slot == "{many}" and not it.plural:
        it = thing(rng, heldout)
    return it.noun
