"""What is on this machine: models and pairs by the names that a person gives, hashed before they are first used."""

from __future__ import annotations

from pathlib import Path

from drift_edge.errors import HubError, ModelFileError
from drift_edge.models.catalogue import CatalogueModel, catalogue, named
from drift_edge.models.hub.cache import CachedFile, HubCache
from drift_edge.models.hub.hashes import Verified, hash_file
from drift_edge.models.hub.reference import Reference
from drift_edge.models.hub.settings import HubSettings


def references(name: str) -> tuple[Reference, Reference]:
    """The LLM and the sLM of a pair `NAME` or `NAME:QUANT` of the catalogue.

    Raises:
        UsageError: there is none.
    """
    pair, quant = named(name)
    return Reference(pair.llm.repository, quant), Reference(pair.slm.repository, pair.slm.quant)


def cached(reference: Reference) -> Path:
    """The file of a model that was pulled; of several shards, the first.

    Each is hashed the first time, which takes some seconds for a large one.

    Raises:
        ModelFileError: it is not there, or not what its name says.
        UsageError: the environment cannot be used.
    """
    cache, verified = HubCache(HubSettings.from_environment().cache), Verified()
    try:
        files = cache.find(reference)
    except HubError as error:
        raise ModelFileError(f"{error}; `drift-edge models pull {reference}` fetches it") from None
    if not files:
        raise ModelFileError(
            f"{reference}: not on this machine ({cache.folder}); `drift-edge models pull {reference}` fetches it"
        )
    for file in files:
        known = file.etag is None or verified.knows(file.path, file.etag)
        if not known and check(file, verified) is False:
            raise ModelFileError(
                f"{file.path}: damaged: its hash is not {file.etag}; "
                f"`drift-edge models pull {reference}` fetches it again"
            )
    return files[0].path


def cached_pair(name: str) -> tuple[Path, Path]:
    """The LLM and the sLM of a pair of the catalogue that was pulled.

    Raises:
        UsageError: the catalogue has no such pair.
        ModelFileError: a model of it is not there, or damaged.
    """
    llm, slm = references(name)
    try:
        return cached(llm), cached(slm)
    except ModelFileError as error:
        raise ModelFileError(f"{error} (or both at once: `drift-edge models pull {name}`)") from None


def check(file: CachedFile, verified: Verified) -> bool | None:
    """Hash a file: whether it is what its name says; None where nothing tells what it should be.

    Raises:
        ModelFileError: it cannot be read.
    """
    etag = file.etag or verified.etag(file.path)
    if etag is None:
        return None
    *_, found = hash_file(file.path, etag)
    if found == etag:
        verified.remember(file.path, etag)
    return found == etag


def pulled_pairs() -> list[str]:
    """Names of the catalogue's pairs that `cached_pair` finds, with a quantisation where it is not the usual one."""
    cache = HubCache(HubSettings.from_environment().cache)

    def has(model: CatalogueModel, quant: str) -> bool:
        try:
            return bool(cache.find(Reference(model.repository, quant)))
        except HubError:
            return False

    return [
        pair.name if quant == pair.llm.quant else f"{pair.name}:{quant}"
        for pair in catalogue().values()
        if has(pair.slm, pair.slm.quant)
        for quant in pair.llm.sizes
        if has(pair.llm, quant)
    ]
