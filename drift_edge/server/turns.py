"""Turns: one piece of work at a time, in the order of asking, with a bounded number waiting."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from drift_edge.server.errors import RequestError

_LONGEST = 60  # seconds that a client is told to wait at most


class Turns:
    """A fair, bounded queue in front of the engine.

    Args:
        most: how many may wait, besides the one whose turn it is.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._inside = 0  # those who wait, and the one whose turn it is
        self._lock = asyncio.Lock()  # wakes those who wait in their order
        self._usual = 1.0  # seconds that a turn takes

    @property
    def busy(self) -> bool:
        """Whether it is somebody's turn."""
        return self._inside > 0

    @property
    def waiting(self) -> int:
        """How many wait for theirs."""
        return max(0, self._inside - 1)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it.

        Raises:
            RequestError: 503, too many wait already.
        """
        if self._inside > self.most:
            seconds = min(max(1, math.ceil(self._usual)), _LONGEST)
            raise RequestError(
                503,
                f"{self.waiting} requests wait already, and one is answered at a time; try again in {seconds} s",
                "queue_full",
                headers={"Retry-After": str(seconds)},
            )
        self._inside += 1
        try:
            async with self._lock:
                began = time.monotonic()
                yield
                self._usual += (time.monotonic() - began - self._usual) / 4
        finally:
            self._inside -= 1
