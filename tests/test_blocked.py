"""Blocked attributes: without weight in decoding, whatever their sign, unless they are allowed; scored all the same."""

from __future__ import annotations

import numpy as np
import pytest

from drift_edge import Attributes, Drift, Notice
from drift_edge.errors import UsageError
from drift_edge.weights import DEFAULT_BLOCKED
from tests.conftest import ASK


def test_the_list_is_of_the_papers_pool() -> None:
    assert set(DEFAULT_BLOCKED) == {"conspiracy", "sycophant"} <= set(Attributes.builtin())


@pytest.mark.parametrize("name", DEFAULT_BLOCKED)
@pytest.mark.parametrize("weight", [3.0, -3.0])
@pytest.mark.parametrize("steer", ["logits", "prompt", "both"])
def test_a_blocked_weight_changes_no_bit(drift: Drift, name: str, weight: float, steer: str) -> None:
    with_it = drift.next_logprobs(ASK, weights={"concise": 1.0, name: weight}, steer=steer)  # type: ignore[arg-type]
    without = drift.next_logprobs(ASK, weights={"concise": 1.0}, steer=steer)  # type: ignore[arg-type]
    np.testing.assert_array_equal(with_it, without)
    allowed = drift.next_logprobs(ASK, weights={"concise": 1.0, name: weight}, steer=steer, blocked=())  # type: ignore[arg-type]
    if steer != "prompt" or weight > 0:
        assert np.abs(allowed - without).max() > 1e-3


def test_alone_it_leaves_the_llm_as_it_is_and_says_so(drift: Drift) -> None:
    answer = drift.complete(ASK, weights={"conspiracy": 2.0}, seed=1, max_tokens=8)
    assert (answer.mode, answer.weights) == ("off", {})
    assert answer.tokens == drift.complete(ASK, steer="off", seed=1, max_tokens=8).tokens
    steered = drift.complete(ASK, weights={"conspiracy": 2.0}, seed=1, max_tokens=8, blocked=())
    assert steered.weights == {"conspiracy": 2.0}
    events = list(drift.chat(ASK, weights={"sycophant": -1.0, "concise": 1.0}, max_tokens=1))
    told = [event.text for event in events if isinstance(event, Notice) and event.kind == "blocked"]
    assert told == ["blocked, so without weight in this answer: sycophant (--allow NAME lifts that)"]
    again = drift.chat(ASK, weights={"sycophant": -1.0}, max_tokens=1)
    assert not any(isinstance(event, Notice) and event.kind == "blocked" for event in again)
    zero = drift.chat(ASK, weights={"conspiracy": 0.0}, max_tokens=1)
    assert not any(isinstance(event, Notice) for event in zero)


def test_it_takes_no_place_among_the_active(drift: Drift) -> None:
    answer = drift.complete(ASK, weights={"conspiracy": 9.0, "vivid": 0.1}, active=1, seed=1, max_tokens=1)
    assert answer.weights == {"vivid": 0.1}
    own = drift.complete(ASK, weights={"vivid": 1.0, "concise": 1.0}, blocked=["vivid", "unheard-of"], max_tokens=1)
    assert own.weights == {"concise": 1.0}


@pytest.mark.parametrize("blocked", ["conspiracy", 3, [1]])
def test_what_is_no_list_of_names(drift: Drift, blocked: object) -> None:
    with pytest.raises(UsageError, match="blocked: expected names of attributes"):
        drift.chat(ASK, blocked=blocked)  # type: ignore[arg-type]
