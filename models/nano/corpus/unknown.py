"""Questions about what the pair does not know: answered modestly, and naming the thing asked about.

The thing is one of thousands of nouns and invented words, so the only way to name it is to copy it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import chain

from . import outside
from .activities import activities
from .answers import Plan
from .names import ADJECTIVES, Thing, any_word, gerund_of, plural_of, split_words, substance, thing
from .splits import heldout_noun, heldout_topics
from .topics import Clause, Topic, topics

VERBS: dict[str, tuple[tuple[str, str], ...]] = {
    "thing": (
        ("make", "making"),
        ("fix", "fixing"),
        ("clean", "cleaning"),
        ("find", "finding"),
        ("choose", "choosing"),
        ("use", "using"),
        ("build", "building"),
        ("draw", "drawing"),
        ("buy", "buying"),
        ("sell", "selling"),
        ("paint", "painting"),
        ("repair", "repairing"),
        ("move", "moving"),
        ("photograph", "photographing"),
        ("design", "designing"),
        ("describe", "describing"),
        ("study", "studying"),
    ),
    "stuff": (
        ("find", "finding"),
        ("use", "using"),
        ("store", "storing"),
        ("study", "studying"),
        ("choose", "choosing"),
        ("make", "making"),
        ("sell", "selling"),
        ("test", "testing"),
    ),
    "person": (
        ("meet", "meeting"),
        ("find", "finding"),
        ("thank", "thanking"),
        ("help", "helping"),
        ("write to", "writing to"),
        ("call", "calling"),
    ),
    "place": (
        ("visit", "visiting"),
        ("reach", "reaching"),
        ("travel to", "travelling to"),
        ("move to", "moving to"),
        ("find", "finding"),
        ("explore", "exploring"),
    ),
}

_TROUBLES = {
    "thing": (
        "my {bare} is broken",
        "my {bare} does not work",
        "my {bare} is too {adjective}",
        "my {bare} looks {adjective} and {adjective2}",
        "my {bare} keeps getting {adjective}",
        "my {bare} smells of {stuff}",
        "there is {stuff} in my {bare}",
        "somebody took my {bare}",
        "my {bare} feels {adjective}",
        "my {bare} {does} {when}",
        "my {bare} {does} {when}",
        "my {bare} {does} the {other}",
        "my {bare} does not {do}",
        "I {do} with {noun}",
        "I {do} the {other} when I {verb}",
        "I cannot {verb}",
        "I have trouble with {noun}",
    ),
    "things": (
        "my {bare} are broken",
        "my {bare} are too {adjective}",
        "my {bare} look {adjective} and {adjective2}",
        "my {bare} keep getting {adjective}",
        "my {bare} smell of {stuff}",
        "there is {stuff} in my {bare}",
        "my {bare} feel {adjective}",
        "my {bare} {do} {when}",
        "my {bare} {do} {when}",
        "my {bare} {do} the {other}",
        "my {bare} do not {do}",
        "I {do} with {noun}",
        "I {do} the {other} when I {verb}",
        "I cannot {verb}",
        "I have trouble with {noun}",
        "I have lost my {bare}",
    ),
    "other": (
        "I cannot {verb}",
        "I have trouble with {noun}",
        "I want to {verb} but it does not work",
        "I {do} the {other} when I {verb}",
    ),
}
_DO = split_words("""
    bend bite bounce break burn buzz crack crumble curl drift drip drop dry fade fall fight float freeze grow hide hum
    itch jam jump kick leak lean melt mix move peel pull push rattle ring roll run rust shake shrink sink sleep slide
    slip smell smoke spin split stick stop swell swing turn wake warp wobble
""")
_WHEN = (
    "all night",
    "all day",
    "every day",
    "in the morning",
    "in the evening",
    "at night",
    "when it rains",
    "when it is cold",
    "in the sun",
    "too much",
    "too fast",
    "too soon",
    "too early",
    "for no reason",
    "again and again",
    "on the way home",
)

# Every clause names the thing, and every one is true of anything.
_ADMIT: dict[str, tuple[str, ...]] = {
    "any": (
        "I do not know much about {noun}",
        "I know very little about {noun}",
        "I have not learned about {noun}",
        "I am not sure about {noun}",
        "I have no good facts about {noun}",
        "I was never taught about {noun}",
        "I cannot say much about {noun}",
        "I do not know enough about {noun}",
    ),
    "how": (
        "I do not know how to {verb}",
        "I have never learned how to {verb}",
        "I cannot say for sure how to {verb}",
        "I know too little about {gerund}",
    ),
    "what": (
        "I do not know what {noun} {is}",
        "I cannot say what {noun} {is}",
        "I have never learned what {noun} {is}",
    ),
    "why": (
        "I do not know why people {verb}",
        "I cannot give you a good reason for {gerund}",
        "I do not know what speaks for {gerund}",
    ),
    "tip": (
        "I have no good tip for {gerund}",
        "I know no tricks for {gerund}",
        "I do not know what helps with {gerund}",
    ),
    "worth": (
        "I cannot say whether {gerund} is worth it",
        "I do not know if it is wise to {verb}",
        "I am not sure that {gerund} is worth it",
    ),
    "problem": (
        "I do not know how to help if {trouble}",
        "I cannot say what to do when {trouble}",
        "I know too little about {noun} to solve this",
    ),
    "start": (
        "I do not know how to start with {gerund}",
        "I cannot name the first step of {gerund}",
        "I do not know where to begin with {gerund}",
    ),
    "after": (
        "I do not know what comes next in {gerund}",
        "I cannot name the next step of {gerund}",
        "I do not know the other steps of {gerund}",
    ),
}

_STEPS = (
    "ask someone who knows {noun} well",
    "look for a good book about {noun}",
    "read a little about {noun} first",
    "search for {noun} in a library",
    "compare a few sources about {noun}",
    "write down your questions about {noun}",
    "talk to an expert on {noun}",
    "ask a friend about {noun}",
    "take your time with {noun}",
    "look up {noun} in an encyclopedia",
    "check what others say about {noun}",
    "watch a film about {noun}",
)
_DOING_STEPS = (
    "watch someone {verb}",
    "ask a friend to {verb} with you",
    "start small with {gerund}",
    "read a guide before you {verb}",
    "make a plan before you {verb}",
    "find a class about {gerund}",
)
_FACTS = (
    "a library may have more on {noun}",
    "a good book about {noun} can help",
    "someone near you may know more about {noun}",
    "there is more to say about {noun} than I know",
    "a larger model may know more about {noun}",
    "an expert can tell you more about {noun}",
    "others have written about {noun}",
    "a careful search for {noun} may help",
    "people who know {noun} can help you best",
    "many questions about {noun} have an answer in books",
)
_DOING_FACTS = (
    "{gerund} may get easier with practice",
    "{gerund} may take some time",
    "a teacher can help you with {gerund}",
    "some people learn {gerund} from friends",
    "a first try at {gerund} need not be perfect",
)

_SLOTS = ("{trouble}", "{gerund}", "{noun}", "{verb}", "{is}")


_EVERYDAY = 0.3
"""Share of the unknown topics that are everyday activities."""

_ANY_VERB = 0.5
"""Share of the others that do with a thing what is done with something else: a verb, too, has to be copied."""

_NO_VERB = 0.5
"""Share of these verbs that are none, but any word; and of the verbs and adjectives in troubles, half as much."""


@cache
def _everyday(heldout: bool) -> tuple[tuple[str, str, str], ...]:
    """Activities whose object is no topic; those with a word that is held out, or those without."""
    taken = {topic.key.lower() for topic in topics()} | {topic.noun.lower() for topic in topics()}

    def held(noun: str) -> bool:
        return any(heldout_noun(word) for word in noun.split() if word not in ("a", "an", "the"))

    return tuple(activity for activity in activities() if activity[2] not in taken and held(activity[2]) == heldout)


@cache
def any_verbs() -> tuple[tuple[str, str], ...]:
    """One-word verbs that take an object, with their -ing forms: those of activities and of training's topics."""
    found = {(verb, gerund) for verb, gerund, _ in activities()}
    found |= {form for forms in VERBS.values() for form in forms}
    for topic in topics():
        if topic.id not in heldout_topics() and topic.verb.endswith(topic.noun):
            found.add((topic.verb.removesuffix(topic.noun).strip(), topic.gerund.removesuffix(topic.noun).strip()))
    return tuple(sorted((verb, gerund) for verb, gerund in found if verb.isalpha() and gerund.isalpha()))


_SWAPPED = 0.4
"""Share of a made-up clause's longer words that come from elsewhere."""


def _verb(rng: random.Random, it: Thing) -> tuple[str, str]:
    """Something to do with a thing, with its -ing form."""
    if it.sort in ("person", "place") or rng.random() >= _ANY_VERB:
        return rng.choice(VERBS[it.sort])
    if rng.random() >= _NO_VERB:
        return rng.choice(any_verbs())
    verb = any_word(rng)
    return verb, gerund_of(verb)


def _trouble(rng: random.Random, it: Thing, verb: str, heldout: bool) -> str:
    """What went wrong with a thing, as its owner says it."""

    def word(usual: Sequence[str]) -> str:
        return any_word(rng) if not heldout and rng.random() < _NO_VERB / 2 else rng.choice(usual)

    do = word(_DO)
    forms = {"{verb}": f"{verb} {it.noun}", "{noun}": it.noun, "{bare}": it.bare, "{stuff}": substance(rng, heldout)}
    forms |= {"{adjective}": word(ADJECTIVES), "{adjective2}": word(ADJECTIVES)}
    forms |= {"{do}": do, "{does}": plural_of(do), "{when}": rng.choice(_WHEN), "{other}": thing(rng, heldout).bare}
    text = rng.choice(_TROUBLES["things" if it.plural else it.sort if it.sort == "thing" else "other"])
    for slot, filling in forms.items():
        text = text.replace(slot, filling)
    return text


def made_up_topic(rng: random.Random) -> Topic:
    """A topic nobody wrote, with clauses that nobody wrote: those of a known one, many words of them swapped.

    What they say is nonsense. In it a style shows by its own words alone, as in texts about anything never seen.
    """
    known = [topic for topic in topics() if topic.id not in heldout_topics()]

    def swapped(clause: Clause) -> Clause:
        words = clause.text.split(" ")
        for i, word in enumerate(words):
            if len(word) > 3 and rng.random() < _SWAPPED:
                other = rng.choice(rng.choice(list(rng.choice(known).all())).text.split(" "))
                words[i] = other if len(other) > 3 else word
        return replace(clause, text=" ".join(words))

    model = rng.choice(known)
    clauses = {role: tuple(map(swapped, clauses)) for role, clauses in model.clauses.items()}
    return replace(unknown_topic(rng), clauses=clauses, known=True)


def unknown_topic(rng: random.Random, heldout: bool = False, what: Thing | None = None) -> Topic:
    """A topic nobody wrote: a thing (drawn unless given) and something to do with it."""
    if what is None and rng.random() < _EVERYDAY:
        verb, gerund, noun = rng.choice(_everyday(heldout))
        bare = noun.removeprefix("a ").removeprefix("an ").removeprefix("the ")
        it = Thing(noun, bare, "thing" if noun != bare else "stuff", plural=noun == bare and noun.endswith("s"))
    else:
        it = what or thing(rng, heldout)
        verb, gerund = _verb(rng, it)
    return Topic(
        id=f"unknown:{it.bare}",
        noun=it.noun,
        key=it.bare,
        gerund=f"{gerund} {it.noun}",
        verb=f"{verb} {it.noun}",
        plural=it.plural,
        problem=_trouble(rng, it, verb, heldout),
        clauses={},
        known=False,
    )


def unknown_plan(topic: Topic, kind: str, rng: random.Random, used: frozenset[Clause] = frozenset()) -> Plan:
    """Own up to not knowing, then point to help; the thing is named in every clause."""
    admits = outside.ADMIT.get(kind) or _ADMIT[kind if kind in _ADMIT and rng.random() < 0.5 else "any"]
    doing = kind in {"how", "start", "tip", "after", "problem", "why", "worth"}
    helps = outside.HELP.get(kind) or _help(doing)
    picked = [("admit", rng.choice(admits)), *rng.sample([(r, text) for r, texts in helps for text in texts], 3)]
    said = {clause.text for clause in used}
    clauses = []
    for role, text in picked:
        filled = fill_clause(text, topic)
        if filled not in said:
            clauses.append(Clause(role, filled))
    if not clauses:
        clauses = [Clause("admit", fill_clause(_ADMIT["any"][0], topic))]
    return Plan(topic, kind, tuple(clauses))


def _help(doing: bool) -> tuple[tuple[str, tuple[str, ...]], ...]:
    always = (("tip", _STEPS), ("fact", _FACTS))
    return (*always, ("tip", _DOING_STEPS), ("fact", _DOING_FACTS)) if doing else always


def fill_clause(text: str, topic: Topic) -> str:
    """Fill the topic slots of a clause."""
    for slot in _SLOTS:
        if slot in text:
            text = text.replace(slot, topic.slots[slot])
    return text


def clause_templates() -> dict[str, tuple[str, ...]]:
    """Every clause that may be said of an unknown thing, by role, with its slots."""
    admits = [text for texts in _ADMIT.values() for text in texts]
    found = {
        "admit": [*admits, *chain.from_iterable(outside.ADMIT.values())],
        "tip": [*_STEPS, *_DOING_STEPS],
        "fact": [*_FACTS, *_DOING_FACTS],
    }
    for helps in outside.HELP.values():
        for role, texts in helps:
            found[role] += texts
    return {role: tuple(texts) for role, texts in found.items()}
