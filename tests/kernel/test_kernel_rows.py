"""logprobs and divergence against float64, and by hand."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest

from tests.kernel import brute


def test_logprobs_by_hand(any_kernel: ModuleType) -> None:
    # softmax(0, ln 2, ln 5) = 1/8, 2/8, 5/8; softmax(0, 0, -inf) = 1/2, 1/2, 0
    logits = np.array([[0, math.log(2), math.log(5)], [0, 0, -np.inf], [0, 0, -np.inf]], np.float32)
    got = any_kernel.logprobs(logits, np.array([1, 0, 2], np.int32))
    np.testing.assert_allclose(got, [math.log(1 / 4), math.log(1 / 2), -np.inf], atol=2e-7)
    assert got.dtype == np.float64


@pytest.mark.parametrize("n", [1, 15, 17, 256, 257, 4096, 32001])
def test_logprobs_float64_reference(any_kernel: ModuleType, rng: np.random.Generator, n: int) -> None:
    buffer = rng.normal(0, 4, (9, n + 5)).astype(np.float32)
    logits = buffer[:, 2 : n + 2]
    logits[3] += 500
    targets = rng.integers(0, n, 9).astype(np.int32)
    want = [brute.log_softmax(row)[t] for row, t in zip(logits, targets, strict=True)]
    np.testing.assert_allclose(any_kernel.logprobs(logits, targets), want, rtol=0, atol=1e-6)


def test_exp_is_good_to_float32(any_kernel: ModuleType) -> None:
    """With one logit of 0 and a million of z: -logprob = log(1 + 10^6 e^z), which is nearly all e^z's own."""
    row = np.empty(1_000_001, np.float32)
    for z in -np.linspace(0, 9, 60, dtype=np.float32):
        row[:], row[0] = z, 0
        want = -np.log1p(1e6 * np.exp(np.float64(z)))
        assert any_kernel.logprobs(row[None], np.zeros(1, np.int32))[0] == pytest.approx(want, rel=0, abs=2e-7)


def test_logprobs_of_all_targets_sum_to_one(any_kernel: ModuleType, rng: np.random.Generator) -> None:
    row = rng.normal(0, 5, 700).astype(np.float32)
    logits = np.broadcast_to(row, (700, 700))
    p = np.exp(any_kernel.logprobs(logits, np.arange(700, dtype=np.int32)))
    assert p.sum() == pytest.approx(1, abs=1e-6)


def test_divergence_by_hand(any_kernel: ModuleType) -> None:
    fused = np.log(np.array([0.5, 0.25, 0.25], np.float32))
    llm = np.log(np.array([0.25, 0.25, 0.5], np.float32))
    # H = 1.5 bits both; KL = .5 ln(.5/.25) + .25 ln 1 + .25 ln(.25/.5) = .25 ln 2
    assert any_kernel.divergence(fused, llm) == pytest.approx((1.5, 1.5, 0.25 * math.log(2)), abs=1e-6)


@pytest.mark.parametrize("n", [1, 16, 255, 257, 4096, 32001])
def test_divergence_float64_reference(any_kernel: ModuleType, rng: np.random.Generator, n: int) -> None:
    llm = rng.normal(0, 3, n).astype(np.float32)
    fused = (llm + rng.normal(0, 1, n)).astype(np.float32)
    f, g = brute.log_softmax(fused), brute.log_softmax(llm)
    entropies = [-math.fsum(np.exp(x) * x) / math.log(2) for x in (f, g)]
    kl = math.fsum(np.exp(f) * (f - g))
    assert any_kernel.divergence(fused, llm) == pytest.approx((*entropies, kl), rel=1e-6, abs=2e-6)


def test_divergence_at_the_edges(any_kernel: ModuleType) -> None:
    row = np.array([1, 2, -np.inf, 0], np.float32)
    full = np.array([1, 2, 3, 0], np.float32)
    assert any_kernel.divergence(row, row)[2] == 0
    assert math.isfinite(any_kernel.divergence(row, full)[2])
    assert any_kernel.divergence(full, row)[2] == math.inf
    far = np.array([0, -500, -1000], np.float32)
    assert any_kernel.divergence(far, far) == pytest.approx((0, 0, 0), abs=1e-200)
    uniform = np.zeros(64, np.float32)
    assert any_kernel.divergence(uniform, uniform) == pytest.approx((6, 6, 0))


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, r"\+inf")])
def test_bad_values_name_the_row(any_kernel: ModuleType, value: float, word: str) -> None:
    good, bad = np.zeros(300, np.float32), np.zeros(300, np.float32)
    bad[260] = value
    with pytest.raises(ValueError, match=f"^fused: {word} at index 260"):
        any_kernel.divergence(bad, good)
    with pytest.raises(ValueError, match=f"^llm: {word} at index 260"):
        any_kernel.divergence(good, bad)
    with pytest.raises(ValueError, match=f"^logits row 1: {word} at index 260"):
        any_kernel.logprobs(np.stack([good, bad]), np.zeros(2, np.int32))


def test_rows_of_minus_infinity(any_kernel: ModuleType) -> None:
    good, bad = np.zeros(30, np.float32), np.full(30, -np.inf, np.float32)
    with pytest.raises(ValueError, match="fused: every token is -inf"):
        any_kernel.divergence(bad, good)
    with pytest.raises(ValueError, match="llm: every token is -inf"):
        any_kernel.divergence(good, bad)
    with pytest.raises(ValueError, match="logits row 1: every token is -inf"):
        any_kernel.logprobs(np.stack([good, bad]), np.zeros(2, np.int32))
