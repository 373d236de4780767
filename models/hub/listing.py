"""Listing: the files of a repository, with the sizes and hashes that the hub's API gives. All of it is checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from drift_edge.errors import HubError
from drift_edge.models.hub.http import get_json
from drift_edge.models.hub.settings import HubSettings

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff<>:"|?*\\]')


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository.

    Attributes:
        path: in the repository, with slashes.
        size: bytes.
        etag: its SHA-256 (64 hex digits), or for small files git's SHA-1 of it (40).
    """

    path: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit.

    Attributes:
        repo: `user/repo`.
        commit: 40 hex digits.
        files: those whose name, size and hash are usable, by path.
        license: as the model's card says, or None.
        gated: whether its terms have to be accepted first.
    """

    repo: str
    commit: str
    files: dict[str, RemoteFile]
    license: str | None
    gated: bool

    def url(self, file: RemoteFile, settings: HubSettings) -> str:
        """Where to get `file`."""
        return f"{settings.endpoint}/{self.repo}/resolve/{self.commit}/{quote(file.path)}"


def list_files(repo: str, settings: HubSettings, revision: str = "main") -> Listing:
    """Ask the hub what is in a repository.

    Raises:
        HubError: no answer, a refusal, or an answer that cannot be right.
    """
    data = get_json(f"{settings.endpoint}/api/models/{repo}/revision/{quote(revision, safe='')}?blobs=true", settings)
    commit, siblings = (data.get("sha"), data.get("siblings")) if isinstance(data, dict) else (None, None)
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit) or not isinstance(siblings, list):
        raise HubError(f"{repo}: the hub's answer names no commit or no files; is HF_ENDPOINT the address of a hub?")
    files = [file for entry in siblings if (file := _file(entry))]
    card = data.get("cardData")
    license = card.get("license") if isinstance(card, dict) else None
    return Listing(
        repo,
        commit,
        {file.path: file for file in files},
        license if isinstance(license, str) else None,
        data.get("gated", False) is not False,
    )


def _file(entry: Any) -> RemoteFile | None:
    if not isinstance(entry, dict):
        return None
    path, lfs = entry.get("rfilename"), entry.get("lfs")
    if isinstance(lfs, dict):
        size, etag = lfs.get("size", entry.get("size")), lfs.get("sha256")
    else:
        size, etag = entry.get("size"), entry.get("blobId")
    if not isinstance(path, str) or not is_safe(path) or isinstance(size, bool) or not isinstance(size, int):
        return None
    if size < 0 or not isinstance(etag, str) or not _ETAG.fullmatch(etag):
        return None
    return RemoteFile(path, size, etag)


def is_safe(path: str) -> bool:
    """Whether a path of the hub's stays within the folder it is put into, on any system."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and not _FORBIDDEN.search(path)
