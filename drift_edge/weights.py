"""Weights p: from a caller's dict, text or JSON file, checked, and cut to the active few; beta and strength."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path

from drift_edge.attributes import Attributes
from drift_edge.errors import UsageError, WeightsError

MAX_WEIGHT = 1_000.0
MIN_BETA = 1e-9  # the largest p/beta must leave float32 room for sums
#: Out of decoding until they are allowed: steering towards them is hardly ever what a person wants.
DEFAULT_BLOCKED = ("conspiracy", "sycophant")
_MAX_FILE = 1_000_000


def check_weights(weights: Mapping[str, object], attributes: Attributes) -> dict[str, float]:
    """A checked copy of `weights`.

    Raises:
        UsageError: an attribute is unknown, or a weight is not a finite number within ±1,000.
    """
    if not isinstance(weights, Mapping):
        raise UsageError(f"weights: expected a dict of attribute names and numbers, got {type(weights).__name__}")
    checked: dict[str, float] = {}
    for name, weight in weights.items():
        attributes.require(name)
        # Written so that NaN fails the comparison too.
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not abs(weight) <= MAX_WEIGHT:
            raise UsageError(f"weight of {name!r}: expected a number within ±{MAX_WEIGHT:g}, got {weight!r}")
        checked[name] = float(weight)
    return checked


def check_beta(beta: float) -> float:
    """`beta` as a float.

    Raises:
        UsageError: not a number of 1e-9 or more.
    """
    number = isinstance(beta, (int, float)) and not isinstance(beta, bool)
    if not number or not MIN_BETA <= beta < math.inf:
        raise UsageError(
            f"beta: expected a number over 0 and at least {MIN_BETA:g} (0.5 is the paper's; smaller steers more), "
            f"got {beta!r}"
        )
    return float(beta)


def check_strength(strength: float) -> float:
    """`strength` as a float.

    Raises:
        UsageError: not a number from 0 to 1.
    """
    number = isinstance(strength, (int, float)) and not isinstance(strength, bool)
    if not number or not 0 <= strength <= 1:
        raise UsageError(f"strength: expected a number from 0 (plain) to 1 (strongest), got {strength!r}")
    return float(strength)


def check_exclusive(beta: float | None, strength: float | None) -> None:
    """Raises UsageError where both are given."""
    if beta is not None and strength is not None:
        raise UsageError("beta and strength exclude each other: both say how strongly to steer")


def check_active(active: int) -> int:
    """`active`, the number of attributes that take part at most.

    Raises:
        UsageError: not a whole number, 1 or more.
    """
    if not isinstance(active, int) or isinstance(active, bool) or active < 1:
        raise UsageError(f"active: expected a whole number, 1 or more, got {active!r}")
    return active


def select_active(weights: Mapping[str, float], most: int) -> dict[str, float]:
    """The `most` attributes with the largest |p_i| (Section 3.2), in that order; weights of 0 are left out.

    Ties keep the order of `weights`. The kept weights are not rescaled.

    Raises:
        UsageError: `most` is not a whole number, 1 or more.
    """
    most = check_active(most)
    ranked = sorted((name for name, p in weights.items() if p), key=lambda name: -abs(weights[name]))
    return {name: weights[name] for name in ranked[:most]}


def check_names(names: Collection[str], what: str) -> Collection[str]:
    """Names of attributes, known or not.

    Raises:
        UsageError: not a list or set of texts.
    """
    if isinstance(names, str) or not isinstance(names, Collection) or not all(isinstance(n, str) for n in names):
        raise UsageError(f"{what}: expected names of attributes, got {names!r}")
    return names


def parse_weights(text: str, attributes: Attributes) -> dict[str, float]:
    """Weights from `a=0.8,b=-0.3` or `@FILE.json`.

    Raises:
        UsageError: a part is not NAME=NUMBER, a name is unknown or occurs twice, a number is out of range.
        WeightsError: the file cannot be used.
    """
    if text.startswith("@"):
        return load_weights(text[1:], attributes)
    weights: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise UsageError(f"weights: expected NAME=NUMBER, found {part!r} (as in concise=0.8,vivid=-0.3)")
        if name in weights:
            raise UsageError(f"weights: {name!r} occurs twice")
        try:
            weights[name] = float(number)
        except ValueError:
            raise UsageError(f"weight of {name!r}: expected a number, got {number!r}") from None
    return check_weights(weights, attributes)


def load_weights(path: str | Path, attributes: Attributes) -> dict[str, float]:
    """Weights from a JSON file: `{name: number}`, or an object whose `weights` is that; of a profile the active ones.

    Raises:
        WeightsError: unreadable, too large, not JSON, or a field of the wrong kind; names the file and the place.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights file: {error.strerror}") from error
    except ValueError as error:  # a path with a NUL in it
        raise WeightsError(f"{str(path)!r}: cannot read the weights file: {error}") from error
    if len(raw) > _MAX_FILE:
        raise WeightsError(f"{path}: a weights file may have at most {_MAX_FILE:,} bytes")
    try:
        data = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not valid JSON: {error}") from error
    at = "$"
    if isinstance(data, dict) and isinstance(data.get("weights"), dict):
        data, at = data["weights"], "$.weights"
    if not isinstance(data, dict):
        raise WeightsError(f"{path}: at {at}: expected an object {{name: number}}, got {type(data).__name__}")
    # What a profile does not let take part in decoding (blocked, or too weak) must not come back by its weight.
    entries = {name: value if isinstance(value, dict) else {"weight": value} for name, value in data.items()}
    weights = {name: entry.get("weight") for name, entry in entries.items() if entry.get("active", True)}
    try:
        return check_weights(weights, attributes)
    except UsageError as error:
        raise WeightsError(f"{path}: at {at}: {error}") from error
