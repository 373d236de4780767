"""Why a token was drawn: what each attribute added to its logit, against what it added to the others'.

The share of attribute i in token w is `p_i/beta · ((h_i - h_base)[w] - Σ_v q(v) (h_i - h_base)[v])`, where q is the
steered distribution: the term that Eq. 15 adds for the attribute, less its mean. A positive share pushed w up among
the tokens that could have been drawn; shares of a token's attributes add up to the whole of what steering did to it.

The push of the attribute is the same with the LLM's own distribution in the place of q. Where steering has made a token
nearly certain, its share is nearly 0, since there was nothing else left to draw; its push tells who made it so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Explanation:
    """Shares of the attributes in the tokens of one answer.

    Attributes:
        texts: text of each token, n of them; empty where a character is not complete yet, and for the end token.
        attributes: the k active attributes.
        shares: float64 (n, k), nats: of attribute i in token t.
        pushes: float64 (n, k), nats: of attribute i in token t, measured from the LLM's own distribution.
        gains: float64 (n,), nats: log-probability of the token under Eq. 15 less that under the LLM alone.
    """

    texts: tuple[str, ...]
    attributes: tuple[str, ...]
    shares: NDArray[np.float64]
    pushes: NDArray[np.float64]
    gains: NDArray[np.float64]


def token_shares(
    token: int,
    h_llm: NDArray[np.float32],
    h: NDArray[np.float32],
    H: NDArray[np.float32],
    weights: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Shares and pushes of the attributes in one token, and what steering changed in its log-probability.

    Args:
        token: its id, w.
        h_llm: float32 (V,), the LLM's logits.
        h: float32 (V,), the fused logits of Eq. 15.
        H: float32 (k+1, V), the sLM's logits: h_base, h_1 .. h_k.
        weights: float64 (k,), P_i as they were added: p_i / beta, or the share of it that a budget left.

    Returns:
        float64 (k,) shares, float64 (k,) pushes, and the gain, all in nats.
    """
    log_q, log_llm = _log_softmax(h), _log_softmax(h_llm)
    with np.errstate(invalid="ignore"):  # a token that a model bars (-inf) has no part in the mean
        moved = H[1:].astype(np.float64) - H[0]  # h_i - h_base
    finite = np.where(np.isfinite(moved), moved, 0.0)
    shares, pushes = (weights * (moved[:, token] - finite @ np.exp(log_p)) for log_p in (log_q, log_llm))
    return shares, pushes, float(log_q[token] - log_llm[token])


def _log_softmax(row: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = row.astype(np.float64) - row.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))
