"""Active learning: which attributes or answers to show, so that a choice teaches most about a person.

To ask questions, two attributes are shown against each other (`Duels`). To learn a little in a chat, where one answer
is by the person's own weights, the other is by the attribute that would tell most (`probes`). Where there are pairs of
answers already, `gains` tells which to ask about.

Whitening is a regression of the constant 1 on the leads d_j (see `approximation`), so it comes with a posterior: with
x_j = d_j / s, s the root mean square of all leads so far, and a prior that expects K attributes to share one unit of
variance, the covariance of the weights is P = (K I + sum_j x_j x_j^T)^-1. Two answers that differ in attribute i alone
are one more observation, x = `LEAD` e_i. It takes |P x|^2 / (1 + x^T P x) off the trace of P, whatever is chosen.

Of pairs at hand, with Q the mean of their x x^T, trace(P Q) is how unsure their leads are on average; a choice takes
x^T P Q P x / (1 + x^T P x) off it (Cohn, Ghahramani and Jordan 1996). What is foreseen teaches little, which that does
not see: in a logistic regression a pair counts for c (1 - c), c being its chance to be chosen (MacKay 1992).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drift_edge.errors import UsageError
from drift_edge.rewards import FloatArray
from drift_edge.statistics import Statistics, check_rewards

#: By how many root mean squares an answer led by an attribute leads in its reward (median of the built-in pair: 1.9).
LEAD = 2.0

#: c = 1 / (1 + exp(-`SLOPE` x^T v)), v being what whitening makes of the pairs so far. Tried on personas: 4, 8 and 16.
SLOPE = 8.0

#: As how many duels one counts, since a rematch would mostly end the same way. Tried on personas: 1, 2, 3 and 4.
COUNTS = 2.0


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

    Each is chosen as if those before it had been answered already.

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
    precision, _ = _precision(statistics)
    precision += LEAD**2 * np.diag([float((asked or {}).get(name, 0)) for name in names])
    P, found = np.asarray(np.linalg.inv(precision), np.float64), list[Probe]()
    each = np.eye(len(names))
    while allowed and len(found) < count:
        taken = _taken(P, LEAD * each, each)
        best = max(allowed, key=lambda i: round(taken[i] / taken.max(), 9))
        found.append(Probe(names[best], float(taken[best] / np.trace(P))))
        P -= LEAD**2 * np.outer(P[best], P[best]) / (1 + LEAD**2 * P[best, best])  # Sherman-Morrison
        allowed.remove(best)
    return tuple(found)


def gains(statistics: Statistics, leads: npt.ArrayLike, *, tied: npt.ArrayLike | None = None) -> FloatArray:
    """What it would teach about all of several pairs to have one judged: the highest is the one to ask about.

    Args:
        statistics: of the pairs so far.
        leads: (n, K), W - L of each pair that could be asked about, either way round, nats.
        tied: (m, K), leads of those that were ties, which leave no trace in the statistics but here.

    Returns:
        float64 (n,): the share of trace(P Q) that a choice takes away, times 4 c (1 - c), in [0, 1]; 0 where all leads
        are 0.

    Raises:
        UsageError: wrong shapes or numbers.
    """
    K = len(statistics.names)
    D, T = (check_rewards(x, np.zeros(np.shape(x)), K)[0] for x in (leads, np.empty((0, K)) if tied is None else tied))
    precision, unit = _precision(statistics)
    # Without a pair so far, the unit is that of the pairs at hand.
    unit = unit or (float(np.sqrt((D**2).mean())) if D.any() else 1.0)
    P = np.asarray(np.linalg.inv(precision + T.T @ T / unit**2), np.float64)
    X = D / unit
    Q = X.T @ X / max(len(X), 1)
    foreseen = np.tanh(SLOPE / 2 * X @ (P @ statistics.sum_d / unit))  # 2 c - 1
    unsure = float(np.trace(P @ Q)) or 1.0
    found: FloatArray = (1 - foreseen**2) * _taken(P, X, Q) / unsure
    return found


def _precision(statistics: Statistics) -> tuple[FloatArray, float]:
    """The inverse of P, and the root mean square s of all leads so far, 0 without any: float64 (K, K), nats."""
    K = len(statistics.names)
    precision = K * np.eye(K)
    if mean_square := float(np.trace(statistics.sum_dd)) / K / max(statistics.n, 1):
        precision += statistics.sum_dd / mean_square
    return precision, float(np.sqrt(mean_square))


def _taken(P: FloatArray, X: FloatArray, Q: FloatArray) -> FloatArray:
    """By how much each row of X, observed, lessens trace(P Q): float64 (n,)."""
    PX = X @ P
    taken: FloatArray = (PX @ Q * PX).sum(axis=1) / (1 + (PX * X).sum(axis=1))
    return taken


def on_top(learned: Mapping[str, float], attribute: str) -> dict[str, float]:
    """Weights to steer an answer of a duel by: an attribute at full weight, on top of what is learned.

    What is sure already then shows in both answers and decides no more between them. Else one attribute that a person
    likes very much wins every duel, and nothing is learned of the rest.

    Args:
        learned: the person's weights so far, the active few.
        attribute: the one to show.
    """
    others = {name: weight for name, weight in learned.items() if name != attribute}
    return {**others, attribute: learned.get(attribute, 0.0) + 1.0}


class Duels:
    """Which two attributes to show against each other next, by who won the duels before.

    Thompson sampling (Thompson 1933; Chapelle and Li 2011) of an attribute's Borda score, its chance to win a duel
    against another: after w wins and l losses that is Beta(1 + c w, 1 + c l), a tie being half of each, c = `COUNTS`.
    A chance is drawn for every attribute, and the two highest are shown. So those are shown again that a person may
    like best, against one another: what is learned is surest where the answers will be.

    The outcomes serve to choose questions only. Weights are made of the rewards of what was shown.

    Args:
        names: of the attributes.
        seed: of the drawings.

    Raises:
        UsageError: no name, or one occurs twice.
    """

    def __init__(self, names: Sequence[str], seed: int) -> None:
        if not names or len(set(names)) != len(names):
            raise UsageError(f"names: expected 1 or more different attributes, got {list(names)!r}")
        self._won, self._lost = (dict.fromkeys(names, 0.0) for _ in range(2))
        self._rng = np.random.default_rng(seed)

    def draw(self, *, blocked: Collection[str] = (), unseen: bool = False) -> tuple[str, ...]:
        """The two attributes to show; the only one, where all others are blocked.

        Args:
            blocked: attributes never to show.
            unseen: those that were in no duel yet come first.

        Raises:
            UsageError: every attribute is blocked.
        """
        allowed = [name for name in self._won if name not in blocked]
        if not allowed:
            raise UsageError(f"blocked: expected 1 attribute or more that is not, got all {len(self._won)}")
        won, lost = (np.array([outcome[name] for name in allowed]) for outcome in (self._won, self._lost))
        chances = self._rng.beta(1 + COUNTS * won, 1 + COUNTS * lost) + (unseen & (won + lost == 0))
        return tuple(allowed[i] for i in np.argsort(-chances)[:2])

    def note(self, winner: str, loser: str, *, tie: bool = False) -> None:
        """Count a duel's outcome.

        Args:
            winner, loser: attributes; either way round where it is a tie.
            tie: both answers were equally good.

        Raises:
            UsageError: an attribute is unknown, or they are the same.
        """
        for name in (winner, loser):
            if name not in self._won:
                raise UsageError(f"{name!r} is none of the attributes of these duels")
        if winner == loser:
            raise UsageError(f"a duel is between two attributes, got {winner!r} twice")
        share = 0.5 if tie else 1.0
        for name, won in ((winner, share), (loser, 1 - share)):
            self._won[name] += won
            self._lost[name] += 1 - won
