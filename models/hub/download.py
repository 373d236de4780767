"""Fetch one file into the cache: resumed after any break, hashed on the way, and given its name when it is right."""

from __future__ import annotations

import errno
import http.client
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from drift_edge.errors import HubError
from drift_edge.models.hub.cache import HubCache
from drift_edge.models.hub.hashes import CHUNK, Verified, hash_file, hasher
from drift_edge.models.hub.http import Lost, open_url, pause, shown
from drift_edge.models.hub.listing import Listing, RemoteFile
from drift_edge.models.hub.settings import HubSettings
from drift_edge.storage import locked

LOCK_WAIT = 5.0  # seconds
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_NUMBER = r"[0-9]{1,18}"  # that any file has bytes
_LENGTH, _RANGE = re.compile(_NUMBER), re.compile(rf"bytes ({_NUMBER})-({_NUMBER})/({_NUMBER}|\*)")


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far a file is.

    Attributes:
        file: which.
        done: bytes on the disk.
        received: bytes of them that came over the network just now.
    """

    file: RemoteFile
    done: int
    received: int


def part_of(blob: Path) -> Path:
    """Where a file lies while it is incomplete."""
    return blob.with_name(f"{blob.name}.incomplete")


def fetch(
    listing: Listing, file: RemoteFile, cache: HubCache, settings: HubSettings, verified: Verified
) -> Iterator[Transfer]:
    """Bring `file` into the cache, from where an earlier try was broken off.

    Raises:
        HubError: it cannot be had, or what came is not what the hub's list says.
    """
    blob, lock = cache.blob(listing.repo, file.etag), cache.lock(listing.repo, file.etag)
    try:
        for folder in (blob.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with locked(lock, LOCK_WAIT):
            stored = cache.stored(listing.repo, listing.commit, file)
            if stored is not None and not verified.knows(stored, file.etag):
                yield from _check(stored, file)  # of another program, which may have looked at its size alone
            if cache.stored(listing.repo, listing.commit, file) is None:
                yield from _complete(listing.url(file, settings), part_of(blob), file, settings)
                os.replace(part_of(blob), blob)
            verified.remember(cache.link(listing.repo, listing.commit, file), file.etag)
    except TimeoutError:
        raise HubError(f"{file.path}: another program is fetching it; wait for that one") from None
    except OSError as error:
        if error.errno in _FULL:
            reason = f"the disk takes no more ({error.strerror})"
            raise HubError(f"{cache.folder}: {reason}; what has come is kept: make room and go on") from None
        raise HubError(f"{error.filename or cache.folder}: cannot be written: {error.strerror or error}") from error


def _check(path: Path, file: RemoteFile) -> Iterator[Transfer]:
    """Hash what is there; a file with another hash than its name says is deleted."""
    for found in hash_file(path, file.etag):
        if isinstance(found, int):
            yield Transfer(file, found, 0)
        elif found != file.etag:
            path.unlink()


def _complete(url: str, part: Path, file: RemoteFile, settings: HubSettings) -> Iterator[Transfer]:
    """Make `part` whole, and prove that it is what the list says."""
    with part.open("r+b" if part.exists() else "w+b") as out:
        found = _Part(out, file)
        yield from found.read()
        resumed = bool(found.done)
        while True:
            yield from _receive(url, found, settings)
            if found.digest.hexdigest() == file.etag:
                break
            wrong = found.digest.hexdigest()
            found.restart()
            if not resumed:
                part.unlink()
                raise HubError(
                    f"{shown(url)}: what came is not what the hub's list names: its hash is {wrong}, expected "
                    f"{file.etag}; it was deleted. Try again; where it repeats, do not trust this source"
                )
            resumed = False  # the old beginning may be to blame: once more, from the start
        out.flush()
        os.fsync(out.fileno())


class _Part:
    """The incomplete file: its bytes so far, and their hash."""

    def __init__(self, out: BinaryIO, file: RemoteFile) -> None:
        self._out, self.file = out, file
        self.received = 0
        self.done, self.digest = 0, hasher(file.etag, file.size)

    def read(self) -> Iterator[Transfer]:
        """Hash what an earlier try has left."""
        if self._out.seek(0, 2) > self.file.size:
            self.restart()
        self._out.seek(0)
        while self.done < self.file.size and (chunk := self._out.read(CHUNK)):
            self.digest.update(chunk)
            self.done += len(chunk)
            yield self.transfer()

    def restart(self) -> None:
        self._out.seek(0)
        self._out.truncate()
        self.done, self.digest = 0, hasher(self.file.etag, self.file.size)

    def write(self, chunk: bytes) -> None:
        self._out.write(chunk)
        self.digest.update(chunk)
        self.done += len(chunk)
        self.received += len(chunk)

    def transfer(self) -> Transfer:
        return Transfer(self.file, self.done, self.received)


def _receive(url: str, part: _Part, settings: HubSettings) -> Iterator[Transfer]:
    tries, size = 0, part.file.size
    while part.done < size:
        before = part.done
        try:
            with open_url(url, settings, start=part.done) as response:
                if _first_byte(response, part, url) != part.done:
                    part.restart()
                while part.done < size and (chunk := _read(response, size - part.done, url)):
                    part.write(chunk)
                    yield part.transfer()
            if part.done < size:
                raise Lost(f"{shown(url)}: the connection ended at byte {part.done:,} of {size:,}")
        except Lost as lost:
            tries = tries + 1 if part.done <= before else 1
            pause(lost, tries, settings)


def _read(response: http.client.HTTPResponse, most: int, url: str) -> bytes:
    try:
        return response.read1(min(CHUNK, most))
    except (OSError, http.client.HTTPException) as error:
        raise Lost(f"{shown(url)}: the connection broke ({type(error).__name__})") from None


def _first_byte(response: http.client.HTTPResponse, part: _Part, url: str) -> int:
    """The byte that the answer begins with.

    Raises:
        HubError: the answer is not the rest of the file, nor all of it.
    """
    start, total = 0, None
    if response.status == 206:
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        start, total = (int(match[1]), match[3]) if match else (-1, None)
    length = response.headers.get("Content-Length", "")[:40]
    size = part.file.size
    said = int(length) + start if _LENGTH.fullmatch(length) else -1 if length else size
    if start not in (0, part.done) or said != size or total not in (None, "*", str(size)):
        raise HubError(
            f"{shown(url)}: the server offers other bytes than asked for (length {length or 'unknown'} from byte "
            f"{max(start, 0):,}; the hub's list says {size:,} in all); nothing of it was kept"
        )
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise HubError(f"{shown(url)}: the server compresses the file, which was not asked for")
    return start
