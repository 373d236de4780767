"""The engine against recorded values of transformers in float32 (`make oracle` computes them anew)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from drift_edge import Attributes, Drift
from drift_edge.models import builtin_pair
from drift_edge.models.nano.convert import dequantise
from drift_edge.scoring import Scorer
from tests.oracle import (
    CASES,
    F16_TOKEN_BOUND,
    F32_BOUND,
    F32_SEQUENCE_BOUND,
    PAIRS,
    RECORDED,
    Case,
    compare,
    compare_scores,
)


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(RECORDED) as data:
        return dict(data)


@pytest.fixture(scope="module", params=["F32", "F16"])
def drift(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Drift:
    folder = tmp_path_factory.mktemp(request.param)
    twins: list[Path] = []
    for path in builtin_pair():
        twins.append(folder / path.name)
        dequantise(path, twins[-1], request.param)
    exact = {"cache_type": "f32", "flash_attn": "off"} if request.param == "F32" else {}
    with Drift.load(*twins, **exact) as drift:
        drift.bound = lambda case: F32_BOUND if request.param == "F32" else case.f16_bound()  # type: ignore[attr-defined]
        yield drift  # type: ignore[misc]


def test_recorded_values_belong_to_these_cases(recorded: dict[str, np.ndarray]) -> None:
    assert json.loads(str(recorded["cases"])) == [*(case.name for case in CASES), *PAIRS]
    assert sum(len(recorded[f"rows{i}"]) for i in range(len(CASES))) >= 50


@pytest.mark.parametrize("i", range(len(CASES)), ids=[case.name for case in CASES])
def test_fused_distribution_equals_the_oracle(i: int, drift: Drift, recorded: dict[str, np.ndarray]) -> None:
    case: Case = CASES[i]
    rows = drift.next_logprobs(case.messages, recorded[f"ids{i}"].tolist(), weights=case.weights, beta=case.beta)
    difference, wrong = compare(rows, recorded[f"rows{i}"])
    assert difference < drift.bound(case)  # type: ignore[attr-defined]
    assert wrong == 0


@pytest.mark.parametrize("i", range(len(PAIRS)), ids=list(PAIRS))
def test_scores_equal_the_oracle(i: int, drift: Drift, recorded: dict[str, np.ndarray]) -> None:
    kind = "F32" if drift.settings.cache_type == "f32" else "F16"
    with Scorer.for_pair(drift.pair, Attributes.builtin(), cache_type="f32") as scorer:
        scores = scorer.score(list(PAIRS.values())[i])
    by_sequence, by_token = compare_scores(scores, recorded[f"scores{i}_{kind}"], recorded[f"tokens{i}"])
    assert by_sequence < F32_SEQUENCE_BOUND if kind == "F32" else by_token < F16_TOKEN_BOUND
