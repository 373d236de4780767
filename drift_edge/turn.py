"""Turn: whose turn it is to use an engine's models, sound against interrupts."""

from __future__ import annotations

import threading

from drift_edge.errors import DriftError


class Turn:
    """One thread at a time. Whoever uses the models writes

        turn.check()
        with turn.lock:
            try:
                turn.take()
                ...
            finally:
                turn.owner = None

    and not a context manager of ours. Python handles signals where a function begins or resumes, where a call of C has
    returned, and where a loop jumps back. The lock's own `__enter__` and `__exit__` are C, and `try` and the assignment
    to `owner` are none of these places, so Ctrl-C finds either nothing taken or a handler that gives it back.
    `__enter__` and `__exit__` written in Python begin, and so can be interrupted, with the lock held.

    Attributes:
        lock: held for the turn.
        owner: the thread whose turn it is.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.owner: int | None = None

    def mine(self) -> bool:
        """Whether it is this thread's turn."""
        return self.owner == threading.get_ident()

    def check(self) -> None:
        """Refuse to wait for oneself.

        Raises:
            DriftError: it is this thread's turn already.
        """
        if self.mine():
            raise DriftError("this thread has another answer of this engine under way: finish or close it first")

    def take(self) -> None:
        """It is this thread's turn; to be called with the lock held."""
        self.owner = threading.get_ident()
