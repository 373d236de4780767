"""Reading answers by rule, for evaluation: is it on topic, in which style, well formed, does it follow up.

Nothing here is used in training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain, pairwise

from . import neutral, smalltalk
from .answers import done_clause
from .grammar import Fills, Grammar, canonical, canonical_words, sentences
from .styles import Style, style_by_name, styles
from .topics import IMPERATIVE, Clause, Topic, topics
from .unknown import VERBS, any_verbs, clause_templates, fill_clause

_SHORT_WORDS = 24
_ENDS = (".", "!", "?", "~", ")")
_ARTICLES = frozenset({"a", "an", "the", "my", "your", "some"})
_ANYTHING: Fills = dict.fromkeys(("{step}", "{step2}", "{fact}", "{noun}", "{gerund}", "{verb}", "{trouble}", "{name}"))


# --- style ---------------------------------------------------------------------------------------------------------


@cache
def _marks(name: str) -> Grammar:
    """The sentences of a style that carry words of its own."""
    style = style_by_name()[name]
    templates = (*style.openers, *style.asides, *style.closers, *style.step_frames, *style.fact_frames)
    bare = {"{Step}.", "{Fact}.", "{step}.", "{fact}."}
    return Grammar(template for template in templates if template not in bare)


def marker_count(style_name: str, text: str) -> int:
    """How many sentences of the text carry a mark of the style.

    A mark is an opener, aside, closer or frame of the style, or a word that it puts in place of another. For
    "exclamatory" an exclamation mark counts too; "concise" has one mark: being a single short sentence.

    Raises:
        KeyError: no such style.
    """
    style = style_by_name()[style_name]
    parts = sentences(text)
    if style.plain:
        return int(len(parts) == 1 and len(canonical_words(text)) <= _SHORT_WORDS)
    grammar, own = _marks(style_name), _own_words(style)
    return sum(
        grammar.matches(part, _ANYTHING)
        or not own.isdisjoint(part.lower().rstrip(".!?,").replace(",", "").split())
        or (style.exclaim >= 0.9 and part.endswith("!"))
        for part in parts
    )


def marker(style_name: str, text: str) -> bool:
    """True if the text shows the style: one mark, or for "exclamatory" marks in half of its sentences.

    Raises:
        KeyError: no such style.
    """
    style = style_by_name()[style_name]
    count = marker_count(style_name, text)
    if style.exclaim >= 0.9:
        return count * 2 >= max(1, len(sentences(text)))
    lowered = style.lower >= 0.5 and len(text) > 20 and text == text.lower()
    return count > 0 or lowered


def _own_words(style: Style) -> frozenset[str]:
    return frozenset(word.lower() for word in style.words.values())


# --- content -------------------------------------------------------------------------------------------------------


def _contains(haystack: str, needle: str) -> bool:
    return f" {needle} " in f" {haystack} "


def _flat(text: str) -> str:
    """The canonical text with a bar between sentences, so that nothing is found across them."""
    return " | ".join(canonical(part) for part in sentences(text))


def clauses_in(topic: Topic, text: str) -> list[Clause]:
    """The clauses of a topic that the text says, in the order of the text."""
    flat = f" {_flat(text)} "
    candidates = [*topic.all(), done_clause(topic)] if topic.known else _unknown_clauses(topic)
    found = [(flat.find(f" {canonical(clause.text)} "), clause) for clause in candidates]
    return [clause for position, clause in sorted(found, key=lambda pair: pair[0]) if position >= 0]


def mentions(noun: str, text: str) -> bool:
    """True if the text names the noun, with any article, in the singular or plural form asked for or with an -s."""
    words = canonical_words(noun)
    while len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    bare = " ".join(words)
    flat = canonical(text)
    forms = (bare, f"{bare}s", f"{bare}es", bare.removesuffix("s"))
    return any(_contains(flat, form) for form in forms if form)


def on_topic(topic: Topic, text: str) -> bool:
    """True if the text names the topic's key or says one of its clauses."""
    return mentions(topic.key, text) or mentions(topic.noun, text) or bool(clauses_in(topic, text))


# --- form ----------------------------------------------------------------------------------------------------------


@cache
def _all_sentences() -> Grammar:
    """Every sentence that the corpus can say."""
    grammar = Grammar()
    for style in styles():
        for group in (style.openers, style.asides, style.closers, style.step_frames, style.fact_frames):
            for template in group:
                grammar.add(template)
    for frames in (*neutral.FRAMES.values(), *neutral.LEADS.values()):
        for template in frames:
            grammar.add(template)
    for sentence in smalltalk.texts()[0]:
        grammar.add(sentence)
        grammar.add(f"{sentence[:-1]}, {{name}}.")
    return grammar


@cache
def _known_fills() -> dict[str, frozenset[str]]:
    fills: dict[str, set[str]] = {slot: set() for slot in _ANYTHING}
    for topic in topics():
        _add_fills(fills, topic, [*topic.all(), done_clause(topic)])
    fills["{fact}"].update(canonical(text) for text in smalltalk.texts()[1])
    return {slot: frozenset(texts) for slot, texts in fills.items()}


def _add_fills(fills: dict[str, set[str]], topic: Topic, clauses: Sequence[Clause]) -> None:
    for slot in ("{noun}", "{gerund}", "{verb}", "{trouble}"):
        fills[slot].add(canonical(topic.slots[slot]))
    for clause in clauses:
        text = canonical(clause.text)
        if clause.role in IMPERATIVE:
            fills["{step}"].add(text)
            fills["{step2}"].add(text)
        else:
            fills["{fact}"].add(text)


def _unknown_clauses(topic: Topic) -> list[Clause]:
    return [Clause(role, fill_clause(text, topic)) for role, texts in clause_templates().items() for text in texts]


def owns_up(subject: Topic, text: str) -> bool:
    """True if the text says that it does not know the subject, or what can be done with it."""
    return any(clause.role == "admit" for clause in clauses_in(replace(subject, known=False), text))


def garbled_sentences(text: str, subject: Topic | None = None, asked: str = "") -> list[str]:
    """The sentences that the corpus could not have said.

    Args:
        text: an answer.
        subject: what was asked about; any topic is known, but of this one it may also be said that it is not.
        asked: the question. Where it does not tell what is done with an unknown thing, an answer may take anything.

    Returns:
        Every sentence that is not a known opener, aside, closer or frame around a clause of some topic; an
        unfinished last sentence among them.
    """
    fills: Fills = _known_fills()
    if subject is not None:
        extra: dict[str, set[str]] = {slot: set() for slot in _ANYTHING}
        for way in _ways(subject, canonical(asked)):
            _add_fills(extra, way, _unknown_clauses(way))
        fills = {slot: known | extra[slot] for slot, known in _known_fills().items()}
    fills = {**fills, "{name}": None}
    grammar = _all_sentences()
    return [part for part in sentences(text) if not part.endswith(_ENDS) or not grammar.matches(part, fills)]


def _ways(subject: Topic, asked: str) -> Iterator[Topic]:
    yield subject
    if asked and not any(_contains(asked, canonical(form)) for form in (subject.verb, subject.gerund)):
        for verb, gerund in {*any_verbs(), *chain.from_iterable(VERBS.values())}:
            yield replace(subject, verb=f"{verb} {subject.noun}", gerund=f"{gerund} {subject.noun}")


def garbled(text: str, subject: Topic | None = None, asked: str = "") -> bool:
    """True if the text is empty or has a sentence that the corpus could not have said (see `garbled_sentences`)."""
    return not text.strip() or bool(garbled_sentences(text, subject, asked))


def repeated_items(text: str) -> int:
    """How many sentences or clauses of known topics the text says again."""
    parts = Counter(canonical(part) for part in sentences(text))
    again = sum(count - 1 for count in parts.values())
    flat = f" {_flat(text)} "
    for clause in _known_fills()["{fact}"] | _known_fills()["{step}"]:
        again_here = flat.count(f" {clause} ") - 1
        if again_here > 0:
            inside = max((count for part, count in parts.items() if _contains(part, clause)), default=1) - 1
            again += max(0, again_here - inside)
    return again


# --- conversation --------------------------------------------------------------------------------------------------

_ROLES_OF = {
    "why": {"reason"},
    "worth": {"pro", "con"},
    "tip": {"tip", "fix"},
    "problem": {"fix"},
    "what": {"definition"},
}


def followup_right(topic: Topic, kind: str, before: Sequence[str], answer: str) -> bool:
    """True if the answer to a follow-up says what the turns before call for.

    Args:
        topic: the topic of the conversation.
        kind: of the follow-up, one of `questions.FOLLOW_KINDS`.
        before: the answers so far.
        answer: the answer to judge.

    Returns:
        For "after": the step that follows the last one said, and none said before (or that there are no more).
        For "about": something not yet said. For "how": the first step. Else: a clause of the right role.
    """
    said = [clause for text in before for clause in clauses_in(topic, text)]
    now = clauses_in(topic, answer)
    if not topic.known:
        return mentions(topic.key, answer)
    if kind == "after":
        last = max((clause.step for clause in said), default=0)
        steps = [clause.step for clause in now if clause.step]
        if last == 4:
            return not steps and bool(now)
        return bool(steps) and steps[0] == last + 1
    if kind == "about":
        return any(clause not in said for clause in now)
    if kind == "how":
        return any(clause.step == 1 for clause in now)
    return any(clause.role in _ROLES_OF[kind] for clause in now)


def steps_in_order(topic: Topic, text: str) -> bool:
    """True if the steps that the text says come in their order, none left out between them."""
    steps = [clause.step for clause in clauses_in(topic, text) if clause.step]
    return all(later == earlier + 1 for earlier, later in pairwise(steps))
