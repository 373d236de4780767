"""Where one steered token's time goes, one token at a time: the two decodes, the kernel, and the rest.

In processor time, of all threads together: other programs disturb it less than the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from drift_edge import Drift, Token, kernel
from drift_edge.conversation import build_prompts

from .bare import Bare
from .programs import MESSAGES
from .questions import BETA, SAMPLER

N_CTX = 1_024
_DRAWS = 50


def run(
    llm: Path,
    slm: Path,
    weights: Mapping[str, float],
    *,
    rounds: int = 30,
    tokens: int = 64,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure answers and their parts in turn.

    Args:
        llm, slm: GGUF files.
        weights: of the attributes that steer.
        rounds: answers.
        tokens: of an answer, at most.
        say: told what is done.

    Returns:
        JSON values: `us`: {part: microseconds a token}, the whole step among them.
    """
    with ExitStack() as stack:
        drift = stack.enter_context(Drift.load(llm, slm, ctx_size=N_CTX, active=len(weights)))
        bare = Bare(
            drift, build_prompts(drift.pair, drift.attributes, MESSAGES, weights, "logits", {}), time.process_time
        )
        stack.callback(bare.close)
        fuse_and_draw = _Kernel(drift.pair.n_vocab, weights)
        _step(drift, weights, rounds, tokens)  # warms up
        whole, parts = [], []
        for i in range(rounds):
            say(f"round {i + 1} of {rounds}")
            whole.append(_step(drift, weights, i, tokens))
            for _ in range(tokens // 8):
                bare.measure(most=0)
            parts.append(fuse_and_draw())
        costs = bare.costs()
    us = {
        "LLM, one row": 1e6 * costs.llm.of(1),
        f"sLM, {len(weights) + 1} rows": 1e6 * costs.slm.of(len(weights) + 1),
        "fusing": 1e6 * median(fused for fused, _ in parts),
        "drawing": 1e6 * median(drawn for _, drawn in parts),
    }
    step = 1e6 * median(whole)
    return {"us": {**us, "the rest": step - sum(us.values()), "the whole step": step}}


def _step(drift: Drift, weights: Mapping[str, float], attempt: int, most: int) -> float:
    """Seconds of processor time a token, those of the first left out."""
    times = []
    for event in drift.chat(
        MESSAGES, weights=weights, beta=BETA, sampler=SAMPLER, seed=1, attempt=attempt, max_tokens=most
    ):
        if isinstance(event, Token):
            times.append(time.process_time())
    return (times[-1] - times[0]) / max(1, len(times) - 1)


class _Kernel:
    """Fuses and draws from rows such as two models make."""

    def __init__(self, n_vocab: int, weights: Mapping[str, float]) -> None:
        rng = np.random.default_rng(0)
        self._llm = rng.normal(0, 3, n_vocab).astype(np.float32)
        self._slm = (self._llm + rng.normal(0, 0.5, (len(weights) + 1, n_vocab))).astype(np.float32)
        self._p = np.array(list(weights.values())) / BETA
        self._h, self._sample = np.empty(n_vocab, np.float32), kernel.Sampler(n_vocab).sample
        self._settings = {name: getattr(SAMPLER, name) for name in ("temperature", "top_k", "top_p", "min_p")}

    def __call__(self) -> tuple[float, float]:
        """Seconds of one fusion and of one draw."""
        start = time.process_time()
        for _ in range(_DRAWS):
            kernel.fuse(self._h, self._llm, self._slm, self._p)
        fused = time.process_time()
        for i in range(_DRAWS):
            self._sample(self._h, seed=1, position=i, **self._settings)
        return (fused - start) / _DRAWS, (time.process_time() - fused) / _DRAWS


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The result as a table."""
    yield "One steered token, --speculate off: microseconds of processor time"
    whole = result["us"]["the whole step"]
    for part, us in result["us"].items():
        yield f"{part:20} {us:9.1f} {us / whole:6.1%}"
