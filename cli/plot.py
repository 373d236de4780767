"""`drift-edge profile plot`: the paper's Figure 6 for one person, and the history of their weights."""

from __future__ import annotations

import html
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drift_edge.errors import DriftError, UsageError

from .which import AsJson, ProfileFlag, existing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from drift_edge.profile import Profile

_KINDS = (".png", ".svg", ".html")
# Distinct for people who do not see red and green apart.
_CHOSEN, _REJECTED, _LIKED, _DISLIKED = "#0072b2", "#b8b8b8", "#009e73", "#d55e00"


def plot(
    file: Annotated[Path, typer.Argument(help="Where to write: .png, .svg or .html.")],
    profile: ProfileFlag = None,
    as_json: AsJson = False,
) -> None:
    """Draw mean rewards W and L, W-L of every attribute (the paper's Figure 6), and the weights over time.

    Needs matplotlib: pip install 'drift-edge[plot]'.
    """
    from .render import Screen

    kind = file.suffix.lower()
    if kind not in _KINDS:
        raise UsageError(f"{file}: expected a name that ends in {', '.join(_KINDS)}")
    found = existing(profile)
    if not found.n:
        raise UsageError(f"{found.path}: nothing has been learned yet, so there is nothing to draw")
    file.write_bytes(picture(lambda: _figure(found), kind, f"drift-edge: {found.path.stem}"))
    if as_json:
        Screen().json({"path": str(file), "pairs": found.n})
    else:
        typer.echo(f"{file}")


def picture(draw: Callable[[], Figure], kind: str, title: str) -> bytes:
    """A figure as a file's content.

    Args:
        draw: makes the figure.
        kind: `.png`, `.svg` or `.html`.
        title: of the page.

    Raises:
        DriftError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise DriftError("drawing needs matplotlib: python -m pip install 'drift-edge[plot]'") from error
    out = io.BytesIO()
    # Text stays text, and the same figures give the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "drift-edge", "font.size": 9}):
        figure = draw()
        if kind == ".png":
            figure.savefig(out, format="png", dpi=150)
            return out.getvalue()
        figure.savefig(out, format="svg", metadata={"Date": None})
    svg = out.getvalue().decode()
    if kind == ".svg":
        return svg.encode()
    picture = svg[svg.index("<svg") :]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        "<style>body{margin:1em;background:#fff}svg{max-width:100%;height:auto}</style></head>\n"
        f"<body>{picture}</body></html>\n"
    ).encode()


def _figure(profile: Profile) -> Any:
    import numpy as np
    from matplotlib.figure import Figure

    statistics = profile.statistics
    W, L, mean = (statistics.mean(total) for total in (statistics.sum_w, statistics.sum_l, statistics.sum_d))
    spread = statistics.mean(np.diag(statistics.sum_dd)) - mean**2
    error = np.sqrt(np.maximum(spread, 0) / max(statistics.n_effective - 1, 1))
    order = np.argsort(mean)  # the most liked on top
    names = np.array(statistics.names)[order]
    rows = np.arange(len(order))
    figure = Figure(figsize=(11, 3.6 + 0.24 * len(rows)), layout="constrained")
    rewards, preference, course = (figure.add_subplot(cell) for cell in _cells(figure, 0.24 * len(rows) + 0.6, 3.0))
    rewards.barh(rows + 0.2, W[order], 0.4, color=_CHOSEN, label="W, chosen answers")
    rewards.barh(rows - 0.2, L[order], 0.4, color=_REJECTED, label="L, rejected answers")
    rewards.set_yticks(rows, names)
    rewards.set_title(f"Mean reward ({profile.settings.reduction} over tokens)")
    rewards.legend(loc="upper center", bbox_to_anchor=(0.5, -0.045), ncols=2, frameon=False)
    colors = [_LIKED if value >= 0 else _DISLIKED for value in mean[order]]
    preference.barh(rows, mean[order], 0.7, xerr=error[order], color=colors, error_kw={"lw": 0.8, "ecolor": "#333333"})
    preference.set_yticks(rows, [])
    preference.set_title(f"W-L: unit implicit preference, {profile.n:,} choices")
    for axes in (rewards, preference):
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.axvline(0, color="#333333", lw=0.8)
        axes.set_xlabel("nats")
        axes.grid(axis="x", color="#e6e6e6", lw=0.6)
        axes.set_axisbelow(True)
    _draw_history(course, profile)
    figure.suptitle(profile.path.stem, fontweight="bold")
    return figure


def _cells(figure: Any, above: float, below: float) -> tuple[Any, Any, Any]:
    grid = figure.add_gridspec(2, 2, height_ratios=(above, below))
    return grid[0, 0], grid[0, 1], grid[1, :]


def _draw_history(axes: Any, profile: Profile) -> None:
    steps = profile.history
    names = list(profile.weights()) or sorted(profile.table(), key=lambda name: -abs(profile.table()[name].weight))[:7]
    for name in names:
        values = [step.weights.get(name, 0.0) for step in steps]
        axes.plot([step.n for step in steps], values, marker="o", ms=3, lw=1.4, label=name)
    axes.axhline(0, color="#333333", lw=0.8)
    axes.set_title("Weights of the active attributes")
    axes.set_xlabel("choices learned from")
    axes.set_ylabel("p")
    axes.grid(color="#e6e6e6", lw=0.6)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
