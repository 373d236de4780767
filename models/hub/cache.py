"""HubCache: the folder that Hugging Face's programs and llama.cpp share, in their layout.

```
models--user--repo/refs/main                        the commit that `main` was
models--user--repo/blobs/<etag>                     a file, named by its hash
models--user--repo/snapshots/<commit>/<path>        a link to the blob, or the file where there are no links
.locks/models--user--repo/<etag>.lock               held while a file is fetched
```
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from drift_edge.errors import HubError
from drift_edge.models.hub.listing import RemoteFile
from drift_edge.models.hub.reference import Reference, choose, model_files

_FOLDER = re.compile(r"models--([^/]+?)--([^/]+)")
_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A GGUF file in the cache.

    Attributes:
        repo: `user/repo`.
        name: its path in the repository.
        path: where it is.
        etag: its hash, as `RemoteFile.etag`; None where the cache does not tell (it made no links).
    """

    repo: str
    name: str
    path: Path
    etag: str | None

    @property
    def bytes(self) -> int:
        """Its size; 0 for a link to nowhere."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


class HubCache:
    """The cache in `folder`, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # -- places

    def repo(self, repo: str) -> Path:
        """Folder of a repository."""
        return self.folder / f"models--{repo.replace('/', '--')}"

    def blob(self, repo: str, etag: str) -> Path:
        """Where the file with the hash `etag` is, or goes."""
        return self.repo(repo) / "blobs" / etag

    def lock(self, repo: str, etag: str) -> Path:
        """Lock file of the blob."""
        return self.folder / ".locks" / self.repo(repo).name / f"{etag}.lock"

    def snapshot(self, repo: str, commit: str) -> Path:
        """Folder of a commit."""
        return self.repo(repo) / "snapshots" / commit

    # -- what is there

    def files(self, repo: str | None = None) -> Iterator[CachedFile]:
        """GGUF files, of one repository or of all; of each repository the commit of `main` first."""
        for folder in [self.repo(repo)] if repo else sorted(self.folder.glob("models--*--*")):
            match = _FOLDER.fullmatch(folder.name)
            if match is None:
                continue
            for snapshot in self._snapshots(folder):
                names = (p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if not p.is_dir())
                for name in model_files(names):
                    path = snapshot / name
                    yield CachedFile(f"{match[1]}/{match[2]}", name, path, _etag(path))

    def find(self, reference: Reference) -> list[CachedFile]:
        """The files of a model, all of them there; empty where they are not.

        Raises:
            HubError: the repository is here, but not this quantisation of it.
        """
        refused: HubError | None = None
        for snapshot in self._snapshots(self.repo(reference.repo)):
            files = {f.name: f for f in self.files(reference.repo) if f.path.is_relative_to(snapshot) and f.bytes}
            if not files:
                continue
            try:
                return [files[name] for name in choose(files, reference.quant, f"{reference.repo} in {self.folder}")]
            except HubError as error:
                refused = refused or error
        if refused:
            raise refused
        return []

    def _snapshots(self, folder: Path) -> list[Path]:
        try:
            main = (folder / "refs" / "main").read_text(encoding="utf-8")[:64].strip()
        except (OSError, ValueError):
            main = ""
        found = [path for path in (folder / "snapshots").glob("*") if path.is_dir()]
        return sorted(found, key=lambda path: (path.name != main, path.name))

    def stored(self, repo: str, commit: str, file: RemoteFile) -> Path | None:
        """Where the bytes of `file` lie; None where they do not."""
        blob, path = self.blob(repo, file.etag), self.snapshot(repo, commit) / file.path
        if blob.exists():
            return blob
        return path if path.is_file() and path.stat().st_size == file.size else None

    # -- what is put there

    def link(self, repo: str, commit: str, file: RemoteFile) -> Path:
        """Show a blob under its name; where links cannot be made, move it there.

        Raises:
            OSError: neither can be done.
        """
        blob, path = self.blob(repo, file.etag), self.snapshot(repo, commit) / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and (not blob.exists() or path.samefile(blob)):
            return path
        with suppress(FileNotFoundError):
            path.unlink()
        try:
            path.symlink_to(os.path.relpath(blob, path.parent))
        except OSError:
            os.replace(blob, path)
        return path

    def set_main(self, repo: str, commit: str) -> None:
        """Note that `main` is `commit`.

        Raises:
            OSError: it cannot be written.
        """
        ref = self.repo(repo) / "refs" / "main"
        ref.parent.mkdir(parents=True, exist_ok=True)
        beside = ref.with_name(f".main.{os.getpid()}")
        beside.write_text(commit, encoding="utf-8")
        os.replace(beside, ref)

    def remove(self, files: list[CachedFile]) -> int:
        """Delete files, and folders that are empty then; returns the bytes set free.

        Raises:
            OSError: a file cannot be deleted.
        """
        freed = 0
        for file in files:
            blob, root = file.path.resolve(), self.repo(file.repo).resolve()
            freed += file.bytes
            for path in [path for path in (root / "snapshots").rglob("*") if path.is_symlink()]:
                if path.resolve() == blob:
                    path.unlink()
            if blob.is_relative_to(root):  # a link that leads out of the cache takes nothing with it
                blob.unlink(missing_ok=True)
            left = [*(root / "snapshots").rglob("*"), *(root / "blobs").glob("*")]
            if all(path.is_dir() for path in left):
                for folder in sorted(root.rglob("*"), reverse=True):
                    with suppress(OSError):
                        folder.rmdir() if folder.is_dir() else folder.unlink()
                with suppress(OSError):
                    root.rmdir()
        return freed


def _etag(path: Path) -> str | None:
    name = Path(os.readlink(path)).name if path.is_symlink() else ""
    return name if _ETAG.fullmatch(name) else None
