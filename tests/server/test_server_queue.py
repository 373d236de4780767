"""One answer at a time, in order; who hangs up frees the engine within one token; what waits is bounded."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.server.scripted import Running, StepEngine, hang_up, lines, running, until


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[StepEngine, Running]]:
    """An engine, and a server on it with room for two to wait."""
    engine = StepEngine()
    with running(engine, waiting=2) as started:
        yield engine, started


@pytest.fixture
def step(shared: tuple[StepEngine, Running]) -> StepEngine:
    """An engine that draws when the test says so."""
    shared[0].reset()
    return shared[0]


@pytest.fixture
def server(shared: tuple[StepEngine, Running], step: StepEngine) -> Iterator[Running]:
    """The server, which has nothing to do before and after a test."""
    assert not step.calls
    yield shared[1]
    until(lambda: not shared[1].health()["busy"])


def test_hang_up_of_a_stream_stops_within_a_token(step: StepEngine, server: Running) -> None:
    connection = server.begin(stream=True, max_tokens=1_000)
    step.let(3)
    reply = connection.getresponse()
    values = lines(reply)
    assert [next(values)["choices"][0]["delta"]["content"] for _ in range(4)] == ["", "1 ", "2 ", "3 "]
    assert server.health()["busy"]
    reply.close()
    hang_up(connection)
    until(lambda: len(step.ended) == 1)  # though no token is allowed any more: it was told to stop
    step.let(5)
    until(lambda: not server.health()["busy"])
    assert len(step.drawn) == 3


def test_hang_up_of_a_whole_reply_stops_within_a_token(step: StepEngine, server: Running) -> None:
    connection = server.begin(max_tokens=1_000)
    step.let(2)
    until(lambda: len(step.drawn) == 2)
    hang_up(connection)
    until(lambda: len(step.ended) == 1 and not server.health()["busy"])
    assert len(step.drawn) == 2


def test_who_hangs_up_while_waiting_is_never_answered(step: StepEngine, server: Running) -> None:
    first = server.begin(max_tokens=2)
    until(lambda: server.health()["busy"])
    second = server.begin(max_tokens=2, messages=[{"role": "user", "content": "second"}])
    until(lambda: server.health()["waiting"] == 1)
    hang_up(second)
    until(lambda: server.health()["waiting"] == 0)
    step.let(2)
    assert first.getresponse().status == 200
    until(lambda: not server.health()["busy"])
    assert "second" not in step.begun
    first.close()


def test_turns_go_by_the_order_of_asking_and_more_than_may_wait_are_refused(step: StepEngine, server: Running) -> None:
    connections = []
    for i, name in enumerate("abc"):  # one answered, two waiting
        connections.append(server.begin(max_tokens=1, messages=[{"role": "user", "content": name}]))
        until(lambda wanted=i: server.health() == {"status": "ok", "busy": True, "waiting": wanted})  # type: ignore[misc]
    status, told, headers = server.ask(
        "POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "d"}], "stream": True}
    )
    assert status == 503
    assert told["error"]["code"] == "queue_full"
    assert 1 <= int(headers["retry-after"]) <= 60
    step.let(3)
    for connection in connections:
        reply = connection.getresponse()
        assert reply.status == 200
        reply.read()
        connection.close()
    assert step.begun == ["a", "b", "c"]
    assert step.most_open == 1


def test_a_reader_that_stalls_does_not_hold_the_engine(step: StepEngine, server: Running) -> None:
    step.pad = "x" * 40_000  # 20 MB in all, more than any socket holds for its reader
    stalled = server.begin(stream=True, max_tokens=500)
    step.let(500)
    until(lambda: len(step.ended) == 1 and not server.health()["busy"])  # nothing of it was read yet
    values = list(lines(stalled.getresponse()))
    assert values[-1] == "[DONE]"
    assert len(step.drawn) == 500
    stalled.close()


def test_200_at_once_with_hang_ups_leave_nothing_behind() -> None:
    step = StepEngine()
    before = threading.active_count()
    codes: Counter[int | str] = Counter()
    guard = threading.Lock()

    def client(i: int) -> None:
        connection = server.begin(stream=i % 2 == 0, max_tokens=4)
        if i % 3 == 0:
            time.sleep(i % 7 / 100)
            hang_up(connection)
            code: int | str = "left"
        else:
            reply = connection.getresponse()
            reply.read()
            code = reply.status
            connection.close()
        with guard:
            codes[code] += 1

    with running(step, waiting=16) as server:
        step.let(10_000)
        threads = [threading.Thread(target=client, args=(i,)) for i in range(200)]
        for thread in threads:
            thread.start()
        most_waiting = 0
        while any(thread.is_alive() for thread in threads):
            most_waiting = max(most_waiting, server.health()["waiting"])
        for thread in threads:
            thread.join()
        until(lambda: server.health() == {"status": "ok", "busy": False, "waiting": 0})
        assert server.ask("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "last"}]})[0] == 200
    assert set(codes) <= {200, 503, "left"}, codes
    assert codes["left"] == 67
    assert codes[200] >= 17
    assert most_waiting <= 16
    assert step.most_open == 1
    assert len(step.begun) == len(step.ended)
    assert threading.active_count() <= before + 1  # the engine's thread leaves by itself
