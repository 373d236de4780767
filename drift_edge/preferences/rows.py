"""Rows of an untrusted file: JSON lines, one JSON array, or CSV, packed by gzip or not, in any Unicode encoding.

Nothing is held but what bounds allow: the size of the file as unpacked, of one line, of one array. A row that cannot
be read is told of, and the next is read.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from drift_edge.errors import PreferencesError, UsageError
from drift_edge.messages import describe
from drift_edge.preferences.pair import PreferencePair

MAX_FILE = 128 << 20  # characters, unpacked; PRISM's utterances are 68 million
MAX_ARRAY = 64 << 20  # characters of a JSON array, which is held as a whole
MAX_LINE = 8 << 20
_HEAD = 4_096
_BLANK = re.compile(r"[ \t\r\n]*")
_DELIMITERS = ",;\t"
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}


@dataclass(frozen=True, slots=True)
class Row:
    """One object of a file, and where it stands."""

    file: str
    where: str
    data: dict[str, object]


class Outcome(NamedTuple):
    """What became of a row: a pair, or why there is none; and whose choice it is, where the file says so."""

    where: str
    user: str | None
    pair: PreferencePair | None
    why: str = ""


def refused(where: str, error: UsageError, user: str | None = None) -> Outcome:
    """The outcome of a row with a bad field, whose name the error begins with."""
    return Outcome(where, user, None, f"at $.{error}")


def read_rows(path: Path, *, table: bool) -> Iterator[Row | Outcome]:
    """All rows of a file, in order.

    Args:
        path: the file.
        table: whether it is CSV; else JSON, lines or one array as it begins.

    Raises:
        PreferencesError: the file cannot be opened, or is larger than 128 Mi characters (an array: 64 Mi).
    """
    where = ""
    try:
        with path.open("rb") as file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            stream = io.BufferedReader(gzip.GzipFile(fileobj=file)) if packed else file
            head = stream.peek(_HEAD)[:_HEAD]
            encoding = json.detect_encoding(head)
            # A byte that is not UTF-8 becomes half a surrogate pair: it spoils the field it is in, and no other.
            text = io.TextIOWrapper(stream, encoding, errors="surrogateescape")
            array = not table and head.decode(encoding, "ignore").lstrip().startswith("[")
            rows = _table_rows if table else _array_rows if array else _line_rows
            for where, found in rows(text, path):
                yield found if isinstance(found, Outcome) else Row(path.name, where, found)
    except (OSError, EOFError, zlib.error, UnicodeError, csv.Error, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        if not where:
            raise PreferencesError(f"{str(path)!r}: cannot read the preference pairs: {why}") from error
        yield Outcome(f"after {where}", None, None, f"the rest of the file cannot be read: {why}")


_Found = Iterator[tuple[str, dict[str, object] | Outcome]]


def _line_rows(text: io.TextIOWrapper, path: Path) -> _Found:
    for number, line in _lines(text, path):
        where = f"line {number}"
        if line is None:
            yield where, Outcome(where, None, None, f"longer than {MAX_LINE >> 20} Mi characters")
        elif line.strip():
            try:
                yield where, _object(json.loads(line), where)
            except json.JSONDecodeError as error:
                why = f"not valid JSON: {error.msg} at column {error.colno}"
                yield where, Outcome(where, None, None, why)
            except (ValueError, RecursionError) as error:  # a number of thousands of digits; nested too deeply
                yield where, Outcome(where, None, None, f"not valid JSON: {error}")


def _array_rows(text: io.TextIOWrapper, path: Path) -> _Found:
    document = text.read(MAX_ARRAY + 1)
    if len(document) > MAX_ARRAY:
        raise PreferencesError(
            f"{path}: a JSON array may have at most {MAX_ARRAY >> 20} Mi characters; write one object a line (.jsonl)"
        )
    decoder = json.JSONDecoder()
    at, number = _after_blank(document, document.index("[") + 1), 1
    while document[at : at + 1] != "]":
        where = f"record {number}"
        try:
            value, at = decoder.raw_decode(document, at)
        except (ValueError, RecursionError) as error:
            yield where, Outcome(where, None, None, f"not valid JSON, and the rest is not read: {error}")
            return
        yield where, _object(value, where)
        at, number = _after_blank(document, at), number + 1
        if document[at : at + 1] == ",":
            at = _after_blank(document, at + 1)
        elif document[at : at + 1] != "]":
            why = f"expected ',' or ']', got {describe(document[at : at + 1])} at character {at + 1}"
            yield where, Outcome(f"after {where}", None, None, f"{why}; the rest is not read")
            return


def _table_rows(text: io.TextIOWrapper, path: Path) -> _Found:
    def lines() -> Iterator[str]:
        for number, line in _lines(text, path):
            if line is None:
                raise csv.Error(f"line {number} is longer than {MAX_LINE >> 20} Mi characters")
            yield line

    source = lines()
    first = next(source, "")
    delimiter = max(_DELIMITERS, key=first.count)
    names = [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter), [])]
    reader = csv.reader(source, delimiter=delimiter)
    begins = 2
    for cells in reader:
        where, begins = f"line {begins}", reader.line_num + 2
        if not cells:
            continue
        if len(cells) != len(names):
            why = f"expected {len(names)} cells, as the first line has, got {len(cells)}"
            yield where, Outcome(where, None, None, why)
            continue
        data: dict[str, object] = dict(zip(names, cells, strict=True))
        if "tie" in data:
            data["tie"] = _TRUTH.get(str(data["tie"]).strip().lower(), data["tie"])
        yield where, data


def _lines(text: io.TextIOWrapper, path: Path) -> Iterator[tuple[int, str | None]]:
    """Numbered lines; None for one that is too long."""
    number, total, long = 1, 0, False
    while piece := text.readline(MAX_LINE + 1):
        total += len(piece)
        if total > MAX_FILE:
            raise PreferencesError(f"{path}: may have at most {MAX_FILE >> 20} Mi characters (unpacked); split it")
        if piece.endswith("\n") or len(piece) <= MAX_LINE:
            yield number, None if long else piece
            number, long = number + 1, False
        else:
            long = True
    if long:
        yield number, None


def _object(value: object, where: str) -> dict[str, object] | Outcome:
    if isinstance(value, dict):
        return value
    return Outcome(where, None, None, f"expected a JSON object, got {describe(value)}")


def _after_blank(document: str, at: int) -> int:
    found = _BLANK.match(document, at)
    return found.end() if found else at
