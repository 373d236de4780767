"""Questions about what the pair does not know: answered modestly, and naming the thing asked about.

The thing is one of thousands of nouns and invented words, so the only way to name it is to copy it.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace
from functools import cache

from .activities import activities
from .answers import Plan
from .names import ADJECTIVES, Thing, invented, person, place, substance, thing
from .splits import heldout_noun, heldout_topics
from .topics import Clause, Topic, topics

_VERBS: dict[str, tuple[tuple[str, str], ...]] = {
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
        "I cannot {verb}",
        "I have trouble with {noun}",
        "I have lost my {bare}",
    ),
    "other": ("I cannot {verb}", "I have trouble with {noun}", "I want to {verb} but it does not work"),
}

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
_OUTSIDE_HELP = {
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
_OUTSIDE_ADMIT = {"lookup": _LOOKUP_ADMIT, "task": _TASK_ADMIT}
_WORDS = {
    "{event}": ("match", "election", "race", "final", "world cup", "song contest", "prize", "war", "tournament"),
    "{ruler}": ("president", "king", "queen", "mayor", "prime minister", "emperor", "leader"),
    "{op}": ("times", "plus", "minus", "divided by"),
}
_QUESTION_SLOT = re.compile(r"\{\w+\}")
_SLOTS = ("{trouble}", "{gerund}", "{noun}", "{verb}", "{is}")


_EVERYDAY = 0.4
"""Share of the unknown topics that are everyday activities."""

_ANY_VERB = 0.4
"""Share of the others that do with a thing what is done with something else: a verb, too, has to be copied."""


@cache
def _everyday(heldout: bool) -> tuple[tuple[str, str, str], ...]:
    """Activities whose object is no topic; those with a word that is held out, or those without."""
    taken = {topic.key.lower() for topic in topics()} | {topic.noun.lower() for topic in topics()}

    def held(noun: str) -> bool:
        return any(heldout_noun(word) for word in noun.split() if word not in ("a", "an", "the"))

    return tuple(activity for activity in activities() if activity[2] not in taken and held(activity[2]) == heldout)


@cache
def _any_verbs() -> tuple[tuple[str, str], ...]:
    """One-word verbs that take an object, with their -ing forms: those of activities and of training's topics."""
    found = {(verb, gerund) for verb, gerund, _ in activities()}
    found |= {form for forms in _VERBS.values() for form in forms}
    for topic in topics():
        if topic.id not in heldout_topics() and topic.verb.endswith(topic.noun):
            found.add((topic.verb.removesuffix(topic.noun).strip(), topic.gerund.removesuffix(topic.noun).strip()))
    return tuple(sorted((verb, gerund) for verb, gerund in found if verb.isalpha() and gerund.isalpha()))


_SWAPPED = 0.4
"""Share of a made-up clause's longer words that come from elsewhere."""


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
        usual = it.sort in ("person", "place") or rng.random() >= _ANY_VERB
        verb, gerund = rng.choice(_VERBS[it.sort] if usual else _any_verbs())
    forms = {"{verb}": f"{verb} {it.noun}", "{noun}": it.noun, "{bare}": it.bare}
    forms |= {"{adjective}": rng.choice(ADJECTIVES), "{adjective2}": rng.choice(ADJECTIVES)}
    forms["{stuff}"] = substance(rng, heldout)
    trouble = rng.choice(_TROUBLES["things" if it.plural else it.sort if it.sort == "thing" else "other"])
    for slot, text in forms.items():
        trouble = trouble.replace(slot, text)
    return Topic(
        id=f"unknown:{it.bare}",
        noun=it.noun,
        key=it.bare,
        gerund=f"{gerund} {it.noun}",
        verb=f"{verb} {it.noun}",
        plural=it.plural,
        problem=trouble,
        clauses={},
        known=False,
    )


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


def unknown_plan(topic: Topic, kind: str, rng: random.Random, used: frozenset[Clause] = frozenset()) -> Plan:
    """Own up to not knowing, then point to help; the thing is named in every clause."""
    admits = _OUTSIDE_ADMIT.get(kind) or _ADMIT[kind if kind in _ADMIT and rng.random() < 0.5 else "any"]
    doing = kind in {"how", "start", "tip", "after", "problem", "why", "worth"}
    helps = _OUTSIDE_HELP.get(kind) or _help(doing)
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
        "admit": [*admits, *_LOOKUP_ADMIT, *_TASK_ADMIT],
        "tip": [*_STEPS, *_DOING_STEPS],
        "fact": [*_FACTS, *_DOING_FACTS],
    }
    for helps in _OUTSIDE_HELP.values():
        for role, texts in helps:
            found[role] += texts
    return {role: tuple(texts) for role, texts in found.items()}
