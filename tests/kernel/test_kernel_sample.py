"""Sampler.sample against sorting, by hand, and by the laws of sampling."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from drift_edge.kernel import reference
from tests.kernel import brute


def logits_of(*p: float) -> NDArray[np.float32]:
    """Logits whose softmax at temperature 1 is p."""
    with np.errstate(divide="ignore"):
        return np.log(np.array(p, np.float32))


def draw(kernel: ModuleType, logits: NDArray[np.float32], seed: int = 1, position: int = 0, **settings: Any) -> Any:
    return kernel.Sampler(len(logits)).sample(logits, seed=seed, position=position, **settings)


HALF = logits_of(0.5, 0.25, 0.125, 0.125)


@pytest.mark.parametrize(
    ("settings", "survivors", "entropy"),
    [
        ({}, 4, 1.75),  # .5 * 1 + .25 * 2 + 2 * .125 * 3
        ({"top_k": 1}, 1, 0.0),
        ({"top_k": 2}, 2, 0.91829583),  # 2/3, 1/3: log2(3) - 2/3
        ({"top_k": 4}, 4, 1.75),
        ({"top_k": 99}, 4, 1.75),
        ({"top_p": 0.5}, 1, 0.0),  # the first token reaches it exactly
        ({"top_p": 0.51}, 2, 0.91829583),  # the second crosses it and stays
        ({"top_p": 0.75}, 2, 0.91829583),
        ({"top_p": 0.9}, 4, 1.75),
        ({"top_k": 2, "top_p": 0.66}, 1, 0.0),  # of the renormalised 2/3, 1/3
        ({"top_k": 2, "top_p": 0.67}, 2, 0.91829583),
        ({"min_p": 0.5}, 2, 0.91829583),  # .25 is half of the best, exactly
        ({"min_p": 0.51}, 1, 0.0),
        ({"min_p": 0.25}, 4, 1.75),
        ({"min_p": 1.0}, 1, 0.0),
        ({"temperature": 0.5}, 4, 1.1867044),  # squares: 16/22, 4/22, 1/22, 1/22
        ({"temperature": 0.5, "min_p": 0.25}, 2, 0.72192809),  # squares over the best: 1, 1/4, 1/16; .8, .2
        ({"temperature": 0.0}, 1, 0.0),
    ],
)
def test_cuts_by_hand(any_kernel: ModuleType, settings: dict[str, Any], survivors: int, entropy: float) -> None:
    result = draw(any_kernel, HALF, **settings)
    assert result.survivors == survivors
    assert result.entropy_bits == pytest.approx(entropy, abs=1e-6)


def test_probability_is_that_of_the_cut_distribution(any_kernel: ModuleType) -> None:
    for position in range(50):
        token, probability, _, _ = draw(any_kernel, HALF, position=position, top_k=2)
        assert probability == pytest.approx([2 / 3, 1 / 3][token], abs=1e-6)


def test_ties_at_a_cut_go_to_the_lower_id(any_kernel: ModuleType) -> None:
    logits = np.array([0, 1, 1, 1, 0, 1], np.float32)
    drawn = {draw(any_kernel, logits, position=i, top_k=2).token for i in range(200)}
    assert drawn == {1, 2}
    # four tokens of weight 1, two of 1/e: three of the four make 3 / 4.74 = .63
    drawn = {draw(any_kernel, logits, position=i, top_p=0.62).token for i in range(200)}
    assert drawn == {1, 2, 3}


@pytest.mark.parametrize("n", [3, 100, 257, 5000])
def test_temperature_zero_is_the_lowest_argmax(any_kernel: ModuleType, rng: np.random.Generator, n: int) -> None:
    logits = rng.normal(0, 1, n).astype(np.float32)
    logits[[n // 3, n // 2, n - 1]] = 9
    for settings in ({}, {"top_k": 3, "top_p": 0.3, "min_p": 0.9}):
        assert draw(any_kernel, logits, temperature=0.0, **settings) == (n // 3, 1.0, 1, 0.0)


def test_penalties_by_hand(any_kernel: ModuleType) -> None:
    # token 0: 4 / 2 - 1 - 2 * .25 = .5; token 1: -1 * 2 - 1 - .25 = -3.25; token 2: untouched, 1
    logits = np.array([4, -1, 1], np.float32)
    history = np.array([0, 1, 0], np.int32)
    penalties = {"repeat_penalty": 2.0, "presence_penalty": 1.0, "frequency_penalty": 0.25}
    assert draw(any_kernel, logits, temperature=0.0, history=history, **penalties).token == 2
    w = [math.exp(0.5), math.exp(-3.25), math.exp(1)]
    for position in range(20):
        token, p, _, _ = draw(any_kernel, logits, position=position, history=history, **penalties)
        assert p == pytest.approx(w[token] / sum(w), rel=1e-6)
    assert logits.tolist() == [4, -1, 1]  # not modified


def test_penalties_leave_nothing_behind(any_kernel: ModuleType, rng: np.random.Generator) -> None:
    """Counts of one draw must not be seen by the next in the same sampler."""
    logits = rng.normal(0, 2, 50).astype(np.float32)
    sampler = any_kernel.Sampler(50)
    penalties: dict[str, Any] = {"frequency_penalty": 0.3, "repeat_penalty": 1.2, "seed": 3, "position": 4}
    for _ in range(30):
        history = rng.integers(0, 50, 20).astype(np.int32)
        got = sampler.sample(logits, history=history, **penalties)
        assert got == any_kernel.Sampler(50).sample(logits, history=history, **penalties)
    with pytest.raises(ValueError, match="history"):
        sampler.sample(logits, history=np.array([1, 1, 50], np.int32), **penalties)
    once = np.array([1], np.int32)
    got = sampler.sample(logits, history=once, **penalties)
    assert got == any_kernel.Sampler(50).sample(logits, history=once, **penalties)


def test_barred_tokens_stay_barred_under_penalties(any_kernel: ModuleType) -> None:
    logits = np.array([-np.inf, 0, 0], np.float32)
    history = np.array([0, 0], np.int32)
    for position in range(30):
        result = draw(
            any_kernel, logits, position=position, history=history, presence_penalty=-50.0, repeat_penalty=1.5
        )
        assert result.token != 0
        assert result.survivors == 2


@pytest.mark.parametrize("cuts", [{}, {"top_k": 3}, {"top_p": 0.99}, {"min_p": 0.001}])
def test_plausibility(any_kernel: ModuleType, cuts: dict[str, Any]) -> None:
    logits = logits_of(0.4, 0.3, 0.2, 0.1)
    llm = logits_of(0.1, 0.4, 0.2, 0.3)
    kept = {draw(any_kernel, logits, position=i, plausibility=0.5, llm=llm, **cuts).token for i in range(300)}
    # at least half of .4: tokens 1, 2, 3; a top-k of 3 has dropped token 3 before
    assert kept == ({1, 2} if "top_k" in cuts else {1, 2, 3})


def test_plausibility_never_leaves_nothing(any_kernel: ModuleType) -> None:
    logits = logits_of(0.9, 0.1, 0.0)
    llm = logits_of(0.01, 0.01, 0.98)
    for settings in ({}, {"top_k": 2}, {"temperature": 0.0}):
        result = draw(any_kernel, logits, plausibility=0.5, llm=llm, **settings)
        assert result == (0, 1.0, 1, 0.0)


def test_plausibility_at_temperature_zero(any_kernel: ModuleType) -> None:
    logits = np.array([5, 4, 4, 1], np.float32)
    llm = np.array([0, 3, 3, 3], np.float32)
    assert draw(any_kernel, logits, temperature=0.0, plausibility=0.9, llm=llm).token == 1


def test_plausibility_off_does_not_look_at_llm(any_kernel: ModuleType) -> None:
    assert draw(any_kernel, HALF, llm=np.full(4, np.nan, np.float32)).survivors == 4


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, r"\+inf")])
@pytest.mark.parametrize("at", [0, 255, 256, 299])
def test_bad_values(any_kernel: ModuleType, value: float, word: str, at: int) -> None:
    good, bad = np.zeros(300, np.float32), np.zeros(300, np.float32)
    bad[at] = value
    for settings in ({}, {"top_k": 5}, {"temperature": 0.0}, {"history": np.array([3], np.int32)}):
        with pytest.raises(ValueError, match=f"^logits: {word} at index {at}"):
            draw(any_kernel, bad, presence_penalty=0.5, **settings)
    with pytest.raises(ValueError, match=f"^llm: {word} at index {at}"):
        draw(any_kernel, good, plausibility=0.1, llm=bad)


def test_nothing_to_draw(any_kernel: ModuleType) -> None:
    none = np.full(20, -np.inf, np.float32)
    for settings in ({}, {"top_k": 5}, {"top_p": 0.5}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match="logits: every token is -inf"):
            draw(any_kernel, none, **settings)
    with pytest.raises(ValueError, match="llm: every token is -inf"):
        draw(any_kernel, np.zeros(20, np.float32), plausibility=0.5, llm=none)


def test_one_token(any_kernel: ModuleType) -> None:
    one = np.array([-3], np.float32)
    for settings in ({}, {"top_k": 1}, {"top_p": 0.1}, {"min_p": 0.5}):
        assert draw(any_kernel, one, **settings) == (0, 1.0, 1, 0.0)
    lonely = np.full(700, -np.inf, np.float32)
    lonely[500] = 2
    for settings in ({}, {"top_k": 10}, {"top_k": 600}, {"top_p": 0.9}, {"min_p": 0.1}):
        assert draw(any_kernel, lonely, **settings) == (500, 1.0, 1, 0.0)


def test_extremes_of_temperature(any_kernel: ModuleType) -> None:
    logits = np.array([1, 3, 2, 3], np.float32)
    for settings in ({}, {"top_k": 3}, {"top_p": 0.9}):
        for temperature in (1e-300, 1e-30, 1e-5):
            token, p, _, entropy = draw(any_kernel, logits, temperature=temperature, **settings)
            assert token in (1, 3)
            assert (p, entropy) == (0.5, 1.0)
    assert draw(any_kernel, logits, temperature=1e20).entropy_bits == pytest.approx(2)


SEEDS = [(0, 0), (2**64 - 1, 2**64 - 1), (7, 123), (2**63, 5)]


def test_noise_is_the_documented_one() -> None:
    # splitmix64 of 0 is known: 0xE220A8397B1DCDAF
    assert brute.mix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF
    ids = np.array([0, 1, 2, 1000, 128255, 2**31 - 1], np.int32)
    for seed, position in SEEDS:
        want = [brute.gumbel(seed, position, int(i)) for i in ids]
        np.testing.assert_allclose(reference.gumbel(seed, position, ids), want, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("cuts", [{}, {"top_p": 0.9999999}, {"min_p": 1e-12}])
def test_a_draw_adds_this_noise_to_the_last_digits(any_kernel: ModuleType, cuts: dict[str, Any]) -> None:
    """Two tokens whose logits differ by 1: the temperature at which the noise just outweighs that is known."""
    for seed, position in [*SEEDS, *((s, 3) for s in range(40))]:
        ahead = brute.gumbel(seed, position, 700) - brute.gumbel(seed, position, 3)
        if ahead < 0.05:
            continue
        logits = np.full(1000, -np.inf, np.float32)
        logits[3], logits[700] = 1, 0
        for off, winner in ((1 + 1e-10, 700), (1 - 1e-10, 3)):
            got = any_kernel.Sampler(1000).sample(logits, seed=seed, position=position, temperature=off / ahead, **cuts)
            assert got.token == winner


def test_noise_is_gumbel() -> None:
    """Mean 0.5772 (Euler's constant), variance pi^2 / 6; nothing repeats along ids, positions and seeds."""
    n = 100_000
    ids = np.arange(n, dtype=np.int32)
    a, b, c = reference.gumbel(1, 1, ids), reference.gumbel(1, 2, ids), reference.gumbel(2, 1, ids)
    for x in (a, b, c):
        assert x.mean() == pytest.approx(0.57722, abs=5 * 1.2825 / math.sqrt(n))
        assert x.var() == pytest.approx(math.pi**2 / 6, abs=0.06)
        assert len(np.unique(x)) == n
    for x, y in ((a, b), (a, c), (b, c), (a[:-1], a[1:]), (a[:-1], b[1:])):
        assert abs(np.corrcoef(x, y)[0, 1]) < 5 / math.sqrt(n)


def test_draws_of_neighbouring_positions_are_independent(any_kernel: ModuleType) -> None:
    logits = logits_of(0.4, 0.3, 0.2, 0.1)
    sampler = any_kernel.Sampler(4)
    n = 20_000
    tokens = np.array([sampler.sample(logits, seed=5, position=i).token for i in range(n)])
    counts = np.bincount(tokens[:-1] * 4 + tokens[1:], minlength=16)
    p = np.exp(logits.astype(np.float64))
    assert brute.chi_square_sigmas(counts, np.outer(p, p).ravel() * (n - 1)) < 4


@pytest.mark.parametrize("n", [5, 16, 100, 256, 300, 1000, 4097])
@pytest.mark.parametrize(
    "cuts",
    [
        {},
        {"top_k": 1},
        {"top_k": 20},
        {"top_k": 200},
        {"top_p": 0.5},
        {"top_p": 0.999},
        {"top_p": 1e-9},
        {"min_p": 0.02},
        {"top_k": 40, "top_p": 0.95, "min_p": 0.05},
        {"top_p": 0.9, "min_p": 0.3},
        {"top_p": 0.9, "plausibility": 0.1},
        {"plausibility": 0.1},
    ],
)
def test_equals_sorting(any_kernel: ModuleType, rng: np.random.Generator, n: int, cuts: dict[str, Any]) -> None:
    for case in range(6):
        logits = rng.normal(0, [0.01, 1, 4][case % 3], n).astype(np.float32)
        if case >= 3:
            logits = np.round(logits)  # many ties
            logits[rng.random(n) < 0.2] = -np.inf
            logits[rng.integers(n)] = 0
        llm = rng.normal(0, 2, n).astype(np.float32)
        temperature = [0.5, 1.0, 3.0][case % 3]
        want = brute.cut(logits.tolist(), temperature=temperature, llm=llm, **cuts)
        got = draw(any_kernel, logits, seed=99, position=case, temperature=temperature, llm=llm, **cuts)
        assert got.token == brute.winner(want, 99, case)
        assert got.survivors == len(want.ids)
        assert got.probability == pytest.approx(want.p[want.ids.index(got.token)], rel=1e-5)
        assert got.entropy_bits == pytest.approx(want.entropy_bits, abs=1e-5)


def test_worst_orders(any_kernel: ModuleType) -> None:
    """Ascending, descending, all equal: no order of logits makes selection wrong."""
    n = 3000
    for logits in (np.linspace(0, 5, n), np.linspace(5, 0, n), np.zeros(n)):
        row = logits.astype(np.float32)
        for cuts in ({"top_k": 50}, {"top_k": 2500}, {"top_p": 0.3}, {"top_p": 0.99}):
            want = brute.cut(row.tolist(), temperature=1.0, **cuts)
            got = draw(any_kernel, row, seed=4, position=2, **cuts)
            assert (got.token, got.survivors) == (brute.winner(want, 4, 2), len(want.ids))


def test_laws(any_kernel: ModuleType, rng: np.random.Generator) -> None:
    logits = rng.normal(0, 2, 400).astype(np.float32)
    for cuts in ({}, {"top_k": 30, "top_p": 0.9}):
        for position in range(40):
            here = draw(any_kernel, logits, position=position, **cuts)
            # a shift that is exact in float32 changes nothing
            assert draw(any_kernel, np.float32(0.5) * np.round(logits * 2) + 4, position=position, **cuts) == draw(
                any_kernel, np.float32(0.5) * np.round(logits * 2), position=position, **cuts
            )
            # scaling logits and temperature by a power of two together changes nothing
            assert draw(any_kernel, logits * 2, position=position, temperature=2.0, **cuts) == here
            # the noise depends on the id alone: tokens barred behind the row change nothing
            longer = np.concatenate([logits, np.full(300, -np.inf, np.float32)])
            again = draw(any_kernel, longer, position=position, **cuts)
            assert (again.token, again.survivors) == (here.token, here.survivors)
            # barring a token that lost does not change the draw
            loser = (here.token + 1) % 400
            without = logits.copy()
            without[loser] = -np.inf
            if not cuts:
                assert draw(any_kernel, without, position=position).token == here.token


def test_same_arguments_same_draw(any_kernel: ModuleType, rng: np.random.Generator) -> None:
    logits = rng.normal(0, 2, 1000).astype(np.float32)
    for cuts in ({}, {"top_k": 40, "top_p": 0.95, "min_p": 0.05}):
        first = draw(any_kernel, logits, **cuts)
        assert all(draw(any_kernel, logits, **cuts) == first for _ in range(5))
        assert len({draw(any_kernel, logits, seed=s, **cuts).token for s in range(60)}) > 5
        assert len({draw(any_kernel, logits, position=s, **cuts).token for s in range(60)}) > 5
