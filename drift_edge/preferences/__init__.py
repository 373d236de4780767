"""Preference pairs: what a person chose, and files of such choices.

`PreferencePair` is one choice; `read_pairs` reads a file of them. Each form of file has its reader in `records.py`,
`prism.py` or `openwebui.py`; how rows get out of a file is `rows.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from drift_edge.errors import PreferencesError, UsageError
from drift_edge.preferences.openwebui import openwebui
from drift_edge.preferences.pair import PreferencePair as PreferencePair
from drift_edge.preferences.prism import prism
from drift_edge.preferences.records import each, hh, is_transcript, jsonl, pandalm, perspective
from drift_edge.preferences.rows import MAX_FILE, Outcome, Row, read_rows

_READERS: Mapping[str, Callable[[Iterable[Row | Outcome]], Iterator[Outcome]]] = {
    "jsonl": each(jsonl),
    "hh": each(hh),
    "csv": each(jsonl),
    "pandalm": each(pandalm),
    "perspective": each(perspective),
    "prism": prism,
    "openwebui": openwebui,
}
FORMATS = tuple(_READERS)
# The fields a form is known by; of two that fit, the first.
_SIGNS = {
    "openwebui": ("type", "data", "meta"),
    "prism": ("user_prompt", "model_response", "if_chosen"),
    "pandalm": ("instruction", "response1", "response2"),
    "perspective": ("prompt", "win", "lose"),
    "jsonl": ("chosen", "rejected"),
}
_MAX_PAIRS = 300_000  # all of hh-rlhf are 170,000
_MAX_REFUSED = 100_000
_MAX_TOLD = 8 * MAX_FILE  # characters of all pairs together: a text can stand in many pairs
_MESSAGE = 500  # characters that a message counts as beside its own, about what it takes in memory
_SNIFFED = 100  # rows
_SHOWN = 10  # people or fields named in a message


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row of a file that gave no pair: its place, and why."""

    where: str
    why: str


@dataclass(frozen=True, slots=True)
class PairFile:
    """The pairs of one file.

    Attributes:
        pairs: one person's choices, in the file's order.
        skipped: what gave no pair, other people's rows left out.
        users: everybody whose choices the file holds; empty where it names nobody.
        format: the form it was read as, one of `FORMATS`.
    """

    pairs: tuple[PreferencePair, ...]
    skipped: tuple[Skipped, ...]
    users: tuple[str, ...]
    format: str


def read_pairs(
    path: str | Path,
    *,
    format: str | None = None,
    user: str | None = None,
    strict: bool = False,
    limit: int | None = None,
) -> PairFile:
    """Read one person's choices from a file.

    JSON lines, a JSON array or CSV (a name in .csv or .tsv), also packed by gzip, in UTF-8, UTF-16 or UTF-32. The
    file may have 128 Mi characters unpacked, a line 8 Mi, a JSON array 64 Mi. A pair that occurs twice counts once.

    Args:
        path: the file.
        format: one of `FORMATS`; None finds it from the name and the fields of the first rows.
        user: whose choices, where the file holds several people's: their name in it, or what it begins with.
        strict: whether a row that gives no pair is an error.
        limit: pairs to return at most, the first ones; the whole file is read all the same.

    Raises:
        UsageError: no such format, no such person, or several people and none picked; `limit` less than 1.
        PreferencesError: the file cannot be read, is too large, empty or of no known form; or, where `strict`, the
            first row that gives no pair. Names the file, the row and the field.
    """
    path = Path(path)
    if format is not None and format not in _READERS:
        raise UsageError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise UsageError(f"limit: expected a whole number, 1 or more, got {limit!r}")
    table = format == "csv" or (format in (None, "jsonl") and _is_table(path))
    rows = read_rows(path, table=table)
    if format is None:
        first = list(islice(rows, _SNIFFED))
        format = _sniff(first, path, table=table)
        rows = chain(first, rows)
    outcomes = list(_bounded(_READERS[format](rows), path))
    if not outcomes:
        raise PreferencesError(f"{path}: holds nothing that is compared")
    users = tuple(dict.fromkeys(o.user for o in outcomes if o.user is not None))
    picked = _pick(user, users, path)
    pairs: list[PreferencePair] = []
    places: dict[str, str] = {}
    skipped: list[Skipped] = []
    for where, whose, pair, why in outcomes:
        if picked is not None and whose != picked and (whose is not None or pair is not None):
            continue
        if pair is None:
            skipped.append(Skipped(where, why))
        elif (choice := pair.id) in places:
            skipped.append(Skipped(where, f"the same choice as {places[choice]}"))
        else:
            places[choice] = where
            pairs.append(pair)
    if strict and skipped:
        raise PreferencesError(f"{path}: {skipped[0].where}: {skipped[0].why}")
    return PairFile(tuple(pairs[:limit]), tuple(skipped), users, format)


def _is_table(path: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    return name.endswith((".csv", ".tsv"))


def _bounded(outcomes: Iterator[Outcome], path: Path) -> Iterator[Outcome]:
    pairs = refused = told = 0
    for outcome in outcomes:
        pair = outcome.pair
        if pair is None:
            refused += 1
        else:
            pairs += 1
            told += sum(len(m["content"]) + _MESSAGE for m in pair.messages) + len(pair.chosen) + len(pair.rejected)
        if refused > _MAX_REFUSED:
            why = f"over {_MAX_REFUSED:,} rows give no pair, this one because {outcome.why}"
        elif pairs > _MAX_PAIRS:
            why = f"over {_MAX_PAIRS:,} pairs; split the file"
        elif told > _MAX_TOLD:
            why = f"the pairs up to here repeat so much that they take over {_MAX_TOLD >> 20:,} MiB; split the file"
        else:
            yield outcome
            continue
        raise PreferencesError(f"{path}: {outcome.where}: {why}")


def _sniff(first: list[Row | Outcome], path: Path, *, table: bool) -> str:
    """The form of a file by its first rows."""
    known = {"csv": _SIGNS["jsonl"]} if table else _SIGNS
    rows = [row for row in first if isinstance(row, Row)]
    for row in rows:
        for name, signs in known.items():
            if all(sign in row.data for sign in signs):
                transcripts = name == "jsonl" and "prompt" not in row.data and is_transcript(row.data["chosen"])
                return "hh" if transcripts else name
    if rows:
        found = f"{rows[0].where} has the fields {_shown(rows[0].data) or '(none)'}"
    else:
        found = next(
            (f"{outcome.where}: {outcome.why}" for outcome in first if isinstance(outcome, Outcome)), "it is empty"
        )
    wanted = "; ".join(f"{', '.join(signs)} ({name})" for name, signs in known.items())
    raise PreferencesError(f"{path}: no form of preference pairs: {found}; expected JSON or CSV with {wanted}")


def _pick(user: str | None, users: tuple[str, ...], path: Path) -> str | None:
    """The one person of `users` that is meant; None where the file names nobody."""
    known = _shown(users)
    if user is None:
        if len(users) > 1:
            raise UsageError(f"{path}: holds choices of {len(users):,} people ({known}); pick one with --user")
        return users[0] if users else None
    found = [user] if user in users else [name for name in users if name.startswith(user)]
    if not users:
        raise UsageError(f"{path}: names nobody, so there is no {user!r} to pick; leave out --user")
    if len(found) != 1:
        what = f"{len(found)} people's names begin with {user!r}" if found else f"nobody is called {user!r}"
        raise UsageError(f"{path}: {what}; it holds choices of {known}")
    return found[0]


def _shown(names: Collection[str]) -> str:
    """The first names, each cut short, for messages."""
    return ", ".join(f"{name[:40]!r}" for name in islice(names, _SHOWN)) + (", …" if len(names) > _SHOWN else "")
