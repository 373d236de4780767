"""Shares of attributes in tokens: by hand, and on engines by their own definition."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from drift_edge import CancelToken, Drift
from drift_edge.errors import UsageError
from drift_edge.explanation import token_shares
from tests.conftest import ASK

WEIGHTS = {"concise": 0.8, "vivid": -0.5, "formal": 0.3}


def test_shares_by_hand() -> None:
    # Three tokens. LLM: equal. One attribute moves token 0 by log 2 and token 2 by -log 2, at p/beta = 1: the fused
    # distribution is (2, 1, 1/2) / 3.5, the mean move (2 - 1/2) / 3.5 log 2 = 3/7 log 2.
    log2 = np.log(2.0)
    h_llm = np.zeros(3, np.float32)
    H = np.array([[1, 1, 1], [1 + log2, 1, 1 - log2], [1, 1, 1]], np.float32)
    h = np.array([log2, 0, -log2], np.float32)
    shares, pushes, gain = token_shares(0, h_llm, h, H, np.array([1.0, 5.0]))
    assert shares == pytest.approx([log2 * 4 / 7, 0.0], abs=1e-6)
    assert pushes == pytest.approx([log2, 0.0], abs=1e-6)  # the LLM's mean move is 0
    assert gain == pytest.approx(np.log(2 / 3.5) - np.log(1 / 3), abs=1e-6)
    shares, pushes, gain = token_shares(2, h_llm, h, H, np.array([1.0, 5.0]))
    assert shares == pytest.approx([-log2 * 10 / 7, 0.0], abs=1e-6)
    assert pushes == pytest.approx([-log2, 0.0], abs=1e-6)
    assert gain == pytest.approx(np.log(0.5 / 3.5) - np.log(1 / 3), abs=1e-6)


def test_a_barred_token_has_no_part_in_the_mean() -> None:
    barred = np.float32(-np.inf)
    H = np.array([[0, 0, barred], [1, 0, barred]], np.float32)
    h_llm = np.array([0, 0, barred], np.float32)
    h = np.array([1, 0, barred], np.float32)
    shares, pushes, gain = token_shares(0, h_llm, h, H, np.array([1.0]))
    q = np.e / (np.e + 1)
    assert shares == pytest.approx([1 - q], abs=1e-6)
    assert pushes == pytest.approx([1 / 2], abs=1e-6)
    assert gain == pytest.approx(np.log(2 * q), abs=1e-6)


def test_gains_are_the_difference_of_the_two_distributions(builtin: Drift) -> None:
    answer = builtin.complete(ASK, weights=WEIGHTS, seed=3)
    found = builtin.explain(ASK, answer)
    assert answer.ended
    n = len(answer.tokens)
    assert found.shares.shape == (n + 1, 3)
    assert found.attributes == tuple(answer.weights)
    assert "".join(found.texts) == answer.text
    drawn = [*answer.tokens, builtin.pair.llm.end_id]
    steered = builtin.next_logprobs(ASK, answer.tokens, weights=WEIGHTS)
    plain = builtin.next_logprobs(ASK, answer.tokens, steer="off")
    expected = [steered[t, w] - plain[t, w] for t, w in enumerate(drawn)]
    assert found.gains == pytest.approx(expected, abs=2e-4)
    assert np.abs(found.shares).max() > 0.5
    # A gain is what the attributes pushed, less the logarithm of the mean push's exponential, which is never below 0.
    assert (found.gains <= found.pushes.sum(axis=1) + 1e-4).all()


def test_shares_follow_the_weights(builtin: Drift) -> None:
    # Only p/beta counts: halving weights and beta alike changes nothing.
    answer = builtin.complete(ASK, weights=WEIGHTS, beta=0.5, seed=3)
    half = dataclasses.replace(answer, weights={name: p / 2 for name, p in answer.weights.items()}, beta=0.25)
    assert builtin.explain(ASK, half).shares == pytest.approx(builtin.explain(ASK, answer).shares, abs=1e-6)


def test_an_answer_that_was_not_fused_has_no_explanation(builtin: Drift) -> None:
    answer = builtin.complete(ASK, weights=WEIGHTS, steer="off", seed=3)
    with pytest.raises(UsageError, match="nothing was fused"):
        builtin.explain(ASK, answer)


def test_an_explanation_leaves_the_caches_to_the_next_turn(builtin: Drift) -> None:
    answer = builtin.complete(ASK, weights=WEIGHTS, seed=3)
    builtin.explain(ASK, answer)
    more = [*ASK, {"role": "assistant", "content": answer.text}, {"role": "user", "content": "Why?"}]
    after = builtin.complete(more, weights=WEIGHTS, seed=3)
    with Drift.builtin() as other:
        other.complete(ASK, weights=WEIGHTS, seed=3)
        expected = other.complete(more, weights=WEIGHTS, seed=3)
    assert after.text == expected.text
    assert after.timings.prefilled_tokens == expected.timings.prefilled_tokens


def test_a_cancelled_explanation_covers_what_was_read(builtin: Drift) -> None:
    answer = builtin.complete(ASK, weights=WEIGHTS, seed=3)
    cancel = CancelToken()
    cancel.cancel()
    found = builtin.explain(ASK, answer, cancel)
    assert found.texts == ()
    assert found.shares.shape == found.pushes.shape == (0, 3)
