"""The catalogue: pairs of models that share a tokenizer, what they need, and which of them suit a machine best."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from drift_edge.errors import UsageError

BUILTIN = "nano"
SPARE = 512 << 20  # bytes for llama.cpp's buffers, the logits and this program, besides weights and caches
DEFAULT_ACTIVE = 7


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """One model of the catalogue.

    Attributes:
        repository: `user/repo` on the hub.
        licence: its short name.
        gated: whether the hub asks for an account that has accepted the terms.
        parameters: how many.
        layers: blocks of the network.
        kv_bytes: bytes that one token takes in the KV cache at f16, over all layers.
        sizes: bytes of the file, by quantisation; the usual one first.
    """

    repository: str
    licence: str
    gated: bool
    parameters: int
    layers: int
    kv_bytes: int
    sizes: dict[str, int]

    @property
    def quant(self) -> str:
        """The usual quantisation."""
        return next(iter(self.sizes))


@dataclass(frozen=True, slots=True)
class CataloguePair:
    """An LLM and an sLM of one family.

    Attributes:
        name: as `drift-edge chat` takes it.
        llm, slm: the models.
        note: what is worth knowing.
        verified: whether this project has pulled, checked and used the pair.
    """

    name: str
    llm: CatalogueModel
    slm: CatalogueModel
    note: str
    verified: bool

    def needs(self, quant: str, n_ctx: int, *, active: int = DEFAULT_ACTIVE) -> int:
        """Bytes of memory that the pair takes, by estimate.

        Args:
            quant: of the LLM, one of its sizes.
            n_ctx: tokens of context.
            active: attributes at once; the sLM has a cache for each, and one for the base prompt.
        """
        caches = n_ctx * (self.llm.kv_bytes + (active + 1) * self.slm.kv_bytes)
        return self.llm.sizes[quant] + self.slm.sizes[self.slm.quant] + caches + SPARE

    def fitting(self, memory: int, n_ctx: int) -> str | None:
        """The LLM's usual quantisation, or the largest smaller one that fits `memory` bytes; None where none does."""
        sizes = self.llm.sizes
        fit = [q for q in sizes if sizes[q] <= sizes[self.llm.quant] and self.needs(q, n_ctx) <= memory]
        return max(fit, key=sizes.__getitem__, default=None)


@cache
def catalogue() -> dict[str, CataloguePair]:
    """All pairs by name, the largest LLM first.

    Returns:
        Not to be changed.
    """
    data = tomllib.loads((files("drift_edge.models") / "catalogue.toml").read_text(encoding="utf-8"))
    models = {name: CatalogueModel(**fields) for name, fields in data["model"].items()}
    pairs = [
        CataloguePair(name, models[row["llm"]], models[row["slm"]], row["note"], row.get("verified", False))
        for name, row in data["pair"].items()
    ]
    return {pair.name: pair for pair in sorted(pairs, key=lambda pair: -pair.llm.parameters)}


def named(name: str) -> tuple[CataloguePair, str]:
    """The pair that `NAME` or `NAME:QUANT` means, and the quantisation of its LLM.

    Raises:
        UsageError: there is none of this name or quantisation.
    """
    base, _, quant = name.partition(":")
    pair = catalogue().get(base.lower())
    if pair is None:
        raise UsageError(f"no pair {name!r} in the catalogue; there are {', '.join(catalogue())}")
    sizes = {size.lower(): size for size in pair.llm.sizes}
    if quant and quant.lower() not in sizes:
        raise UsageError(
            f"{pair.name} has no quantisation {quant!r} in the catalogue; there are {', '.join(sizes.values())}"
        )
    return pair, sizes[quant.lower()] if quant else pair.llm.quant


def is_pair(name: str) -> bool:
    """Whether `name`, less a quantisation, is a pair of the catalogue."""
    return name.partition(":")[0].lower() in catalogue()
