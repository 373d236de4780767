"""`AsyncDrift`: an engine for asyncio. The event loop never waits for a decode.

```python
async with AsyncDrift(await asyncio.to_thread(Drift.builtin)) as drift:
    async for event in drift.chat(messages, weights={"concise": 0.8}):
        ...
```

The engine works in one thread of its own, so calls take turns in the order they were made in. What was generated ahead
of its reader waits in a bounded queue; past that, the engine waits for the reader.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar, TypeVarTuple

from drift_edge.conversation import Mode, Overflow
from drift_edge.costs import Draft, Speculate
from drift_edge.engine import Drift
from drift_edge.errors import ClosedError, DecodeError
from drift_edge.events import Answer, CancelToken, Event, Finish
from drift_edge.request import DEFAULT_ACTIVE
from drift_edge.sampling import SamplerSettings
from drift_edge.weights import DEFAULT_BLOCKED

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

AHEAD = 64  # items: enough for the reader to hiccup, few enough that a slow one holds no answer's worth
_LOOK = 0.1  # seconds between two looks of a waiting thread at whether anyone still reads


async def iterate(
    items: Iterator[T], cancel: CancelToken, thread: ThreadPoolExecutor | None = None, *, ahead: int = AHEAD
) -> AsyncGenerator[T, None]:
    """Go through a blocking iterator, such as `learn` returns, in a thread.

    Args:
        items: asked for its items, and closed, in that thread alone.
        cancel: what ends `items` early. It is set when the loop is left before its end: by its task being cancelled,
            which ends once `items` have; by `break` or an error, as soon as nothing refers to this generator any more.
            One that is kept in a variable is for `async with contextlib.aclosing(...)`, which waits for the end, too.
        thread: where it runs; None takes a new one. What waits for its turn there and is left never runs.
        ahead: how many items may wait for the reader.

    Raises:
        Exception: what `items` raises.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[T] | None] = asyncio.Queue()  # bounded by `room`, for which a thread can wait
    room = threading.Semaphore(ahead)

    def work() -> None:
        try:
            for item in items:
                while not cancel.cancelled and not room.acquire(timeout=_LOOK):
                    if loop.is_closed():  # without a word to this generator: nobody will ever read
                        return
                loop.call_soon_threadsafe(queue.put_nowait, (item,))
        finally:
            if isinstance(items, Generator):
                items.close()

    def end(done: asyncio.Future[None]) -> None:
        queue.put_nowait(None)
        if not done.cancelled():
            done.exception()  # once the loop was left it is of no interest; never asked for, asyncio would log it

    executor = thread or ThreadPoolExecutor(1, "drift-edge")
    job = executor.submit(work)
    if thread is None:
        executor.shutdown(wait=False)
    done = asyncio.wrap_future(job)
    done.add_done_callback(end)
    try:
        while (item := await queue.get()) is not None:
            room.release()
            yield item[0]
        done.result()
    finally:
        if not done.done():
            cancel.cancel()
            if not job.cancel():
                await asyncio.wait([done])


class AsyncDrift:
    """An engine for one event loop.

    Args:
        drift: from now on used through this object alone, and closed by it. Loading blocks, so load it in a thread:
            `await asyncio.to_thread(Drift.load, llm, slm)`.
    """

    def __init__(self, drift: Drift) -> None:
        self.drift = drift
        self._thread = ThreadPoolExecutor(1, "drift-edge")
        self._open: set[CancelToken] = set()
        self._closed = False

    async def aclose(self) -> None:
        """End what is under way or waits, which finishes as `cancelled`, and close the engine."""
        if self._closed:
            return
        self._closed = True
        for cancel in self._open:
            cancel.cancel()
        try:
            await asyncio.wrap_future(self._thread.submit(self.drift.close))
        finally:
            self._thread.shutdown(wait=False)

    async def __aenter__(self) -> AsyncDrift:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        weights: Mapping[str, float] | None = None,
        beta: float | None = None,
        strength: float | None = None,
        active: int = DEFAULT_ACTIVE,
        steer: Mode = "logits",
        sampler: SamplerSettings | None = None,
        seed: int | None = None,
        attempt: int = 0,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        overflow: Overflow = "drop",
        cancel: CancelToken | None = None,
        measure: bool = False,
        speculate: Speculate = "off",
        draft: Draft = "auto",
        logprobs: int | None = None,
        blocked: Collection[str] = DEFAULT_BLOCKED,
    ) -> AsyncGenerator[Event, None]:
        """Answer a conversation: `Drift.chat` with `async for`.

        Leaving the loop, or cancelling its task, stops the answer within one token and frees the engine (see `iterate`
        for an answer that is kept in a variable); one that waits for its turn then never begins.

        Args:
            cancel: stops the answer; leaving sets it. The other arguments are those of `Drift.chat`.

        Raises:
            UsageError: an argument is out of range, or an attribute unknown.
            ClosedError: the engine has been closed.
            DriftError: (while iterating) as `Drift.chat`.
        """
        cancel = cancel or CancelToken()
        events = self.drift.chat(
            messages,
            weights=weights,
            beta=beta,
            strength=strength,
            active=active,
            steer=steer,
            sampler=sampler,
            seed=seed,
            attempt=attempt,
            max_tokens=max_tokens,
            stop=stop,
            overflow=overflow,
            cancel=cancel,
            measure=measure,
            speculate=speculate,
            draft=draft,
            logprobs=logprobs,
            blocked=blocked,
        )
        self._check_open()
        return self.each(events, cancel)

    async def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        weights: Mapping[str, float] | None = None,
        beta: float | None = None,
        strength: float | None = None,
        active: int = DEFAULT_ACTIVE,
        steer: Mode = "logits",
        sampler: SamplerSettings | None = None,
        seed: int | None = None,
        attempt: int = 0,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        overflow: Overflow = "drop",
        cancel: CancelToken | None = None,
        measure: bool = False,
        speculate: Speculate = "off",
        draft: Draft = "auto",
        blocked: Collection[str] = DEFAULT_BLOCKED,
    ) -> Answer:
        """The whole answer at once; arguments and errors as `chat`."""
        answer: Answer | None = None
        async for event in self.chat(
            messages,
            weights=weights,
            beta=beta,
            strength=strength,
            active=active,
            steer=steer,
            sampler=sampler,
            seed=seed,
            attempt=attempt,
            max_tokens=max_tokens,
            stop=stop,
            overflow=overflow,
            cancel=cancel,
            measure=measure,
            speculate=speculate,
            draft=draft,
            blocked=blocked,
        ):
            if isinstance(event, Finish):
                answer = event.answer
        if answer is None:
            raise DecodeError("the answer ended without its last event")
        return answer

    async def run(self, function: Callable[[*Arguments], T], *args: *Arguments, cancel: CancelToken | None = None) -> T:
        """Call something that blocks, such as `drift.explain`, in the engine's thread, when its turn comes.

        Args:
            function: what blocks.
            args: what it is called with.
            cancel: what ends the call; it is set when the task is cancelled, and the call waited for.

        Raises:
            ClosedError: the engine has been closed.
            Exception: what the call raises.
        """
        self._check_open()
        results = [result async for result in self.each(_once(function, *args), cancel or CancelToken())]
        return results[0]

    async def each(self, items: Iterator[T], cancel: CancelToken) -> AsyncGenerator[T, None]:
        """Go through a blocking iterator on the engine, such as `guarded` returns, in its thread, when its turn comes.

        Args:
            items, cancel: as `iterate`; closing the engine sets `cancel`, too.

        Raises:
            ClosedError: (while iterating) the engine has been closed.
            Exception: (while iterating) what `items` raises.
        """
        self._check_open()
        self._open.add(cancel)
        stream = iterate(items, cancel, self._thread)
        try:
            async for item in stream:
                yield item
        finally:
            await stream.aclose()
            self._open.discard(cancel)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the engine has been closed")


def _once(function: Callable[[*Arguments], T], *args: *Arguments) -> Iterator[T]:
    yield function(*args)
