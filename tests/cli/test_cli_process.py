"""The command line as other programs meet it: pipes, signals, closed streams, start-up time."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from drift_edge.cli.interrupt import cancel_on_interrupt
from drift_edge.events import CancelToken
from tests.cli.fake import command

Process = Callable[..., "subprocess.CompletedProcess[bytes]"]
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX streams and signals")


def test_prompt_then_what_is_piped_in(process: Process) -> None:
    done = process("chat", "-p", "Sum up:", "--seed", "1", stdin=b"a\nb\n")
    assert done.stdout == b"You said: Sum up:\n\na\nb [plain, seed 1, attempt 0]\n"
    assert (done.returncode, done.stderr) == (0, b"")


@POSIX
def test_with_a_prompt_an_idle_socket_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(command(["chat", "-p", "Hi"]), stdin=theirs, capture_output=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith(b"You said: Hi [")


@POSIX
@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_closed_streams(closed: str) -> None:
    line = " ".join([*(f"'{word}'" for word in command(["chat", "-p", "Hi", "--seed", "1"])), closed])
    done = subprocess.run(line, shell=True, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"You said: Hi [plain, seed 1, attempt 0]\n")
    assert done.stderr == b""


@POSIX
def test_closed_stdout_is_no_traceback() -> None:
    line = " ".join([*(f"'{word}'" for word in command(["chat", "-p", "Hi", "--json"])), ">&-"])
    done = subprocess.run(line, shell=True, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


@POSIX
@pytest.mark.parametrize("args", [["-p", "Hi"], ["-p", "Hi", "--json"]])
def test_reader_that_leaves_early_ends_it_quietly(args: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command(["chat", *args]), stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@POSIX
def test_folders_that_cannot_be_used_cost_one_note(process: Process) -> None:
    done = process("chat", "-p", "How do I make tea?", real=True, env={**os.environ, "DRIFT_EDGE_HOME": "/dev/null"})
    assert done.returncode == 0
    assert b"tea" in done.stdout
    assert done.stderr.decode().splitlines() == [
        "note: the conversation is not saved: /dev/null/data/sessions: Not a directory"
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_is_one_line_and_exit_1(process: Process) -> None:
    with Path("/dev/full").open("wb") as full:
        done = process("chat", "-p", "Hi", stdout=full)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == ["Error: No space left on device"]


@POSIX
def test_ctrl_c_ends_one_question_with_130_and_a_newline() -> None:
    run = subprocess.Popen(
        command(["chat", "-p", "Hi", "--seed", "1"]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "FAKE_DELAY": "0.5"},
    )
    assert run.stdout is not None
    first = run.stdout.read(3)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "You said: Hi [plain, seed 1, attempt 0]".startswith((first + out).decode().rstrip("\n"))
    assert out.endswith(b"\n")
    assert err == b""


@POSIX
def test_ctrl_c_reaches_an_answer_deep_in_c_code() -> None:
    cancel, seen = CancelToken(), []

    def watch() -> None:
        while not cancel.cancelled:
            time.sleep(0.001)
        seen.append(time.monotonic())

    threading.Thread(target=watch, daemon=True).start()
    with cancel_on_interrupt(cancel):
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 4_000_000)  # seconds of C, like one decode of a long prompt
        left_c = time.monotonic()
        end = left_c + 5
        while not seen and time.monotonic() < end:
            time.sleep(0.001)
    assert seen
    assert seen[0] < left_c
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@POSIX
def test_ctrl_c_stays_ignored_in_a_background_job() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        cancel = CancelToken()
        with cancel_on_interrupt(cancel):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        assert not cancel.cancelled
    finally:
        signal.signal(signal.SIGINT, before)


@POSIX
def test_invalid_utf8_in_the_prompt_names_the_byte() -> None:
    done = subprocess.run(
        [*map(os.fsencode, command(["chat", "-p"])), b"\xc3\xa4b\xff"], capture_output=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr == b"Error: -p: not valid UTF-8 at byte 3\n"


def test_json_without_p_needs_a_pipe() -> None:
    pty = pytest.importorskip("pty")
    main, terminal = pty.openpty()
    done = subprocess.run(command(["chat", "--json"]), stdin=terminal, capture_output=True, timeout=60)
    os.close(main)
    os.close(terminal)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"Error: --json is for one question: give it by -p or pipe it in\n"


def test_no_color_in_a_pipe_whatever_the_terminal(process: Process) -> None:
    done = process("chat", "-p", "Hi", "--stats", env={**os.environ, "TERM": "xterm-256color"})
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"\x1b" in process("chat", "-p", "Hi", "--stats", "--color", "always").stderr


def test_output_survives_a_narrow_encoding(process: Process) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    assert process("chat", "-p", "Grüße", env=env).stdout.startswith(b"You said: Gr??e")
    assert b"Gr\\u00fc\\u00dfe" in process("chat", "-p", "Grüße", "--json", env=env).stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom drift_edge.cli import main\nsys.argv = ['drift-edge', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = ('llama_cpp', 'numpy', 'asyncio', 'gguf', 'jinja2', 'prompt_toolkit', 'rich')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.startswith("Usage: drift-edge [OPTIONS] COMMAND [ARGS]...")


def test_completion_is_offered(process: Process) -> None:
    words = {"_DRIFT_EDGE_COMPLETE": "complete_bash", "COMP_WORDS": "drift-edge at", "COMP_CWORD": "1"}
    done = process(real=True, env={**os.environ, **words})
    assert done.stdout.decode().split() == ["attributes"]
