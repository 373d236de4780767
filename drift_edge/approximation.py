"""Drift Approximation: from preference pairs to the weights p of the attributes (Section 3.1, Algorithm 1).

With d_j = W_j - L_j the rewards by which pair j's chosen response leads, the paper's p has a closed form:
arg max of (sum_j d_j)^T p over |p| = 1 is sum_j d_j, scaled. The other estimators weigh the same rewards otherwise.
Every p has length 1, or is 0 with the reason told.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drift_edge.errors import UsageError
from drift_edge.rewards import FloatArray
from drift_edge.statistics import Statistics, check_rewards
from drift_edge.weights import check_active, select_active

#: What each estimator does, those that need statistics alone first. The numbers were set by `experiments.personas`.
ESTIMATORS: Mapping[str, str] = {
    "closed-form": "the paper's: p = sum d / |sum d| (Eq. 12)",
    "whitened": "what all attributes have in common divided out: p ∝ (C + λI)⁻¹ d, C = mean of d dᵀ",
    "standardised": "closed-form, each attribute's rewards brought to the same size",
    "shrunken": "closed-form, each mean lead cut by a multiple of its standard error; weak weights become 0",
    "ridge-bt": "Bradley-Terry: logistic regression on the leads, with a ridge",
    "absolute": "the paper's baseline (Figure 5): logistic regression on labels, chosen 1 and rejected 0",
}
PAIR_ESTIMATORS = frozenset({"ridge-bt", "absolute"})

#: How much each estimator is held back; the others have nothing to set.
#: whitened: λ in units of trace(C) / K. shrunken: standard errors cut. ridge-bt, absolute: ridge, rewards at unit rms.
REGULARISATION: Mapping[str, float] = {"whitened": 1.0, "shrunken": 0.5, "ridge-bt": 3.0, "absolute": 3.0}

_NEEDS_TWO = frozenset({"standardised", "shrunken"})
_EMPTY = "there is no pair yet"
_EQUAL = "all rewards of the chosen and the rejected answers are equal"
_CANCEL = "the pairs cancel each other out"


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """Weights and how sure they are.

    Attributes:
        names: of the attributes, in the order of the arrays.
        weights: p, float64 (K,), of length 1 or all 0.
        standard_errors: float64 (K,), by the delta method; NaN where there are fewer than 2 pairs, or p is 0.
        estimator: which one made it.
        why_zero: why p is 0; empty if it is not.
    """

    names: tuple[str, ...]
    weights: FloatArray
    standard_errors: FloatArray
    estimator: str
    why_zero: str = ""

    def as_dict(self) -> dict[str, float]:
        """The weights by name."""
        return dict(zip(self.names, self.weights.tolist(), strict=True))


def check_estimator(estimator: str) -> str:
    """`estimator`, one of `ESTIMATORS`.

    Raises:
        UsageError: any other.
    """
    if estimator not in ESTIMATORS:
        raise UsageError(f"estimator: expected one of {', '.join(ESTIMATORS)}, got {estimator!r}")
    return estimator


def estimate(
    statistics: Statistics, estimator: str = "closed-form", *, regularisation: float | None = None
) -> Estimate:
    """Weights from running statistics alone.

    The standard errors are those of p = v / |v| by the delta method, from the covariance S of the mean lead m: the
    roots of the diagonal of J T S T^T J^T, v = T m, J = (I - p p^T) / |v|. T is taken as given, which is exact for the
    paper's estimator and errs a little upwards for `standardised`; `shrunken` has the errors of what it cuts. Whitening
    is a ridge regression of the constant 1 on d_j, so there S is scaled by its mean squared residual, over n less the
    effective degrees of freedom trace(C T) (Hastie, Tibshirani and Friedman 2009, Section 3.4.1).

    Args:
        statistics: of the pairs.
        estimator: one of `ESTIMATORS` but not of `PAIR_ESTIMATORS`.
        regularisation: instead of the estimator's `REGULARISATION`.

    Raises:
        UsageError: unknown estimator, one that needs the pairs themselves, or a regularisation out of range.
    """
    if check_estimator(estimator) in PAIR_ESTIMATORS:
        raise UsageError(f"the estimator {estimator!r} needs the pairs themselves, not only their statistics")
    _strength(estimator, regularisation)  # checked even where there is nothing to estimate
    names, n = statistics.names, statistics.n_effective
    if not statistics.pairs:
        return _zero(names, estimator, _EMPTY)
    if not statistics.sum_dd.any():
        return _zero(names, estimator, _EQUAL)
    if estimator in _NEEDS_TWO and statistics.pairs < 2:
        return _zero(names, estimator, f"the estimator {estimator!r} needs 2 pairs or more, there is 1")
    v, covariance = direction(statistics, estimator, regularisation=regularisation)
    why_zero = "no attribute leads by more than chance" if estimator == "shrunken" else _CANCEL
    return _on_sphere(names, v, covariance if n > 1 else None, estimator, why_zero)


def direction(
    statistics: Statistics, estimator: str = "closed-form", *, regularisation: float | None = None
) -> tuple[FloatArray, FloatArray]:
    """What p is before it is scaled to length 1, and its covariance, as `estimate` describes it.

    Args:
        statistics: of one pair or more.
        estimator, regularisation: as for `estimate`.

    Returns:
        float64 (K,) and (K, K).
    """
    strength = _strength(estimator, regularisation)
    n, m, K = statistics.n_effective, statistics.preference, len(statistics.names)
    # An attribute that was not scored in every pair has its mean over those in which it was, and so has its d^2. To its
    # products with others the same factors apply, which leaves C without negative eigenvalues. A covariance is that of
    # the pairs in which both were scored, as if the rarer one's were among the other's.
    each = statistics.n_scored
    rarer, both = np.sqrt(statistics.n * _inverse(each)), np.minimum.outer(each, each)
    C = statistics.sum_dd / statistics.n * np.outer(rarer, rarer)
    S = statistics.sum_dd * _inverse(both) - np.outer(m, m)
    S *= statistics.n * _inverse(np.maximum.outer(each, each)) / max(n - 1, 1)  # of the mean of d
    if estimator == "whitened":
        T = np.linalg.inv(C + strength * np.trace(C) / K * np.eye(K))
        v = T @ m
        # What the fit has used up of n, its effective degrees of freedom, is no evidence of how well it fits.
        S = S * (1 - 2 * m @ v + v @ C @ v) * n / max(n - np.trace(T @ C), 1.0)
    else:
        T = np.diag(_inverse(np.sqrt(np.diag(C)))) if estimator == "standardised" else np.eye(K)
        v = _by_attribute(estimator, n, m, np.diag(C), strength)
    return v, T @ S @ T.T


def estimate_from_rewards(
    names: Sequence[str],
    W: npt.ArrayLike,
    L: npt.ArrayLike,
    estimator: str = "closed-form",
    *,
    regularisation: float | None = None,
) -> Estimate:
    """Weights from the rewards of the pairs, by any estimator.

    Args:
        names: of the K attributes.
        W: (n, K), rewards of the chosen responses (Eq. 12).
        L: (n, K), of the rejected ones.
        estimator: one of `ESTIMATORS`.
        regularisation: instead of the estimator's `REGULARISATION`.

    Raises:
        UsageError: wrong shapes or numbers, unknown estimator, or a regularisation out of range.
    """
    if check_estimator(estimator) not in PAIR_ESTIMATORS:
        return estimate(Statistics.of(names, W, L), estimator, regularisation=regularisation)
    names = tuple(names)
    W, L = check_rewards(W, L, len(names))
    ridge = _strength(estimator, regularisation)
    if not len(W):
        return _zero(names, estimator, _EMPTY)
    if not (W - L).any():
        return _zero(names, estimator, _EQUAL)
    fit = _fit(*_design(estimator, W, L), ridge)
    K = len(names)
    covariance = fit.covariance()[:K, :K] if len(W) > 1 else None
    return _on_sphere(names, fit.beta[:K], covariance, estimator, _CANCEL)


def leave_one_out(
    W: npt.ArrayLike, L: npt.ArrayLike, estimator: str = "closed-form", *, regularisation: float | None = None
) -> float:
    """Share of the pairs that are predicted right by the weights of all other pairs; an undecided one counts half.

    Nothing is fitted anew. The sums lose one pair each, and the whitened inverse a rank-one term (Sherman-Morrison):
    exact, in O(n K^2). The logistic regressions take one Newton step away from each pair: approximate.

    Args:
        W: (n, K), rewards of the chosen responses.
        L: (n, K), of the rejected ones.
        estimator: one of `ESTIMATORS`.
        regularisation: instead of the estimator's `REGULARISATION`.

    Returns:
        In [0, 1]; 0.5 where the other pairs are too few to learn anything from.

    Raises:
        UsageError: wrong shapes or numbers, unknown estimator, or a regularisation out of range.
    """
    W, L = check_rewards(W, L, np.shape(W)[-1] if np.ndim(W) else 0)
    strength = _strength(check_estimator(estimator), regularisation)
    if len(W) < 2 + (estimator in _NEEDS_TWO) or not (W - L).any():
        return 0.5
    return _share_right(_margins_without(W, L, estimator, strength))


def length_baseline(n_chosen: Sequence[int], n_rejected: Sequence[int]) -> float:
    """Leave-one-out accuracy of going by length alone: longer or shorter, as most other pairs have it.

    Args:
        n_chosen: tokens of each chosen response.
        n_rejected: of each rejected one.

    Returns:
        In [0, 1]; a pair of equal lengths, or without a majority, counts half.
    """
    longer = np.sign(np.asarray(n_chosen, np.float64) - np.asarray(n_rejected, np.float64))
    return _share_right((longer.sum() - longer) * longer) if len(longer) else 0.5


def choose_active(
    weights: Mapping[str, float],
    most: int = 7,
    *,
    pinned: Collection[str] = (),
    blocked: Collection[str] = (),
    by_hand: Collection[str] = (),
    errors: Mapping[str, float] | None = None,
    sure: float = 0.0,
    renormalise: bool = False,
) -> dict[str, float]:
    """The few attributes that take part in decoding (Section 3.2), the largest |p_i| first.

    Args:
        weights: p_i by attribute.
        most: how many at most.
        pinned: taken first, whatever their |p_i|; without a weight there is nothing to take.
        blocked: never taken.
        by_hand: not scaled, since somebody chose their numbers.
        errors: standard errors by attribute; one that is missing or NaN is taken for 0.
        sure: how many standard errors |p_i| has to have; where no attribute has as many, the surest one is taken.
        renormalise: scale those chosen to length 1; the paper does not say, and keeping them is gentler.

    Raises:
        UsageError: `most` is no whole number of 1 or more, an attribute is pinned and blocked, or more are pinned than
            may be active.
    """
    check_active(most)
    if both := sorted(set(pinned) & set(blocked)):
        raise UsageError(f"{', '.join(both)}: pinned and blocked at once; unpin or allow")
    allowed = {name: p for name, p in weights.items() if name not in blocked}
    kept = {name: p for name, p in allowed.items() if name in pinned}
    if len(kept) > most:
        raise UsageError(f"{len(kept)} attributes are pinned, but {most} may be active; unpin some or raise --active")
    others = {name: p for name, p in allowed.items() if name not in kept}
    ratios = {name: abs(p) / e for name, p in others.items() if (e := (errors or {}).get(name, 0.0)) > 0}
    likely = {name: p for name, p in others.items() if not ratios.get(name, math.inf) < sure}
    if not kept and not any(likely.values()) and ratios:
        surest = max(ratios, key=lambda name: ratios[name])
        likely = {surest: others[surest]}
    if len(kept) < most:
        kept |= select_active(likely, most - len(kept))
    chosen = select_active(kept, most)
    learned = [p for name, p in chosen.items() if name not in by_hand]
    length = float(np.linalg.norm(learned)) if renormalise and any(learned) else 1.0
    return {name: p if name in by_hand else p / length for name, p in chosen.items()}


# --- directions ------------------------------------------------------------------------------------------------------


def _inverse(x: FloatArray) -> FloatArray:
    """1 / x, and 0 where x is 0."""
    out: FloatArray = np.divide(1.0, x, out=np.zeros_like(x), where=x > 0)
    return out


def _by_attribute(estimator: str, n: float, m: FloatArray, squares: FloatArray, strength: float) -> FloatArray:
    """A direction made attribute by attribute from n, the mean of d and the mean of d^2: (…, K) each."""
    if estimator == "standardised":
        return m * _inverse(np.sqrt(squares))
    if estimator == "shrunken":
        error = np.sqrt(np.maximum(squares - m**2, 0) / max(n - 1, 1))
        return np.sign(m) * np.maximum(np.abs(m) - strength * error, 0)
    return m  # Eq. 12


def _on_sphere(
    names: tuple[str, ...], v: FloatArray, covariance: FloatArray | None, estimator: str, why_zero: str
) -> Estimate:
    length = float(np.linalg.norm(v))
    if not length:
        return _zero(names, estimator, why_zero)
    p = v / length
    errors = np.full(len(p), np.nan)
    if covariance is not None:
        J = (np.eye(len(p)) - np.outer(p, p)) / length
        errors = np.sqrt(np.maximum(np.diag(J @ covariance @ J.T), 0))
    return Estimate(names, p, errors, estimator)


def _zero(names: tuple[str, ...], estimator: str, why: str) -> Estimate:
    return Estimate(names, np.zeros(len(names)), np.full(len(names), np.nan), estimator, why)


def _strength(estimator: str, regularisation: float | None) -> float:
    if regularisation is None:
        return REGULARISATION.get(estimator, 0.0)
    if estimator not in REGULARISATION:
        raise UsageError(f"the estimator {estimator!r} has no regularisation to set, got {regularisation!r}")
    if isinstance(regularisation, bool) or not isinstance(regularisation, (int, float)) or not 0 < regularisation < 1e9:
        raise UsageError(f"regularisation: expected a number over 0, got {regularisation!r}")
    return float(regularisation)


# --- leaving one out -------------------------------------------------------------------------------------------------


def _share_right(margins: FloatArray) -> float:
    return float(((margins > 0) + 0.5 * (margins == 0)).mean())


def _margins_without(W: FloatArray, L: FloatArray, estimator: str, strength: float) -> FloatArray:
    """Of each pair j, d_j^T v up to a positive factor, v the direction that all other pairs give: float64 (n,)."""
    D = W - L
    n, K = D.shape
    if estimator in PAIR_ESTIMATORS:
        return _row_dots(D, _fit(*_design(estimator, W, L), strength).without_each()[:, :K])
    total = D.sum(axis=0)
    if estimator == "whitened":
        # In the axes of S = sum d d^T, S - d_j d_j^T + λ_j I is a diagonal less u u^T. By Sherman-Morrison that term
        # only scales d_j^T v, by 1 / (1 - u^T A^-1 u) > 0.
        eigenvalues, Q = np.linalg.eigh(D.T @ D)
        U = D @ Q
        own, whole = _row_dots(D, D), eigenvalues.sum()
        inverse = _inverse(np.maximum(eigenvalues, 0) + strength / K * (whole - own)[:, None])
        # Where all other pairs are 0, nothing but rounding is left to decide.
        return np.where(whole - own > 1e-12 * whole, _row_dots(U, (total @ Q - U) * inverse), 0.0)
    squares = np.maximum((D * D).sum(axis=0) - D * D, 0)
    return _row_dots(D, _by_attribute(estimator, n - 1, (total - D) / (n - 1), squares / (n - 1), strength))


def _row_dots(A: FloatArray, B: FloatArray) -> FloatArray:
    dots: FloatArray = np.einsum("jk,jk->j", A, B)
    return dots


# --- logistic regression ---------------------------------------------------------------------------------------------


def _design(estimator: str, W: FloatArray, L: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rows that the right weights make positive, (n, rows of a pair, columns), and which columns have a ridge."""
    if estimator == "ridge-bt":
        rows = (W - L)[:, None, :]
        return rows / np.sqrt((rows**2).mean()), np.ones(rows.shape[2])
    rows = np.stack([W, -L], axis=1)
    rows /= np.sqrt((rows**2).mean())
    intercept = np.broadcast_to([[1.0], [-1.0]], (*rows.shape[:2], 1))
    return np.concatenate([rows, intercept], axis=2), np.append(np.ones(W.shape[1]), 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """A minimum of sum log(1 + exp(-Z beta)) + |ridge beta^2| / 2."""

    beta: FloatArray
    Z: FloatArray
    hessian: FloatArray

    def _pulls(self) -> FloatArray:
        """What each pair adds to the descent direction at beta: (n, columns)."""
        pulls: FloatArray = np.einsum("jrc,jr->jc", self.Z, _sigmoid(-self.Z @ self.beta))
        return pulls

    def covariance(self) -> FloatArray:
        """Of beta, by the sandwich of the pairs' gradients between inverse Hessians."""
        inverse = np.linalg.inv(self.hessian)
        pulls = self._pulls()
        covariance: FloatArray = inverse @ (pulls.T @ pulls) @ inverse
        return covariance

    def without_each(self) -> FloatArray:
        """beta without pair j, by one Newton step away from it: (n, columns)."""
        chance = _sigmoid(self.Z @ self.beta)
        out = np.empty((len(self.Z), len(self.beta)))
        pulls = self._pulls()
        for part in np.array_split(np.arange(len(out)), len(out) // 1000 + 1):
            Z = self.Z[part]
            own = np.einsum("jra,jr,jrb->jab", Z, (chance * (1 - chance))[part], Z)
            out[part] = self.beta - np.linalg.solve(self.hessian - own, pulls[part][:, :, None])[:, :, 0]
        return out


def _fit(Z: FloatArray, penalised: FloatArray, ridge: float) -> _Fit:
    """Newton's method with halved steps: the sum is strictly convex, so it cannot but arrive."""
    rows, penalty = Z.reshape(-1, Z.shape[2]), ridge * penalised

    def loss(beta: FloatArray) -> float:
        return float(np.logaddexp(0, -rows @ beta).sum() + (penalty * beta**2).sum() / 2)

    beta = np.zeros(rows.shape[1])
    now = loss(beta)
    while True:
        chance = _sigmoid(rows @ beta)
        downhill = rows.T @ (1 - chance) - penalty * beta
        hessian = (rows.T * (chance * (1 - chance))) @ rows + np.diag(penalty)
        step = np.linalg.solve(hessian, downhill)
        gain, share = float(downhill @ step), 1.0
        if gain <= 1e-12 * now:  # so near, a step squares the distance, while doubles hardly tell the sums apart
            return _Fit(beta + step, Z, hessian)
        while (then := loss(beta + share * step)) > now - share * gain / 4:
            share /= 2
        beta, now = beta + share * step, then


def _sigmoid(z: FloatArray) -> FloatArray:
    return np.exp(-np.logaddexp(0, -z))
