"""The commands of a conversation, each beginning with a slash. None is ever sent to the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drift_edge.errors import DriftError, UsageError
from drift_edge.events import Answer
from drift_edge.storage import write_private
from drift_edge.weights import select_active

from . import judging
from .config import LIVE, NAMES, SAVED, closest, read_saved
from .dialogue import Dialogue
from .learner import needed
from .render import weights_text
from .session import read_session
from .why import show_why

_STEERED = ("beta", "strength", "active")  # what a profile may say


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        run: takes the conversation and what stands behind the command's name.
        usage: what can stand there.
        help: one line.
    """

    run: Callable[[Dialogue, str], None]
    usage: str
    help: str


def run(dialogue: Dialogue, line: str) -> None:
    """Run the command that `line` names.

    Raises:
        UsageError: unknown (names the closest), or followed by what it does not take.
        DriftError: the command cannot be done.
        EOFError: the person wants to leave.
    """
    name, *rest = line.split(maxsplit=1)
    command = COMMANDS.get(name.lower())
    if command is None:
        raise UsageError(f"unknown command {name}; {closest(name.lower(), COMMANDS)} (a message may begin with //)")
    if rest and not command.usage:  # a text that was pasted, as like as not: it is not to vanish
        raise UsageError(f"{name} stands alone, but {rest[0].strip()[:40]!r} follows (a message may begin with //)")
    command.run(dialogue, rest[0].strip() if rest else "")


def tell_if_stopped(dialogue: Dialogue, answer: Answer) -> None:
    """After Ctrl-C, say what has become of the answer."""
    if answer.finish_reason == "cancelled":
        dialogue.screen.say("(stopped; /regen asks again)", "dim")


def _help(dialogue: Dialogue, _argument: str) -> None:
    rows = [(f"{name} {command.usage}".rstrip(), command.help) for name, command in COMMANDS.items()]
    rows.append(('"""', "begins and ends a message of several lines; Alt-Enter makes a new line"))
    rows.append(("Ctrl-C, Ctrl-D", "stop the answer; leave"))
    width = max(len(usage) for usage, _ in rows)
    dialogue.screen.say("\n".join(f"  {usage:<{width}}  {text}" for usage, text in rows))


def _leave(_dialogue: Dialogue, _argument: str) -> None:
    raise EOFError


def _clear(dialogue: Dialogue, _argument: str) -> None:
    dialogue.clear()
    dialogue.screen.say("a new conversation; the last one stays saved", "dim")


def _regenerate(dialogue: Dialogue, _argument: str) -> None:
    tell_if_stopped(dialogue, dialogue.regenerate())
    if dialogue.learner and dialogue.other:
        dialogue.screen.say("(going on keeps this one, and says it is better; /bad takes the one before)", "dim")


def _compare(dialogue: Dialogue, _argument: str) -> None:
    dialogue.compare()


def _ab(dialogue: Dialogue, argument: str) -> None:
    needed(dialogue.learner)
    if argument not in ("", "always", "off"):
        raise UsageError(f"expected /ab, /ab always or /ab off, got /ab {argument}")
    dialogue.ab = argument or "once"
    said = {"once": "the next answer comes as two", "always": "every answer comes as two; /ab off ends that"}
    dialogue.screen.say(said.get(dialogue.ab, "answers come one by one"), "dim")


def _judgement(judge: Callable[[Dialogue], None]) -> Callable[[Dialogue, str], None]:
    return lambda dialogue, _argument: judge(dialogue)


def _undo(dialogue: Dialogue, _argument: str) -> None:
    needed(dialogue.learner).undo()


def _profile(dialogue: Dialogue, _argument: str) -> None:
    needed(dialogue.learner).show()


def _why(dialogue: Dialogue, _argument: str) -> None:
    show_why(dialogue.explain(), dialogue.screen)


def _set(dialogue: Dialogue, argument: str) -> None:
    name, *rest = argument.split(maxsplit=1)
    name = name.lower().replace("_", "-")
    if name not in LIVE:
        if name in NAMES:
            raise UsageError(f"{name} is fixed once a chat has begun: start again with --{name}")
        raise UsageError(f"unknown setting {name!r}; {closest(name, LIVE)}")
    if not rest:
        _show(dialogue, name)
        return
    dialogue.settings.put(name, rest[0], name, dialogue.engine.attributes)
    _show(dialogue, name)


def _set_or_show_all(dialogue: Dialogue, argument: str) -> None:
    if argument:
        _set(dialogue, argument)
        return
    for name in NAMES:
        _show(dialogue, name)


def _show(dialogue: Dialogue, name: str) -> None:
    value = dialogue.settings.get(name)
    if name == "weights":
        text = weights_text(value) or "none"
    elif name in _STEERED and value is None and (set_by := getattr(dialogue.steering, name)) is not None:
        text = f"{set_by:g}"
    elif isinstance(value, bool):
        text = "on" if value else "off"
    elif value is None or value == ():
        text = "none" if name in LIVE else "chosen by drift-edge"
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    dialogue.screen.say(f"  {name:<15} {text}")


def _setter(name: str) -> Callable[[Dialogue, str], None]:
    return lambda dialogue, argument: _set(dialogue, f"{name} {argument}")


def _weights(dialogue: Dialogue, argument: str) -> None:
    if argument:
        _set(dialogue, f"weights {argument}")
        return
    settings, steering, screen = dialogue.settings, dialogue.steering, dialogue.screen
    if not steering.weights:
        screen.say("no weights: nothing is steered. /weights concise=0.8,vivid=-0.3 sets two, /attributes lists all")
        return
    active = select_active(steering.weights, steering.active)
    for name, weight in sorted(steering.weights.items(), key=lambda item: -abs(item[1])):
        screen.say(f"  {name:<16} {weight:+.3g}{'' if name in active else '  (not active)'}")
    whose = "your own" if settings.weights else "the profile's"
    screen.say(f"  {whose}; {steering.how_strong}, steer {settings.steer}", "dim")


def _attributes(dialogue: Dialogue, _argument: str) -> None:
    pool, weights = dialogue.engine.attributes, dialogue.steering.weights
    width = max(map(len, pool))
    for attribute in pool.values():
        weight = f"{weights[attribute.name]:+.3g}" if attribute.name in weights else ""
        dialogue.screen.say(f"  {attribute.name:<{width}} {weight:>6}  {attribute.prompt}")


def _save(dialogue: Dialogue, argument: str) -> None:
    path = _file(argument, "/save FILE")
    if path.exists():
        try:
            read_session(path)
        except DriftError:
            raise UsageError(f"{path} is there already and is no saved session: take another name") from None
    try:
        write_private(path, dialogue.snapshot().to_json())
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
    dialogue.screen.say(f"saved in {path}", "dim")


def _load(dialogue: Dialogue, argument: str) -> None:
    path = _file(argument, "/load FILE")
    session = read_session(path)
    settings = dataclasses.replace(dialogue.settings)
    names = [name for name in LIVE if name in SAVED]
    for name, (value, where) in read_saved(session.settings, str(path), names).items():
        settings.put(name, value, where, dialogue.engine.attributes)
    dialogue.settings, dialogue.session = settings, session
    dialogue.last = dialogue.other = None
    dialogue.saver.renew()  # the file loaded from stays as it is
    dialogue.screen.say(f"loaded {session.summary()}", "dim")


def _file(argument: str, usage: str) -> Path:
    if not argument:
        raise UsageError(f"expected {usage}")
    return Path(argument).expanduser()


#: By name with its slash, in the order in which /help shows them.
COMMANDS: dict[str, Command] = {
    "/help": Command(_help, "", "this list"),
    "/weights": Command(
        _weights, "[A=0.8,B=-0.3|@FILE|none]", "show the weights, or take your own; none: the profile's"
    ),
    "/attributes": Command(_attributes, "", "all attributes, with their weights"),
    "/steer": Command(_setter("steer"), "[logits|prompt|both|off]", "how answers are steered"),
    "/compare": Command(_compare, "", "the plain and the steered answer to the last question"),
    "/why": Command(_why, "", "which attributes pushed which words of the last answer"),
    "/regen": Command(_regenerate, "", "another answer to the last question, better if you go on with it"),
    "/keep": Command(_judgement(judging.keep), "", "the answer of /regen is better"),
    "/ab": Command(_ab, "[always|off]", "choose between two answers to the next question"),
    "/good": Command(_judgement(judging.good), "", "the last answer is better than the other one, or than another yet"),
    "/bad": Command(_judgement(judging.bad), "", "the other one is better, or another yet"),
    "/edit": Command(_judgement(judging.edit), "", "make the last answer better in your editor"),
    "/undo": Command(_undo, "", "forget the last choice"),
    "/profile": Command(_profile, "", "what was learned from your choices"),
    "/set": Command(_set_or_show_all, "[NAME VALUE]", "show or change a setting: strength, temperature, seed ..."),
    "/system": Command(_setter("system"), "[TEXT|none]", "show or change your own system prompt"),
    "/stats": Command(_setter("stats"), "[on|off]", "say what each answer cost"),
    "/save": Command(_save, "FILE", "write the conversation to a file"),
    "/load": Command(_load, "FILE", "go on with a conversation from a file"),
    "/clear": Command(_clear, "", "begin a new conversation"),
    "/exit": Command(_leave, "", "leave; so do /bye and /quit"),
    "/bye": Command(_leave, "", "leave"),
    "/quit": Command(_leave, "", "leave"),
}
