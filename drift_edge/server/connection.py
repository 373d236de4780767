"""Connections for uvicorn, which by itself waits for a request's headers for ever."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """Closed when a request's headers have not arrived in time: `uvicorn.Config(app, http=Connection)`.

    Attributes:
        header_seconds: counted from the connection's beginning, or from the first byte of a later request.
    """

    header_seconds = 30.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As uvicorn's."""
        super().connection_made(transport)
        self._time_headers()

    def data_received(self, data: bytes) -> None:
        """As uvicorn's."""
        super().data_received(data)
        self._time_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's."""
        super().connection_lost(exc)
        self._no_deadline()

    def _time_headers(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._no_deadline()
        elif self._deadline is None:  # more of the headers is no reason to wait longer
            self._deadline = self.loop.call_later(self.header_seconds, self.timeout_keep_alive_handler)

    def _no_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
