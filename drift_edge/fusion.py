"""Fusion: Eq. 15 by the paper's beta, or by a strength: within a budget of nats a token.

Beta says how much of the steering term is added, whatever comes of it: next to nothing at most tokens, and at some so
much that the LLM has no say left. A strength says how far softmax(h) may go from the LLM's own distribution: the term
of `LEAST_BETA` is added whole where KL(softmax(h) || softmax(h_llm)) stays within `budget(strength)` nats, and where it
does not, the share of it that spends just them. The KL is that of the whole distribution at temperature 1, before any
sampler.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drift_edge import kernel
from drift_edge.weights import check_beta, check_exclusive, check_strength

DEFAULT_BETA = 0.5  # the paper's, in its experiments on generation
LEAST_BETA = 0.25  # without a least one, tokens at which the attributes hardly differ would be steered by their noise
_NATS = 4.0  # a token, at strength 1


def check_steering(beta: float | None, strength: float | None) -> tuple[float | None, float | None]:
    """Beta or strength, whichever was given; the paper's beta where neither was.

    Raises:
        UsageError: both were, or one is out of range.
    """
    check_exclusive(beta, strength)
    if strength is None:
        return check_beta(DEFAULT_BETA if beta is None else beta), None
    return None, check_strength(strength)


def budget(strength: float) -> float:
    """Nats a token that a strength may spend: 4 strength², since the KL of a small change grows as its square."""
    return _NATS * strength**2


@dataclass(frozen=True, slots=True, eq=False)
class Fusion:
    """How the rows of one call are fused.

    Attributes:
        weights: float64 (k,), P_i of the whole term: p_i / beta.
        budget: nats a token that the KL may reach; None is no limit.
    """

    weights: NDArray[np.float64]
    budget: float | None = None

    @classmethod
    def of(cls, p: Collection[float], beta: float | None, strength: float | None) -> Fusion:
        """The fusion of weights p_i, with what `check_steering` returns."""
        weights = np.array(list(p), np.float64)
        if strength is None:
            return cls(weights / (DEFAULT_BETA if beta is None else beta))
        return cls(weights / LEAST_BETA, budget(strength))

    def into(self, out: NDArray[np.float32], h_llm: NDArray[np.float32], H: NDArray[np.float32]) -> NDArray[np.float64]:
        """Fuse the rows of one token.

        Args:
            out: float32 (V,), written; with a budget it must not be `h_llm`.
            h_llm: float32 (V,), the logits to steer.
            H: float32 (k+1, V), the sLM's logits: h_base, h_1 .. h_k.

        Returns:
            float64 (k,), P_i as they were added.

        Raises:
            ValueError: a row that takes part has NaN or +inf.
        """
        if self.budget is None:
            # h = h_llm + sum_i P_i (h_i - h_base)                                         (Eq. 15)
            kernel.fuse(out, h_llm, H, self.weights)
            return self.weights
        share, _ = kernel.fuse_within(out, h_llm, H, self.weights, self.budget)
        return self.weights * share
