"""How a person judges answers in a chat: between two, by keeping another, by editing, by a word. Each choice teaches
the profile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from drift_edge.errors import UsageError
from drift_edge.events import Answer
from drift_edge.preferences import PreferencePair
from drift_edge.sampling import new_seed, noise_seed

from .dialogue import Dialogue, Shown, Steering
from .editor import edit_text
from .learner import needed

#: Shows a prompt, and returns one of some keys or what else was typed; EOFError and KeyboardInterrupt as for a line.
ReadKey = Callable[[str, Sequence[str]], str]
A, B, BOTH, NEITHER = "a", "b", "=", "n"
_REDRAWS = 3  # how often an answer is drawn again that came out as the one before


@dataclass(frozen=True, slots=True)
class Two:
    """Two answers to one question.

    Attributes:
        a, b: as shown.
        first_is_a: whether A is the answer of the first way to steer.
    """

    a: Answer
    b: Answer
    first_is_a: bool


# -- between two answers


def ask_two(dialogue: Dialogue, question: str, read_key: ReadKey) -> None:
    """Ask, show two answers, and learn from which of them the person takes. That one stays in the conversation.

    Raises:
        UsageError: there is no profile.
        DriftError: the engine cannot answer, or the choice cannot be kept.
    """
    learner = needed(dialogue.learner)
    dialogue.begin(question)
    own = dialogue.steering
    try:
        two = show_two(dialogue, own, learner.probe(own))
    except KeyboardInterrupt:
        dialogue.screen.say("(stopped, so there is nothing to choose between)", "dim")
        return
    if two is None:
        return
    try:
        key = read_choice(dialogue, read_key, "a, b, = (equally good) or n (neither)? ", (A, B, BOTH, NEITHER))
    except (EOFError, KeyboardInterrupt):
        key = NEITHER
    take(dialogue, two, key, "chat /ab")


def show_two(dialogue: Dialogue, first: Steering, second: Steering) -> Two | None:
    """Show two answers to the last question, steered in two ways, in no fixed order.

    Returns:
        Both, that of the first way being kept for now; None where both came out the same, which is said.

    Raises:
        KeyboardInterrupt: Ctrl-C stopped an answer; what there is of it is kept.
        DriftError: the engine cannot answer.
    """
    screen, turn = dialogue.screen, dialogue.turn
    sides = {True: first, False: second}
    seed = dialogue.settings.seed
    seed = new_seed() if seed is None else seed
    order = (True, False) if noise_seed(seed, len(dialogue.turns), turn.attempt) % 2 else (False, True)
    shown: dict[bool, Answer] = {}
    for letter, is_first in zip("AB", order, strict=True):
        if not screen.quiet:
            screen.say(f"{letter}:", "bold")
        # The same noise for both, so that what steers them is all that they differ by.
        answer = dialogue.generate(sides[is_first], seed=seed)
        for _ in range(_REDRAWS):
            if answer.text.strip() != next((other.text.strip() for other in shown.values()), None):
                break
            screen.say("(the same again; once more:)", "dim")
            turn.attempt += 1
            answer = dialogue.generate(sides[is_first], seed=seed)
        shown[is_first] = answer
        if answer.finish_reason == "cancelled":
            dialogue.keep(shown.get(True, answer))
            raise KeyboardInterrupt
    dialogue.keep(shown[True])
    if shown[True].text.strip() == shown[False].text.strip():
        screen.say("(both came out the same, so there is nothing to choose between)", "dim")
        return None
    return Two(shown[order[0]], shown[order[1]], order[0])


def read_choice(dialogue: Dialogue, read_key: ReadKey, prompt: str, keys: Sequence[str]) -> str:
    """One of the keys.

    Raises:
        EOFError, KeyboardInterrupt: the person presses Ctrl-D or Ctrl-C instead.
    """
    while True:
        key = read_key(prompt, keys).strip().lower()
        if key in keys:
            return key
        dialogue.screen.say(f"expected one of {', '.join(keys)}, got {key!r}")


def take(dialogue: Dialogue, two: Two, key: str, source: str) -> None:
    """Keep what was chosen, and learn from it.

    Args:
        dialogue: its last turn has the two answers.
        two: as shown.
        key: A, B, BOTH or NEITHER; with the last two, the person's own answer is kept.
        source: says where the choice was made.

    Raises:
        DriftError: the choice cannot be kept.
    """
    if key == NEITHER:
        dialogue.screen.say("(nothing is learned)", "dim")
        return
    chosen, rejected = (two.b, two.a) if key == B else (two.a, two.b)
    if key != BOTH:
        dialogue.keep(chosen)
    _learn(dialogue, chosen.text, rejected.text, source, tie=key == BOTH)


# -- one answer over another


def settle(dialogue: Dialogue) -> None:
    """Going on with the conversation keeps the answer that took another's place: learn that.

    Raises:
        DriftError: the choice cannot be kept.
    """
    if dialogue.learner and dialogue.other and dialogue.other.replaced:
        current = dialogue.current()
        if current and current.whole and dialogue.other.whole and _differ(current, dialogue.other):
            dialogue.screen.say("you went on with the second answer (/undo takes that back)", "dim")
            _over(dialogue, current, dialogue.other, "chat /regen")


def keep(dialogue: Dialogue) -> None:
    """The answer that took another's place is better.

    Raises:
        UsageError: none did.
        DriftError: the choice cannot be kept.
    """
    needed(dialogue.learner)
    if dialogue.other is None or not dialogue.other.replaced:
        raise UsageError("there is no other answer that this one took the place of: /regen shows one")
    _over(dialogue, _whole(dialogue.current()), _whole(dialogue.other), "chat /regen")


def good(dialogue: Dialogue) -> None:
    """The last answer is better than the other one shown; where there is none, than one that probes.

    Raises:
        UsageError: nothing was asked or answered yet, or an answer was stopped.
        DriftError: the engine cannot answer, or the choice cannot be kept.
    """
    current = _whole(dialogue.current())
    _over(dialogue, current, _other(dialogue), "chat /good")


def bad(dialogue: Dialogue) -> None:
    """The other answer shown is better, and takes the last one's place; where there is none, one that probes.

    Raises:
        UsageError: nothing was asked or answered yet, or an answer was stopped.
        DriftError: the engine cannot answer, or the choice cannot be kept.
    """
    current = _whole(dialogue.current())
    other = _other(dialogue)
    dialogue.replace(other)
    _over(dialogue, other, current, "chat /bad")


def edit(dialogue: Dialogue) -> None:
    """Open the last answer in the person's editor; what they make of it is better, and takes its place.

    Raises:
        UsageError: there is no answer, or no editor, or it fails; nothing is learned then.
        DriftError: the choice cannot be kept.
    """
    current = dialogue.current()
    if current is None:
        raise UsageError("there is no answer to edit yet")
    text = edit_text(current.text).strip()
    if text == current.text.strip() or not text:
        what = "left as it was" if text else "emptied"
        dialogue.screen.say(f"(the answer was {what}: nothing is learned)", "dim")
        return
    dialogue.replace(Shown(text))
    if dialogue.learner is None:
        dialogue.screen.say("(your version is kept in the conversation; without a profile nothing is learned)", "dim")
    elif current.whole and current.text:
        _over(dialogue, Shown(text), current, "chat /edit")
    else:
        dialogue.screen.say("(your version is kept; an answer that was stopped teaches nothing)", "dim")


def _other(dialogue: Dialogue) -> Shown:
    """The answer to compare the last one with, made and shown where there is none."""
    learner = needed(dialogue.learner)
    if dialogue.other is None:
        dialogue.screen.say("another, to compare:", "bold")
        dialogue.turn.attempt += 1
        dialogue.other = Shown.of(dialogue.generate(learner.probe(dialogue.steering)))
    return _whole(dialogue.other)


def _whole(shown: Shown | None) -> Shown:
    if shown is None or not shown.text:
        raise UsageError("there is no answer to judge yet")
    if not shown.whole:
        raise UsageError("an answer that was stopped teaches nothing: /regen asks again")
    return shown


def _differ(a: Shown, b: Shown) -> bool:
    return a.text.strip() != b.text.strip()


def _over(dialogue: Dialogue, chosen: Shown, rejected: Shown, source: str) -> None:
    dialogue.other = None
    if _differ(chosen, rejected):
        _learn(dialogue, chosen.text, rejected.text, source)
    else:
        dialogue.screen.say("(both answers are the same: nothing is learned)", "dim")


def _learn(dialogue: Dialogue, chosen: str, rejected: str, source: str, *, tie: bool = False) -> None:
    from drift_edge.learner import choice_context

    now = datetime.now(UTC).isoformat(timespec="seconds")
    pair = PreferencePair(choice_context(dialogue.messages()), chosen, rejected, source=source, time=now, tie=tie)
    needed(dialogue.learner).learn(pair)
