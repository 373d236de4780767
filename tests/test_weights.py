"""Weights, beta and the active few: what is taken, and what is refused with which words."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from drift_edge.attributes import Attributes
from drift_edge.errors import DriftError, UsageError, WeightsError
from drift_edge.weights import check_beta, check_weights, load_weights, parse_weights, select_active

POOL = Attributes.builtin()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("concise=0.8", {"concise": 0.8}),
        ("concise=0.8,vivid=-0.3", {"concise": 0.8, "vivid": -0.3}),
        (" concise = .8 , vivid=-3e-1 ,", {"concise": 0.8, "vivid": -0.3}),
        ("concise=0", {"concise": 0.0}),
        ("concise=1000", {"concise": 1000.0}),
        ("old-fashioned=+1", {"old-fashioned": 1.0}),
    ],
)
def test_text(text: str, expected: dict[str, float]) -> None:
    assert parse_weights(text, POOL) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("concise", "expected NAME=NUMBER, found 'concise'"),
        ("concise=", "weight of 'concise': expected a number, got ''"),
        ("concise=much", "weight of 'concise': expected a number, got 'much'"),
        ("concise=nan", "weight of 'concise': expected a number within ±1000, got nan"),
        ("concise=inf", "within ±1000, got inf"),
        ("concise=-1000.1", "within ±1000, got -1000.1"),
        ("consise=1", "unknown attribute 'consise'; did you mean concise"),
        ("=1", "unknown attribute ''"),
        ("concise=1,concise=2", "'concise' occurs twice"),
        ("concise=1=2", "expected a number, got '1=2'"),
    ],
)
def test_text_that_is_wrong(text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        parse_weights(text, POOL)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"concise": "1"}, "expected a number within"),
        ({"concise": True}, "got True"),
        ({"concise": None}, "got None"),
        ({"concise": math.nan}, "got nan"),
        ({"concise": [1]}, r"got \[1\]"),
        ({5: 1.0}, "unknown attribute '5'"),
        ({None: 1.0}, "unknown attribute 'None'"),
        (["concise"], "weights: expected a dict of attribute names and numbers, got list"),
        ("concise=1", "got str"),
    ],
)
def test_dict_that_is_wrong(weights: Any, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        check_weights(weights, POOL)


def test_checked_weights_are_a_copy_of_floats() -> None:
    given = {"concise": 1, "vivid": -0.5}
    checked = check_weights(given, POOL)
    assert checked == {"concise": 1.0, "vivid": -0.5}
    assert isinstance(checked["concise"], float)
    checked["concise"] = 9.0
    assert given["concise"] == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"concise": 0.8}, {"concise": 0.8}),
        ({"weights": {"concise": 0.8, "vivid": -1}}, {"concise": 0.8, "vivid": -1.0}),
        ({"weights": {"concise": {"weight": 0.8, "stderr": 0.1}}}, {"concise": 0.8}),
        ({}, {}),
    ],
)
def test_file(content: object, expected: dict[str, float], tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert load_weights(path, POOL) == expected
    assert parse_weights(f"@{path}", POOL) == expected
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as editors on Windows save it
    assert load_weights(path, POOL) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b"[1]", r"at \$: expected an object {name: number}, got list"),
        (b"null", "got NoneType"),
        (b'{"concise": "much"}', r"at \$: weight of 'concise': expected a number"),
        (b'{"concise": NaN}', "got nan"),
        (b'{"weights": {"nice": 1}}', r"at \$.weights: unknown attribute 'nice'"),
        (b'{"weights": [1]}', "unknown attribute 'weights'"),
        (b" " * 1_000_001, "at most 1,000,000 bytes"),
    ],
)
def test_file_that_is_wrong(raw: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_bytes(raw)
    with pytest.raises(WeightsError, match=expected) as caught:
        load_weights(path, POOL)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 3


def test_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(WeightsError, match="cannot read the weights file"):
            load_weights(path, POOL)
    with pytest.raises(DriftError):
        load_weights("a\0b", POOL)


@pytest.mark.parametrize("beta", [0.5, 1, 1e-9, 1e9])
def test_beta(beta: float) -> None:
    assert check_beta(beta) == float(beta)


@pytest.mark.parametrize("beta", [0, -1, 1e-40, math.nan, math.inf, "0.5", None, True, [0.5]])
def test_beta_that_is_wrong(beta: Any) -> None:
    with pytest.raises(UsageError, match="beta: expected a number over 0"):
        check_beta(beta)


def test_active_are_the_largest() -> None:
    weights = {"formal": 0.1, "concise": -0.9, "vivid": 0.0, "humor": 0.5, "direct": -0.5}
    assert select_active(weights, 7) == {"concise": -0.9, "humor": 0.5, "direct": -0.5, "formal": 0.1}
    assert list(select_active(weights, 2)) == ["concise", "humor"]  # a tie keeps the order given
    assert list(select_active(dict(reversed(weights.items())), 2)) == ["concise", "direct"]
    assert select_active({}, 1) == {}


@pytest.mark.parametrize("most", [0, -1, 1.5, "2", None, True])
def test_active_that_is_wrong(most: Any) -> None:
    with pytest.raises(UsageError, match="active: expected a whole number"):
        select_active({"concise": 1.0}, most)
