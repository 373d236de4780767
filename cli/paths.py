"""Where things live. `DRIFT_EDGE_HOME` moves data, state, cache and config together."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Folders:
    """Folders of one user; none need exist.

    Attributes:
        config: holds `config.toml`.
        data: saved sessions, and models of the user's own.
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
    def models(self) -> Path:
        """Folder of the user's own models."""
        return self.data / "models"

    @property
    def history(self) -> Path:
        """File of the input history."""
        return self.state / "history"


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
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(beside, flags, 0o600), "wb") as file:
            file.write(data)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
