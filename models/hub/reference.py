"""Reference: `user/repo[:quant]`, and which files of a repository it means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from drift_edge.errors import HubError, UsageError

DEFAULT_QUANTS = ("Q4_K_M", "Q8_0")  # as llama.cpp and the hub itself choose; then the first file

_PREFIX = re.compile(r"^(?:hf:|hf\.co/|huggingface\.co/|https://(?:hf\.co|huggingface\.co)/)", re.IGNORECASE)
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?"
_REFERENCE = re.compile(rf"({_PART}/{_PART})(?::([A-Za-z0-9][A-Za-z0-9._/-]{{0,200}}))?")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_QUANT = re.compile(r"(?:^|[-./_])((?:UD-)?(?:I?Q\d\w*|BF16|F16|F32|MXFP4\w*))(?=$|[-./])", re.IGNORECASE)
_NO_MODEL = re.compile(r"mmproj|imatrix", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reference:
    """A model on the hub.

    Attributes:
        repo: `user/repo`.
        quant: which of its files, by quantisation or by file name; None is the usual choice.
    """

    repo: str
    quant: str | None = None

    def __str__(self) -> str:
        return f"{self.repo}:{self.quant}" if self.quant else self.repo

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read `user/repo`, `user/repo:Q8_0` or `user/repo:file.gguf`, after `hf:`, `hf.co/`, the hub's URL or nothing.

        Raises:
            UsageError: it is none of these.
        """
        match = _REFERENCE.fullmatch(_PREFIX.sub("", text.strip()).rstrip("/"))
        if match is None or ".." in match[1] or "--" in match[1]:
            raise UsageError(f"{text!r}: expected user/repo or user/repo:quant, as on huggingface.co")
        return cls(match[1], match[2])


def is_reference(text: str) -> bool:
    """Whether `text` names a model on the hub rather than a file; a prefix leaves no doubt."""
    if _PREFIX.match(text):
        return True
    return not text.lower().endswith(".gguf") and _REFERENCE.fullmatch(text) is not None


def quants(paths: Iterable[str]) -> list[str]:
    """Quantisations that the names of GGUF files tell, each once."""
    found = (match[1].upper() for path in model_files(paths) if (match := _QUANT.search(_stem(path))))
    return sorted(set(found))


def model_files(paths: Iterable[str]) -> list[str]:
    """GGUF files that are models, in the order of their names: no projectors of images, no importance matrices."""
    return sorted(p for p in paths if p.lower().endswith(".gguf") and not _NO_MODEL.search(p))


def choose(paths: Iterable[str], quant: str | None, where: str) -> list[str]:
    """The files that make up one model: one, or all its shards in order.

    Args:
        paths: all files of a repository.
        quant: as in `Reference`.
        where: for messages.

    Raises:
        HubError: there is no such model, or one of its shards is missing.
    """
    files = model_files(paths)
    if not files:
        raise HubError(f"{where}: no GGUF model there; look for a repository whose name ends in -GGUF")
    if quant is None:
        first = next((found for name in DEFAULT_QUANTS if (found := _matching(files, name))), files)[0]
    else:
        matching = [p for p in files if quant in (p, p.rpartition("/")[2])] or _matching(files, quant)
        if not matching:
            raise HubError(f"{where}: no file with the quantisation {quant!r}; there are {', '.join(quants(files))}")
        first = matching[0]
    shard = _SHARD.search(first)
    if shard is None:
        return [first]
    wanted = [f"{first[: shard.start()]}-{i:05}-of-{shard[2]}.gguf" for i in range(1, int(shard[2]) + 1)]
    missing = [path for path in wanted if path not in files]
    if missing or not 0 < len(wanted) <= 1_000:
        raise HubError(f"{where}: the model has {len(wanted):,} parts, of which {len(missing):,} are missing")
    return wanted


def _matching(files: Iterable[str], quant: str) -> list[str]:
    name = re.compile(rf"(?:^|[-./_]){re.escape(quant)}(?=$|[-./])", re.IGNORECASE)
    return [path for path in files if name.search(_stem(path))]


def _stem(path: str) -> str:
    return path[: -len(".gguf")]
