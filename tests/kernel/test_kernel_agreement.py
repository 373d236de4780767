"""The C draws what numpy draws, and both draw from the distribution they say they draw from."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from drift_edge.kernel import reference
from tests.kernel import brute

DRAWS = 1_000_000


def random_case(rng: np.random.Generator) -> tuple[int, tuple[Any, ...]]:
    """A row and positional arguments of `sample`: every cut on or off, in all mixtures."""
    n = int(rng.integers(1, 64)) if rng.random() < 0.5 else int(rng.integers(64, 600))
    logits = rng.standard_normal(n, np.float32) * np.float32(rng.choice([0.1, 1, 4]))
    if rng.random() < 0.15:
        logits = np.round(logits)
    if rng.random() < 0.15:
        logits[rng.random(n) < 0.3] = -np.inf
        logits[rng.integers(n)] = 1
    u = rng.random(9)
    history = rng.integers(0, n, int(rng.integers(0, 12))).astype(np.int32) if u[0] < 0.3 else None
    plausibility = 0.02 if u[1] < 0.2 else 0.0
    return n, (
        logits,
        (0.0, 0.4, 1.0, 1.0, 2.5)[int(u[2] * 5)],
        (0, 0, 1, 5, 40, 500)[int(u[3] * 6)],
        (1.0, 1.0, 0.95, 0.5, 0.01)[int(u[4] * 5)],
        (0.0, 0.0, 0.05, 0.5)[int(u[5] * 4)],
        (1.0, 1.3)[int(u[6] * 2)],
        (0.0, 0.4)[int(u[7] * 2)],
        (0.0, 0.1)[int(u[8] * 2)],
        history,
        plausibility,
        rng.standard_normal(n, np.float32) * np.float32(2) if plausibility else None,
        int(rng.integers(2**63)),
        int(rng.integers(2**20)),
    )


@pytest.mark.usefixtures("c_kernel")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cases", [25_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_c_draws_what_numpy_draws(cases: int) -> None:
    seed = 11
    rng = np.random.default_rng(seed)
    c = importlib.import_module("drift_edge.kernel._kernel")
    other, furthest = [], 0.0
    for case in range(cases):
        n, arguments = random_case(rng)
        a = c.sample(n, *arguments)
        b = reference.sample(n, *arguments)
        if (a[0], a[2]) != (b[0], b[2]):
            other.append((case, arguments[1:], a, b))
        else:
            furthest = max(furthest, abs(a[1] - b[1]), abs(a[3] - b[3]))
    print(f"seed {seed}: {len(other)} of {cases} differ: {other[:3]}; furthest numbers {furthest:.1e}")
    assert len(other) < cases * 1e-4
    assert furthest < 1e-5


CUTS: list[dict[str, Any]] = [
    {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.02},
    {"temperature": 1.3},
    {"temperature": 1.0, "top_p": 0.9},
]


def sigmas(kernel: ModuleType, n: int, draws: int, cuts: dict[str, Any]) -> float:
    """Chi-square of draws over positions against the sorted reference."""
    seed = 77
    logits = np.random.default_rng(seed).normal(0, 1, n).astype(np.float32)
    want = brute.cut(logits.tolist(), **cuts)
    expected = np.zeros(n)
    expected[want.ids] = np.array(want.p) * draws
    sample = kernel.Sampler(n).sample
    tokens = np.fromiter((sample(logits, seed=seed, position=i, **cuts)[0] for i in range(draws)), np.int64, draws)
    result = brute.chi_square_sigmas(np.bincount(tokens, minlength=n), expected)
    print(f"seed {seed}: {draws} draws, {len(want.ids)} tokens, chi-square is {result:+.2f} sigma")
    return result


@pytest.mark.timeout(600)
@pytest.mark.parametrize("cuts", CUTS[:2])
def test_a_million_draws(c_kernel: ModuleType, cuts: dict[str, Any]) -> None:
    assert abs(sigmas(c_kernel, 200, DRAWS, cuts)) < 4


@pytest.mark.parametrize("cuts", CUTS)
def test_draws(any_kernel: ModuleType, cuts: dict[str, Any]) -> None:
    assert abs(sigmas(any_kernel, 600, 10_000, cuts)) < 4


@pytest.mark.parametrize("n", [4096, 32_000, 128_256])
def test_large_vocabularies(any_kernel: ModuleType, rng: np.random.Generator, n: int) -> None:
    """Where whole blocks are passed over, nothing that could win is missed."""
    sampler = any_kernel.Sampler(n)
    for position in range(4):
        logits = (rng.normal(0, 1, n) * [0.01, 1, 2, 4][position]).astype(np.float32)
        llm = (logits + rng.normal(0, 1, n)).astype(np.float32)
        for top_k, top_p, min_p, plausibility in [(0, 1.0, 0.0, 0.0), (40, 0.95, 0.05, 0.0), (0, 0.9, 0.0, 0.001)]:
            a = sampler.sample(
                logits,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                plausibility=plausibility,
                llm=llm,
                seed=3,
                position=position,
            )
            b = reference.sample(
                n, logits, 1.0, top_k, top_p, min_p, 1.0, 0.0, 0.0, None, plausibility, llm, 3, position
            )
            assert (a[0], a[2]) == (b[0], b[2])
            assert a[1] == pytest.approx(b[1], rel=1e-5)
            assert a[3] == pytest.approx(b[3], abs=1e-5)
