"""fuse_within: the budget is met, and what follows from that, against float64."""

from __future__ import annotations

import importlib
import math
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from drift_edge.kernel import reference
from tests.kernel import brute
from tests.kernel.test_kernel_fuse import Rows, fuse, rows

SIZES = [2, 17, 256, 4097]


def within(kernel: ModuleType, given: Rows, budget: float) -> tuple[NDArray[np.float32], float, float]:
    out = np.full(given[0].shape, np.nan, np.float32)
    return out, *kernel.fuse_within(out, *given, budget)


def kl(h: NDArray[np.float64], llm: NDArray[np.float32]) -> float:
    """KL(softmax(h) || softmax(llm)) in float64."""
    log_q, log_p = (z - z.max() - math.log(math.fsum(np.exp(z - z.max()))) for z in (h, llm.astype(np.float64)))
    return math.fsum(np.exp(log_q) * (log_q - log_p))


def test_by_hand(any_kernel: ModuleType) -> None:
    # Two tokens alike to the LLM, steered apart by 4: with share t, q = sigmoid(4 t). At t = 1/2, q = sigmoid(2) and
    # KL = q ln 2q + (1 - q) ln 2(1 - q).
    q = 1 / (1 + math.exp(-2))
    spend = q * math.log(2 * q) + (1 - q) * math.log(2 * (1 - q))
    given = np.zeros(2, np.float32), np.array([[0, 0], [3, 1]], np.float32), np.array([2.0])
    out, t, spent = within(any_kernel, given, spend)
    assert (t, spent) == pytest.approx((0.5, spend), abs=1e-6)
    assert out == pytest.approx([3, 1], abs=1e-5)  # 0 + t · 2 · (h_1 - h_base)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("k", [1, 7])
def test_the_budget_is_met(any_kernel: ModuleType, rng: np.random.Generator, n: int, k: int) -> None:
    llm, slm, p = rows(rng, n, k)
    p *= 4 if k == 1 else 1  # large enough that a budget is passed, and no larger than float32 sums can bear
    term = brute.fused(llm, slm, p) - llm
    whole, met = kl(llm + term, llm), 0
    for budget in (1e-3, 0.1, 0.5, 2.0):
        out, t, spent = within(any_kernel, (llm, slm, p), budget)
        if whole <= budget:
            assert (t, spent) == (1.0, pytest.approx(whole, abs=1e-6))
            assert np.array_equal(out, fuse(any_kernel, llm, slm, p))
            continue
        assert 0 < t < 1
        exactly = pytest.approx(budget, abs=1e-6 * max(1, budget))
        assert (spent, kl(llm + t * term, llm), kl(out.astype(np.float64), llm)) == (exactly, exactly, exactly)
        met += 1
    assert met


def test_share_and_divergence_grow_with_the_budget(any_kernel: ModuleType, rng: np.random.Generator) -> None:
    given = rows(rng, 5000, 7)
    spent = [within(any_kernel, given, budget)[1:] for budget in np.geomspace(1e-5, 20, 40)]
    assert spent == sorted(spent)
    assert spent[0][0] < 0.05
    assert spent[-1][0] == 1


@pytest.mark.parametrize("n", SIZES)
def test_no_budget_gives_the_llm_row_bit_for_bit(any_kernel: ModuleType, rng: np.random.Generator, n: int) -> None:
    llm, slm, p = rows(rng, n, 3)
    llm[1::3], llm[1::7] = -0.0, -np.inf
    out, t, spent = within(any_kernel, (llm, slm, p), 0.0)
    assert np.array_equal(out.view(np.int32), llm.view(np.int32))
    assert (t, spent) == (0.0, 0.0)


def test_no_weight_spends_nothing(any_kernel: ModuleType, rng: np.random.Generator) -> None:
    llm, slm, _ = rows(rng, 300, 3)
    for budget in (0.0, 1.0):
        out, _, spent = within(any_kernel, (llm, slm, np.zeros(3)), budget)
        assert np.array_equal(out, llm)
        assert spent == 0


@pytest.mark.parametrize("factor", [1.5, 8.0])
def test_the_cap_matters_only_where_it_is_reached(
    any_kernel: ModuleType, rng: np.random.Generator, factor: float
) -> None:
    """Scaling all weights scales the share down, and leaves the row as it is."""
    llm, slm, p = rows(rng, 3000, 7)
    row, t, _ = within(any_kernel, (llm, slm, p), 0.3)
    again, less, _ = within(any_kernel, (llm, slm, p * factor), 0.3)
    assert less == pytest.approx(t / factor, rel=1e-4)
    np.testing.assert_allclose(again, row, rtol=0, atol=1e-3)


def test_what_the_rows_share_is_free(any_kernel: ModuleType, rng: np.random.Generator) -> None:
    """An attribute that moves all logits alike moves no probability, however far."""
    llm, slm, p = rows(rng, 3000, 4)
    _, t, _ = within(any_kernel, (llm, slm, p), 0.3)
    slm[1:] += np.float32(16)
    assert within(any_kernel, (llm, slm, p), 0.3)[1] == pytest.approx(t, rel=1e-4)


def test_logits_far_apart(any_kernel: ModuleType, rng: np.random.Generator) -> None:
    """The tokens that the LLM and the whole term favour are out of each other's reach in float32's exp."""
    llm, slm, _ = rows(rng, 2000, 2)
    llm[5], slm[:, 5] = 300, 0
    slm[1:, 5] = -100
    _, t, spent = within(any_kernel, (llm, slm, np.array([5.0, 5.0])), 0.7)
    want = kl(llm + t * (brute.fused(llm, slm, np.array([5.0, 5.0])) - llm), llm)
    assert spent == pytest.approx(0.7, abs=1e-4)  # of logits of 300, float32 has the thirty-thousandth part of one
    assert want == pytest.approx(0.7, abs=1e-3)


@pytest.mark.parametrize("row", ["llm", "base", "attribute"])
@pytest.mark.parametrize("at", [0, 100, 255, 299])
def test_minus_infinity_bars_a_token(any_kernel: ModuleType, rng: np.random.Generator, row: str, at: int) -> None:
    llm, slm, p = rows(rng, 300, 5)
    {"llm": llm, "base": slm[0], "attribute": slm[4]}[row][at] = -np.inf
    out, t, spent = within(any_kernel, (llm, slm, p), 0.5)
    assert out[at] == -np.inf
    assert np.isfinite(np.delete(out, at)).all()
    assert 0 < t < 1
    assert spent == pytest.approx(0.5, abs=1e-6)
    assert any_kernel.divergence(out, llm)[2] == pytest.approx(0.5, abs=2e-6)


def test_where_barring_alone_costs_too_much_the_llm_row_is_left(any_kernel: ModuleType) -> None:
    llm, slm = np.array([5, 0, 0], np.float32), np.zeros((2, 3), np.float32)
    slm[1, 0] = -np.inf
    out, t, spent = within(any_kernel, (llm, slm, np.ones(1)), 0.5)  # without token 0, KL is at least 4.3
    assert (out.tolist(), t, spent) == ([5, 0, 0], 0.0, 0.0)
    slm[1] = -np.inf
    assert within(any_kernel, (llm, slm, np.ones(1)), 1e9)[1:] == (0.0, 0.0)


def test_errors(any_kernel: ModuleType, rng: np.random.Generator) -> None:
    llm, slm, p = rows(rng, 300, 2)
    out = np.empty(300, np.float32)
    for budget in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"^budget: expected"):
            any_kernel.fuse_within(out, llm, slm, p, budget)
    with pytest.raises(TypeError, match=r"^budget: expected a number, got str"):
        any_kernel.fuse_within(out, llm, slm, p, "1")
    with pytest.raises(ValueError, match=r"^out: must not overlap llm"):
        any_kernel.fuse_within(llm, llm, slm, p, 1.0)
    with pytest.raises(ValueError, match=r"^out: must not overlap slm"):
        any_kernel.fuse_within(slm[1], llm, slm, p, 1.0)
    with pytest.raises(ValueError, match=r"^llm row: every token is -inf"):
        any_kernel.fuse_within(out, np.full(300, -np.inf, np.float32), slm, p, 1.0)
    slm[2, 7] = np.nan
    with pytest.raises(ValueError, match=r"^attribute row 2: NaN at index 7"):
        any_kernel.fuse_within(out, llm, slm, p, 1.0)


@pytest.mark.usefixtures("c_kernel")
def test_c_and_numpy_agree(rng: np.random.Generator) -> None:
    c = importlib.import_module("drift_edge.kernel._kernel")
    for _ in range(500):
        n, k = int(rng.integers(2, 600)), int(rng.integers(1, 9))
        llm, slm, p = rows(rng, n, k, float(rng.choice([0.5, 3, 8])))
        budget = float(rng.choice([0, 1e-4, 0.05, 0.5, 3]))
        a, b = np.empty(n, np.float32), np.empty(n, np.float32)
        t, spent = c.fuse_within(a, llm, slm, p, budget)
        s, want = reference.fuse_within(b, llm, slm, p, budget)
        assert spent == pytest.approx(want, abs=2e-6), (n, k, budget)
        # Where the KL hardly grows, shares apart spend alike.
        assert t == pytest.approx(s, abs=1e-3), (n, k, budget)
