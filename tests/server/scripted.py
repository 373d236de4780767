"""An engine whose every token a test lets through, and a server that runs in a thread."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvicorn

from drift_edge.aio import AsyncDrift
from drift_edge.events import Event, Finish, Token
from drift_edge.guard import Judge
from drift_edge.learner import Learner
from drift_edge.profile import Profile
from drift_edge.server import Access, Defaults, create_app
from drift_edge.server.connection import Connection
from tests.cli.fake import FakeEngine

QUESTION = [{"role": "user", "content": "How do you make tea?"}]
WAIT = 20.0  # seconds after which a test gives up


class StepEngine(FakeEngine):
    """Draws a token each time that `let` allows one, until it is cancelled or has `max_tokens`."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = SimpleNamespace(llm=SimpleNamespace(path=Path("step.gguf")))
        self._allowed = threading.Semaphore(0)
        self.drawn: list[str] = []  # the question of each token
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.most_open = 0
        self.pad = ""  # put behind each token

    def reset(self) -> None:
        """Be as new: starting a server costs more than most tests, so tests share one."""
        vars(self).clear()
        self.__init__()  # type: ignore[misc]

    def learner(self, profile: Profile, *, asked: Counter[str] | None = None) -> Learner:
        """As `Drift.learner`."""

        def scorer() -> Any:
            return self.scorers[0] if self.scorers else self.scorer(text_length=profile.text_length)

        return Learner(profile, scorer, asked)

    def let(self, tokens: int) -> None:
        """Allow so many more tokens."""
        for _ in range(tokens):
            self._allowed.release()

    def _events(self, question: str, call: Mapping[str, Any]) -> Iterator[Event]:
        self.begun.append(question)
        self.most_open = max(self.most_open, len(self.begun) - len(self.ended))
        n, reason = 0, "length"
        try:
            while n < call["max_tokens"]:
                while not self._allowed.acquire(timeout=0.005):
                    if call["cancel"].cancelled:
                        break
                if call["cancel"].cancelled:
                    reason = "cancelled"
                    break
                n += 1
                self.drawn.append(question)
                yield Token(n, f"{n} {self.pad}", -0.5, 1.0)
            yield Finish("", self.answer(n, reason, call))
        finally:
            self.ended.append(question)

    def answer(self, n: int, reason: str, call: Mapping[str, Any]) -> Any:
        """An answer of n tokens."""
        events = list(super()._events("x", {**call, "max_tokens": 1, "cancel": SimpleNamespace(cancelled=False)}))
        from dataclasses import replace

        last = events[-1]
        assert isinstance(last, Finish)
        text = "".join(f"{i + 1} " for i in range(n))
        return replace(last.answer, text=text, finish_reason=reason, tokens=tuple(range(n)))


@dataclass(frozen=True)
class Running:
    """A server under way."""

    port: int

    @property
    def url(self) -> str:
        """Of OpenAI's routes."""
        return f"http://127.0.0.1:{self.port}/v1"

    def connect(self) -> http.client.HTTPConnection:
        """A connection of its own."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, JSON value or text, and headers of a reply."""
        connection = self.connect()
        sent = dict(headers or {})
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, data, sent)
            reply = connection.getresponse()
            text = reply.read().decode()
            kind = reply.headers.get_content_type()
            return reply.status, json.loads(text) if kind == "application/json" else text, dict(reply.headers)
        finally:
            connection.close()

    def begin(self, **body: Any) -> http.client.HTTPConnection:
        """Ask for an answer, and read nothing of it."""
        connection = self.connect()
        data = json.dumps({"messages": QUESTION, **body})
        connection.request("POST", "/v1/chat/completions", data, {"Content-Type": "application/json"})
        return connection

    def health(self) -> dict[str, Any]:
        """What /health tells."""
        value: dict[str, Any] = self.ask("GET", "/health")[1]
        return value


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + WAIT
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come about")
        time.sleep(0.005)


def hang_up(connection: http.client.HTTPConnection) -> None:
    """Leave without a word."""
    assert connection.sock is not None
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def running(
    engine: Any,
    defaults: Defaults | None = None,
    access: Access | None = None,
    *,
    waiting: int = 32,
    model: str | None = None,
    judge: Judge | None = None,
) -> Iterator[Running]:
    """A server on a free port of 127.0.0.1."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    servers: list[uvicorn.Server] = []
    failed: list[BaseException] = []

    async def main() -> None:
        async with AsyncDrift(engine) as shared:
            app = create_app(shared, defaults, access, waiting=waiting, model=model, judge=judge)
            config = uvicorn.Config(app, http=Connection, log_level="error", timeout_graceful_shutdown=5, ws="none")
            servers.append(uvicorn.Server(config))
            await servers[0].serve(sockets=[listener])

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="server")
    thread.start()
    try:
        until(lambda: bool(failed) or bool(servers and servers[0].started))
        if not failed:
            yield Running(listener.getsockname()[1])
    finally:
        if servers:
            servers[0].should_exit = True
        thread.join(WAIT)
        listener.close()
        if failed:
            raise failed[0]
    assert not thread.is_alive()


def lines(reply: http.client.HTTPResponse) -> Iterator[Any]:
    """Values of a stream of events; `[DONE]` as text."""
    while line := reply.readline():
        if line.startswith(b"data: "):
            data = line[6:].strip()
            yield data.decode() if data == b"[DONE]" else json.loads(data)


def contents(values: Sequence[Any]) -> str:
    """The text of a stream's chunks."""
    return "".join(v["choices"][0]["delta"].get("content", "") for v in values if v != "[DONE]" and v["choices"])
