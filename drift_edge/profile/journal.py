"""The journal: a person's choices beside their profile, one JSON object a line, each on the disk before it counts.

```
{"seq": 1, "time": "…", "start": {"schema": 3, "profile": …, "slm": …, "base": …, …, "statistics": …}}
{"seq": 2, "time": "…", "choice": "5f2c…", "pair": {…}, "scores": {…}}
{"seq": 3, "time": "…", "choice": "a81e…", "pair": {…}}                   recorded, to be scored
{"seq": 4, "time": "…", "scored": "a81e…", "scores": {…}}
{"seq": 5, "time": "…", "forget": ["5f2c…"]}                              line 2 is taken out at the same moment
```

The first line says what the scores are of, and what was counted before the journal began. Lines are only appended, but
for forgetting, which leaves the whole file without the forgotten text and with a tombstone at its end. `seq` never
falls, so a profile that has stored the last one it counted knows what it lacks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from drift_edge import storage
from drift_edge.errors import PreferencesError, ProfileCorruptError, UsageError
from drift_edge.preferences import PreferencePair
from drift_edge.rewards import PairScores

KINDS = ("start", "choice", "scored", "forget")
_VALUES = {"start": dict, "forget": list}  # what stands under them; else an id
MAX_LINE = 16 << 20
_BLOCK = 1 << 16
#: The two ends of a choice's lines as `new_record` writes them; what is between need not be read to know which it is.
_HEAD = re.compile(rb'\{"seq":([1-9][0-9]*),"time":"[^"\\]*","(?:choice|scored)":"([0-9a-f]{16})","(?:pair|scores)":\{')
_TAIL = re.compile(rb'"(?:tie":(?P<tie>true|false)|n_rejected":[0-9]+)\}\}\n$')
_LONGEST_TAIL = 32


@dataclass(frozen=True, slots=True)
class Record:
    """One line.

    Attributes:
        seq: its number; later lines have larger ones.
        kind: of `KINDS`.
        data: the whole object.
        raw: the line's bytes, without its end.
        where: file and line, for messages.
    """

    seq: int
    kind: str
    data: Mapping[str, object]
    raw: bytes
    where: str

    @property
    def value(self) -> object:
        """What stands under the record's kind: an object, an id, or a list of ids."""
        return self.data[self.kind]

    @property
    def tie(self) -> bool:
        """Whether it is a choice that says neither."""
        pair = self.data.get("pair")
        return isinstance(pair, Mapping) and pair.get("tie") is True

    def pair(self) -> PreferencePair:
        """The pair of a choice.

        Raises:
            ProfileCorruptError: it is none; names line and place.
        """
        try:
            return PreferencePair.from_dict(self.data.get("pair"), "$.pair")
        except PreferencesError as error:
            raise ProfileCorruptError(f"{self.where}: {error}") from error

    def scores(self) -> PairScores | None:
        """The scores of a choice; None where it has none.

        Raises:
            ProfileCorruptError: they are malformed; names line and place.
        """
        if "scores" not in self.data:
            return None
        try:
            return PairScores.from_dict(self.data["scores"], "$.scores")
        except UsageError as error:
            raise ProfileCorruptError(f"{self.where}: {error}") from error


class Journal:
    """The file of one profile's choices. Whoever changes it holds the profile's lock; reading needs none.

    Args:
        path: of the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget_known()

    def _forget_known(self) -> None:
        self._known: dict[str, bool] = {}
        self._read_to = _Place()

    def last(self) -> tuple[int, int]:
        """`seq` of the last whole line, and the byte where it ends; (0, 0) without any.

        What follows is a line that a killed or powerless machine has torn: nobody was told that it is kept.

        Raises:
            OSError: it cannot be read.
        """
        try:
            file = self.path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return 0, 0
        with file:
            start = file.seek(0, 2)
            tail = b""
            while start:
                step = min(start, max(_BLOCK, len(tail)))
                start -= step
                file.seek(start)
                tail = file.read(step) + tail
                end = tail.rfind(b"\n") + 1
                while end:
                    begin = tail.rfind(b"\n", 0, end - 1) + 1
                    if start and not begin:
                        break  # the line begins before the block
                    if seq := _seq(tail[begin:end]):
                        return seq, start + end
                    end = begin
        return 0, 0

    def first(self) -> Record | None:
        """The record that the journal begins with; None where there is no journal.

        Raises:
            OSError, ProfileCorruptError: as `read`.
        """
        return next(self.read(), None)

    def read(self) -> Iterator[Record]:
        """All records, without a torn end.

        Raises:
            OSError: it cannot be read.
            ProfileCorruptError: a line before the last is damaged; names it.
        """
        return self._read(_Place())

    def _read(self, place: _Place) -> Iterator[Record]:
        try:
            file = self.path.open("rb", buffering=_BLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return
        with file:
            file.seek(place.end)
            yield from parse_lines(_lines_of(file), lambda n: f"{self.path}: line {place.lines + n}", after=place.seq)

    def known(self) -> Mapping[str, bool]:
        """The ids of all choices, and whether each needs no more scores. What was read before is not read again.

        Raises:
            OSError, ProfileCorruptError: as `read`; but damage within a choice is found by `read` alone.
        """
        if not self._still_there():
            self._forget_known()
        while True:
            self._skim()
            record = next(self._read(self._read_to), None)  # a line that is no choice, or not written by this module
            if record is None:
                return self._known
            if record.kind == "choice":
                self._known[str(record.value)] = "scores" in record.data or record.tie
            elif record.kind == "scored":
                self._known[str(record.value)] = True
            self._read_to = self._read_to.after(record.seq, record.raw + b"\n")

    def _skim(self) -> None:
        """Note the choices from `_read_to` on, up to a line that must be read whole; parsing every line would take
        twenty times as long."""
        last, seq, end, lines = self._read_to
        try:
            file = self.path.open("rb", buffering=_BLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return
        with file:
            file.seek(end)
            for line in _lines_of(file):
                head = _HEAD.match(line)
                tail = _TAIL.search(line, max(0, len(line) - _LONGEST_TAIL))
                if not head or not tail or int(head[1]) <= seq:
                    break
                self._known[head[2].decode()] = tail["tie"] != b"false"
                last, seq, end, lines = line, int(head[1]), end + len(line), lines + 1
        self._read_to = _Place(last, seq, end, lines)

    def _still_there(self) -> bool:
        """Whether the file still begins as it was read. Written anew, it has the last line elsewhere or not at all."""
        line = self._read_to.line
        try:
            with self.path.open("rb") as file:
                file.seek(self._read_to.end - len(line))
                return file.read(len(line)) == line
        except (FileNotFoundError, NotADirectoryError):
            return False

    def append(self, records: Iterable[Record]) -> None:
        """Put records at the end, in place of a torn line, and have them on the disk.

        Raises:
            OSError: they cannot be written; the file has none of them.
        """
        storage.append(self.path, _lines(records), self.last()[1])

    def rewrite(self, records: Iterable[Record]) -> None:
        """Replace the file in one step.

        Raises:
            OSError: it cannot be written; the old file is as it was.
        """
        storage.put(storage.stage(self.path, _lines(records)), self.path)


class _Place(NamedTuple):
    """How far a journal was read: the last line, its `seq`, where it ends, and how many lines that were."""

    line: bytes = b""
    seq: int = 0
    end: int = 0
    lines: int = 0

    def after(self, seq: int, line: bytes) -> _Place:
        return _Place(line, seq, self.end + len(line), self.lines + 1)


def _lines_of(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.readline(MAX_LINE), b"")


def parse_lines(lines: Iterable[bytes], where: Callable[[int], str], *, after: int = 0) -> Iterator[Record]:
    """The records of lines; a damaged last one is left out.

    Args:
        lines: with their ends.
        where: the place of the line of that number, from 1 on.
        after: `seq` of the line before them; 0 where they begin a journal.

    Raises:
        ProfileCorruptError: a line before the last is damaged; names it.
    """
    bad, last = "", after
    for number, line in enumerate(lines, 1):
        if bad:
            raise ProfileCorruptError(
                f"{bad}; put back a whole copy, or move the file away to go on with the weights alone"
            )
        record = _parse(line, where(number))
        if isinstance(record, str):
            bad = record
        elif not last and record.kind != "start":
            bad = f"{record.where}: expected the journal's beginning, a 'start', found a {record.kind!r}"
        elif record.seq <= last:
            bad = f"{record.where}: at $.seq: expected more than {last}, got {record.seq}"
        else:
            last = record.seq
            yield record


def new_record(
    seq: int,
    time: str,
    kind: str,
    value: object,
    *,
    pair: PreferencePair | None = None,
    scores: PairScores | None = None,
) -> Record:
    """A record to be written.

    Args:
        seq: its number.
        time: ISO 8601.
        kind: of `KINDS`.
        value: what stands under it.
        pair: of a choice.
        scores: of a choice, where there are any.

    Raises:
        UsageError: the line would be too long.
    """
    data = {"seq": seq, "time": time, kind: value}
    data |= {} if pair is None else {"pair": pair.to_dict()}
    data |= {} if scores is None else {"scores": scores.to_dict()}
    raw = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    if len(raw) >= MAX_LINE:
        raise UsageError(f"a choice may have at most {MAX_LINE:,} bytes, this one has {len(raw):,}")
    return Record(seq, kind, data, raw, "new")


def _lines(records: Iterable[Record]) -> bytes:
    return b"".join(record.raw + b"\n" for record in records)


def _seq(line: bytes) -> int:
    record = _parse(line, "")
    return record.seq if isinstance(record, Record) else 0


def _parse(line: bytes, where: str) -> Record | str:
    """The record, or what is wrong with it."""
    if not line.endswith(b"\n"):
        return f"{where}: expected at most {MAX_LINE:,} bytes and a line end"
    try:
        data: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"{where}: not valid JSON: {error}"
    kinds = [kind for kind in KINDS if kind in data] if isinstance(data, dict) else []
    if len(kinds) != 1:
        return f"{where}: at $: expected an object with one of {', '.join(KINDS)}, got {line[:60]!r}"
    seq = data.get("seq")
    if type(seq) is not int or seq < 1:
        return f"{where}: at $.seq: expected a whole number, 1 or more, got {seq!r}"
    kind = kinds[0]
    value = data[kind]
    expected: type = _VALUES.get(kind, str)
    if not isinstance(value, expected):
        return f"{where}: at $.{kind}: expected {expected.__name__}, got {type(value).__name__}"
    return Record(seq, kind, data, line[:-1], where)
