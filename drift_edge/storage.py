"""Where a user's files live, and how they are written so that none is lost or read by others.

`DRIFT_EDGE_HOME` moves data, state, cache and config together.
"""

from __future__ import annotations

import os
import random
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@dataclass(frozen=True, slots=True)
class Folders:
    """Folders of one user; none need exist.

    Attributes:
        config: holds `config.toml`.
        data: saved sessions, profiles, and models of the user's own.
        state: the input history.
        cache: what can be made anew.
    """

    config: Path
    data: Path
    state: Path
    cache: Path

    @property
    def config_file(self) -> Path:
        """`config.toml`."""
        return self.config / "config.toml"

    @property
    def sessions(self) -> Path:
        """Folder of the saved sessions."""
        return self.data / "sessions"

    @property
    def profiles(self) -> Path:
        """Folder of the profiles."""
        return self.data / "profiles"

    @property
    def models(self) -> Path:
        """Folder of the user's own models."""
        return self.data / "models"

    @property
    def history(self) -> Path:
        """File of the input history."""
        return self.state / "history"

    @property
    def rewards(self) -> Path:
        """File of the scores that were computed once, of all profiles."""
        return self.cache / "rewards.sqlite3"


def folders() -> Folders:
    """The folders, as the environment says now."""
    home = os.environ.get("DRIFT_EDGE_HOME")
    if home:
        root = Path(home).expanduser().absolute()
        return Folders(root / "config", root / "data", root / "state", root / "cache")
    from platformdirs import PlatformDirs

    dirs = PlatformDirs("drift-edge", appauthor=False)
    return Folders(dirs.user_config_path, dirs.user_data_path, dirs.user_state_path, dirs.user_cache_path)


def make_private(folder: Path) -> Path:
    """Make `folder`, readable by its owner alone, and return it.

    Raises:
        OSError: it cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def write_private(path: Path, data: bytes) -> None:
    """Replace `path` in one step by a file that only its owner can read: a reader sees the old or the new, whole.

    Raises:
        OSError: the file cannot be written; the old one is as it was.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with _create(beside) as file:
            file.write(data)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


# -- what must survive a power cut


def stage(path: Path, data: bytes) -> Path:
    """Write what shall replace `path` beside it, on the disk, and return where; `put` does the rest.

    The name beside is always the same, so that a killed program leaves one such file at most: only a process that
    holds the lock of `path` may stage it.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    try:
        with _create(beside) as file:
            file.write(data)
            file.flush()
            _sync(file.fileno())
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return beside


def put(staged: Path, path: Path, *, backup: Path | None = None) -> None:
    """Replace `path` by what was staged, in one step; the old file stays as `backup`.

    Raises:
        OSError: it cannot be replaced; the old one is as it was.
    """
    if backup is not None and path.exists():
        _keep(path, backup)
    os.replace(staged, path)
    _sync_folder(path.parent)


def append(path: Path, data: bytes, end: int) -> None:
    """Put `data` at byte `end` of an existing file, whatever is there being cut off, and have it on the disk.

    Raises:
        OSError: it cannot be written; the file ends at `end`.
    """
    with path.open("r+b", buffering=0) as file:
        file.truncate(end)
        file.seek(end)
        try:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            _sync(file.fileno())
        except BaseException:
            file.truncate(end)
            raise


@contextmanager
def locked(path: Path, wait: float) -> Iterator[None]:
    """Hold the lock file `path` against other processes and threads. It and `turn_of(path)` are made where missing.

    Whoever waits holds a turn, which is needed to try at all: so that one who releases the lock and wants it again at
    once does not come before those who wait.

    Args:
        wait: seconds to wait for whoever holds it.

    Raises:
        TimeoutError: it is still held after `wait` seconds.
        OSError: a lock file cannot be made or opened.
    """
    deadline = time.monotonic() + wait
    turn = _lock(turn_of(path), deadline)
    try:
        held = _lock(path, deadline)
    finally:
        _unlock(turn)
    try:
        yield
    finally:
        _unlock(held)


def turn_of(path: Path) -> Path:
    """The second lock file, which is held while the lock `path` is waited for."""
    return path.with_name(f"{path.name}.turn")


def _lock(path: Path, deadline: float) -> int:
    while (fd := _try_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{path}: still locked")
        time.sleep(random.uniform(0.001, 0.01))  # unequal steps, so that nobody is always second
    return fd


def _try_lock(path: Path) -> int | None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        if sys.platform == "win32":
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it may have erased the file: then a lock on it keeps nobody out.
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    except (BlockingIOError, PermissionError, FileNotFoundError):
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _unlock(fd: int) -> None:
    try:
        # Said expressly: a process forked meanwhile has the descriptor too, and would keep the lock.
        if sys.platform == "win32":
            os.lseek(fd, 0, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def _create(path: Path) -> BufferedWriter:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return open(os.open(path, flags, 0o600), "wb")


def _keep(path: Path, backup: Path) -> None:
    beside = backup.with_name(f".{backup.name}.new")
    beside.unlink(missing_ok=True)
    try:
        os.link(path, beside)
    except OSError:  # a file system without hard links
        stage(backup, path.read_bytes())
    os.replace(beside, backup)


def _sync(fd: int) -> None:
    if sys.platform == "darwin":
        with suppress(OSError):  # not every file system has it
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # macOS' fsync leaves data in the drive's own cache
            return
    os.fsync(fd)


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":  # folders cannot be opened there
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
