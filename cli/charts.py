"""Numbers drawn as text: bars from a middle line with their standard errors, and small curves."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from .render import is_terminal, styled, wants_color

_WIDEST = 81  # columns of a bar and its mirror
_NARROWEST = 11


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Characters that charts are drawn with.

    Attributes:
        sure: of a bar, what is left when its standard error is taken away.
        unsure: the rest of the bar.
        error: the standard error beyond the bar.
        middle: the line at 0.
        plus_minus: between a weight and its standard error.
        arrow: from one value to another.
        curve: from low to high.
    """

    sure: str
    unsure: str
    error: str
    middle: str
    plus_minus: str
    arrow: str
    curve: str


UNICODE = Glyphs("█", "▓", "─", "│", "±", "→", "▁▂▃▄▅▆▇█")
ASCII = Glyphs("#", "=", "-", "|", "+-", "->", "_.,-~=+*#")


def glyphs() -> Glyphs:
    """What stdout's encoding can show."""
    encoding = (sys.stdout.encoding if sys.stdout else None) or "ascii"
    try:
        "".join((UNICODE.sure, UNICODE.unsure, UNICODE.error, UNICODE.plus_minus, UNICODE.curve)).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def stdout_color() -> bool:
    """Whether charts on stdout are coloured."""
    return wants_color("auto", sys.stdout)


def width() -> int:
    """Columns of the terminal; `COLUMNS` says otherwise, and without a terminal it is 80."""
    if is_terminal(sys.stdout) or os.environ.get("COLUMNS"):
        return max(40, shutil.get_terminal_size().columns)
    return 80


def bar(value: float, error: float, largest: float, columns: int, draw: Glyphs) -> str:
    """A bar from the middle line, `columns` wide in all: to the right where `value` is over 0, else to the left.

    Args:
        value: its length and direction.
        error: standard error; NaN where there is none.
        largest: the length that fills one side.
        columns: of both sides and the line.
        draw: characters.
    """
    side = max(1, (columns - 1) // 2)
    scale = side / largest if largest > 0 else 0.0
    size, spread = abs(value) * scale, error * scale if math.isfinite(error) else 0.0
    cells = []
    for i in range(-side, side):
        at = (i + 0.5) * (1 if value >= 0 else -1)  # the cell's middle, measured in the bar's direction
        if 0 < at < size:
            cells.append(draw.sure if at < size - spread else draw.unsure)
        else:
            cells.append(draw.error if size - spread < at < size + spread else " ")
    return "".join((*cells[:side], draw.middle, *cells[side:]))


def curve(values: Sequence[float], columns: int, draw: Glyphs, low: float, high: float) -> str:
    """Values as one character each, at most `columns` of them, from `low` at the bottom to `high` at the top."""
    if len(values) > columns:
        values = [values[round(i * (len(values) - 1) / (columns - 1))] for i in range(columns)]
    top = len(draw.curve) - 1
    spread = high - low
    return "".join(draw.curve[round((v - low) / spread * top) if spread > 0 else 0] for v in values)


def signed(value: float, digits: int = 3) -> str:
    """A number with its sign, in few digits: `+0.412`."""
    text = f"{value:+.{digits}f}"
    return f"{0.0:.{digits}f}".rjust(len(text)) if float(text) == 0 else text


def shorten(text: str, columns: int) -> str:
    """`text` on one line of at most `columns` characters."""
    line = " ".join(text.split())
    return line if len(line) <= columns else f"{line[: max(1, columns - 3)]}..."


@dataclass(frozen=True, slots=True)
class WeightRow:
    """One attribute in a table of weights.

    Attributes:
        name: of the attribute.
        weight: p_i.
        error: its standard error; NaN where there is none.
        note: words behind the bar.
        faint: whether it takes no part in decoding.
        scored: words on how often it was scored, where that was less often than others; behind the note.
    """

    name: str
    weight: float
    error: float
    note: str = ""
    faint: bool = False
    scored: str = ""


def weight_lines(rows: Sequence[WeightRow], *, color: bool) -> list[str]:
    """Weights as bars from a middle line, one line an attribute, as wide as the terminal."""
    draw = glyphs()
    largest = max((abs(row.weight) + (row.error if math.isfinite(row.error) else 0.0) for row in rows), default=0.0)
    numbers = [_number(row, draw) for row in rows]
    words = [", ".join(filter(None, (row.note, row.scored))) for row in rows]
    names, middle, notes = (max(map(len, texts), default=0) for texts in ([r.name for r in rows], numbers, words))
    columns = min(_WIDEST, width() - names - middle - notes - 6)
    lines = []
    for row, number, note in zip(rows, numbers, words, strict=True):
        drawn = f"  {bar(row.weight, row.error, largest, columns, draw)}" if columns >= _NARROWEST else ""
        if color and not row.faint:
            drawn = styled(drawn, "cyan" if row.weight >= 0 else "red")
        line = f"{row.name:<{names}}  {number}{drawn}  {note}".rstrip()
        lines.append(styled(line, "dim") if color and row.faint else line)
    return lines


def _number(row: WeightRow, draw: Glyphs) -> str:
    error = f" {draw.plus_minus}{row.error:.3f}" if math.isfinite(row.error) else " " * (len(draw.plus_minus) + 6)
    return f"{signed(row.weight)}{error}"


def counted(n: float, what: str) -> str:
    """`1 pair`, `1,200 pairs`."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"
