"""The conversation on a real (pseudo) terminal: Ctrl-C, Ctrl-D, editing, history."""

from __future__ import annotations

import os
import select
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drift_edge.profile import Profile
from tests.cli.fake import command

pty = pytest.importorskip("pty", reason="pseudo terminals are a POSIX thing")
TIMEOUT = 30.0
CTRL_C, CTRL_D, ENTER, ALT_ENTER, UP = "\x03", "\x04", "\r", "\x1b\r", "\x1b[A"
PROMPT = ">>>"  # the editor moves the cursor over the blank behind it


class Terminal:
    """`drift-edge` on a terminal of its own: types keys, waits for what is shown."""

    def __init__(self, *args: str, stdout: int | None = None, **environment: str) -> None:
        self.main, child = pty.openpty()
        more = {"FAKE_TTY": "1", "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "NO_COLOR": "1", **environment}
        self.run = subprocess.Popen(
            command(args),
            stdin=child,
            stdout=child if stdout is None else stdout,
            stderr=child,
            env={**os.environ, **more},
            start_new_session=True,
        )
        os.close(child)
        self.seen = ""

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.main, keys.encode())

    def wait_for(self, text: str) -> str:
        """Read until `text` is shown; returns all up to it, and forgets it."""
        end = time.monotonic() + TIMEOUT
        while text not in self.seen:
            ready, _, _ = select.select([self.main], [], [], max(0.0, end - time.monotonic()))
            try:
                piece = os.read(self.main, 4096) if ready else b""
            except OSError:  # Linux's way to say that the other side is closed
                piece = b""
            if not piece:
                pytest.fail(f"waited for {text!r}, saw {self.seen!r}")
            self.seen += piece.decode("utf-8", "replace")
        before, _, self.seen = self.seen.partition(text)
        return before

    def leave(self) -> int:
        """Wait for the end; returns the exit code."""
        return self.run.wait(TIMEOUT)

    def close(self) -> None:
        """End it, whatever it does."""
        self.run.kill()
        self.run.wait()
        os.close(self.main)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*args: str, stdout: int | None = None, **environment: str) -> Terminal:
        opened.append(Terminal("chat", "--seed", "1", *args, stdout=stdout, **environment))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


Start = Callable[..., Terminal]


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_ctrl_c_stops_only_the_answer_and_ctrl_d_leaves_with_0(terminal: Start, kind: str) -> None:
    t = terminal(TERM=kind, FAKE_DELAY="0.2")
    t.wait_for("/help lists the commands")
    t.wait_for(PROMPT)
    t.type("One" + ENTER)
    t.wait_for("You said:")
    t.type(CTRL_C)
    t.wait_for("(stopped; /regen asks again)")
    t.wait_for(PROMPT)
    t.type("/save kept.json" + ENTER)
    t.wait_for("saved in kept.json")
    t.wait_for(PROMPT)
    t.type(CTRL_D)
    assert t.leave() == 0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_ctrl_c_at_the_prompt_clears_the_line(terminal: Start, kind: str) -> None:
    t = terminal(TERM=kind)
    t.wait_for(PROMPT)
    t.type("never sent")
    t.type(CTRL_C)
    t.wait_for("(Ctrl-D leaves)")
    t.wait_for(PROMPT)
    t.type("Two" + ENTER)
    t.wait_for("You said: Two [plain, seed 1, attempt 0]")
    t.wait_for(PROMPT)
    t.type(CTRL_D)
    assert t.leave() == 0


def test_alt_enter_and_a_paste_keep_several_lines(terminal: Start) -> None:
    t = terminal("--weights", "concise=0.8")
    t.wait_for("weights concise=0.8; beta 0.5; steer logits")
    t.wait_for(PROMPT)
    t.type("One" + ALT_ENTER + "two" + ENTER)
    assert "One\r\ntwo" in t.wait_for(" [concise=0.8, seed 1") + "]"
    t.wait_for(PROMPT)
    t.type("x \x1b[200~/usr\nbin\x1b[201~" + ENTER)
    t.wait_for("You said: x /usr\r\nbin [")
    t.wait_for(PROMPT)
    t.type("/exit" + ENTER)
    assert t.leave() == 0


def test_history_is_kept_privately_between_chats(terminal: Start, own_home: Path) -> None:
    t = terminal()
    t.wait_for(PROMPT)
    t.type("Remember me" + ENTER)
    t.wait_for("attempt 0]")
    t.wait_for(PROMPT)
    t.type(CTRL_D)
    assert t.leave() == 0
    history = own_home / "state" / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    t = terminal("-c")
    t.wait_for("going on with the conversation of ")
    t.wait_for(PROMPT)
    t.type(UP + ENTER)
    t.wait_for("You said: Remember me")
    t.wait_for(PROMPT)
    t.type(CTRL_D)
    assert t.leave() == 0


def test_unusable_state_folder_still_chats(terminal: Start, own_home: Path) -> None:
    own_home.write_text("a file where the folder should be")
    t = terminal()
    t.wait_for(PROMPT)
    t.type("One" + ENTER)
    t.wait_for("attempt 0]")
    t.wait_for("note: the conversation is not saved")
    t.wait_for(PROMPT)
    t.type(CTRL_D)
    assert t.leave() == 0


def test_answers_go_to_stdout_and_the_rest_to_the_terminal(terminal: Start, folder: Path) -> None:
    with (folder / "answers").open("wb") as answers:
        t = terminal(stdout=answers.fileno())
        t.wait_for(PROMPT)
        t.type("One" + ENTER)
        assert "You said" not in t.wait_for(PROMPT)
        t.type(CTRL_D)
        assert t.leave() == 0
    assert (folder / "answers").read_text() == "You said: One [plain, seed 1, attempt 0]\n"


def test_a_choice_between_two_is_learned_explained_undone_and_gone_on_with(terminal: Start) -> None:
    t = terminal()
    t.wait_for("nothing is learned of you yet")
    t.wait_for(PROMPT)
    t.type("/ab" + ENTER)
    t.wait_for("the next answer comes as two")
    t.wait_for(PROMPT)
    t.type("One" + ENTER)
    t.wait_for("a, b, = (equally good) or n (neither)?")
    t.type("xA")  # a key that is none of these does nothing; none needs Enter
    t.wait_for("learned: formal 0.00 -> ")
    t.wait_for(PROMPT)
    assert (Profile.open().n, Profile.open().pending) == (1, 0)
    t.type("Two" + ENTER)
    t.wait_for("You said: Two [formal=")
    t.wait_for(PROMPT)
    t.type("/why" + ENTER)
    t.wait_for("where steering mattered most")
    t.wait_for("formal")
    t.wait_for(PROMPT)
    t.type("/undo" + ENTER)
    t.wait_for("forgot the choice ")
    t.wait_for(PROMPT)
    t.type(CTRL_D)
    assert t.leave() == 0
    assert (Profile.open().n, Profile.open().weights(), list(Profile.open().choices())) == (0, {}, [])
    t = terminal("-c")
    t.wait_for("going on with the conversation of ")
    t.wait_for("nothing is learned of you yet")
    t.wait_for(PROMPT)
    t.type("Three" + ENTER)
    t.wait_for("You said: Three [plain,")
    t.wait_for(PROMPT)
    t.type(CTRL_D)
    assert t.leave() == 0


def test_ctrl_c_instead_of_a_choice_goes_back_to_the_prompt(terminal: Start) -> None:
    t = terminal()
    t.wait_for(PROMPT)
    t.type("/ab" + ENTER)
    t.wait_for(PROMPT)
    t.type("One" + ENTER)
    t.wait_for("n (neither)?")
    t.type(CTRL_C)
    t.wait_for("(nothing is learned)")
    t.wait_for(PROMPT)
    t.type(CTRL_D)
    assert t.leave() == 0
    assert not Profile.open().exists
