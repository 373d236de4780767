"""What answers won: win rates by way, with intervals, and what was measured beside them; as a table and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from drift_edge.rewards import FloatArray
from experiments.modelling import markdown

BETAS = (2.0, 1.0, 0.5, 0.25)
STRENGTHS = (0.25, 0.5, 1.0)
TRUE = (1.0, 0.5)  # beta, with the true weights
DEFAULT = "Drift, beta 0.5"  # the way that is the library's
TOLD = ("KL per token", "entropy of the LLM", "entropy steered")
SHARES = ("tie", "on topic", "garbled")


def summed(answers: Sequence[Sequence[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """By way: the win rate, its lead over the library's default, and means of all that was measured.

    `half` and `half of the lead` are halves of the 95 % intervals over people.
    """
    ways = dict.fromkeys(row["way"] for row in answers[0])
    wins = {
        name: np.array([np.mean([row["win"] for row in rows if row["way"] == name]) for rows in answers])
        for name in ways
    }
    found: dict[str, dict[str, float]] = {}
    for name in ways:
        flat = [row for rows in answers for row in rows if row["way"] == name]
        texts = [row["text"] for row in flat]
        found[name] = {"win rate": float(wins[name].mean()), "half": _half(wins[name])}
        if DEFAULT in wins:
            lead = wins[name] - wins[DEFAULT]
            found[name] |= {"lead": float(lead.mean()), "half of the lead": _half(lead)}
        found[name] |= {f"distinct-{n}": _distinct(texts, n) for n in (1, 2)}
        found[name] |= {
            key: float(np.mean([row[key] for row in flat if key in row]))
            for key in (*SHARES, "words", *TOLD)
            if any(key in row for row in flat)
        }
    return found


def _half(values: FloatArray) -> float:
    return float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))


def by_dislikes(
    tastes: Sequence[Mapping[str, float]], answers: Sequence[Sequence[dict[str, Any]]]
) -> dict[str, dict[str, float]]:
    """What the library's default wins, by how many attributes a person dislikes."""
    groups: dict[int, list[dict[str, Any]]] = {}
    for taste, rows in zip(tastes, answers, strict=True):
        dislikes = sum(p < 0 for p in taste.values())
        groups.setdefault(dislikes, []).extend(row for row in rows if row["way"] == DEFAULT)
    return {
        str(n): {"answers": len(rows)} | {key: float(np.mean([row[key] for row in rows])) for key in ("win", "tie")}
        for n, rows in sorted(groups.items())
    }


def _distinct(texts: Sequence[str], n: int) -> float:
    """Share of different ones among all runs of `n` words."""
    split = [text.lower().split() for text in texts]
    runs = [tuple(words[i : i + n]) for words in split for i in range(len(words) - n + 1)]
    return len(set(runs)) / max(1, len(runs))


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """All that was measured, as Markdown."""
    keys = (*SHARES, "distinct-1", "distinct-2", "words", *TOLD)
    rows = [
        [name, f"{row['win rate']:.2f} ± {row['half']:.2f}"]
        + [f"{row[key]:.{0 if key == 'words' else 2}f}" if key in row else "" for key in keys]
        for name, row in found.items()
    ]
    return markdown(["", "win rate", *keys], rows)


def figure(found: Mapping[str, Mapping[str, float]]) -> Figure:
    """Win rate by way; the frontier of strength and what is won; and what it costs in quality."""
    drawn = Figure(figsize=(11.5, 4.6), layout="constrained")
    bars, won, cost = drawn.subplots(1, 3, width_ratios=(3, 2.2, 2.2))
    shown = {name: row for name, row in found.items() if name != "plain"}
    bars.barh(list(shown), [row["win rate"] for row in shown.values()], xerr=[row["half"] for row in shown.values()])
    bars.invert_yaxis()
    bars.axvline(0.5, color="gray", linestyle=":")
    bars.set(xlabel="win rate against plain", xlim=(0, 1))
    bars.tick_params(axis="y", labelsize=7)
    families = {
        "beta": [f"Drift, beta {beta:g}" for beta in BETAS],
        "strength": [f"Drift, strength {strength:g}" for strength in STRENGTHS],
        "strength, and prompt": [f"Drift, strength {strength:g}, and prompt" for strength in STRENGTHS],
        "true weights, beta": [f"true weights, beta {beta:g}" for beta in TRUE],
    }
    for i, (name, ways) in enumerate(families.items()):
        rows = [found[way] for way in ways]
        kl = [row["KL per token"] for row in rows]
        won.errorbar(
            kl,
            [row["win rate"] for row in rows],
            [row["half"] for row in rows],
            fmt="o-",
            color=f"C{i}",
            markersize=3,
            linewidth=1.2,
            capsize=2,
            label=name,
        )
        cost.plot(kl, [row["on topic"] for row in rows], "o-", color=f"C{i}", markersize=3, linewidth=1.2)
        cost.plot(kl, [row["garbled"] for row in rows], "s--", color=f"C{i}", markersize=3, linewidth=1.2)
    won.axhline(0.5, color="gray", linestyle=":")
    won.set(xlabel="KL to the LLM, nats a token", ylabel="win rate against plain", ylim=(0, 1.02))
    won.legend(fontsize=7, loc="lower right")
    for key in ("on topic", "garbled"):
        cost.axhline(found["plain"][key], color="gray", linestyle=":")
    cost.set(xlabel="KL to the LLM, nats a token", ylabel="on topic (solid), garbled (dashed)", ylim=(-0.02, 1.02))
    return drawn
