"""The engine under asyncio: the same answers, in turn, and every way to leave frees the engine."""

from __future__ import annotations

import asyncio
import inspect
import random
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from drift_edge import AsyncDrift, CancelToken, Drift, Finish, Token
from drift_edge.aio import AHEAD, iterate
from drift_edge.errors import ClosedError, ContextOverflowError, UsageError
from tests.conftest import ASK

WEIGHTS = {"concise": 0.8, "vivid": -0.3}
ENDLESS = 100_000  # tokens, of which a context has room for a few hundred


def run(body: Callable[[], Awaitable[Any]], limit: float = 60) -> Any:
    async def main() -> Any:
        return await asyncio.wait_for(body(), limit)

    return asyncio.run(main())


@asynccontextmanager
async def opened(files: tuple[Path, Path]) -> AsyncIterator[AsyncDrift]:
    async with AsyncDrift(await asyncio.to_thread(Drift.load, *files)) as drift:
        yield drift


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


class Numbers:
    """0, 1, 2 ... until cancelled, and what became of the iterator."""

    def __init__(self, cancel: CancelToken) -> None:
        self.cancel, self.made, self.late = cancel, 0, 0
        self.threads: set[int] = set()
        self.ended = False

    def __call__(self) -> Iterator[int]:
        try:
            while True:
                self.threads.add(threading.get_ident())
                self.made += 1
                self.late += self.cancel.cancelled
                yield self.made - 1
                if self.cancel.cancelled:
                    return
        finally:
            self.threads.add(threading.get_ident())
            self.ended = True


# -- iterating in a thread


def test_a_reader_who_waits_holds_the_thread_up() -> None:
    async def body() -> None:
        cancel = CancelToken()
        numbers = Numbers(cancel)
        async with aclosing(iterate(numbers(), cancel, ahead=5)) as stream:
            for taken in range(1, 20):
                assert await anext(stream) == taken - 1
                await asyncio.sleep(0.002)
                assert numbers.made <= taken + 5 + 1
            await until(lambda: numbers.made == taken + 5 + 1)
        assert numbers.ended

    run(body)


@pytest.mark.parametrize("how", ["break", "closing", "error", "task"])
def test_leaving_the_loop_ends_the_iterator_in_its_own_thread(how: str) -> None:
    async def body() -> None:
        cancel = CancelToken()
        numbers = Numbers(cancel)

        async def read() -> None:
            if how == "closing":
                async with aclosing(iterate(numbers(), cancel)) as stream:
                    await anext(stream)
                assert numbers.ended, "it must have ended once the block is left"
                return
            async for number in iterate(numbers(), cancel):
                if number == 3 and how == "break":
                    break
                if number == 3 and how == "error":
                    raise LookupError("of the reader")

        task = asyncio.ensure_future(read())
        if how == "task":
            await until(lambda: numbers.made > 3)
            task.cancel()
        await asyncio.wait([task])
        await until(lambda: numbers.ended)
        assert cancel.cancelled
        assert numbers.late <= 1
        assert len(numbers.threads) == 1
        assert threading.get_ident() not in numbers.threads
        assert task.cancelled() == (how == "task")
        assert how != "error" or isinstance(task.exception(), LookupError)

    run(body)


def test_a_cancelled_task_ends_after_the_decode_under_way() -> None:

    async def body() -> None:
        cancel, started, ended = CancelToken(), threading.Event(), threading.Event()

        def decode() -> Iterator[int]:
            started.set()
            while not cancel.cancelled:
                time.sleep(0.001)
            time.sleep(0.05)
            ended.set()
            yield 1

        async def read() -> None:
            async for _ in iterate(decode(), cancel):
                pass

        task = asyncio.ensure_future(read())
        await until(started.is_set)
        task.cancel()
        await asyncio.wait([task])
        assert ended.is_set()
        assert task.cancelled()

    run(body)


def test_an_error_comes_after_what_was_made_before_it() -> None:
    def fails() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("here")

    async def body() -> None:
        numbers = iterate(fails(), CancelToken())
        assert [await anext(numbers), await anext(numbers)] == [1, 2]
        with pytest.raises(LookupError, match="here"):
            await anext(numbers)

    run(body)


def test_an_error_that_nobody_waits_for_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fails(cancel: CancelToken) -> Iterator[int]:
        yield 1
        while not cancel.cancelled:
            time.sleep(0.001)
        raise LookupError("too late")

    async def body() -> None:
        cancel = CancelToken()
        async with aclosing(iterate(fails(cancel), cancel)) as stream:
            await anext(stream)

    run(body)
    assert not caplog.records


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # asyncio's own complaint about the loop
def test_a_loop_that_is_closed_without_a_word_leaves_no_thread() -> None:
    loop, cancel = asyncio.new_event_loop(), CancelToken()
    numbers = Numbers(cancel)
    stream = iterate(numbers(), cancel, ahead=2)
    loop.run_until_complete(anext(stream))
    loop.run_until_complete(until(lambda: numbers.made == 1 + 2 + 1))  # the thread waits for room
    loop.close()
    latest = time.monotonic() + 20
    while not numbers.ended and time.monotonic() < latest:
        time.sleep(0.01)
    assert numbers.ended


# -- the engine


@pytest.mark.parametrize("method", ["chat", "complete"])
def test_arguments_are_those_of_the_engine(method: str) -> None:
    ours, engine = (inspect.signature(getattr(kind, method)) for kind in (AsyncDrift, Drift))
    assert list(ours.parameters.values()) == list(engine.parameters.values())


def test_every_argument_reaches_the_engine(bpe_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in inspect.signature(Drift.chat).parameters if name not in ("self", "messages")]
    given = {name: object() for name in names}
    seen: list[dict[str, object]] = []

    def chat(_self: Drift, _messages: object, **arguments: object) -> Iterator[Finish]:
        seen.append(arguments)
        yield Finish("", "an answer")  # type: ignore[arg-type]

    monkeypatch.setattr(Drift, "chat", chat)

    async def body() -> None:
        async with opened(bpe_files) as drift:
            arguments: Any = given | {"cancel": CancelToken()}
            assert [event async for event in drift.chat(ASK, **arguments)] == [Finish("", "an answer")]  # type: ignore[arg-type]
            whole = {name: value for name, value in arguments.items() if name != "logprobs"}  # of single tokens
            assert await drift.complete(ASK, **whole) == "an answer"
            assert seen == [arguments, whole | {"logprobs": None}]

    run(body)


def test_the_same_events_as_without_asyncio(bpe_files: tuple[Path, Path]) -> None:
    with Drift.load(*bpe_files) as plain:
        expected = list(plain.chat(ASK, weights=WEIGHTS, seed=4, max_tokens=AHEAD + 20))

    async def body() -> None:
        async with opened(bpe_files) as drift:
            events = [event async for event in drift.chat(ASK, weights=WEIGHTS, seed=4, max_tokens=AHEAD + 20)]
            assert [e for e in events if isinstance(e, Token)] == [e for e in expected if isinstance(e, Token)]
            answer = await drift.complete(ASK, weights=WEIGHTS, seed=4, max_tokens=AHEAD + 20)
            for finish in (events[-1], expected[-1]):
                assert isinstance(finish, Finish)
                assert finish.answer.tokens == answer.tokens

    run(body)


def test_errors(bpe_files: tuple[Path, Path]) -> None:
    async def body() -> None:
        async with opened(bpe_files) as drift:
            with pytest.raises(UsageError, match="temper"):
                drift.chat(ASK, weights={"temper": 1})
            long = [{"role": "user", "content": "tea " * 2000}]
            with pytest.raises(ContextOverflowError):
                await drift.complete(long)
            assert (await drift.complete(ASK, max_tokens=2)).text
            early = drift.chat(ASK)
        with pytest.raises(ClosedError):
            await anext(early)
        with pytest.raises(ClosedError):
            drift.chat(ASK)
        with pytest.raises(ClosedError):
            await drift.run(print)
        await drift.aclose()

    run(body)


def test_calls_take_turns_in_their_order(bpe_files: tuple[Path, Path]) -> None:
    async def body() -> None:
        order: list[int] = []
        async with opened(bpe_files) as drift:

            async def ask(number: int) -> None:
                answer = await drift.complete(ASK, seed=number, max_tokens=5)
                assert answer.seed == number
                order.append(number)

            await asyncio.gather(*map(ask, range(20)))
        assert order == list(range(20))

    run(body)


def test_one_who_leaves_the_queue_is_never_answered(bpe_files: tuple[Path, Path]) -> None:
    async def body() -> None:
        async with opened(bpe_files) as drift:
            cancel = CancelToken()
            first = drift.each(Numbers(cancel)(), cancel)
            await anext(first)
            called: list[int] = []
            waiting = asyncio.ensure_future(drift.run(called.append, 1))
            last = asyncio.ensure_future(drift.complete(ASK, max_tokens=2))
            await asyncio.sleep(0.02)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled(), "what is under way must not be waited for"
            await first.aclose()
            assert (await last).text
            assert called == []

    run(body)


def test_leaving_at_random_moments_leaves_nothing_behind(bpe_files: tuple[Path, Path]) -> None:
    seed = 20
    moments = random.Random(seed)

    async def body() -> None:
        async with opened(bpe_files) as drift:
            expected = (await drift.complete(ASK, weights=WEIGHTS, seed=1, max_tokens=9)).tokens
            # Every thread that runs Python; `threading` learns of a Worker's only when that first logs something.
            threads, others = len(sys._current_frames()), asyncio.all_tasks()
            for _ in range(60):
                tasks = [
                    asyncio.ensure_future(drift.complete(ASK, weights=WEIGHTS, max_tokens=ENDLESS)) for _ in range(3)
                ]
                await asyncio.sleep(moments.random() / 50)
                moments.shuffle(tasks)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            assert (await drift.complete(ASK, weights=WEIGHTS, seed=1, max_tokens=9)).tokens == expected, seed
            assert len(sys._current_frames()) == threads
            assert not drift._open
            assert asyncio.all_tasks() == others

    run(body)


def test_a_cancel_token_ends_an_answer_with_its_finish(bpe_files: tuple[Path, Path]) -> None:
    async def body() -> None:
        cancel = CancelToken()
        async with opened(bpe_files) as drift:
            events = drift.chat(ASK, max_tokens=ENDLESS, cancel=cancel)
            await anext(events)
            cancel.cancel()
            last = [event async for event in events][-1]
            assert isinstance(last, Finish)
            assert last.reason == "cancelled"

    run(body)


def test_closing_in_the_middle_ends_every_answer(bpe_files: tuple[Path, Path]) -> None:
    async def body() -> None:
        drift = AsyncDrift(Drift.load(*bpe_files))
        seed = 0
        while len((await drift.complete(ASK, seed=seed)).tokens) < AHEAD + 5:
            seed += 1
        waiting = asyncio.ensure_future(drift.complete(ASK, max_tokens=ENDLESS))
        events = drift.chat(ASK, seed=seed)
        await anext(events)  # and nobody reads on, so that the thread waits for room
        waits = asyncio.ensure_future(drift.complete(ASK, max_tokens=ENDLESS))
        await asyncio.sleep(0.05)
        await drift.aclose()
        last = [event async for event in events][-1]
        assert isinstance(last, Finish)
        assert last.reason == "cancelled"
        assert (await waits).finish_reason == "cancelled"
        assert (await waiting).finish_reason in ("cancelled", "length", "stop")

    run(body)


def test_other_work_has_its_turn_too(bpe_files: tuple[Path, Path]) -> None:
    async def body() -> None:
        async with opened(bpe_files) as drift:
            answer = await drift.complete(ASK, weights=WEIGHTS, seed=1, max_tokens=6)
            explained = await drift.run(drift.drift.explain, ASK, answer)
            assert "".join(explained.texts)[:3] == answer.text[:3]
            with pytest.raises(UsageError):
                await drift.run(drift.drift.explain, ASK, await drift.complete(ASK, max_tokens=2))

    run(body)
