"""How far a long piece of work is, on stderr: a line drawn over again on a terminal, else one every few seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from .render import Screen, is_terminal

_REDRAW = 0.1  # seconds
_LINE = 10.0  # seconds between two lines where nothing can be drawn over


class Progress:
    """Counts pairs as they are done, and says how many a second and how long the rest will take.

    What was found done already (`skip`) is counted, but tells nothing of the speed.

    Args:
        total: how many there are.
        screen: where to write.
        wanted: whether to write at all.
    """

    def __init__(self, total: int, screen: Screen, *, wanted: bool = True) -> None:
        self._total, self._screen, self._wanted = total, screen, wanted
        self._live = is_terminal(sys.stderr)
        self._done = self._worked = 0
        self._start = self._shown = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._live and self._wanted:
            self._draw("")

    def step(self, *, worked: bool = True) -> None:
        """One more is done; `worked` is false where it was known before."""
        self._done += 1
        self._worked += worked
        self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if self._wanted and now - self._shown >= (_REDRAW if self._live else _LINE):
            self._shown = now
            line = self.line(now - self._start)
            self._draw(line) if self._live else self._screen.say(line)

    def note(self, text: str) -> None:
        """Write something worth knowing, above the line."""
        if self._live and self._wanted:
            self._draw("")
        self._screen.note(text)

    def line(self, seconds: float) -> str:
        """What is shown after so many seconds."""
        parts = [f"{self._done:,} of {self._total:,} pairs"]
        if self._worked and seconds > 0:
            speed = self._worked / seconds
            parts += [f"{speed:.3g} pairs/s", f"{duration((self._total - self._done) / speed)} left"]
        known = self._done - self._worked
        if known:
            parts.append(f"{known:,} known before")
        return ", ".join(parts)

    def _draw(self, line: str) -> None:
        if sys.stderr is not None:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()


class ByteProgress(Progress):
    """Counts bytes as they come over the network, of several files one after another."""

    def reach(self, name: str, done: int, received: int) -> None:
        """So many bytes of all files are on the disk, `received` of them fetched by this run."""
        self._name, self._done, self._worked = name, done, received
        self._show()

    def line(self, seconds: float) -> str:
        """What is shown after so many seconds."""
        parts = [f"{self._name}: {size(self._done)} of {size(self._total)}"]
        if self._worked and seconds > 0:
            speed = self._worked / seconds
            parts += [f"{size(speed)}/s", f"{duration((self._total - self._done) / speed)} left"]
        return ", ".join(parts)


def size(n: float) -> str:
    """Bytes for people: `512 B`, `4.6 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} GiB"


def duration(seconds: float) -> str:
    """Seconds for people: `42 s`, `3 min 20 s`, `1 h 5 min`."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 60} min {s % 60} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60} min"
