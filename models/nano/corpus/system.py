"""The system prompt, and the voice it leads to.

The base prompt stands for a mixture of voices and an attribute's prompt for a mixture led by its own style. So the
log-probability ratio of the two, the reward, stays graded and bounded in both directions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from drift_edge.attributes import Attributes

from .answers import Voice
from .names import first_name, place, thing
from .styles import Style, styles

BASE_NEUTRAL = 0.62
BASE_ONE = 0.31
OWN_STYLE = 0.82
OWN_MIXED = 0.08
OWN_NEUTRAL = 0.06
TWO_ATTRIBUTES = 0.06
USER_SYSTEM = 0.15
NO_SYSTEM = 0.02
_FULL_BLEND = 0.8

_BASE = (
    "You are a helpful assistant.",
    "You are an assistant.",
    "You are an AI.",
    "You are a chat assistant.",
    "You are an AI assistant that answers questions.",
    "Answer the user's questions.",
    "You help people with their questions.",
    "You are an AI model that talks with people.",
)

_USER: tuple[str, ...] = (
    "The user is called {name}.",
    "The user is called {name}.",
    "The user's name is {name}.",
    "You are talking to {name}.",
    "My name is {name}.",
    "I am {name}.",
    "Call me {name}.",
    "The user lives in {place}.",
    "The user is {name} from {place}.",
    "You help people who live in {place}.",
    "I live in {place}.",
    "The user has just moved to {place}.",
    "You work for {name} in {place}.",
    "Answer the questions of a school class.",
    "Answer the questions of visitors from {place}.",
    "The user is a student.",
    "The user is a teacher.",
    "The user is a nurse who works at night.",
    "The user is new to all of this.",
    "The user owns {noun}.",
    "I own {noun}.",
    "The user collects {many}.",
    "The user works with {many}.",
    "The user is interested in {many}.",
    "You run on a kitchen computer.",
    "You run on an old laptop.",
    "You run on a phone.",
    "You belong to a library.",
    "You belong to a small shop in {place}.",
    "You are the helper of a family.",
    "This is a chat about daily life.",
    "This is a chat for people in {place}.",
    "The conversation takes place at {place}.",
    "Today is a holiday in {place}.",
    "It is Monday morning.",
    "The user has little time.",
    "The user is at home.",
    "The user has two children.",
    "The user has a small garden.",
    "The user lives alone in a small flat.",
    "The user speaks English as a second language.",
    "The user is preparing for a visit from {name}.",
)
_JOINS = (" ", " ", " ", " ", "\n\n", "\n")


@dataclass(frozen=True, slots=True)
class System:
    """A system prompt and what it stands for.

    Attributes:
        text: the prompt; empty for no system message at all.
        attributes: names of the attributes it asks for (none for the base prompt).
        voice: the voice drawn for the conversation.
        name: the user's name, if the prompt gives one.
    """

    text: str
    attributes: tuple[str, ...]
    voice: Voice
    name: str = ""


def base_prompt(rng: random.Random) -> str:
    """The base prompt s_0 or a paraphrase of it."""
    return Attributes.builtin().base if rng.random() < 0.6 else rng.choice(_BASE)


def attribute_prompt(style: Style, rng: random.Random) -> str:
    """The Table 5 sentence of an attribute half of the time, else a paraphrase of it."""
    return style.prompts[0] if rng.random() < 0.5 else rng.choice(style.prompts[1:])


def intensity(rng: random.Random) -> float:
    """How much of a style shows, between 0.5 and 1."""
    return 0.5 + 0.5 * rng.random()


def base_voice(rng: random.Random) -> Voice:
    """The mixture under the base prompt: neutral, one random style, or two."""
    draw = rng.random()
    if draw < BASE_NEUTRAL:
        return Voice()
    if draw < BASE_NEUTRAL + BASE_ONE:
        return Voice((rng.choice(styles()),), intensity(rng))
    return Voice(tuple(rng.sample(styles(), 2)), intensity(rng))


def attribute_voice(style: Style, rng: random.Random) -> Voice:
    """The mixture under an attribute's prompt: mostly its style."""
    draw = rng.random()
    if draw < OWN_STYLE:
        return Voice((style,), intensity(rng))
    if draw < OWN_STYLE + OWN_MIXED:
        return Voice((style, _other(style, rng)), intensity(rng))
    if draw < OWN_STYLE + OWN_MIXED + OWN_NEUTRAL:
        return Voice()
    return Voice((_other(style, rng),), intensity(rng))


def _other(style: Style, rng: random.Random) -> Style:
    while True:
        other = rng.choice(styles())
        if other.name != style.name:
            return other


def user_text(rng: random.Random) -> tuple[str, str]:
    """A user's own system text, and the user's name if it gives one."""
    template = rng.choice(_USER)
    name = first_name(rng) if "{name}" in template else ""
    text = template.replace("{name}", name)
    if "{place}" in text:
        text = text.replace("{place}", place(rng))
    if "{noun}" in text or "{many}" in text:
        many = "{many}" in text
        while True:
            it = thing(rng)
            if it.plural == many and it.sort == "thing":
                break
        text = text.replace("{many}", it.noun).replace("{noun}", it.noun)
    given = name if name and not template.startswith(("You work", "The user is preparing")) else ""
    return text, given


def draw_system(rng: random.Random, base_share: float, pool: Sequence[Style] | None = None) -> System:
    """Draw a system prompt and the voice of its conversation.

    Args:
        rng: source of the draw.
        base_share: share of conversations under the base prompt, in [0, 1].
        pool: styles to ask for; all by default.
    """
    pool = pool or styles()
    names: tuple[str, ...] = ()
    own, user = "", ""
    given = rng.random() < USER_SYSTEM
    if given:
        own, user = user_text(rng)
    if rng.random() < base_share:
        voice = base_voice(rng)
        draw = rng.random()
        if given:
            text = own if draw < 0.5 else own + rng.choice(_JOINS) + base_prompt(rng)
        else:
            text = "" if draw < NO_SYSTEM else base_prompt(rng)
        return System(text, names, voice, user)
    if rng.random() < TWO_ATTRIBUTES / max(1.0 - base_share, TWO_ATTRIBUTES) and len(pool) > 1:
        first, second = rng.sample(list(pool), 2)
        text = attribute_prompt(first, rng) + rng.choice(_JOINS) + attribute_prompt(second, rng)
        names = (first.name, second.name)
        if rng.random() < _FULL_BLEND:
            voice = Voice((first, second), intensity(rng))
        else:
            voice = Voice((rng.choice((first, second)),), intensity(rng))
    else:
        style = rng.choice(pool)
        names = (style.name,)
        text = attribute_prompt(style, rng)
        voice = attribute_voice(style, rng)
    if given:
        text = own + rng.choice(_JOINS) + text
    return System(text, names, voice, user)
