"""Hashes of model files: computed before a file is first used, and remembered for as long as it does not change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drift_edge.errors import ModelFileError
from drift_edge.storage import folders, locked, make_private, write_private

if TYPE_CHECKING:
    from hashlib import _Hash

CHUNK = 1 << 20  # bytes
_MAX_MEMORY = 16 << 20  # bytes of the file that remembers


def hasher(etag: str, size: int) -> _Hash:
    """What computes `etag` of a file of `size` bytes: SHA-256, or git's SHA-1 of a blob."""
    if len(etag) == 64:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def hash_file(path: Path, etag: str) -> Iterator[int | str]:
    """Hash a file: how many bytes are done, from time to time, and at last the hash of `etag`'s kind.

    Raises:
        ModelFileError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            digest, done = hasher(etag, file.seek(0, 2)), 0
            file.seek(0)
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                done += len(chunk)
                yield done
    except OSError as error:
        raise ModelFileError(f"{path}: cannot read the model file: {error.strerror or error}") from error
    yield digest.hexdigest()


class Verified:
    """Which files were hashed, in a JSON file of the cache folder: path, then hash, size and time of change."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or folders().cache / "verified.json"

    def knows(self, path: Path, etag: str | None = None) -> bool:
        """Whether `path` was found to have the hash `etag` (or any, if None), and has not changed since."""
        known = self._read().get(str(path.resolve()))
        return known is not None and known[1:] == _state(path) and etag in (None, known[0])

    def etag(self, path: Path) -> str | None:
        """The hash that `path` was found to have, changed since or not."""
        known = self._read().get(str(path.resolve()))
        return None if known is None else str(known[0])

    def remember(self, path: Path, etag: str) -> None:
        """Note that `path` has the hash `etag`. Where it cannot be noted, the file is hashed again next time."""
        try:
            make_private(self._path.parent)
            with locked(self._path.with_name(f"{self._path.name}.lock"), wait=5.0):
                known = {name: fact for name, fact in self._read().items() if Path(name).exists()}
                known[str(path.resolve())] = [etag, *_state(path)]
                write_private(self._path, json.dumps(known, indent=1).encode())
        except OSError:
            return

    def _read(self) -> dict[str, list[Any]]:
        try:
            if self._path.stat().st_size > _MAX_MEMORY:
                return {}
            data = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}  # can be made anew
        if not isinstance(data, dict):
            return {}
        return {name: fact for name, fact in data.items() if isinstance(fact, list) and len(fact) == 3}


def _state(path: Path) -> list[int]:
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]
