"""The scorers that an engine keeps for its learners."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drift_edge.scoring import Scorer


class KeptScorers:
    """One scorer for each length of text, made when it is first asked for. May be used from several threads.

    Args:
        make: a scorer for a `text_length`.
    """

    def __init__(self, make: Callable[[int], Scorer]) -> None:
        self._make = make
        self._scorers: dict[int, Scorer] = {}
        self._lock = threading.Lock()

    def of(self, text_length: int) -> Scorer:
        """The scorer that reads so many tokens of a response."""
        with self._lock:
            if text_length not in self._scorers:
                self._scorers[text_length] = self._make(text_length)
            return self._scorers[text_length]

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            for scorer in self._scorers.values():
                scorer.close()
