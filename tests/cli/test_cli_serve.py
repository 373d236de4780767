"""`drift-edge serve`: what it refuses, what it says, and how it is stopped."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.fake import Result

pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")

SAYS_WHERE = re.compile(r"http://127\.0\.0\.1:(\d+)")
WAIT = 60.0


@contextmanager
def served(*args: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command in a process of its own, and its port."""
    command = [sys.executable, "-c", "from drift_edge.cli import main; main()", "serve", "--port", "0", *args]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = SAYS_WHERE.search(process.stderr.readline())
            assert found, process.stderr.read()
            yield process, int(found[1])
        finally:
            process.kill()


@contextmanager
def asked(port: int, path: str, body: object = None, **headers: str) -> Iterator[http.client.HTTPResponse]:
    """A reply, read or not."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
    data = None if body is None else json.dumps(body)
    try:
        connection.request("GET" if data is None else "POST", path, data, headers)
        with connection.getresponse() as reply:
            yield reply
    finally:
        connection.close()


def test_an_address_for_others_needs_a_key(cli: Callable[..., Result]) -> None:
    result = cli("serve", "--host", "0.0.0.0")
    assert result.code == 2
    assert "needs a key" in result.err


def test_a_port_that_is_taken(cli: Callable[..., Result]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = cli("serve", "--port", str(taken.getsockname()[1]))
    assert result.code == 1
    assert "cannot listen at 127.0.0.1" in result.err


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("--beta", "-1"), 2),
        (("--profile", "x", "--no-profile"), 2),
        (("--llm", "no.gguf"), 2),
        (("--llm", "no.gguf", "--slm", "no.gguf", "--port", "0"), 3),
        (("other",), 2),
        (("--port", "70000"), 2),
        (("--host", "no such host"), 2),
        (("--host", "no such host", "--api-key", "k"), 1),
        (("--weights", "unheard-of=1"), 2),
    ],
)
def test_wrong_settings(cli: Callable[..., Result], args: tuple[str, ...], code: int) -> None:
    result = cli("serve", *args)
    assert result.code == code, result.err
    assert "Traceback" not in result.err


def test_connections_are_those_that_headers_may_not_hold_up(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    from drift_edge.server.connection import Connection

    kinds = []

    async def serve(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        assert sockets
        kinds.append(server.config.http)

    monkeypatch.setattr(uvicorn.Server, "serve", serve)
    assert cli("serve", "--port", "0").code == 0
    assert kinds == [Connection]


def test_without_the_extra(cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("drift_edge.server", "fastapi"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    result = cli("serve")
    assert result.code == 2
    assert "pip install 'drift-edge[server]'" in result.err


@pytest.mark.usefixtures("builtin_files")
@pytest.mark.skipif(sys.platform == "win32", reason="signals as on POSIX")
@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_of_an_answer(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, which: signal.Signals
) -> None:
    assert own_home
    monkeypatch.setenv("DRIFT_EDGE_API_KEY", "k")
    monkeypatch.setenv("DRIFT_EDGE_TEMPERATURE", "100")
    with served("--no-profile") as (process, port):
        with asked(port, "/v1/models") as reply:
            assert reply.status == 401
        question = {"messages": [{"role": "user", "content": "Hello"}], "stream": True, "max_tokens": 4_000}
        wild = {"top_p": 1, "min_p": 0, "top_k": 0}
        key = {"Authorization": "Bearer k", "Content-Type": "application/json"}
        with asked(port, "/v1/chat/completions", {**question, **wild}, **key) as reply:
            assert reply.status == 200
            assert reply.readline().startswith(b"data: ")
            process.send_signal(which)
            began = time.monotonic()
            err = process.communicate(timeout=WAIT)[1]
        assert time.monotonic() - began < WAIT / 2
        assert "Traceback" not in err
        assert process.returncode == (0 if which == signal.SIGINT else -signal.SIGTERM), err
