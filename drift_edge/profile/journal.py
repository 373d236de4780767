"""The journal: a person's choices beside their profile, one JSON object a line, each on the disk before it counts.

```
{"seq": 1, "time": "…", "start": {"schema": 2, "profile": …, "slm": …, "base": …, …, "statistics": …}}
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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drift_edge import storage
from drift_edge.errors import PreferencesError, ProfileCorruptError, UsageError
from drift_edge.preferences import PreferencePair
from drift_edge.rewards import PairScores

KINDS = ("start", "choice", "scored", "forget")
_VALUES = {"start": dict, "forget": list}  # what stands under them; else an id
MAX_LINE = 16 << 20
_BLOCK = 1 << 16


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
        self._known: dict[str, bool] = {}
        self._line, self._end = b"", 0  # the last line that `_known` was made from, and where it ends

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

    def read(self, start: int = 0) -> Iterator[Record]:
        """All records from byte `start` on, without a torn end.

        Raises:
            OSError: it cannot be read.
            ProfileCorruptError: a line before the last is damaged; names it.
        """
        try:
            file = self.path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return
        with file:
            file.seek(start)
            after = f" after byte {start}" if start else ""
            lines = iter(lambda: file.readline(MAX_LINE), b"")
            yield from parse_lines(lines, lambda n: f"{self.path}: line {n}{after}", begins=not start)

    def known(self) -> Mapping[str, bool]:
        """The ids of all choices, and whether each needs no more scores. What was read before is not read again.

        Raises:
            OSError, ProfileCorruptError: as `read`.
        """
        if not self._still_there():
            self._known, self._line, self._end = {}, b"", 0
        for record in self.read(self._end):
            if record.kind == "choice":
                self._known[str(record.value)] = "scores" in record.data or record.tie
            elif record.kind == "scored":
                self._known[str(record.value)] = True
            self._line = record.raw + b"\n"
            self._end += len(self._line)
        return self._known

    def _still_there(self) -> bool:
        """Whether the file still begins as it was read. Written anew, it has the last line elsewhere or not at all."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._end - len(self._line))
                return file.read(len(self._line)) == self._line
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


def parse_lines(lines: Iterable[bytes], where: Callable[[int], str], *, begins: bool = True) -> Iterator[Record]:
    """The records of lines; a damaged last one is left out.

    Args:
        lines: with their ends.
        where: the place of the line of that number, from 1 on.
        begins: whether the first line must be the beginning of a journal.

    Raises:
        ProfileCorruptError: a line before the last is damaged; names it.
    """
    bad, last = "", 0
    for number, line in enumerate(lines, 1):
        if bad:
            raise ProfileCorruptError(
                f"{bad}; put back a whole copy, or move the file away to go on with the weights alone"
            )
        record = _parse(line, where(number))
        if isinstance(record, str):
            bad = record
        elif begins and not last and record.kind != "start":
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
