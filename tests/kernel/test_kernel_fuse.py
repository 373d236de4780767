"""fuse against values worked by hand, float64, and the laws of Eq. 15."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kernel import brute

SIZES = [1, 2, 15, 16, 17, 255, 256, 257, 1000, 4096, 32001]
Rows = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]


def rows(rng: np.random.Generator, n: int, k: int, size: float = 3.0) -> Rows:
    """Logits as models make them: the sLM's rows are near one another."""
    llm = rng.normal(0, size, n).astype(np.float32)
    slm = (rng.normal(0, size, n) + rng.normal(0, 1, (k + 1, n))).astype(np.float32)
    return llm, slm, rng.normal(0, 1, k)


def fuse(kernel: ModuleType, llm: NDArray[np.float32], slm: NDArray[np.float32], p: NDArray[np.float64]) -> NDArray:
    out = np.full(llm.shape, np.nan, np.float32)
    kernel.fuse(out, llm, slm, p)
    return out


def test_by_hand(any_kernel: ModuleType) -> None:
    llm = np.array([1, 2, 3], np.float32)
    slm = np.array([[1, 1, 1], [2, 0, 1], [5, 1, -1]], np.float32)
    p = np.array([0.5, -2.0])
    # token 0: 1 + .5 (2 - 1) - 2 (5 - 1)  = -6.5
    # token 1: 2 + .5 (0 - 1) - 2 (1 - 1)  =  1.5
    # token 2: 3 + .5 (1 - 1) - 2 (-1 - 1) =  7
    assert fuse(any_kernel, llm, slm, p).tolist() == [-6.5, 1.5, 7.0]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("k", [1, 3, 4, 7, 12])
def test_float64_reference(any_kernel: ModuleType, rng: np.random.Generator, n: int, k: int) -> None:
    llm, slm, p = rows(rng, n, k)
    want = brute.fused(llm, slm, p)
    scale = np.abs(want).max()
    if n < 256:  # in few tokens the sum may cancel in all of them
        scale = max(scale, np.abs(llm).max(), np.abs(p[:, None] * (slm[1:] - slm[0])).max())
    assert np.abs(fuse(any_kernel, llm, slm, p) - want).max() <= 1e-6 * scale


def test_large_common_offset(any_kernel: ModuleType, rng: np.random.Generator) -> None:
    """Logits of 1,000 and a sum of weights of 20: h_i - h_base is small, sum_i P_i h_i on its own is not."""
    llm, slm, _ = rows(rng, 4096, 10)
    slm += np.float32(1000)
    p = np.full(10, 2.0)
    want = brute.fused(llm, slm, p)
    assert np.abs(fuse(any_kernel, llm, slm, p) - want).max() <= 1e-6 * np.abs(want).max()


@pytest.mark.parametrize("n", SIZES)
def test_no_weight_gives_the_llm_row_bit_for_bit(any_kernel: ModuleType, rng: np.random.Generator, n: int) -> None:
    llm, slm, _ = rows(rng, n, 3)
    llm[::3] = -0.0
    llm[::7] = -np.inf
    slm[:] = np.nan  # not read
    for rows_used, p in ((slm[:1], np.empty(0)), (slm, np.zeros(3))):
        out = fuse(any_kernel, llm, rows_used, p)
        assert np.array_equal(out.view(np.int32), llm.view(np.int32))


def test_rows_without_weight_are_not_read(any_kernel: ModuleType, rng: np.random.Generator) -> None:
    llm, slm, p = rows(rng, 300, 5)
    p[[1, 3]] = 0
    want = fuse(any_kernel, llm, slm, p)
    slm[[2, 4]] = np.nan
    assert np.array_equal(fuse(any_kernel, llm, slm, p), want)


def test_out_may_be_llm(any_kernel: ModuleType, rng: np.random.Generator) -> None:
    llm, slm, p = rows(rng, 1000, 7)
    want = fuse(any_kernel, llm, slm, p)
    any_kernel.fuse(llm, llm, slm, p)
    assert np.array_equal(llm, want)
    kept = llm.copy()
    any_kernel.fuse(llm, llm, slm, np.zeros(7))
    assert np.array_equal(llm, kept)


def test_views_into_a_padded_buffer(any_kernel: ModuleType, rng: np.random.Generator) -> None:
    llm, slm, p = rows(rng, 500, 4)
    want = fuse(any_kernel, llm, slm, p)
    buffer = np.full((6, 517), np.nan, np.float32)
    buffer[:5, 3:503] = slm
    buffer[5, 3:503] = llm
    out = buffer[5, 3:503]
    any_kernel.fuse(out, out, buffer[:5, 3:503], p)
    assert np.array_equal(out, want)
    assert np.isnan(buffer[:, :3]).all()
    assert np.isnan(buffer[:, 503:]).all()
    backwards = slm[::-1].copy()
    assert np.array_equal(fuse(any_kernel, llm, backwards[::-1], p), want)


def test_laws(any_kernel: ModuleType, rng: np.random.Generator) -> None:
    llm, slm, p = rows(rng, 777, 6)
    h = fuse(any_kernel, llm, slm, p)
    tight = {"rtol": 0, "atol": 3e-6 * float(np.abs(h).max())}
    # permuting the vocabulary commutes, exactly
    order = rng.permutation(777)
    assert np.array_equal(fuse(any_kernel, llm[order], np.ascontiguousarray(slm[:, order]), p), h[order])
    # the order of the attributes is no matter
    shuffled = rng.permutation(6)
    np.testing.assert_allclose(fuse(any_kernel, llm, slm[np.append(0, shuffled + 1)], p[shuffled]), h, **tight)
    # what every sLM row shares cancels
    np.testing.assert_allclose(fuse(any_kernel, llm, slm + np.float32(8), p), h, **tight)
    # h(2p) - h_llm = 2 (h(p) - h_llm)
    np.testing.assert_allclose(fuse(any_kernel, llm, slm, 2 * p) - llm, 2 * (h - llm), **tight)
    # an attribute that says what the base says changes nothing
    same = np.vstack([slm, slm[:1]])
    np.testing.assert_allclose(fuse(any_kernel, llm, same, np.append(p, 5.0)), h, **tight)


@pytest.mark.parametrize("row", ["llm", "base", "attribute"])
@pytest.mark.parametrize("at", [0, 100, 255, 256, 299])
def test_minus_infinity_bars_a_token(any_kernel: ModuleType, rng: np.random.Generator, row: str, at: int) -> None:
    llm, slm, p = rows(rng, 300, 5)
    want = fuse(any_kernel, llm, slm, p)
    {"llm": llm, "base": slm[0], "attribute": slm[4]}[row][at] = -np.inf
    out = fuse(any_kernel, llm, slm, p)
    want[at] = -np.inf
    assert np.array_equal(out, want)
    slm[:, at] = -np.inf  # base and attributes at once: inf - inf on the way
    assert np.array_equal(fuse(any_kernel, llm, slm, p), want)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, r"\+inf")])
@pytest.mark.parametrize("at", [0, 255, 256, 298])
@pytest.mark.parametrize("row", ["llm row", "base row", "attribute row 1", "attribute row 5"])
def test_nan_and_infinity_name_the_row(
    any_kernel: ModuleType, rng: np.random.Generator, value: float, word: str, at: int, row: str
) -> None:
    llm, slm, p = rows(rng, 300, 5)
    p[2] = 0
    bad = llm if row == "llm row" else slm[int(row.rpartition(" ")[2]) if row[-1].isdigit() else 0]
    bad[at], bad[299] = value, value
    with pytest.raises(ValueError, match=f"^{row}: {word} at index {at}$"):
        fuse(any_kernel, llm, slm, p)
    with pytest.raises(ValueError, match=f"^{row}: {word} at index {at}$"):
        any_kernel.fuse(llm, llm, slm, p)
    if row == "llm row":
        with pytest.raises(ValueError, match=f"^{row}: {word} at index {at}$"):
            fuse(any_kernel, bad, slm, np.zeros(5))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("barring", ["llm", "base", "attribute"])
def test_a_barred_token_hides_no_bad_value(
    any_kernel: ModuleType, rng: np.random.Generator, value: float, barring: str
) -> None:
    llm, slm, p = rows(rng, 300, 5)
    parts = {"llm": llm, "base": slm[0], "attribute": slm[4]}
    bad, name = (slm[2], "attribute row 2") if barring != "attribute" else (slm[0], "base row")
    parts[barring][77], bad[77] = -np.inf, value
    with pytest.raises(ValueError, match=f"^{name}: .* at index 77$"):
        fuse(any_kernel, llm, slm, p)


def test_overflow_is_an_error(any_kernel: ModuleType) -> None:
    llm = np.zeros(20, np.float32)
    slm = np.zeros((2, 20), np.float32)
    slm[1, 17] = 3e38
    with pytest.raises(ValueError, match="overflows float32 at index 17"):
        fuse(any_kernel, llm, slm, np.array([100.0]))
