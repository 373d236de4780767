"""Preference modelling by fewer and fewer attributes (the paper's Figure 4), those with the largest |p_i| kept.

`python -m experiments.kept` learns each of 30 people from 50 noisy pairs and predicts others by 1 to 41 attributes.
Whether the kept weights are scaled to length 1 again changes no sign, and so nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure

from drift_edge.rewards import FloatArray
from experiments.modelling import CHOSEN, PAPER, Case, cases, interval, keep, learned, options, over, right
from experiments.modelling import world_of as load
from experiments.world import DRIFT, HELP, LENGTH, reduced

K = 50
COUNTS = (1, 2, 3, 4, 5, 7, 10, 14, 20, 30, LENGTH)


def by_few(values: FloatArray, estimator: str) -> Callable[[Case], list[float]]:
    """Accuracy by the largest 1 to 41 weights."""

    def score(case: Case) -> list[float]:
        p, leads = learned(values, case.train, estimator), case.test.leads(values)
        order = np.argsort(-np.abs(p), kind="stable")
        return [right(leads[:, order[:n]] @ p[order[:n]]) for n in COUNTS]

    return score


def figure(scores: dict[str, FloatArray], five: float) -> Figure:
    """Accuracy against the number of attributes."""
    drawn = Figure(figsize=(5, 3.2), layout="constrained")
    axes = drawn.subplots()
    for name, values in scores.items():
        told = interval(values)
        axes.errorbar(COUNTS, told["mean"], told["half"], fmt="o-", markersize=3, capsize=2, linewidth=1.2, label=name)
    axes.axhline(five, color="gray", linestyle="--", label="HelpSteer2's five")
    axes.set(xlabel="attributes kept", ylabel="accuracy on unseen pairs", xscale="log")
    axes.set_xticks(COUNTS, [str(n) for n in COUNTS])
    axes.minorticks_off()
    axes.legend(fontsize=7)
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = options("kept", __doc__).parse_args(arguments)
    world = load(given)
    report = cases(world, given.people, "report", noise=True, k=K)
    scores = {}
    for estimator, reduction in (CHOSEN, PAPER):
        scores[f"{estimator}, {reduction}"] = over(report, by_few(reduced(world, reduction)[:, :, DRIFT], estimator))
    values = reduced(world, CHOSEN[1])[:, :, HELP]
    five = over(report, lambda case: [right(case.test.leads(values) @ learned(values, case.train, CHOSEN[0]))])
    for name, found in scores.items():
        told = interval(found)
        print(name, *(f"{n}: {mean:.3f}" for n, mean in zip(COUNTS, told["mean"], strict=True)), sep="  ")
    facts = {
        "k": K,
        "counts": COUNTS,
        "accuracy": {name: interval(found) for name, found in scores.items()},
        "HelpSteer2's five": interval(five),
    }
    keep("kept", given, world, facts, figure(scores, float(five.mean())))


if __name__ == "__main__":
    main()
