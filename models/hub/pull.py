"""Pull: a model from the hub into the cache."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from drift_edge.errors import HubError
from drift_edge.models.hub.cache import HubCache
from drift_edge.models.hub.download import Transfer, fetch, part_of
from drift_edge.models.hub.hashes import Verified
from drift_edge.models.hub.listing import RemoteFile, list_files
from drift_edge.models.hub.reference import Reference, choose
from drift_edge.models.hub.settings import HubSettings

_SPARE = 64 << 20  # bytes that stay free on the disk


class Pull:
    """What has to be fetched for one model. Making it asks the hub for its files.

    Args:
        reference: which model.
        settings: of the hub.

    Attributes:
        listing: the repository.
        files: the model's, in order.

    Raises:
        HubError: offline, or the hub does not answer, refuses, or has no such model.
    """

    def __init__(self, reference: Reference, settings: HubSettings) -> None:
        if settings.offline:
            raise HubError(f"{reference}: not fetched, since the network is switched off (--offline or HF_HUB_OFFLINE)")
        self.reference, self._settings = reference, settings
        self._cache, self._verified = HubCache(settings.cache), Verified()
        self.listing = list_files(reference.repo, settings)
        names = choose(self.listing.files, reference.quant, reference.repo)
        self.files = [self.listing.files[name] for name in names]

    @property
    def total(self) -> int:
        """Bytes of the model."""
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> int:
        """Bytes of it that are not on the disk yet."""
        return sum(map(self._missing, self.files))

    def _missing(self, file: RemoteFile) -> int:
        repo = self.listing.repo
        if self._cache.stored(repo, self.listing.commit, file):
            return 0
        part = part_of(self._cache.blob(repo, file.etag))
        return max(0, file.size - part.stat().st_size) if part.exists() else file.size

    def run(self) -> Iterator[Transfer]:
        """Fetch what is missing.

        Raises:
            HubError: it cannot be had; what has come is kept.
        """
        for file in self.files:
            yield from fetch(self.listing, file, self._cache, self._settings, self._verified)
        try:
            self._cache.set_main(self.listing.repo, self.listing.commit)
        except OSError as error:
            raise HubError(f"{error.filename}: cannot be written: {error.strerror}") from error

    @property
    def path(self) -> Path:
        """Where the model's first file is, or will be."""
        return self._cache.snapshot(self.listing.repo, self.listing.commit) / self.files[0].path


def check_space(pulls: Iterable[Pull], settings: HubSettings) -> None:
    """See that the disk has room for what is missing.

    Raises:
        HubError: it has not; says how much there is.
    """
    needed = sum(pull.missing for pull in pulls)
    folder = settings.cache
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed and needed + _SPARE > free:
        raise HubError(
            f"{settings.cache}: {needed / (1 << 30):.1f} GiB have to be fetched, and {free / (1 << 30):.1f} GiB are "
            "free; make room, or name another folder by HF_HOME"
        )
