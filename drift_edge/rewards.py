"""Rewards of one preference pair: what the sLM says of both responses under s_0 and every s_i (Section 3.1, Eq. 12)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType

import numpy as np
import numpy.typing as npt

from drift_edge.errors import UsageError

FloatArray = npt.NDArray[np.float64]

#: Tokens of a response that are scored at most: the paper's Table 6, which names no unit.
DEFAULT_TEXT_LENGTH = 500
#: What a response's summed log-probabilities are divided by, given its number of tokens. The paper's formula sums.
REDUCTIONS = {"sum": lambda _: 1.0, "mean": float, "sqrt": math.sqrt}


def check_text_length(tokens: object) -> int:
    """`tokens`, if it is a number of tokens of a response that can be scored.

    Raises:
        UsageError: not a whole number, or below 1.
    """
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise UsageError(f"text_length: expected 1 token or more, got {tokens!r:.60}")
    return tokens


def check_reduction(reduction: str) -> str:
    """`reduction`, one of `REDUCTIONS`.

    Raises:
        UsageError: any other.
    """
    if reduction not in REDUCTIONS:
        raise UsageError(f"reduction: expected one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    return reduction


@dataclass(frozen=True, slots=True, eq=False)
class PairScores:
    """log pi(y | x, s) of both responses of one pair, summed over tokens, in nats.

    Attributes:
        chosen: float64 (K+1,): of y_w under s_0, s_1..s_K; the end-of-turn token is included. NaN is an attribute that
            was not scored (`drift_edge.racing`).
        rejected: float64 (K+1,): of y_l alike.
        n_chosen: tokens of y_w that were scored.
        n_rejected: tokens of y_l that were scored.

    Raises:
        UsageError: the two are not of the same length, 2 or more; a number is not finite, but for attributes that are
            NaN in both; a count is below 1.
    """

    chosen: FloatArray
    rejected: FloatArray
    n_chosen: int
    n_rejected: int

    def __post_init__(self) -> None:
        for name in ("chosen", "rejected"):
            values = np.array(getattr(self, name), np.float64)  # a copy: nobody else can change it
            if values.ndim != 1 or len(values) < 2:
                raise UsageError(f"{name}: expected log-probabilities under s_0 and 1 or more s_i, got {values.shape}")
            values.flags.writeable = False
            object.__setattr__(self, name, values)
        if len(self.chosen) != len(self.rejected):
            raise UsageError(
                f"rejected: expected {len(self.chosen)} log-probabilities as for chosen, got {len(self.rejected)}"
            )
        left_out = np.isnan(self.chosen) & np.isnan(self.rejected)
        left_out[0] = False
        for name in ("chosen", "rejected"):
            values = getattr(self, name)
            if (wrong := ~(np.isfinite(values) | left_out)).any():
                raise UsageError(f"{name}: expected finite log-probabilities, got {values[wrong][0]}")
        for name in ("n_chosen", "n_rejected"):
            n = getattr(self, name)
            if not isinstance(n, int) or isinstance(n, bool) or n < 1:
                raise UsageError(f"{name}: expected a whole number of tokens, 1 or more, got {n!r}")

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """Which attributes were scored: bool (K,)."""
        return ~np.isnan(self.chosen[1:])

    def among(self, scored: npt.NDArray[np.bool_]) -> PairScores:
        """The same scores in a pool that has more attributes.

        Args:
            scored: bool (K,), of the larger pool: which attributes these scores are of, in its order.
        """
        wide = np.full((2, len(scored) + 1), np.nan)
        wide[:, [True, *scored]] = self.chosen, self.rejected
        return PairScores(wide[0], wide[1], self.n_chosen, self.n_rejected)

    def rewards(self, reduction: str = "sum") -> tuple[FloatArray, FloatArray]:
        """W and L, each float64 (K,): log pi(y | x, s_i) - log pi(y | x, s_0), reduced (Eq. 12).

        An attribute that was not scored has 0 in both: of this pair it says nothing.

        Raises:
            UsageError: `reduction` is not one of `REDUCTIONS`.
        """
        by = REDUCTIONS[check_reduction(reduction)]
        W = (self.chosen[1:] - self.chosen[0]) / by(self.n_chosen)
        L = (self.rejected[1:] - self.rejected[0]) / by(self.n_rejected)
        return np.where(self.scored, W, 0.0), np.where(self.scored, L, 0.0)

    def to_dict(self) -> dict[str, object]:
        """A JSON object, from which `from_dict` makes the same scores, bit for bit; null is what was not scored."""
        return {
            "chosen": [None if math.isnan(value) else value for value in self.chosen.tolist()],
            "rejected": [None if math.isnan(value) else value for value in self.rejected.tolist()],
            "n_chosen": self.n_chosen,
            "n_rejected": self.n_rejected,
        }

    @classmethod
    def from_dict(cls, data: object, at: str = "$") -> PairScores:
        """The scores of a JSON object.

        Args:
            data: what `to_dict` gave.
            at: its place, for messages.

        Raises:
            UsageError: a field is missing or wrong; names its place.
        """
        if not isinstance(data, Mapping):
            raise UsageError(f"at {at}: expected an object, got {type(data).__name__}")
        for name in ("chosen", "rejected"):
            values = data.get(name)
            if not isinstance(values, list) or not all(type(value) in (int, float, NoneType) for value in values):
                raise UsageError(f"at {at}.{name}: expected a list of numbers, got {values!r:.60}")
        try:
            chosen, rejected = (np.array(data[name], np.float64) for name in ("chosen", "rejected"))  # None becomes NaN
            return cls(chosen, rejected, data.get("n_chosen"), data.get("n_rejected"))  # type: ignore[arg-type]
        except UsageError as error:
            raise UsageError(f"at {at}.{error}") from error
        except OverflowError:  # a whole number too large for a double
            raise UsageError(f"at {at}: expected finite log-probabilities") from None
