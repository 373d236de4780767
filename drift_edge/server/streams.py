"""Streams that neither a slow reader nor one who has left can hold up."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable
from contextlib import suppress
from typing import TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from drift_edge.server.errors import request_error

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


class ClientGoneError(Exception):
    """The client hung up, so that nobody reads the reply."""


async def ahead(source: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """The items of `source`, which is not kept waiting for its reader: a client that reads slowly, or not at all, has
    the engine no longer than its answer takes. Leaving the loop ends `source`.

    Args:
        source: of so few items that all may wait, such as the tokens of an answer.
    """
    queue: asyncio.Queue[tuple[T] | None] = asyncio.Queue()

    async def pump() -> None:
        try:
            async for item in source:
                queue.put_nowait((item,))
        finally:
            await source.aclose()
            queue.put_nowait(None)

    task = asyncio.create_task(pump())
    try:
        while (item := await queue.get()) is not None:
            yield item[0]
        await task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


async def until_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which ends when the client hangs up.

    Raises:
        ClientGoneError: it did.
        Exception: what `work` raises.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.create_task(gone())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for each in (task, watch):
            each.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await each


class EventStream(StreamingResponse):
    """Server-sent events: JSON values, then `[DONE]`; an error takes its place.

    Args:
        first: the first value.
        values: the others; closed when the reply ends, however it ends.
    """

    def __init__(self, first: object, values: AsyncGenerator[object, None]) -> None:
        self._values = values
        super().__init__(_lines(first, values), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._values.aclose()  # where the client left before the first line, nobody else does


async def _lines(first: object, values: AsyncGenerator[object, None]) -> AsyncGenerator[str, None]:
    yield _line(first)
    try:
        async for value in values:
            yield _line(value)
    except Exception as error:
        if (told := request_error(error)).status == 500:
            _LOG.exception("an answer failed")
        yield _line(told.body)
    else:
        yield "data: [DONE]\n\n"


def _line(value: object) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"
