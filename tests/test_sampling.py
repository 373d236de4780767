"""Sampler settings, and the seeds of the noise."""

from __future__ import annotations

import math
from typing import Any

import pytest

from drift_edge.errors import UsageError
from drift_edge.sampling import SamplerSettings, new_seed, noise_seed

RANGES = {
    "temperature": ([0, 0.8, 100], [-0.1, 101, math.nan, math.inf, "1", None, True]),
    "top_k": ([0, 1, 40, 2**31 - 1], [-1, 1.5, 2**31, "40", None, True]),
    "top_p": ([1e-9, 0.95, 1], [0, -0.1, 1.1, math.nan, "1", None, True]),
    "min_p": ([0, 0.05, 1], [-0.1, 1.1, math.nan, "0", None]),
    "repeat_penalty": ([0.1, 1, 100], [0, -1, 101, math.nan, None]),
    "presence_penalty": ([-100, 0, 100], [-101, 101, math.inf, None]),
    "frequency_penalty": ([-100, 0, 100], [-101, 101, math.inf, None]),
    "repeat_last_n": ([0, 64], [-1, 0.5, None]),
    "plausibility": ([0, 0.1, 1], [-0.1, 1.1, math.nan, None]),
}


@pytest.mark.parametrize("name", RANGES)
def test_ranges(name: str) -> None:
    good, bad = RANGES[name]
    for value in good:
        assert getattr(SamplerSettings(**{name: value}), name) == value
    wrong: Any
    for wrong in bad:
        with pytest.raises(UsageError, match=f"^{name}: expected .*, got {wrong!r}$"):
            SamplerSettings(**{name: wrong})


def test_every_setting_has_a_range_above() -> None:
    assert set(RANGES) == set(SamplerSettings.__dataclass_fields__)


def test_defaults_are_those_that_users_of_llama_cpp_know() -> None:
    s = SamplerSettings()
    assert (s.temperature, s.top_k, s.top_p, s.min_p) == (0.8, 40, 0.95, 0.05)
    assert not s.has_penalties


def test_has_penalties() -> None:
    assert SamplerSettings(repeat_penalty=1.1).has_penalties
    assert SamplerSettings(presence_penalty=-0.1).has_penalties
    assert SamplerSettings(frequency_penalty=0.1).has_penalties
    assert not SamplerSettings(repeat_penalty=1.1, repeat_last_n=0).has_penalties


def test_noise_seeds_differ_by_seed_turn_and_attempt() -> None:
    seeds = {noise_seed(s, t, a) for s in range(20) for t in range(20) for a in range(20)}
    assert len(seeds) == 8000
    assert all(0 <= seed < 1 << 64 for seed in seeds)
    assert noise_seed(1, 11, 1) != noise_seed(11, 1, 1)
    # Fixed for good: another value would change every answer that was noted down with its seed.
    assert noise_seed(0, 1, 0) == 11719571820789706231


def test_fresh_seeds_differ() -> None:
    assert len({new_seed() for _ in range(50)}) > 45
