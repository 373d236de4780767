"""Figures of `docs/performance.md`: `python -m benchmarks.plots FOLDER RESULT.json...`.

Needs matplotlib: pip install 'drift-edge[plot]'.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from drift_edge.costs import KINDS, MOST_DRAFTED, expected_tokens

Result = Mapping[str, Any]


def _panels(results: Sequence[Result]) -> tuple[Figure, Any]:
    """A figure with one panel a pair."""
    figure = Figure(figsize=(3.2 * len(results), 2.8), layout="constrained")
    return figure, figure.subplots(1, len(results), squeeze=False)[0]


def draft_lengths(results: Sequence[Result]) -> Figure:
    """Tokens a second against g: lines by the decodes' costs, dots as measured; one panel a pair."""
    figure, panels = _panels(results)
    for axes, result in zip(panels, results, strict=True):
        speed = result["speed"]
        measured = {row["name"]: row["tokens_per_second"] for row in speed["rows"]}
        for kind, color in zip(KINDS, ("tab:blue", "tab:orange"), strict=True):
            by_costs = [_by_costs(speed, kind, g) for g in range(MOST_DRAFTED + 1)]
            axes.plot(by_costs, color=color, label=f"{kind} drafts", linewidth=1)
            dots = [(g, measured.get(f"steered, --speculate {g} --draft {kind}")) for g in range(1, MOST_DRAFTED + 1)]
            found = [(g, rate) for g, rate in dots if rate is not None]
            axes.plot([g for g, _ in found], [rate for _, rate in found], "o", color=color, markersize=4)
        axes.plot([0], [measured["steered, --speculate off"]], "o", color="black", markersize=4)
        axes.axhline(measured["plain llama_cpp.Llama"], color="gray", linestyle=":", label="plain llama.cpp")
        axes.axhline(measured["steered, --speculate auto"], color="green", linestyle="--", label="auto")
        axes.set_title(_title(result), fontsize=8)
        axes.set(xlabel="tokens drafted, g", ylim=(0, None))
    panels[0].set_ylabel("tokens/s")
    panels[-1].legend(fontsize=7)
    return figure


def attributes(results: Sequence[Result]) -> Figure:
    """Tokens a second against k; one panel a pair."""
    figure, panels = _panels(results)
    for axes, result in zip(panels, results, strict=True):
        rows = result["attributes"]["rows"]
        for way, label in (("off", "one token at a time"), ("auto", "--speculate auto")):
            axes.plot([row["k"] for row in rows], [row[way] for row in rows], "o-", markersize=3, label=label)
        axes.set_title(_title(result), fontsize=8)
        axes.set(xlabel="attributes, k", ylim=(0, None))
    panels[0].set_ylabel("tokens/s")
    panels[-1].legend(fontsize=7)
    return figure


def turns(results: Sequence[Result]) -> Figure:
    """Milliseconds to the first token against the turn; one panel a pair."""
    figure, panels = _panels(results)
    for axes, result in zip(panels, results, strict=True):
        for row in result["turns"]["rows"]:
            ms = [1e3 * seconds for seconds in row["first_s"]]
            axes.plot(range(1, len(ms) + 1), ms, label=row["name"], linewidth=1)
        axes.set_title(_title(result), fontsize=8)
        axes.set(xlabel="turn", ylim=(0, None))
    panels[0].set_ylabel("ms to the first token")
    panels[-1].legend(fontsize=7)
    return figure


def _by_costs(speed: Result, kind: str, g: int) -> float:
    llm, slm = speed["costs_ms"]["llm"], speed["costs_ms"]["slm"]
    k = speed["k"]
    if not g:
        return float(1e3 / (llm["1"] + slm[str(k + 1)]))
    draft = (g + 1) * slm[str(k + 1)] if kind == "steered" else (g + 1) * slm["1"] + slm[str(k * (g + 1))]
    return float(1e3 * expected_tokens(speed["acceptance"][kind], g) / (draft + llm[str(g + 1)]))


def _title(result: Result) -> str:
    return " + ".join(Path(result[name]).stem.split("-draft")[0] for name in ("llm", "slm"))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the PNG files go")
    parser.add_argument("results", type=Path, nargs="+", help="what `drift-edge bench --json` printed")
    options = parser.parse_args()
    results = [json.loads(path.read_text()) for path in options.results]
    options.folder.mkdir(parents=True, exist_ok=True)
    for table, draw in (("speed", draft_lengths), ("attributes", attributes), ("turns", turns)):
        having = [result for result in results if table in result]
        if having:
            draw(having).savefig(options.folder / f"{table}.png", dpi=90)


if __name__ == "__main__":
    main()
