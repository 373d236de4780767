"""Strength on the built-in pair: what is spent, whatever else is asked, and how it is said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from drift_edge import Drift, SamplerSettings, UsageError
from drift_edge.fusion import LEAST_BETA, Fusion, budget, check_steering

WEIGHTS = {"vivid": 0.8, "formal": -0.6}
ASK = [{"role": "user", "content": "How do you make tea?"}]


@pytest.fixture(scope="module")
def drift() -> Iterator[Drift]:
    with Drift.builtin() as drift:
        yield drift


def kl(rows: NDArray[np.float64], plain: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(row || plain row), nats, of log-probabilities."""
    return np.asarray((np.exp(rows) * (rows - plain)).sum(axis=1))


def test_budget_by_hand() -> None:
    assert [budget(s) for s in (0, 0.25, 0.5, 1)] == [0, 0.25, 1, 4]


def test_no_token_passes_the_budget_and_the_least_beta_caps_it(drift: Drift) -> None:
    answer = drift.complete(ASK, weights=WEIGHTS, seed=3, max_tokens=40)
    rows = {s: drift.next_logprobs(ASK, answer.tokens, weights=WEIGHTS, strength=s) for s in (0, 0.1, 0.3, 0.5, 1)}
    plain = drift.next_logprobs(ASK, answer.tokens)
    most = kl(drift.next_logprobs(ASK, answer.tokens, weights=WEIGHTS, beta=LEAST_BETA), plain)
    assert np.array_equal(rows[0], plain)
    for strength in (0.1, 0.3, 0.5, 1):
        # What the least beta would spend, or the budget where that is less.
        want = np.minimum(most, budget(strength))
        np.testing.assert_allclose(kl(rows[strength], plain), want, rtol=1e-4, atol=2e-5)
    assert (most > budget(0.5)).any()
    assert (most < budget(0.1)).any()


@pytest.mark.parametrize("draft", ["steered", "base"])
def test_the_text_depends_on_target_and_seed_alone(drift: Drift, draft: Any) -> None:
    how: dict[str, Any] = {"weights": WEIGHTS, "strength": 0.6, "seed": 5, "max_tokens": 60}
    alone = drift.complete(ASK, **how)
    drafted = drift.complete(ASK, **how, speculate=3, draft=draft)
    assert drafted.speculation.accepted > 0
    if drafted.speculation.same_text:
        assert drafted.tokens == alone.tokens
    assert drift.complete(ASK, **{**how, "strength": 0.2}).tokens != alone.tokens


def test_strength_0_is_the_plain_answer(drift: Drift) -> None:
    plain, none = drift.complete(ASK, seed=4), drift.complete(ASK, weights=WEIGHTS, strength=0, seed=4, measure=True)
    assert none.text == plain.text
    assert none.kl_per_token == pytest.approx(0, abs=1e-9)


def test_the_mask_acts_on_what_the_budget_left(drift: Drift) -> None:
    mask = SamplerSettings(plausibility=0.05)
    answer = drift.complete(ASK, weights=WEIGHTS, strength=1, seed=4, sampler=mask, measure=True, max_tokens=60)
    plain = drift.next_logprobs(ASK, answer.tokens)
    for row, token in zip(plain, answer.tokens, strict=False):
        assert row[token] >= row.max() + np.log(0.05) - 1e-3
    # What is measured is the distribution before any sampler.
    spent = kl(drift.next_logprobs(ASK, answer.tokens, weights=WEIGHTS, strength=1), plain)
    drawn = len(answer.tokens) + answer.ended
    assert answer.kl_per_token == pytest.approx(spent[:drawn].mean(), rel=1e-3)


def test_the_answer_says_which(drift: Drift) -> None:
    told = drift.complete(ASK, weights=WEIGHTS, strength=0.5, seed=3, max_tokens=8, measure=True).to_dict()["steering"]
    assert (told["beta"], told["strength"]) == (None, 0.5)
    assert 0 < told["kl_per_token"] <= budget(0.5)
    told = drift.complete(ASK, strength=0.5, max_tokens=2).to_dict()["steering"]
    assert (told["beta"], told["strength"]) == (None, None)  # nothing was fused


def test_explained_by_what_was_added(drift: Drift) -> None:
    answer = drift.complete(ASK, weights=WEIGHTS, strength=0.4, seed=3, max_tokens=30)
    why = drift.explain(ASK, answer)
    steered = drift.next_logprobs(ASK, answer.tokens, weights=WEIGHTS, strength=0.4)
    plain = drift.next_logprobs(ASK, answer.tokens)
    ids = [*answer.tokens, *([drift.pair.llm.end_id] if answer.ended else [])]
    gains = [steered[t, token] - plain[t, token] for t, token in enumerate(ids)]
    np.testing.assert_allclose(why.gains, gains, atol=1e-4)
    # Of all attributes together: what was added to the token, less its mean over what could have been drawn.
    moved = steered - plain
    for summed, rows in ((why.pushes, plain), (why.shares, steered)):
        want = [moved[t, token] - np.exp(rows[t]) @ moved[t] for t, token in enumerate(ids)]
        np.testing.assert_allclose(summed.sum(axis=1), want, atol=2e-4)


def test_what_is_refused(drift: Drift) -> None:
    with pytest.raises(UsageError, match="beta and strength exclude each other"):
        drift.complete(ASK, weights=WEIGHTS, beta=0.5, strength=0.5)
    for wrong in (-0.1, 1.1, float("nan"), True, "0.5"):
        with pytest.raises(UsageError, match=r"strength: expected a number from 0 \(plain\) to 1"):
            check_steering(None, wrong)  # type: ignore[arg-type]
    assert check_steering(None, None) == (0.5, None)
    assert Fusion.of([1.0], 0.5, None).weights.tolist() == [2.0]
    assert (Fusion.of([1.0], None, 0.5).weights.tolist(), Fusion.of([1.0], None, 0.5).budget) == ([4.0], 1.0)
