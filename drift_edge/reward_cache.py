"""RewardCache: log-probabilities computed once, in one SQLite file, so that no response is ever scored twice."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

from drift_edge.errors import DriftError
from drift_edge.storage import make_private

_WAIT = 30.0  # seconds for another process that is writing
_TABLE = """
CREATE TABLE IF NOT EXISTS responses (
    scorer TEXT, text TEXT, prompt TEXT, logprob REAL, tokens INTEGER, PRIMARY KEY (scorer, text, prompt)
) WITHOUT ROWID
"""
_FORMER = "DROP TABLE IF EXISTS scores"  # kept both responses of a pair together, by the pair
Result = TypeVar("Result")


class CachedScore(NamedTuple):
    """log pi(y | x, s) of one response under one prompt s.

    Attributes:
        logprob: nats, summed over tokens.
        tokens: of y, as many as were scored.
    """

    logprob: float
    tokens: int


def text_key(messages: Sequence[Mapping[str, str]], response: str) -> str:
    """16 hex digits naming a conversation x and a response y to it, whatever the response was compared with."""
    return _digest(json.dumps([[[m["role"], m["content"]] for m in messages], response]))


class RewardCache:
    """Scores by (what scored, conversation and response, prompt): another attribute costs the new prompt alone, and a
    response that is compared again, with another or the other way round, costs nothing.

    Every `put` is one transaction: a killed process loses what it had not yet put, and readers in other processes are
    never in its way. A file that is damaged is moved aside, and a new one begun: all of it can be computed again.

    Args:
        path: of the file; it and its folder are made, for their owner alone, where they are missing.

    Attributes:
        moved_aside: where a damaged file was moved to; None where there was none.

    Raises:
        DriftError: the file cannot be opened or written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.moved_aside: Path | None = None
        self._connection: sqlite3.Connection | None = None
        self._safely(lambda connection: connection)

    def get(self, scorer: str, text: str, prompts: Iterable[str]) -> dict[str, CachedScore]:
        """What is known of a response, by prompt.

        Args:
            scorer: names model, template and settings (`Scorer.key`).
            text: names conversation and response (`text_key`).
            prompts: texts of s_0, s_1 ..; those not known are left out.

        Raises:
            DriftError: the file cannot be read.
        """
        rows = self._safely(
            lambda connection: connection.execute(
                "SELECT prompt, logprob, tokens FROM responses WHERE scorer = ? AND text = ?", (scorer, text)
            ).fetchall()
        )
        known = {row[0]: CachedScore(*row[1:]) for row in rows}
        return {prompt: known[digest] for prompt in prompts if (digest := _digest(prompt)) in known}

    def put(self, scorer: str, text: str, scores: Mapping[str, CachedScore]) -> None:
        """Keep scores of a response, by prompt.

        Raises:
            DriftError: the file cannot be written (such as a full disk); what was kept before stays.
        """
        rows = [(scorer, text, _digest(prompt), *score) for prompt, score in scores.items()]

        def insert(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?)", rows)

        self._safely(insert)

    def forget(self, texts: Iterable[str]) -> int:
        """Erase all that is known of these texts (`text_key`); returns how many scores that were.

        Raises:
            DriftError: the file cannot be written.
        """
        keys = [(text,) for text in texts]

        def delete(connection: sqlite3.Connection) -> int:
            with connection:
                return connection.executemany("DELETE FROM responses WHERE text = ?", keys).rowcount

        return max(0, self._safely(delete))

    def close(self) -> None:
        """Close the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __enter__(self) -> RewardCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _open(self) -> sqlite3.Connection:
        if not self.path.parent.exists():
            make_private(self.path.parent)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would make it readable by all
        # Scoring may run in a thread of its own; it is never used by two at once.
        connection = sqlite3.connect(self.path, timeout=_WAIT, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait for each other
            connection.execute("PRAGMA synchronous = NORMAL")  # a killed process loses nothing by it
            connection.execute(_FORMER)
            connection.execute(_TABLE)
        except BaseException:
            connection.close()
            raise
        return connection

    def _safely(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """The result of `work`, done again on a new file where the old one turns out to be damaged."""
        try:
            try:
                if self._connection is None:
                    self._connection = self._open()
                return work(self._connection)
            except sqlite3.OperationalError:  # a kind of DatabaseError: locked, full, not readable
                raise
            except sqlite3.DatabaseError:
                self._move_aside()
                self._connection = self._open()
                return work(self._connection)
        except (sqlite3.Error, OSError) as error:
            raise DriftError(
                f"{self.path}: the cache of scores cannot be used: {error}; free space, repair the folder's rights, or "
                "delete the file: it holds nothing that cannot be computed again"
            ) from error

    def _move_aside(self) -> None:
        self.close()
        aside = self.path.with_name(f"{self.path.name}.damaged")
        os.replace(self.path, aside)  # beside a new, empty file SQLite itself drops the log of the old one
        self.moved_aside = aside


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
