"""Slow and plain answers to compare the kernel with: full sorts, Python integers, float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SLACK = 2.0**-20  # what cut-offs forgive, so that rounding decides nothing
MASK = (1 << 64) - 1


@dataclass
class Cut:
    """A truncated distribution: ids by rank, their scaled logits (best: 0) and probabilities."""

    ids: list[int]
    z: list[float]
    p: list[float]

    @property
    def entropy_bits(self) -> float:
        return -math.fsum(p * math.log2(p) for p in self.p if p > 0)


def penalised(
    logits: NDArray[np.float32], history: list[int], repeat: float, presence: float, frequency: float
) -> list[float]:
    """llama.cpp's penalties, one id at a time."""
    row = [float(x) for x in logits]
    for token in set(history):
        row[token] = row[token] / repeat if row[token] > 0 else row[token] * repeat
        row[token] -= history.count(token) * frequency + presence
        row[token] = float(np.float32(row[token]))
    return row


def cut(
    row: list[float],
    *,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    plausibility: float = 0.0,
    llm: NDArray[np.float32] | None = None,
) -> Cut:
    """The distribution that a token is drawn from, by sorting everything."""
    ranked = sorted((-x, i) for i, x in enumerate(row) if x > -math.inf)
    best = -ranked[0][0]
    ids = [i for _, i in ranked]
    z = [(-x - best) / temperature for x, _ in ranked]
    if 0 < top_k < len(row):
        ids, z = ids[:top_k], z[:top_k]
    if top_p < 1:
        w = [math.exp(v) for v in z]
        total, mass, n = math.fsum(w), 0.0, 0
        while n < len(w) and mass < top_p * total * (1 - SLACK):
            mass += w[n]
            n += 1
        ids, z = ids[:n], z[:n]
    if min_p > 0:
        n = sum(v >= math.log(min_p) - SLACK for v in z)
        ids, z = ids[:n], z[:n]
    if plausibility > 0:
        assert llm is not None
        floor = float(llm.max()) + math.log(plausibility) - SLACK
        kept = [(i, v) for i, v in zip(ids, z, strict=True) if float(llm[i]) >= floor] or [(ids[0], 0.0)]
        ids, z = [i for i, _ in kept], [v for _, v in kept]
    w = [math.exp(v) for v in z]
    total = math.fsum(w)
    return Cut(ids, z, [v / total for v in w])


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def gumbel(seed: int, position: int, token: int) -> float:
    """The noise of one token, in Python's integers."""
    golden = 0x9E3779B97F4A7C15
    key = mix((mix((seed + golden) & MASK) + position) & MASK)
    bits = mix((key + (token + 1) * golden) & MASK)
    return -math.log(-math.log(((bits >> 12) + 0.5) / 2**52))


def winner(distribution: Cut, seed: int, position: int) -> int:
    """Gumbel-max; the lower id on a tie."""
    scores = [(v + gumbel(seed, position, i), -i) for i, v in zip(distribution.ids, distribution.z, strict=True)]
    return -max(scores)[1]


def fused(llm: NDArray[np.float32], slm: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eq. 15 in float64, straight from the paper."""
    h = llm.astype(np.float64)
    for p, row in zip(weights, slm[1:], strict=True):
        if p:
            h = h + p * (row.astype(np.float64) - slm[0].astype(np.float64))
    return h


def log_softmax(row: NDArray[np.float32]) -> NDArray[np.float64]:
    z = row.astype(np.float64) - float(row.max())
    result: NDArray[np.float64] = z - math.log(math.fsum(np.exp(z)))
    return result


def chi_square_sigmas(counts: NDArray[np.int64], expected: NDArray[np.float64]) -> float:
    """How many standard deviations too large chi-square is (Wilson and Hilferty's cube root).

    Cells expected to hold fewer than 10 are put together; a cell that can hold nothing must hold nothing.
    """
    assert counts[expected == 0].sum() == 0
    large = expected >= 10
    o = np.append(counts[large], counts[~large].sum()).astype(np.float64)
    e = np.append(expected[large], expected[~large].sum())
    o, e = o[e > 0], e[e > 0]
    df = len(e) - 1
    chi2 = float(((o - e) ** 2 / e).sum())
    return ((chi2 / df) ** (1 / 3) - (1 - 2 / (9 * df))) / math.sqrt(2 / (9 * df))
