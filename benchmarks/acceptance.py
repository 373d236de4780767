"""How much noise on a drafter's logits makes its draws agree with the target's as often as wanted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drift_edge.kernel import Sampler

from .questions import SAMPLER

_ANSWERS, _TOKENS = 8, 64
_CANDIDATES = 8_192  # likeliest tokens of a position; noise lifts none from further down
_STEPS = 12
_MOST_NOISE = 16.0


def noise_for(acceptance: float, table: NDArray[np.float32], size: float, first: int, seed: int = 1) -> float:
    """Standard deviation of the noise, by bisection on the draws of a few short answers.

    Args:
        acceptance: share of drafted tokens that the target draws too, both by the same samplers and noise.
        table: float32 (n_vocab, r), of size 1: the logits after token a are `table @ (signs * table[a])`.
        size: standard deviation of those logits.
        first: the token before an answer; how sure the next ones are depends on where answers begin.
        seed: of the answers.
    """
    rng = np.random.default_rng(seed)
    n_vocab, rank = table.shape
    n, positions = min(_CANDIDATES, n_vocab), _ANSWERS * _TOKENS
    norm = signs(rank) * np.float32(size / rank**0.5)
    draw = _Draw(n)
    rows, noise = np.empty((positions, n), np.float32), rng.standard_normal((positions, n), np.float32)
    drawn: list[int] = []
    token = 0
    for i in range(positions):
        if i % _TOKENS == 0:
            token = first
        logits = table @ (norm * table[token])
        best = np.argpartition(-logits, n - 1)[:n]
        rows[i] = logits[best]
        drawn.append(draw(rows[i], i))
        token = int(best[drawn[-1]])
    low, high = 0.0, _MOST_NOISE
    for _ in range(_STEPS):
        middle = (low + high) / 2
        agreed = sum(draw(rows[i] + np.float32(middle) * noise[i], i) == drawn[i] for i in range(positions))
        low, high = (middle, high) if agreed > acceptance * positions else (low, middle)
    return (low + high) / 2


def signs(n: int) -> NDArray[np.float32]:
    """1, -1, 1, -1 ..."""
    return 1 - 2 * (np.arange(n) % 2).astype(np.float32)


class _Draw:
    """Draws by the benchmarks' samplers."""

    def __init__(self, n: int) -> None:
        self._sample = Sampler(n).sample
        self._settings = {name: getattr(SAMPLER, name) for name in ("temperature", "top_k", "top_p", "min_p")}

    def __call__(self, logits: NDArray[np.float32], position: int) -> int:
        return self._sample(logits, seed=1, position=position, **self._settings).token
