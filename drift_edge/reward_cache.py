"""RewardCache: log-probabilities that were computed once, in one SQLite file, so that no pair is ever scored twice."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

from drift_edge.errors import DriftError
from drift_edge.storage import make_private

_WAIT = 30.0  # seconds for another process that is writing
_TABLE = """
CREATE TABLE IF NOT EXISTS scores (
    scorer TEXT, pair TEXT, prompt TEXT, chosen REAL, rejected REAL, n_chosen INTEGER, n_rejected INTEGER,
    PRIMARY KEY (scorer, pair, prompt)
) WITHOUT ROWID
"""
Result = TypeVar("Result")


class CachedScore(NamedTuple):
    """log pi(y | x, s) of both responses of a pair under one prompt s.

    Attributes:
        chosen: of y_w, nats.
        rejected: of y_l, nats.
        n_chosen: tokens of y_w that were scored.
        n_rejected: tokens of y_l that were scored.
    """

    chosen: float
    rejected: float
    n_chosen: int
    n_rejected: int


class RewardCache:
    """Scores by (what scored, pair, prompt): another attribute costs the new prompt alone.

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

    def get(self, scorer: str, pair: str, prompts: Iterable[str]) -> dict[str, CachedScore]:
        """What is known of a pair, by prompt.

        Args:
            scorer: names model, template and settings (`Scorer.key`).
            pair: `PreferencePair.id`.
            prompts: texts of s_0, s_1 ..; those not known are left out.

        Raises:
            DriftError: the file cannot be read.
        """
        rows = self._safely(
            lambda connection: connection.execute(
                "SELECT prompt, chosen, rejected, n_chosen, n_rejected FROM scores WHERE scorer = ? AND pair = ?",
                (scorer, pair),
            ).fetchall()
        )
        known = {row[0]: CachedScore(*row[1:]) for row in rows}
        return {prompt: known[digest] for prompt in prompts if (digest := _digest(prompt)) in known}

    def put(self, scorer: str, pair: str, scores: Mapping[str, CachedScore]) -> None:
        """Keep scores of a pair, by prompt.

        Raises:
            DriftError: the file cannot be written (such as a full disk); what was kept before stays.
        """
        rows = [(scorer, pair, _digest(prompt), *score) for prompt, score in scores.items()]

        def insert(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

        self._safely(insert)

    def forget(self, pairs: Iterable[str]) -> int:
        """Erase all that is known of the pairs with these ids; returns how many scores that were.

        Raises:
            DriftError: the file cannot be written.
        """
        ids = [(pair,) for pair in pairs]

        def delete(connection: sqlite3.Connection) -> int:
            with connection:
                return connection.executemany("DELETE FROM scores WHERE pair = ?", ids).rowcount

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
        os.replace(self.path, aside)
        for suffix in ("-wal", "-shm"):  # of the damaged file; they must not be applied to the new one
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self.moved_aside = aside


def _digest(prompt: str) -> str:
    return sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]
