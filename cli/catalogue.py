"""The catalogue of `drift-edge models list`: what fits this machine, best first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

_SHARE = 0.8  # of the main memory; the rest is for the system and other programs


def budget() -> dict[str, Any]:
    """Bytes of main memory, and of each GPU that llama.cpp can use."""
    from drift_edge.llama import offload

    return {"ram": offload.ram(), "gpus": [{"name": gpu.name, "bytes": gpu.total} for gpu in offload.gpus()]}


def rows_of_catalogue(memory: dict[str, Any], n_ctx: int, here: Sequence[str]) -> list[dict[str, Any]]:
    """All pairs: those that fit, the largest LLM first; then the others, the smallest first.

    Args:
        memory: as `budget` found it.
        n_ctx: tokens of context.
        here: names of pairs that were pulled.
    """
    from ..models.catalogue import catalogue

    most = max([int((memory["ram"] or 0) * _SHARE), *(gpu["bytes"] for gpu in memory["gpus"])])
    rows: list[dict[str, Any]] = []
    for pair in catalogue().values():
        quant = pair.fitting(most, n_ctx)
        shown = quant or min(pair.llm.sizes, key=pair.llm.sizes.__getitem__)
        row: dict[str, Any] = {
            "name": pair.name if shown == pair.llm.quant else f"{pair.name}:{shown}",
            "fits": quant is not None,
            "needs_bytes": pair.needs(shown, n_ctx),
            "download_bytes": pair.llm.sizes[shown] + pair.slm.sizes[pair.slm.quant],
            "llm": f"{pair.llm.repository}:{shown}",
            "slm": f"{pair.slm.repository}:{pair.slm.quant}",
            "licences": sorted({pair.llm.licence, pair.slm.licence}),
            "gated": pair.llm.gated or pair.slm.gated,
            "note": pair.note,
            "verified": pair.verified,
        }
        rows.append({**row, "pulled": row["name"] in here})
    fitting = [row for row in rows if row["fits"]]
    return fitting + sorted((row for row in rows if not row["fits"]), key=lambda row: row["needs_bytes"])


def show_catalogue(rows: Sequence[dict[str, Any]], memory: dict[str, Any], n_ctx: int) -> None:
    """Write the catalogue on stdout."""
    from .progress import size

    ram = "unknown" if memory["ram"] is None else size(memory["ram"])
    gpus = "".join(f", {gpu['name']}: {size(gpu['bytes'])}" for gpu in memory["gpus"])
    typer.echo(f"\nTo be had by `drift-edge models pull NAME` (memory: {ram}{gpus}; context: {n_ctx:,} tokens):")
    width = max(len(row["name"]) for row in rows)
    for fits, heading in ((True, "fits this machine, best first"), (False, "too large for this machine")):
        some = [row for row in rows if row["fits"] is fits]
        if some:
            typer.echo(f"  {heading}")
        for row in some:
            name = f"{row['name']}{'' if row['verified'] else ' *'}"
            costs = f"needs {size(row['needs_bytes']):>8}, fetches {size(row['download_bytes']):>9}"
            licence = f"{' + '.join(row['licences'])}{', gated' if row['gated'] else ''}"
            here = "  (pulled)" if row["pulled"] else ""
            typer.echo(f"    {name:<{width + 2}}  {costs}  {licence}; {row['note']}{here}")
    if not all(row["verified"] for row in rows):
        typer.echo(
            "  * not verified: repositories, sizes and licences are as known from public pages; none could be fetched\n"
            "    in making this version. `models pull` shows what the hub says, `models check NAME` proves a pair."
        )
