"""Greetings, thanks, goodbyes and questions about the assistant itself."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .answers import Plan
from .topics import Clause


@dataclass(frozen=True, slots=True)
class _Talk:
    asks: tuple[str, ...]
    says: tuple[str, ...]
    clauses: tuple[str, ...]
    ends: tuple[str, ...]


_ABILITIES = (
    "I can talk about everyday things",
    "I can explain simple things around the house",
    "I can answer questions about daily life",
    "I know a little about many everyday topics",
    "I can tell you how to do everyday things",
)
_SELF = (
    "I am a small built-in model",
    "I am a small language model that runs on this machine",
    "I am a tiny assistant that lives on this computer",
    "I am a small model and run without the internet",
)
_ASK = (
    "What would you like to know?",
    "What can I do for you?",
    "How can I help?",
    "What shall we talk about?",
    "Ask me anything about daily life.",
)
_HELLO = ("Hello.", "Hi.", "Hi there.", "Hello there.", "Good day.", "Nice to meet you.")

_TALKS: dict[str, _Talk] = {
    "greet": _Talk(
        (
            "Hello",
            "Hi",
            "Hello!",
            "Hi!",
            "Hey",
            "Hi there",
            "Good morning",
            "Good evening!",
            "Hello, is anyone there?",
            "Hey there!",
            "Hello there",
            "Good afternoon",
            "Hello assistant",
            "Hi, nice to meet you",
            "Hello, my friend",
            "Hi again",
            "Hello again",
            "Greetings",
            "Welcome",
            "Good day to you",
            "Are you there?",
            "Can you hear me?",
        ),
        _HELLO,
        _ABILITIES,
        _ASK,
    ),
    "thanks": _Talk(
        (
            "Thanks",
            "Thank you",
            "Thanks a lot!",
            "Thank you very much.",
            "Great, thanks!",
            "That helps, thank you.",
            "Thanks for your help.",
            "Thanks, that was great",
            "Thank you, that was useful",
            "Ok, thanks",
            "Cool, thank you!",
            "Many thanks",
            "Thank you so much!",
            "Nice, thanks a lot",
            "That was good",
            "That was helpful",
            "Well done",
            "Perfect, thank you",
            "Good answer",
        ),
        ("You are welcome.", "No problem.", "Glad to help.", "My pleasure.", "Any time."),
        ("I am here if you need more", "I can answer another question", "I can tell you more at any time"),
        (),
    ),
    "bye": _Talk(
        (
            "Bye",
            "Goodbye",
            "Goodbye!",
            "Bye bye",
            "Bye for now",
            "See you",
            "See you later",
            "See you tomorrow",
            "Good night",
            "I have to go now.",
            "I am leaving",
            "Have a nice day",
            "That is all for today",
        ),
        ("Goodbye.", "Bye.", "See you soon.", "Have a good day.", "Until next time.", "All the best."),
        ("I am here when you come back", "I will be here next time"),
        (),
    ),
    "who": _Talk(
        (
            "Who are you?",
            "What are you?",
            "Are you a robot?",
            "What is your name?",
            "Tell me about yourself.",
            "Are you a person?",
            "Who are you really?",
            "Who am I talking to?",
            "What kind of model are you?",
            "Are you an AI?",
            "Are you human?",
            "Do you have a name?",
            "Introduce yourself",
        ),
        (),
        (*_SELF, *_SELF, "I have no name of my own"),
        _ASK,
    ),
    "can": _Talk(
        (
            "What can you do?",
            "What do you know?",
            "How can you help me?",
            "What can I ask you?",
            "What are you good at?",
            "Help",
            "What can you tell me?",
            "What can you help me with?",
            "What do you know about?",
            "What topics do you know?",
            "Can you help me?",
            "I need help",
            "I have a question",
            "Can I ask you something?",
            "What should I ask?",
        ),
        (),
        _ABILITIES,
        _ASK,
    ),
    "feel": _Talk(
        (
            "How are you?",
            "How are you doing?",
            "How are you today?",
            "How is it going?",
            "How is your day?",
            "Are you well?",
            "How do you feel today?",
            "What is up?",
            "What's up?",
            "How do you do?",
        ),
        ("I am fine, thank you.", "I am doing well.", "All is well here.", "Very well, thank you."),
        ("I am ready for your questions", "I can help you with everyday things"),
        ("What would you like to know?", "How can I help?"),
    ),
    "maker": _Talk(
        (
            "Who made you?",
            "Where do you come from?",
            "How were you made?",
            "Who built you?",
            "Who trained you?",
        ),
        (),
        (
            "I was made from texts about everyday things",
            "I was trained on small made-up conversations",
            "I came with the program that you are using",
            "I was built to run on a small machine",
        ),
        (),
    ),
    "aside": _Talk(
        (
            "Ok",
            "Okay",
            "Yes",
            "No",
            "Maybe",
            "I see",
            "Cool",
            "Great",
            "Nice",
            "Sure",
            "Hm",
            "Wow",
            "Really?",
            "Right",
            "Understood",
            "Test",
            "This is a test",
        ),
        ("All right.", "Good.", "I see."),
        _ABILITIES,
        _ASK,
    ),
    "unclear": _Talk(
        ("?", "...", "asdf", "qwerty", "123", "hmm hmm", "blah blah", "la la la", "x", "abc", "???", "42"),
        ("I do not understand that.", "That is not clear to me.", "I am not sure what you mean."),
        _ABILITIES,
        _ASK,
    ),
}
_WEIGHTS = {"greet": 6, "thanks": 4, "bye": 2, "who": 4, "can": 4, "feel": 2, "maker": 2, "aside": 2, "unclear": 1}
_OPEN = ("greet", "who", "can", "feel")


def small_talk(rng: random.Random, kind: str | None = None, name: str = "") -> tuple[str, Plan]:
    """What somebody says in passing, and what there is to say to it.

    Args:
        rng: source of the draw.
        kind: "greet", "thanks", "bye", "who", "can", "feel", "maker", "aside" or "unclear"; drawn if None.
        name: the user's name, if the system prompt gave one; greetings use it.
    """
    kind = kind or rng.choices(tuple(_WEIGHTS), tuple(_WEIGHTS.values()))[0]
    talk = _TALKS[kind]
    clauses: list[Clause] = []
    if talk.says:
        says = rng.choice(talk.says)
        if name and kind in {"greet", "thanks", "bye"} and " " not in name:
            says = f"{says[:-1]}, {name}."
        clauses.append(Clause("say", says))
    facts = list(dict.fromkeys(talk.clauses))
    rng.shuffle(facts)
    sure = kind in {"who", "can", "maker"}
    if sure or rng.random() < 0.5:
        clauses.append(Clause("self", facts[0]))
    if kind == "who" and rng.random() < 0.5:
        clauses.append(Clause("self", rng.choice(_ABILITIES)))
    if talk.ends and rng.random() < 0.45:
        clauses.append(Clause("say", rng.choice(talk.ends)))
    return _typed(rng.choice(talk.asks), rng), Plan(None, "talk", tuple(clauses))


def _typed(text: str, rng: random.Random) -> str:
    """What is said in passing is typed in passing: small letters, and any end mark or none."""
    if rng.random() < 0.5:
        return text
    stem = text.rstrip("?!.") or text
    mark = rng.choice(("", "", "?") if text.endswith("?") else ("", "!", "!", ".", "!!"))
    return (stem.lower() if rng.random() < 0.6 else stem) + mark


def opening_kind(rng: random.Random) -> str:
    """A kind of small talk that may open a conversation."""
    return rng.choice(_OPEN)


def texts() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Every sentence and every clause of small talk, for the reader."""
    sentences = {text for talk in _TALKS.values() for text in (*talk.says, *talk.ends)}
    clauses = {text for talk in _TALKS.values() for text in (*talk.clauses, *_ABILITIES)}
    return tuple(sorted(sentences)), tuple(sorted(clauses))
