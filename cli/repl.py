"""The conversation on a terminal: reads lines, answers them, until Ctrl-D."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from drift_edge import __version__
from drift_edge.errors import DriftError, UsageError
from drift_edge.storage import make_private

from . import judging, slash
from .charts import counted
from .config import is_utf8
from .dialogue import Dialogue
from .errors import describe
from .render import Screen, is_terminal, weights_text

_QUOTES = '"""'
# Shows a prompt and returns what was typed; EOFError after Ctrl-D, KeyboardInterrupt after Ctrl-C.
ReadLine = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Reader:
    """How a person is asked: for a line, and for one key out of a few, without Enter where there is an editor."""

    line: ReadLine
    key: judging.ReadKey


@dataclass(frozen=True, slots=True)
class Typed:
    """What a person typed.

    Attributes:
        text: the message or command.
        quoted: it stood between triple quotes, so it is a message whatever it looks like.
    """

    text: str
    quoted: bool = False


def converse(dialogue: Dialogue, history: Path) -> None:
    """Talk until Ctrl-D or /exit. An error in one turn is shown, and the conversation goes on.

    Args:
        dialogue: holds the conversation.
        history: file of the input history; made if need be.
    """
    screen = dialogue.screen
    reader = open_reader(screen, history)
    greet(dialogue)
    with shown_errors(screen):
        if dialogue.learner:
            dialogue.learner.catch_up()
    while True:
        try:
            typed = read_typed(reader.line)
            if typed.text.strip():
                handle(dialogue, typed, reader)
        except KeyboardInterrupt:
            screen.say("(Ctrl-D leaves)", "dim")
        except EOFError:
            return
        except DriftError as error:
            screen.error(describe(error))


def handle(dialogue: Dialogue, typed: Typed, reader: Reader) -> None:
    """Run a command, or ask a question and show the answer.

    Raises:
        DriftError: the command is unknown or cannot be done, or the engine cannot answer.
        EOFError: the person wants to leave.
    """
    text = typed.text
    if not typed.quoted and text.lstrip().startswith("/"):
        text = text.strip()
        if not text.startswith("//"):
            slash.run(dialogue, text)
            return
        text = text[1:]
    if not is_utf8(text):
        raise UsageError("the message is not valid UTF-8")
    with shown_errors(dialogue.screen):  # the question is answered all the same
        judging.settle(dialogue)
    if dialogue.ab == "off":
        slash.tell_if_stopped(dialogue, dialogue.ask(text))
        return
    if dialogue.ab == "once":
        dialogue.ab = "off"
    judging.ask_two(dialogue, text, reader.key)


@contextmanager
def shown_errors(screen: Screen) -> Iterator[None]:
    """An error in what is done beside the conversation is shown, and no more."""
    try:
        yield
    except DriftError as error:
        screen.error(describe(error))


def read_typed(read_line: ReadLine) -> Typed:
    """One message: a line, or the lines between triple quotes."""
    text = read_line(">>> ")
    if not text.lstrip().startswith(_QUOTES):
        return Typed(text)
    text = text.lstrip()[len(_QUOTES) :]
    while not text.rstrip().endswith(_QUOTES):
        text += "\n" + read_line("... ")
    return Typed(text.rstrip()[: -len(_QUOTES)].strip("\n"), quoted=True)


def greet(dialogue: Dialogue) -> None:
    """Say what this is and what to do."""
    settings, screen, learner = dialogue.settings, dialogue.screen, dialogue.learner
    models = f"{settings.llm.name} with {settings.slm.name}" if settings.llm and settings.slm else "the built-in pair"
    screen.say(f"drift-edge {__version__}, {models}. /help lists the commands, Ctrl-D leaves.", "dim")
    if dialogue.turns:
        screen.say(f"going on with {dialogue.session.summary()}", "dim")
    weights = dialogue.steering.weights
    if weights:
        whose = "weights"
        if learner and not settings.weights:
            whose = f"profile {learner.profile.path.stem}, {counted(learner.profile.n, 'choice')}:"
        elif learner and learner.profile.n:
            whose = "your own weights, in place of the profile's (/weights none takes those):"
        screen.say(f"{whose} {weights_text(weights)}; {dialogue.steering.how_strong}; steer {settings.steer}", "dim")
    elif learner:
        screen.say(
            "nothing is learned of you yet, so nothing is steered; /ab lets you choose between two answers", "dim"
        )
    else:
        screen.say("no weights, so nothing is steered; try /weights concise=0.8", "dim")


def open_reader(screen: Screen, history: Path | None) -> Reader:
    """prompt_toolkit's line editor where there is a terminal to edit on, else plain lines.

    Args:
        screen: says whether to colour.
        history: file of the input history; None keeps none.
    """
    if is_terminal(sys.stdin) and is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb":
        return Reader(_editor(screen, history), _key)
    return Reader(_plain_line, lambda prompt, _keys: _plain_line(prompt))


def _plain_line(prompt: str) -> str:
    if is_terminal(sys.stderr):
        print(prompt, end="", file=sys.stderr, flush=True)
    line = sys.stdin.buffer.readline()
    if not line:
        raise EOFError
    return line.decode("utf-8", "surrogateescape").rstrip("\r\n")


def _key(prompt: str, wanted: Sequence[str]) -> str:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.keys import Keys
    from prompt_toolkit.output import create_output

    keys = KeyBindings()

    def press(key: str, event: KeyPressEvent) -> None:
        event.current_buffer.insert_text(key)
        event.app.exit(result=key)

    @keys.add(Keys.Any)
    def ignore(_event: KeyPressEvent) -> None:
        pass

    for key in wanted:
        for name in {key, key.upper()}:
            keys.add(name)(partial(press, key))
    session: PromptSession[str] = PromptSession(key_bindings=keys, output=create_output(stdout=sys.stderr))
    return session.prompt(prompt)


def _editor(screen: Screen, history: Path | None) -> ReadLine:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.enums import DEFAULT_BUFFER
    from prompt_toolkit.filters import has_focus
    from prompt_toolkit.formatted_text import FormattedText
    from prompt_toolkit.history import FileHistory, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.output import create_output

    keys = KeyBindings()
    typing = has_focus(DEFAULT_BUFFER)  # not in Ctrl-R's search field

    @keys.add("enter", filter=typing)
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=typing)
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    class History(FileHistory):
        def store_string(self, string: str) -> None:
            with suppress(OSError, UnicodeError):  # a full disk costs the history, not the chat
                super().store_string(string)

    session: PromptSession[str] = PromptSession(
        history=History(str(history)) if history and _own_file(history) else InMemoryHistory(),
        key_bindings=keys,
        multiline=True,  # so that pasted lines stay lines; Enter still sends
        prompt_continuation="... ",
        completer=WordCompleter(sorted(slash.COMMANDS), sentence=True),
        complete_while_typing=False,
        output=create_output(stdout=sys.stderr),
    )
    style = "bold" if screen.color else ""
    return lambda prompt: session.prompt(FormattedText([(style, prompt)]))


def _own_file(path: Path) -> bool:
    """Make the file, readable by its owner alone; False where that cannot be done."""
    try:
        make_private(path.parent)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        path.chmod(0o600)
    except OSError:
        return False
    return True
