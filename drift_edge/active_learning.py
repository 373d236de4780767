"""Active learning: the attribute whose answer would teach most about a person.

Whitening is a regression of the constant 1 on the leads d_j (see `approximation`), so it comes with a posterior: with
x_j = d_j / s, s the root mean square of all leads so far, and a prior that expects K attributes to share one unit of
variance, the covariance of the weights is P = (K I + sum_j x_j x_j^T)^-1. Two answers that differ in attribute i alone
are one more observation, x = `LEAD` e_i. It takes |P x|^2 / (1 + x^T P x) off the trace of P, whatever is chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from drift_edge.errors import UsageError
from drift_edge.statistics import Statistics

#: By how many root mean squares an answer led by an attribute leads in its reward (median of the built-in pair: 1.9).
LEAD = 2.0


@dataclass(frozen=True, slots=True)
class Probe:
    """An attribute to answer by, against an answer without it.

    Attributes:
        attribute: its name.
        gain: share of the variance of all weights that a choice takes away, in [0, 1].
    """

    attribute: str
    gain: float

    @property
    def weights(self) -> dict[str, float]:
        """What to steer the probing answer by: the attribute alone, so that nothing else tells the two apart."""
        return {self.attribute: 1.0}


def probes(
    statistics: Statistics,
    count: int = 1,
    *,
    asked: Mapping[str, int] | None = None,
    blocked: Collection[str] = (),
) -> tuple[Probe, ...]:
    """The attributes whose answers would teach most, the best first.

    Each is chosen as if those before it had been answered already. To ask most of a person, show the first two against
    each other (`experiments.asking`); to chat and learn a little, the first against the answer by the own weights.

    Args:
        statistics: of the pairs so far.
        count: how many probes.
        asked: how often each attribute has been probed; a tie leaves no trace in the statistics but here.
        blocked: attributes never to show.

    Returns:
        `count` probes, or one for every attribute that is not blocked; of equal ones, the order of the pool.

    Raises:
        UsageError: `count` is below 1, every attribute is blocked, or one of `asked` is unknown.
    """
    names = statistics.names
    allowed = [i for i, name in enumerate(names) if name not in blocked]
    if count < 1 or not allowed:
        raise UsageError(f"probes: expected 1 or more of 1 or more attributes, got {count} of {len(allowed)}")
    if unknown := sorted(set(asked or {}) - set(names)):
        raise UsageError(f"asked: {unknown[0]!r} is none of the attributes of these statistics")
    K = len(names)
    precision = K * np.eye(K)
    if mean_square := np.trace(statistics.sum_dd) / K / max(statistics.n, 1):
        precision += statistics.sum_dd / mean_square
    precision += LEAD**2 * np.diag([float((asked or {}).get(name, 0)) for name in names])
    P, found = np.linalg.inv(precision), list[Probe]()
    while allowed and len(found) < count:
        gains = LEAD**2 * (P**2).sum(axis=0) / (1 + LEAD**2 * np.diag(P))
        best = max(allowed, key=lambda i: round(gains[i] / gains.max(), 9))
        found.append(Probe(names[best], float(gains[best] / np.trace(P))))
        P -= LEAD**2 * np.outer(P[best], P[best]) / (1 + LEAD**2 * P[best, best])  # Sherman-Morrison
        allowed.remove(best)
    return tuple(found)
