"""Racing: attributes that can no longer become active are not scored any further.

After t of n pairs, v_i (p_i before it is scaled to length 1) still differs from what all n pairs would make it. Its
error has the covariance of `approximation.direction` times 1 - t/n, since only the pairs to come are unknown (sampling
without replacement: Bardenet & Maillard 2015). An attribute leaves the race once as many others as may be active are
ahead of it, each by z standard errors of |v_j| - |v_i|: a race as of Maron & Moore 1993, with normal bounds on paired
differences in place of Hoeffding's. That the pairs come in no particular order is assumed.

`experiments.racing` measures what that saves, and how often the active attributes are other ones.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from drift_edge.approximation import check_estimator, direction
from drift_edge.errors import UsageError
from drift_edge.rewards import FloatArray, PairScores, check_reduction
from drift_edge.statistics import Statistics
from drift_edge.weights import check_active

#: Estimators that make each attribute's weight from its own rewards. The others need all of them: with whitening, an
#: attribute that is dropped changes the weights of those that stay.
RACING_ESTIMATORS = frozenset({"closed-form", "standardised", "shrunken"})
DEFAULT_CONFIDENCE = 0.99
LEAST_PAIRS = 8  # before it, standard errors are too rough to decide by


class Race:
    """Which attributes are still to be scored.

    Args:
        statistics: of the pairs before, which nobody changes here; attributes dropped in an earlier race start again.
        to_come: pairs that will be added, at most.
        estimator: how weights are made; one of `RACING_ESTIMATORS`.
        reduction: how rewards are.
        active: m, how many attributes may be active.
        blocked: attributes that will not be.
        pinned: attributes that are always scored.
        confidence: of each comparison of two attributes, from 0.5 to below 1.

    Attributes:
        racing: bool (K,): which attributes are still scored.

    Raises:
        UsageError: an argument is out of range.
    """

    def __init__(
        self,
        statistics: Statistics,
        to_come: int,
        *,
        estimator: str = "closed-form",
        reduction: str = "sum",
        active: int = 7,
        blocked: Collection[str] = (),
        pinned: Collection[str] = (),
        confidence: float = DEFAULT_CONFIDENCE,
    ) -> None:
        if check_estimator(estimator) not in RACING_ESTIMATORS:
            raise UsageError(
                f"the estimator {estimator!r} makes each weight from the rewards of all attributes: no race"
            )
        if not 0.5 <= confidence < 1:
            raise UsageError(f"confidence: expected a number from 0.5 to below 1, got {confidence!r}")
        self._statistics, self._n = deepcopy(statistics), statistics.pairs + to_come
        self._estimator, self._reduction = estimator, check_reduction(reduction)
        self._active = check_active(active)
        self._names = np.array(statistics.names)
        self._allowed, self._kept = ~np.isin(self._names, list(blocked)), np.isin(self._names, list(pinned))
        self._z = NormalDist().inv_cdf(confidence)
        self.racing: NDArray[np.bool_] = np.ones(len(self._names), bool)
        self._drop()

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes to score, in the order of the pool."""
        return tuple(self._names[self.racing].tolist())

    def add(self, scores: PairScores) -> None:
        """Count a pair, scored under `names` or more, and drop whatever has lost.

        Raises:
            UsageError: scores of another number of attributes.
        """
        self._statistics.add(*scores.rewards(self._reduction), scored=scores.scored)
        self._drop()

    def _drop(self) -> None:
        t = self._statistics.pairs
        if LEAST_PAIRS <= t < self._n:
            v, covariance = direction(self._statistics, self._estimator)
            lost = beaten(v, covariance * (1 - t / self._n), self.racing & self._allowed, self._active, self._z)
            self.racing = self.racing & (self._kept | ~lost)


def beaten(v: FloatArray, covariance: FloatArray, rivals: NDArray[np.bool_], m: int, z: float) -> NDArray[np.bool_]:
    """Which attributes have `m` rivals ahead of them, each by more than `z` standard errors of the difference.

    Args:
        v: float64 (K,), what is compared by size.
        covariance: float64 (K, K), of the errors of v.
        rivals: bool (K,), who counts as being ahead.
        m: 1 or more.
        z: 0 or more.

    Returns:
        bool (K,).
    """
    size, sign = np.abs(v), np.sign(v)
    covariance = covariance * np.outer(sign, sign)
    variances = np.diag(covariance)
    error = np.sqrt(np.maximum(variances[:, None] + variances - 2 * covariance, 0))
    ahead = size - size[:, None] > z * error  # [i, j]: j is ahead of i
    lost: NDArray[np.bool_] = ahead[:, rivals].sum(axis=1) >= m
    return lost
