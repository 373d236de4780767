"""Tokens a second against the number of attributes, k = 0 to 40."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from drift_edge import Drift

from .programs import Steered, measure

KS = (0, 1, 3, 7, 11, 15, 23, 31, 40)


def run(
    llm: Path,
    slm: Path,
    ks: Sequence[int] = KS,
    *,
    rounds: int = 3,
    tokens: int = 48,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure answers steered by the first k attributes, with equal weights of length 1 and signs that alternate.

    Args:
        llm, slm: GGUF files.
        ks: numbers of attributes.
        rounds: answers for each.
        tokens: of an answer, at most.
        say: told what is done.

    Returns:
        JSON values: `rows`: {k, off, auto}, tokens a second without speculation and with `auto`.
    """
    rows = []
    with Drift.load(llm, slm, ctx_size=512, active=max(*ks, 1)) as drift:
        names = list(drift.attributes)
        for k in ks:
            say(f"{k} attributes")
            weights = {name: (-1) ** i / k**0.5 for i, name in enumerate(names[:k])}
            programs = {way: Steered(drift, weights, speculate=way) for way in ("off", "auto")}
            rates: dict[str, list[float]] = {way: [] for way in programs}
            for i in range(rounds + 1):
                for way, program in programs.items():
                    rates[way].append(measure(program, i, tokens).rate)
            rows.append({"k": k, **{way: median(found[1:]) for way, found in rates.items()}})
    return {"rows": rows}


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The result as a table."""
    yield "Attributes: tokens/s by k, --speculate off and auto"
    for row in result["rows"]:
        yield f"{row['k']:>4} {row['off']:10.1f} {row['auto']:10.1f}"
