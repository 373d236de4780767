"""What a person sets in a profile, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from drift_edge.approximation import check_estimator
from drift_edge.errors import UsageError
from drift_edge.rewards import check_reduction
from drift_edge.weights import DEFAULT_BLOCKED, MAX_WEIGHT, check_active, check_beta, check_strength


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a person sets.

    Attributes:
        reduction: of the rewards (`rewards.REDUCTIONS`).
        estimator: of the weights (`approximation.ESTIMATORS`).
        beta: of Eq. 15, where no strength is set.
        strength: how far steering may go (`drift_edge.fusion`); None leaves it to beta.
        active: how many attributes take part in decoding at most.
        sure: of how many standard errors a learned weight has to be to take part; where none is, the surest one does.
        renormalise: whether the active weights are scaled to length 1, but for those set by hand, so that a profile
            steers as far with few active attributes as with many.
        half_life: in choices, after which one counts half; None counts all alike.
        pinned: attributes always among the active.
        blocked: attributes never in decoding, known or not.
        fixed: weights set by hand, over those learned.
        journal: whether the choices themselves are kept.

    Raises:
        UsageError: a value is wrong; the message begins with the field's name.
    """

    reduction: str = "sum"
    estimator: str = "whitened"
    beta: float = 0.5
    strength: float | None = None
    active: int = 7
    sure: float = 2.0
    renormalise: bool = True
    half_life: float | None = None
    pinned: tuple[str, ...] = ()
    blocked: tuple[str, ...] = DEFAULT_BLOCKED
    fixed: Mapping[str, float] = field(default_factory=dict)
    journal: bool = True

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            try:
                check(value)
            except (TypeError, OverflowError):  # no dict has a list among its keys, and no double holds 10^400
                raise UsageError(f"{name}: expected another kind of value, got {value!r:.60}") from None

    @property
    def steering(self) -> tuple[float | None, float | None]:
        """Beta and strength as `Drift.chat` takes them: the one that holds, and None."""
        return (self.beta, None) if self.strength is None else (None, self.strength)


def _check_strength(value: Any) -> None:
    if value is not None:
        check_strength(value)


def _check_sure(value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and 0 <= value < math.inf):
        raise UsageError(f"sure: expected a number of standard errors, 0 or more, got {value!r:.60}")


def _check_half_life(value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (number and math.isfinite(value) and value >= 1):
        raise UsageError(f"half_life: expected a number of choices, 1 or more, or none, got {value!r:.60}")


def _check_fixed(value: Any) -> None:
    if not isinstance(value, Mapping):
        raise UsageError(f"fixed: expected weights by attribute, got {type(value).__name__}")
    for name, weight in value.items():
        # Written so that NaN fails the comparison too.
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not abs(weight) <= MAX_WEIGHT:
            raise UsageError(f"fixed.{name}: expected a number within ±{MAX_WEIGHT:g}, got {weight!r:.60}")


def _switch(name: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if not isinstance(value, bool):
            raise UsageError(f"{name}: expected true or false, got {value!r:.60}")

    return check


def _names(name: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{name}: expected names of attributes, got {type(value).__name__}")
        for i, item in enumerate(value):
            if not isinstance(item, str):
                raise UsageError(f"{name}[{i}]: expected the name of an attribute, got {item!r:.60}")

    return check


_CHECKS: Mapping[str, Callable[[Any], object]] = {
    "reduction": check_reduction,
    "estimator": check_estimator,
    "beta": check_beta,
    "strength": _check_strength,
    "active": check_active,
    "sure": _check_sure,
    "renormalise": _switch("renormalise"),
    "half_life": _check_half_life,
    "pinned": _names("pinned"),
    "blocked": _names("blocked"),
    "fixed": _check_fixed,
    "journal": _switch("journal"),
}
