"""The kernel against its numpy twin, plain numpy, and the memory: `drift-edge bench kernel`.

One token's work at k = 7: fuse nine rows of V logits, then draw (temperature 0.8, top-k 40, top-p 0.95, min-p 0.05).
Within a budget of 0.5 nats, the share of the steering term that spends it is searched for. The limit of `fuse` is the
time it takes to read the same bytes: numpy's exclusive-or of them all, which is as fast as a loop of C. Programs take
turns, each warmed by one call that is not timed, so that all see the same caches and the same moods of the machine.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drift_edge import kernel
from drift_edge.kernel import reference

VOCABULARIES = (4_096, 32_000, 128_256)
K = 7
BUDGET = 0.5  # nats
TEMPERATURE, TOP_K, TOP_P, MIN_P = 0.8, 40, 0.95, 0.05
SETTINGS: dict[str, Any] = {"temperature": TEMPERATURE, "top_k": TOP_K, "top_p": TOP_P, "min_p": MIN_P}

READ = "memory read of the same bytes"
FUSE, FUSE_TWIN, FUSE_NAIVE = "fuse, C", "fuse, numpy twin", "fuse, naive numpy"
WITHIN, WITHIN_TWIN = "fuse within a budget, C", "fuse within a budget, numpy twin"
STEP, STEP_TWIN = "fuse + sample, C", "fuse + sample, numpy twin"
SORT, MASKS = "fuse + sample, naive: one full sort", "fuse + sample, naive: masks over all V"
Program = Callable[[], object]


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Rows of {vocabulary, name, ms, best_ms, gb_per_s}: median and least time, and bytes of logits over the median.

    Args:
        quick: fewer rounds.

    Returns:
        Without the rows of the C where `kernel.active()` is numpy.
    """
    rows = []
    for n in VOCABULARIES:
        programs = _programs(n)
        times: dict[str, list[float]] = {name: [] for name in programs}
        rounds = (60 if quick else 600) if n < 10_000 else (20 if quick else 200)
        for _ in range(rounds):
            for name, program in programs.items():
                program()
                start = time.perf_counter()
                program()
                times[name].append(time.perf_counter() - start)
        for name, seconds in times.items():
            typical = median(seconds)
            gb_per_s = (K + 2) * n * 4 / typical / 1e9
            best = min(seconds) * 1e3
            rows.append({"vocabulary": n, "name": name, "ms": typical * 1e3, "best_ms": best, "gb_per_s": gb_per_s})
    return rows


def lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The rows as tables, with the ratios that matter."""
    info = kernel.active()
    yield (f"Kernel: {info.name} ({info.isa}), k = {K}, medians (least in brackets)")
    for n in VOCABULARIES:
        ms = {row["name"]: row["ms"] for row in rows if row["vocabulary"] == n}
        yield (f"V = {n:,}{'ms':>41} {'':>12} {'GB/s':>6}")
        for row in rows:
            if row["vocabulary"] == n:
                yield (f"  {row['name']:38} {row['ms']:8.4f} ({row['best_ms']:8.4f}) {row['gb_per_s']:7.1f}")
        if FUSE in ms:
            yield (
                f"  fuse: {ms[READ] / ms[FUSE]:.2f} of the read's speed, {ms[FUSE_TWIN] / ms[FUSE]:.1f} x the twin's; "
                f"fuse + sample: {ms[STEP] * 1e3:.1f} us, {ms[SORT] / ms[STEP]:.0f} and {ms[MASKS] / ms[STEP]:.0f} x "
                "the naive programs'"
            )


def _programs(n: int) -> dict[str, Program]:
    """What is timed, on rows as two models make them; the C only where it is active."""
    rng = np.random.default_rng(n)
    rows = np.empty((K + 2, n), np.float32)  # llm, base, attributes: one block, so that all read the same bytes
    rows[0] = rng.normal(0, 3, n)
    rows[1:] = rows[0] + rng.normal(0, 1, n) + rng.normal(0, 0.5, (K + 1, n))
    llm, slm, weights = rows[0], rows[1:], rng.normal(0, 1, K)
    h = np.empty(n, np.float32)
    sampler = kernel.Sampler(n)
    fuse, fuse_twin = (functools.partial(f, h, llm, slm, weights) for f in (kernel.fuse, reference.fuse))

    def step() -> object:
        fuse()
        return sampler.sample(h, seed=1, position=2, **SETTINGS)

    def step_twin() -> object:
        fuse_twin()
        return reference.sample(n, h, TEMPERATURE, TOP_K, TOP_P, MIN_P, 1.0, 0.0, 0.0, None, 0.0, None, 1, 2)

    programs: dict[str, Program] = {
        FUSE_TWIN: fuse_twin,
        WITHIN_TWIN: functools.partial(reference.fuse_within, h, llm, slm, weights, BUDGET),
        FUSE_NAIVE: lambda: _naive_fuse(llm, slm, weights),
        STEP_TWIN: step_twin,
        SORT: lambda: _sample_by_sorting(_naive_fuse(llm, slm, weights), rng),
        MASKS: lambda: _sample_by_masks(_naive_fuse(llm, slm, weights), rng),
    }
    if kernel.active().name == "numpy":
        return programs
    within = functools.partial(kernel.fuse_within, h, llm, slm, weights, BUDGET)
    return {
        READ: functools.partial(np.bitwise_xor.reduce, rows.view(np.int32), axis=None),
        FUSE: fuse,
        WITHIN: within,
        STEP: step,
        **programs,
    }


def _naive_fuse(llm: NDArray[Any], slm: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """Eq. 15 as one would type it."""
    h: NDArray[Any] = llm + sum(p * (h_i - slm[0]) for p, h_i in zip(weights, slm[1:], strict=True))
    return h


def _softmax(z: NDArray[Any]) -> NDArray[Any]:
    p: NDArray[Any] = np.exp(z - z.max())
    p /= p.sum()
    return p


def _sample_by_sorting(h: NDArray[Any], rng: np.random.Generator) -> int:
    """Softmax, one full sort, and the rest on the best k."""
    p = _softmax(h / TEMPERATURE)
    order = np.argsort(-p)[:TOP_K]
    kept = p[order] / p[order].sum()
    order = order[: int(np.searchsorted(np.cumsum(kept), TOP_P)) + 1]
    order = order[p[order] >= MIN_P * p[order[0]]]
    return int(rng.choice(order, p=_softmax(h[order] / TEMPERATURE)))


def _sample_by_masks(h: NDArray[Any], rng: np.random.Generator) -> int:
    """One full sort, and each cut a mask over the whole vocabulary, as chains of logits processors have it."""
    z = h / TEMPERATURE
    order = np.argsort(-z)
    z[order[TOP_K:]] = -np.inf
    p = _softmax(z[order])
    z[order[np.cumsum(p) - p >= TOP_P]] = -np.inf
    p = _softmax(z)
    z[p < MIN_P * p.max()] = -np.inf
    return int(rng.choice(len(z), p=_softmax(z)))
