"""Statistics: the few sums that a profile keeps of its preference pairs.

Every estimate that needs no single pair is made from them (Algorithm 1). One more pair is added in O(K^2), whatever the
number of pairs before it. The sums are kept to twice the working precision, so that a removed pair leaves no trace: in
plain doubles, taking one answer of 500 nats out of six moved whitened weights by 2e-12, and one of 5,000 by 2e-10.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from drift_edge.errors import UsageError
from drift_edge.rewards import FloatArray

MAX_REWARD = 1e9  # nats
_MAX_SUM = 1e40  # more than any number of pairs can come to; its square is still far from infinity
_SUMS = ("sum_w", "sum_d", "sum_dd")


class Statistics:
    """Running sums over preference pairs, with d = W - L of a pair.

    Args:
        names: of the K attributes, in the order of all arrays.

    Attributes:
        names: as given.
        pairs: how many pairs were added and not removed; ties are not among them.
        ties: how many choices said that neither answer is better.
        n: sum of the pairs' weights; equals `pairs` as long as nothing decays.
        n_squared: sum of the pairs' squared weights.
        unscored: float64 (K,), sum of the weights of the pairs in which an attribute was not scored (one that
            `drift_edge.racing` has dropped); it adds nothing to the sums there.

    Raises:
        UsageError: no name, or one occurs twice.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        if not self.names or len(set(self.names)) != len(self.names):
            raise UsageError(f"names: expected 1 or more different attributes, got {list(self.names)!r}")
        K = len(self.names)
        self.pairs = self.ties = 0
        self.n = self.n_squared = 0.0
        self.unscored = np.zeros(K)
        # Each sum is high + low, the sum in doubles and what its roundings have lost.
        self._high = {"sum_w": np.zeros(K), "sum_d": np.zeros(K), "sum_dd": np.zeros((K, K))}
        self._low = {name: np.zeros_like(high) for name, high in self._high.items()}

    @classmethod
    def of(cls, names: Sequence[str], W: npt.ArrayLike, L: npt.ArrayLike) -> Statistics:
        """Statistics of the pairs whose rewards are the rows of `W` and `L`, each (n, K).

        Raises:
            UsageError: see `check_rewards`.
        """
        statistics = cls(names)
        W, L = check_rewards(W, L, len(statistics.names))
        D = W - L
        statistics.pairs = len(D)
        statistics.n = statistics.n_squared = float(len(D))
        for name, total in (("sum_w", W.sum(axis=0)), ("sum_d", D.sum(axis=0)), ("sum_dd", D.T @ D)):
            statistics._high[name][...] = total
        return statistics

    # -- change

    def add(
        self, W: npt.ArrayLike, L: npt.ArrayLike, times: float = 1.0, *, scored: npt.NDArray[np.bool_] | None = None
    ) -> None:
        """Count one pair, `times` times.

        Args:
            W: (K,), rewards of the chosen response, nats.
            L: (K,), of the rejected one.
            times: the pair's weight, over 0.
            scored: bool (K,), which attributes were scored; None is all. The others' rewards must be 0.

        Raises:
            UsageError: wrong shape or out of range; nothing is counted.
        """
        self._change(W, L, _positive(times, "times"), scored)

    def remove(
        self, W: npt.ArrayLike, L: npt.ArrayLike, times: float = 1.0, *, scored: npt.NDArray[np.bool_] | None = None
    ) -> None:
        """Take out a pair that was added with these rewards; `times` is what its weight has decayed to.

        Without decay all is then as if the pair had never been added, to rounding.

        Raises:
            UsageError: wrong shape or out of range, or there is no pair to remove; nothing is changed.
        """
        if not self.pairs:
            raise UsageError("there is no pair to remove from the statistics")
        self._change(W, L, -_positive(times, "times"), scored)
        if not self.pairs:
            self.n = self.n_squared = 0.0
            for array in self._arrays():
                array[...] = 0.0

    def _arrays(self) -> tuple[FloatArray, ...]:
        return (self.unscored, *self._high.values(), *self._low.values())

    def _change(self, W: npt.ArrayLike, L: npt.ArrayLike, times: float, scored: npt.NDArray[np.bool_] | None) -> None:
        W, L = check_rewards(np.atleast_2d(W), np.atleast_2d(L), len(self.names))
        if len(W) != 1:
            raise UsageError(f"rewards: expected one pair, got {len(W)}")
        if scored is not None:
            if scored.shape != self.unscored.shape or W[0, ~scored].any() or L[0, ~scored].any():
                raise UsageError("scored: expected one truth value an attribute, and rewards of 0 for the others")
            self.unscored[~scored] = np.maximum(self.unscored[~scored] + times, 0.0)  # no rounding below 0
        d = W[0] - L[0]
        for name, x in (("sum_w", W[0]), ("sum_d", d), ("sum_dd", np.outer(d, d))):
            self._high[name], lost = _two_sum(self._high[name], times * x)
            self._low[name] += lost
        self.pairs += 1 if times > 0 else -1
        self.n += times
        self.n_squared += times * abs(times)

    def add_tie(self, times: int = 1) -> None:
        """Count a choice that said neither; -1 takes it back. Nothing but `ties` changes.

        Raises:
            UsageError: there would be less than none.
        """
        if self.ties + times < 0:
            raise UsageError("there is no tie to remove from the statistics")
        self.ties += times

    def decay(self, half_life: float) -> None:
        """Let every pair so far weigh less, by the half-life in pairs: call it before adding the next pair.

        Raises:
            UsageError: `half_life` is not over 0.
        """
        factor = 0.5 ** (1 / _positive(half_life, "half_life"))
        self.n *= factor
        self.n_squared *= factor**2
        for array in self._arrays():
            array *= factor

    # -- read

    def _sum(self, name: str) -> FloatArray:
        return self._high[name] + self._low[name]

    @property
    def sum_w(self) -> FloatArray:
        """sum_j W_j: float64 (K,)."""
        return self._sum("sum_w")

    @property
    def sum_l(self) -> FloatArray:
        """sum_j L_j: float64 (K,)."""
        return self._sum("sum_w") - self._sum("sum_d")

    @property
    def sum_d(self) -> FloatArray:
        """sum_j (W_j - L_j): float64 (K,)."""
        return self._sum("sum_d")

    @property
    def sum_dd(self) -> FloatArray:
        """sum_j d_j d_j^T: float64 (K, K)."""
        return self._sum("sum_dd")

    @property
    def n_scored(self) -> FloatArray:
        """By attribute, the sum of the weights of the pairs in which it was scored: float64 (K,)."""
        return np.maximum(self.n - self.unscored, 0.0)

    def mean(self, total: FloatArray) -> FloatArray:
        """One of the sums by the pairs in which each attribute was scored; 0 where there are none: float64 (K,)."""
        mean: FloatArray = np.divide(total, self.n_scored, out=np.zeros_like(total), where=self.n_scored > 0)
        return mean

    @property
    def preference(self) -> FloatArray:
        """Mean W - L by attribute, float64 (K,): the paper's unit implicit preference (Figure 6); 0 without pairs."""
        return self.mean(self.sum_d)

    @property
    def n_effective(self) -> float:
        """How many pairs of equal weight would tell as much: n^2 / sum of squared weights."""
        return self.n**2 / self.n_squared if self.n_squared else 0.0

    # -- JSON

    def to_dict(self) -> dict[str, object]:
        """A JSON value from which `from_dict` makes the same statistics, bit for bit.

        Each sum is `{"high": […], "low": […]}`, whose sum it is; of sum_dd, row by row, what is on and below the
        diagonal. `unscored` is there only where it is not 0.
        """
        data: dict[str, object] = {"names": list(self.names), "pairs": self.pairs, "ties": self.ties}
        data |= {"n": self.n, "n_squared": self.n_squared}
        data |= {"unscored": self.unscored.tolist()} if self.unscored.any() else {}
        for name in _SUMS:
            parts = {"high": self._high[name], "low": self._low[name]}
            data[name] = {part: _flat(x).tolist() for part, x in parts.items()}
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, object], at: str = "$") -> Statistics:
        """Statistics from what `to_dict` gave.

        Args:
            data: the JSON value.
            at: where it stands, for messages.

        Raises:
            UsageError: a field is missing or of the wrong kind, length or sign; names its place.
        """
        names = data.get("names") if isinstance(data, Mapping) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UsageError(f"at {at}.names: expected a list of attribute names, got {names!r}")
        statistics = cls(names)
        for key in ("pairs", "ties"):
            count = data.get(key)
            if not isinstance(count, int) or isinstance(count, bool) or count < 0:
                raise UsageError(f"at {at}.{key}: expected a whole number, 0 or more, got {count!r}")
            setattr(statistics, key, count)
        for key in ("n", "n_squared"):
            value = _number(data.get(key), f"{at}.{key}")
            if value < 0 or (value > 0) != (statistics.pairs > 0):
                raise UsageError(f"at {at}.{key}: expected a number that fits {statistics.pairs} pairs, got {value!r}")
            setattr(statistics, key, value)
        K = len(statistics.names)
        statistics.unscored = _numbers(data.get("unscored", [0.0] * K), K, f"{at}.unscored")
        if (statistics.unscored < 0).any() or (statistics.unscored > statistics.n * (1 + 1e-9)).any():
            raise UsageError(f"at {at}.unscored: expected numbers from 0 to n, {statistics.n:g}")
        rows, columns = np.tril_indices(K)
        for key in _SUMS:
            parts = data.get(key)
            if not isinstance(parts, Mapping):
                raise UsageError(f"at {at}.{key}: expected an object with 'high' and 'low', got {type(parts).__name__}")
            for part, sums in (("high", statistics._high), ("low", statistics._low)):
                place = f"{at}.{key}.{part}"
                if key == "sum_dd":
                    sums[key][rows, columns] = sums[key][columns, rows] = _numbers(parts.get(part), len(rows), place)
                else:
                    sums[key] = _numbers(parts.get(part), K, place)
        least, *_, most = np.linalg.eigvalsh(statistics.sum_dd) if K > 1 else statistics.sum_dd[0, [0, 0]]
        if least < -1e-9 * abs(most):
            raise UsageError(f"at {at}.sum_dd: expected a sum of d d^T, found a negative eigenvalue, {least:g}")
        return statistics


def check_rewards(W: npt.ArrayLike, L: npt.ArrayLike, K: int) -> tuple[FloatArray, FloatArray]:
    """`W` and `L` as float64 (n, K).

    Raises:
        UsageError: not of the same shape (n, K), or a number is not within ±`MAX_REWARD`.
    """
    checked = []
    for name, rewards in (("W", W), ("L", L)):
        try:
            array = np.asarray(rewards, np.float64)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{name}: expected rewards as numbers, got {type(rewards).__name__}: {error}") from None
        if array.ndim != 2 or array.shape[1] != K:
            raise UsageError(f"{name}: expected rewards of shape (pairs, {K} attributes), got {array.shape}")
        fine = np.abs(array) <= MAX_REWARD  # written so that NaN is not
        if not fine.all():
            raise UsageError(f"{name}: expected rewards within ±{MAX_REWARD:g} nats, got {array[~fine][0]}")
        checked.append(array)
    if len(checked[0]) != len(checked[1]):
        raise UsageError(f"rewards: expected as many rows in W as in L, got {len(checked[0])} and {len(checked[1])}")
    return checked[0], checked[1]


def _flat(sums: FloatArray) -> FloatArray:
    """A vector as it is; of a symmetric matrix what is on and below the diagonal, row by row."""
    if sums.ndim == 1:
        return sums
    return np.concatenate([row[: i + 1] for i, row in enumerate(sums)])


def _two_sum(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """a + b in doubles and exactly what its rounding lost (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _positive(value: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise UsageError(f"{name}: expected a number over 0, got {value!r}")
    return float(value)


def _numbers(values: object, n: int, at: str) -> FloatArray:
    if not isinstance(values, list) or len(values) != n:
        found = f"{len(values)}" if isinstance(values, list) else type(values).__name__
        raise UsageError(f"at {at}: expected a list of {n} numbers, got {found}")
    return np.array([_number(value, f"{at}[{i}]") for i, value in enumerate(values)])


def _number(value: object, at: str) -> float:
    # Written so that NaN fails the comparison too.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _MAX_SUM:
        raise UsageError(f"at {at}: expected a number within ±{_MAX_SUM:g}, got {value!r}")
    return float(value)
