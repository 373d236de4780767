"""The files of one profile: read with or without its lock, changed under it, erased, restored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from glob import escape
from pathlib import Path

from drift_edge import storage
from drift_edge.errors import ProfileBusyError, ProfileCorruptError, ProfileError, ProfileVersionError, UsageError
from drift_edge.profile import tally
from drift_edge.profile.changes import now
from drift_edge.profile.file import State, parse, parse_export, read_file
from drift_edge.profile.journal import Journal, Record, parse_lines

_MAX_EXPORT = 1 << 30


class Store:
    """Where a profile lies on the disk.

    Args:
        path: of the profile; where it is a link, the files lie with what it points to.
        wait: seconds to wait for the lock.

    Attributes:
        path: as given.
        target: the file itself.
        backup: the version before.
        damaged: what was in its place when the backup was restored.
        lock: an empty file that is locked while the others change.
        journal: of the choices.

    Raises:
        ProfileError: the link points to itself.
    """

    def __init__(self, path: Path, wait: float = 10.0) -> None:
        self.path, self._wait = path, wait
        self._seen: tuple[bytes, State] | None = None
        try:
            self.target = path.resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise ProfileError(f"{path}: cannot be resolved: {error}") from error
        name = self.target.name
        self.backup = self.target.with_name(f"{name}.bak")
        self.damaged = self.target.with_name(f"{name}.damaged")
        self.lock = self.target.with_name(f"{name}.lock")
        self.journal = Journal(self.target.with_name(f"{name.removesuffix('.json')}.jsonl"))

    def read(self, fresh: Callable[[], State]) -> tuple[State, bool]:
        """The state, caught up with the journal, and whether there is a file. No lock is needed: both are replaced or
        appended to in one step, and the journal is never behind.

        Args:
            fresh: makes the state where there is no file.

        Raises:
            ProfileCorruptError: the file or the journal is damaged; says how to restore it.
            ProfileVersionError: it is of a newer version.
            ProfileError: it cannot be read.
        """
        with self.guarded():
            try:
                raw = read_file(self.target)
                state = fresh() if raw is None else self._parse(raw)
            except ProfileVersionError as error:
                raise ProfileVersionError(f"{self.path}: {error}") from error
            except UsageError as error:
                raise ProfileCorruptError(f"{self.path}: no profile: {error}; {self._way_out()}") from error
            last, _ = self.journal.last()
            if raw is None and last:  # killed before the first file was there, or somebody lost it
                state = replace(state, settings=replace(state.settings, journal=True))
            if not state.settings.journal:
                return state, raw is not None
            if last > state.seq:
                if raw is not None:
                    self._check_owner(state)
                state = self._catch_up(state)
            elif not last:
                state = replace(state, pending=0)
            return state, raw is not None

    def _parse(self, raw: bytes) -> State:
        if self._seen is None or raw != self._seen[0]:  # most often it is what was written last
            self._seen = raw, parse(raw)
        return self._seen[1]

    def _catch_up(self, state: State) -> State:
        records = list(self.journal.read())
        new = [record for record in records if record.seq > state.seq]
        # Where something was taken out, what is left is counted anew.
        forgot = any(record.kind == "forget" for record in new)
        return tally.settle(tally.count(state, records if forgot else new), records, now())

    def _check_owner(self, state: State) -> None:
        first = self.journal.first()
        start = first.value if first else None
        if first and isinstance(start, Mapping) and start.get("profile") != state.id:
            raise ProfileCorruptError(
                f"{first.where}: the journal is not of the profile {self.path} beside it; put back the right one, or "
                "move the file away to go on with the weights alone"
            )

    def _way_out(self) -> str:
        if not self.backup.exists():
            return "there is no backup; move the file away to begin anew"
        return (
            f"{self.backup} is the version before: `drift-edge profile restore` brings it back, and takes the choices "
            "made since from the journal"
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock.

        Raises:
            ProfileBusyError: another process holds it for too long.
            ProfileError: the folder is missing or cannot be written.
        """
        folder = self.target.parent
        with self.guarded():
            if not folder.exists():
                if folder != storage.folders().profiles.resolve():
                    raise ProfileError(f"{self.path}: there is no folder {folder}")
                storage.make_private(folder)
            with storage.locked(self.lock, self._wait):
                yield

    def write(self, state: State, records: Sequence[Record], *, rewrite: bool = False) -> None:
        """Have new records and the state that counts them on the disk. The lock must be held.

        The state is written beside the profile first, so that a full disk is found before anything has changed; then
        come the records, and from there on the change is made, even if the profile cannot be replaced now: whoever
        reads it next catches up with them.

        Args:
            state: after the change.
            records: new ones, or all where the journal is written anew.
            rewrite: whether it is.

        Raises:
            OSError: nothing has changed.
        """
        raw = state.to_json()
        staged = storage.stage(self.target, raw)
        recorded = False
        try:
            if state.settings.journal and records:
                (self.journal.rewrite if rewrite else self.journal.append)(records)
                recorded = True
            storage.put(staged, self.target, backup=self.backup)
        except BaseException as error:
            with suppress(OSError):
                staged.unlink(missing_ok=True)
            if not (recorded and isinstance(error, OSError)):
                raise
        self._seen = raw, state
        if not state.settings.journal:
            self.journal.path.unlink(missing_ok=True)

    def check_journal(self, state: State) -> None:
        """Raises ProfileCorruptError where the journal lacks what the profile has counted. The lock must be held."""
        last, _ = self.journal.last()
        if not (state.settings.journal and last):
            return
        self._check_owner(state)
        if last < state.seq:
            raise ProfileCorruptError(
                f"{self.journal.path}: the last whole line is of change {last}, but {self.path} has counted "
                f"{state.seq}: the end is damaged or lost; put back a whole copy, or move the file away to go on with "
                "the weights alone"
            )

    def load(self, path: Path, *, replace: bool) -> None:
        """Take over an exported profile, with its choices.

        Raises:
            ProfileCorruptError: it is damaged; names the place.
            ProfileVersionError: it is of a newer version.
            ProfileError: it cannot be read or written.
            UsageError: there is a profile, and `replace` is not set.
        """
        try:
            raw = read_file(path, _MAX_EXPORT)
            if raw is None:
                raise ProfileError(f"{path}: there is no such file")
            state, lines = parse_export(raw)
        except ProfileVersionError as error:
            raise ProfileVersionError(f"{path}: {error}") from error
        except UsageError as error:
            raise ProfileCorruptError(f"{path}: no profile: {error}") from error
        records = list(parse_lines(lines, lambda n: f"{path}: at $.choices[{n - 1}]"))
        if len(records) < len(lines):
            raise ProfileCorruptError(f"{path}: at $.choices[{len(records)}]: damaged")
        tally.count(state, records)  # raises for malformed scores
        for record in records:
            if record.kind == "choice":
                record.pair()
        with self.locked():
            if not replace and (self.target.exists() or self.journal.last()[0]):
                raise UsageError(f"{self.path}: there is a profile already; take another name, or replace it")
            self.write(state, records, rewrite=True)
            if not records:
                self.journal.path.unlink(missing_ok=True)

    def restore(self) -> Path | None:
        """Put the backup in the place of a damaged or missing profile.

        Returns:
            Where the damaged file is kept.

        Raises:
            UsageError: the profile is not damaged.
            ProfileCorruptError: the backup is damaged too.
            ProfileError: there is no backup, or it cannot be written.
        """
        with self.locked():
            if self.target.exists() and not self._is_damaged():
                raise UsageError(f"{self.path}: the profile is not damaged; there is nothing to restore")
            good = read_file(self.backup)
            if good is None:
                raise ProfileError(f"{self.backup}: there is no backup of {self.path}")
            try:
                parse(good)
            except UsageError as error:
                raise ProfileCorruptError(f"{self.backup}: no profile either: {error}") from error
            staged = storage.stage(self.target, good)
            there = self.target.exists()
            if there:
                os.replace(self.target, self.damaged)
            storage.put(staged, self.target)
            return self.damaged if there else None

    def _is_damaged(self) -> bool:
        try:
            parse(read_file(self.target) or b"")
        except ProfileVersionError as error:
            raise ProfileVersionError(f"{self.path}: {error}") from error
        except UsageError:
            return True
        return False

    def erase(self) -> tuple[Path, ...]:
        """Delete the profile with all that lies beside it.

        Returns:
            The files that are no more.

        Raises:
            ProfileError: one cannot be deleted.
        """
        with self.locked():
            beside = self.target.parent.glob(f".{escape(self.target.name)}*.new")  # what a killed program left
            files = [self.target, self.backup, self.journal.path, self.damaged, *beside]
            files += [self.path] if self.path.is_symlink() else []
            gone = []
            for path in files:
                if path.exists() or path.is_symlink():
                    path.unlink()
                    gone.append(path)
            for path in (self.lock, storage.turn_of(self.lock)):
                with suppress(PermissionError):  # Windows does not delete what is open
                    path.unlink()
                    gone += [path] if gone else []
            return tuple(gone)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """What the operating system refuses becomes a ProfileError."""
        try:
            yield
        except TimeoutError as error:
            raise ProfileBusyError(
                f"{self.path}: another process keeps the profile locked for over {self._wait:g} s ({self.lock}); "
                "try again"
            ) from error
        except OSError as error:
            raise ProfileError(
                f"{error.filename or self.path}: {error.strerror or error}; the profile is as it was"
            ) from error
