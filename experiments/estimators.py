"""Estimators of the weights, by reduction (the paper's Figure 5, and those that it does not have).

`python -m experiments.estimators` sets what can be set on 20 tuning people and learns 30 others from 5 to 500 noisy
pairs in every way.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib.figure import Figure

from drift_edge.approximation import ESTIMATORS
from drift_edge.models.nano.report import aligned
from drift_edge.rewards import REDUCTIONS, FloatArray
from experiments.few_shot import by_weights
from experiments.modelling import KS, TUNING, Case, cases, interval, keep, options, over
from experiments.modelling import world_of as load
from experiments.personas import GRID
from experiments.world import DRIFT, reduced

AT = KS.index(50)


def set_on(tuning: Sequence[Sequence[Case]], values: FloatArray, estimator: str) -> tuple[float | None, float]:
    """The regularisation that does best over all k on the tuning people, and its accuracy."""
    found = {
        regularisation: float(over(tuning, by_weights(values, estimator, regularisation)).mean())
        for regularisation in GRID.get(estimator, (None,))
    }
    best = max(found, key=lambda value: found[value])
    return best, found[best]


def figure(scores: dict[tuple[str, str], FloatArray]) -> Figure:
    """Accuracy against k; one panel a reduction."""
    drawn = Figure(figsize=(9, 3.2), layout="constrained")
    panels = drawn.subplots(1, len(REDUCTIONS), sharey=True)
    for axes, reduction in zip(panels, REDUCTIONS, strict=True):
        for estimator in ESTIMATORS:
            told = interval(scores[estimator, reduction])
            axes.errorbar(
                KS, told["mean"], told["half"], fmt="o-", markersize=3, capsize=2, linewidth=1.2, label=estimator
            )
        axes.set(title=reduction, xlabel="pairs, k", xscale="log")
        axes.set_xticks(KS, [str(k) for k in KS])
        axes.minorticks_off()
    panels[0].set_ylabel("accuracy on unseen pairs")
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = options("estimators", __doc__).parse_args(arguments)
    world = load(given)
    tuning = cases(world, TUNING, "tuning", noise=True, draws=1)
    report = cases(world, given.people, "report", noise=True)
    scores: dict[tuple[str, str], FloatArray] = {}
    rows, accuracies, set_to, on_tuning = list[list[str]](), {}, {}, {}
    for estimator, reduction in product(ESTIMATORS, REDUCTIONS):
        values = reduced(world, reduction)[:, :, DRIFT]
        way = f"{estimator}, {reduction}"
        regularisation, on_tuning[way] = set_on(tuning, values, estimator)
        scores[estimator, reduction] = over(report, by_weights(values, estimator, regularisation))
        told = interval(scores[estimator, reduction])
        accuracies[way], set_to[way] = told, regularisation
        figures = [f"{mean:.3f} ± {half:.3f}" for mean, half in zip(told["mean"], told["half"], strict=True)]
        rows.append([estimator, reduction, "" if regularisation is None else f"{regularisation:g}", *figures])
    print(aligned(["estimator", "reduction", "set to", *(f"k = {k}" for k in KS)], rows))
    best = max(on_tuning, key=lambda way: on_tuning[way])
    print(f"best on the tuning people: {best}")
    means = {both: float(np.mean(found[..., AT])) for both, found in scores.items()}
    top = max(means, key=lambda both: means[both])
    print(f"best of those reported at k = 50: {', '.join(top)}, {means[top]:.3f}")
    facts = {
        "ks": KS,
        "chosen": best,
        "regularisation": set_to,
        "on tuning": on_tuning,
        "accuracy": accuracies,
    }
    keep("estimators", given, world, facts, figure(scores))


if __name__ == "__main__":
    main()
