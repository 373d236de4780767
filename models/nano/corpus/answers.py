"""Answers: a plan of clauses, drawn without regard to style, and its rendering in a voice."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from . import neutral
from .questions import fill
from .styles import Style
from .topics import IMPERATIVE, Clause, Topic, capital

_FOUR = (2, 4)
_PLAIN_ITEMS = {
    "how": (3, 4),
    "start": (1, 3),
    "after": (1, 2),
    "problem": (2, 3),
    "trouble": (1, 2),
    "tip": (2, 3),
    "talk": (4, 4),
}
_PAIR_RATE = 0.15
_SHORT_PAIR_RATE = 0.5
_SHORT_BARE_RATE = 0.4
_ADMIT_FRAME_RATE = 0.3


@dataclass(frozen=True, slots=True)
class Plan:
    """What an answer says, in order, whatever its style.

    `core` is the index of the clause that answers the question; shorter answers keep it.
    """

    topic: Topic | None
    kind: str
    clauses: tuple[Clause, ...]
    core: int = 0

    def take(self, n: int) -> tuple[Clause, ...]:
        """At most n of the clauses, in order, the core one among them."""
        if self.core < n:
            return self.clauses[:n]
        return (*self.clauses[: n - 1], self.clauses[self.core])


@dataclass(frozen=True, slots=True)
class Voice:
    """How a conversation is worded: no style (neutral), one, or two mixed, at an intensity in [0.5, 1]."""

    styles: tuple[Style, ...] = ()
    intensity: float = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer's text and the clauses it says."""

    text: str
    clauses: tuple[Clause, ...]


@cache
def done_clause(topic: Topic) -> Clause:
    """What there is to say when every step has been said."""
    return Clause("done", f"there are no more steps in {topic.gerund}")


def plan(
    topic: Topic,
    kind: str,
    rng: random.Random,
    used: frozenset[Clause] = frozenset(),
    last_step: int = 0,
) -> Plan:
    """Draw what to say about a known topic.

    Args:
        topic: a topic with all roles.
        kind: a kind of question, or "after" for the step after `last_step`.
        rng: source of the draw.
        used: clauses said earlier in the conversation, left out where enough others remain.
        last_step: the last step said so far (0 to 4), for "after".

    Returns:
        One to four clauses; no clause twice.
    """
    groups = topic.clauses

    def pick(*roles: str) -> list[Clause]:
        found = [clause for role in roles for clause in groups[role] if clause not in used]
        rng.shuffle(found)
        return found

    draw = rng.random()
    steps = list(groups["step"])
    tip, fix = groups["tip"][0], groups["fix"][0]
    core = 0
    if kind == "how":
        endings: list[list[Clause]] = [[], [tip], [fix]]
        ending = endings[0 if draw < 0.76 else 1 if draw < 0.9 else 2]
        clauses: list[Clause] = (steps[: rng.randint(2, 3)] if ending else steps) + ending
    elif kind == "start":
        clauses = [steps[0], steps[1], tip if draw < 0.4 else steps[2]]
    elif kind == "after":
        rest = steps[last_step : last_step + 2]
        clauses = rest or [done_clause(topic), *pick("tip", "pro")[:1]]
    elif kind == "what":
        clauses = [groups["definition"][0], *pick("fact"), *pick("reason", "pro")[:1]]
        if draw < 0.4:
            clauses = [clauses[0], *pick("fact", "reason", "pro")]
    elif kind == "why":
        reasons = pick("reason")
        clauses = reasons + pick("pro")
        if draw < 0.25 and reasons and not used:
            clauses, core = [groups["definition"][0], *reasons, *pick("pro")], 1
        elif draw < 0.4:
            clauses = [*reasons[:1], *pick("pro"), *reasons[1:]]
        elif draw < 0.5:
            clauses = reasons + pick("fact")[:1]
    elif kind == "tip":
        more = _distinct(pick("step", "fix", "fact", "con"), 2)
        clauses = [*pick("tip"), *more] if draw < 0.85 else [*pick("fix"), *pick("tip"), *pick("fact")[:1]]
    elif kind == "worth":
        sides = [*pick("pro"), *pick("con")]
        if draw < 0.35:
            sides.reverse()
        reasons = pick("reason")
        clauses = [*sides, *reasons[:1]]
        if draw > 0.75:
            clauses, core = [*reasons[:1], *sides], 2
    elif kind == "about":
        more = _distinct(pick("fact", "reason", "pro", "con", "step"), 3)
        clauses = [*pick("definition"), *more]
    elif kind == "problem":
        clauses = [*pick("fix"), *_distinct(pick("tip", "fact", "con"), 2)]
    else:
        raise ValueError(f"kind of question: expected one of the known kinds, got {kind!r}")
    if not clauses:
        clauses = pick("fact", "tip", "pro", "con", "reason", "fix")[:2] or [groups["fact"][0]]
    if kind == "problem" and used:
        kind = "trouble"  # nobody has said yet what went wrong
    return Plan(topic, kind, tuple(clauses[:4]), min(core, len(clauses) - 1))


def _distinct(clauses: list[Clause], n: int) -> list[Clause]:
    """The first n, with at most one step among them (several would need their order)."""
    found: list[Clause] = []
    for clause in clauses:
        if clause.step and any(other.step for other in found):
            continue
        found.append(clause)
        if len(found) == n:
            break
    return found


class _Writer:
    """Renders one answer: keeps track of what the answer has used so far."""

    def __init__(self, topic: Topic | None, kind: str, voice: Voice, rng: random.Random) -> None:
        self.topic = topic
        self.kind = kind
        self.rng = rng
        self.voice = voice
        self.mixed = list(voice.styles)
        if len(self.mixed) == 2:
            rng.shuffle(self.mixed)
        # The styles that wrap; a plain one ("concise") only sets the length.
        self.wrapping = [style for style in self.mixed if not style.plain]
        self.short = any(style.plain for style in self.mixed)
        self.used: set[str] = set()
        self.styled = 0

    def items(self) -> int:
        if not self.mixed:
            low, high = _PLAIN_ITEMS.get(self.kind, _FOUR)
            return self.rng.randint(low, high)
        if self.short:
            return 1
        low, high = self.rng.choice(self.mixed).items
        if self.kind == "talk":
            return 4
        return self.rng.randint(low, high)

    def happens(self, rate: float) -> bool:
        return self.rng.random() < rate * self.voice.intensity

    def fresh(self, texts: Sequence[str]) -> str:
        """One of the texts that this answer has not used, filled with the topic's forms; marks it used."""
        for _ in range(6):
            text = self.rng.choice(texts)
            if text not in self.used:
                break
        self.used.add(text)
        return fill(text, self.topic) if self.topic else text

    def opener(self) -> str | None:
        if self.wrapping:
            style = self.wrapping[0]
            if not style.openers or not self.happens(style.opener * (0.6 if self.short else 1.0)):
                return None
            self.styled += 1
            return self.fresh(style.openers if self.topic else style.bare_openers)
        leads = neutral.LEADS.get(self.kind)
        if leads and not self.mixed and self.topic and self.topic.known and self.rng.random() < neutral.LEAD_RATE:
            return self.fresh(leads)
        return None

    def closer(self) -> str | None:
        if not self.wrapping:
            return None
        style = self.wrapping[-1]
        forced = not self.styled and style.exclaim < 0.9 and style.lower < 0.9
        if not style.closers or not (forced or self.happens(style.closer * (0.4 if self.short else 1.0))):
            return None
        self.styled += 1
        return self.fresh(style.closers if self.topic else style.bare_closers)

    def aside(self) -> str | None:
        if not self.wrapping or self.short:
            return None
        style = self.rng.choice(self.wrapping)
        if not style.asides or not self.happens(style.aside * 0.6):
            return None
        self.styled += 1
        return self.fresh(style.asides)

    def sentence(self, clause: Clause, place: str, named: bool) -> str:
        """One clause in a frame of a style or in a plain one.

        Args:
            clause: what to say.
            place: name of the plain frames that fit here.
            named: False if the topic should be named by this sentence if it can.
        """
        if clause.role == "say":
            return clause.text
        style = self.rng.choice(self.wrapping) if self.wrapping else None
        rate = style.frame if style else 0.0
        if clause.role in {"admit", "self", "done"}:
            rate *= _ADMIT_FRAME_RATE
        if place != "fix.when" and style and self.happens(rate):
            frames = style.step_frames if clause.role in IMPERATIVE else style.fact_frames
            if named or self.rng.random() < 0.65:
                self.styled += 1
                return _put(self.fresh(frames), clause.text)
        return _put(self.plain(clause, place, named), clause.text)

    def plain(self, clause: Clause, place: str, named: bool) -> str:
        if self.short and place != "fix.when" and self.rng.random() < _SHORT_BARE_RATE:
            place, named = _bare(clause), True
        if self.topic and (not self.topic.known or self.topic.gerund in clause.text):
            return self.fresh(_naming(place, False) or neutral.FRAMES[place])  # the clause names it already
        if not named and (self.short or self.rng.random() < 0.6):
            return self.fresh(_naming(place, True) or neutral.FRAMES[place])
        return self.fresh(neutral.FRAMES[place])

    def finish(self, sentences: list[str]) -> str:
        exclaim = max((style.exclaim for style in self.mixed), default=0.0)
        lower = max((style.lower for style in self.mixed), default=0.0)
        if len(self.mixed) == 2:
            exclaim, lower = exclaim * 0.6, lower * 0.6
        if exclaim:
            sentences = [
                sentence[:-1] + "!" if sentence.endswith(".") and self.rng.random() < exclaim else sentence
                for sentence in sentences
            ]
        text = " ".join(sentences)
        for style in self.mixed:
            text = style.reword(text)
        return text.lower() if lower and self.rng.random() < lower else text


def _put(frame: str, text: str) -> str:
    return (
        frame.replace("{step}", text)
        .replace("{fact}", text)
        .replace("{Step}", capital(text))
        .replace("{Fact}", capital(text))
    )


def _bare(clause: Clause) -> str:
    if clause.role in IMPERATIVE:
        return "bare.step"
    return "bare.reason" if clause.role == "reason" else "bare"


@cache
def _naming(place: str, naming: bool) -> tuple[str, ...]:
    """The frames of a place that name the topic, or those that do not."""
    names = ("{noun}", "{verb}", "{gerund}", "{Gerund}", "{trouble}")
    return tuple(frame for frame in neutral.FRAMES[place] if naming == any(name in frame for name in names))


def _place(clause: Clause, before: Clause | None, kind: str, last_step: int) -> str:
    """Which plain frames fit a clause after the one before it."""
    role = clause.role
    previous = before.role if before else ""
    if role == "step":
        said = before.step if before else last_step if kind == "after" else 0
        if clause.step == said + 1 and (said or kind in {"how", "start"}):
            return "step.first" if clause.step == 1 else "step.last" if clause.step == 4 else "step.next"
        return "step.alone"
    if role == "fix":
        return "fix" if kind == "problem" and not before else "fix.when"
    if role == "con" and previous in {"pro", "reason"}:
        return "con.turn"
    if role == "pro" and previous == "con":
        return "pro.turn"
    if role == "tip" and before:
        return "tip.more" if previous in {"tip", "fix"} else "tip"
    if role == "fact" and before:
        return "fact.more"
    if role == "reason" and previous == "reason":
        return "reason.more"
    return role


def render(content: Plan, voice: Voice, rng: random.Random, last_step: int = 0) -> Answer:
    """Word a plan.

    Args:
        content: what to say; its topic is None for small talk, whose sentences have no topic to name.
        voice: the styles and their intensity.
        rng: source of every draw.
        last_step: the step before the answer, for "after".

    Returns:
        The text and the clauses that it says (a prefix of the plan's, with the core one).
    """
    writer = _Writer(content.topic, content.kind, voice, rng)
    chosen = content.take(writer.items())
    opener = writer.opener()
    key = content.topic.key.lower() if content.topic else ""
    named = content.topic is None or (opener is not None and key in opener.lower())
    if writer.short and _starts_with_two_steps(content) and rng.random() < _SHORT_PAIR_RATE:
        chosen = content.clauses[:2]
    said: list[str] = []
    index = 0
    while index < len(chosen):
        clause = chosen[index]
        before = chosen[index - 1] if index else None
        pair = _pair(writer, chosen, index)
        if said and not pair:
            aside = writer.aside()
            if aside:
                said.append(aside)
        if pair:
            said.append(pair)
            index += 2
        else:
            said.append(writer.sentence(clause, _place(clause, before, content.kind, last_step), named))
            index += 1
        named = True
    closer = writer.closer()
    parts = [opener] if opener else []
    parts += said
    if closer:
        parts.append(closer)
    return Answer(writer.finish(parts), tuple(chosen))


def _starts_with_two_steps(content: Plan) -> bool:
    return content.kind in {"how", "start"} and [clause.step for clause in content.clauses[:2]] == [1, 2]


def _pair(writer: _Writer, chosen: Sequence[Clause], index: int) -> str | None:
    """The first two steps of a how-to in one sentence, now and then; always where an answer has to be short."""
    if index or [clause.step for clause in chosen[:2]] != [1, 2]:
        return None
    if not writer.short and (len(chosen) < 3 or writer.rng.random() >= _PAIR_RATE):
        return None
    frame = writer.fresh(neutral.FRAMES["pair"]).replace("{step2}", chosen[1].text)
    return _put(frame, chosen[0].text)
