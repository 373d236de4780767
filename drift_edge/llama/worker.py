"""Worker: one thread that runs the calls it is handed, one after another.

`ThreadPoolExecutor` does the same, but takes and gives back its locks in Python. An interrupt that comes just between
leaves one of them held, and the next call waits for ever. Here nothing is held while an interrupt can come.
"""

from __future__ import annotations

import _thread  # `threading.Thread.start` has such a lock too
from collections.abc import Callable
from queue import SimpleQueue


class Worker:
    """A thread of its own, until it is closed. It is one thread at a time that hands over and waits."""

    def __init__(self) -> None:
        self._begun = self._done = 0
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._ends: SimpleQueue[None] = SimpleQueue()
        _thread.start_new_thread(self._run, ())

    def hand_over(self, call: Callable[[], None]) -> None:
        """Begin `call`, which must not raise, and return at once."""
        self._begun += 1  # no signal is handled between this and the end of the next call
        self._calls.put(call)

    def wait(self) -> None:
        """Return when everything handed over has been run."""
        while self._done < self._begun:  # the count decides: an interrupt can lose what the queue gave
            self._ends.get()

    def close(self) -> None:
        """Wait, and end the thread."""
        self.wait()
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            self._done += 1
            self._ends.put(None)
