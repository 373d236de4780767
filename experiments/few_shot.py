"""Preference modelling from few pairs (the paper's Figures 1 and 3): Drift against a reward model and plain rules.

`python -m experiments.few_shot` learns each of 30 people from 5 to 500 of their pairs and predicts others that they
judged on unseen topics. The reward model is a Bradley-Terry head with a ridge on the sLM's own embeddings; its ridge
and pooling are set on 20 other people.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure

from drift_edge.models.nano.report import aligned
from drift_edge.rewards import FloatArray
from experiments.modelling import CHOSEN, KS, PAPER, TUNING, Case, cases, interval, keep, learned, options, over, right
from experiments.modelling import world_of as load
from experiments.reward_model import RIDGES, Embedder
from experiments.world import DRIFT, HELP, LENGTH, Person, World, people, reduced

DRIFT_NAME, PAPER_NAME, RM, GOLD = "Drift", "Drift, the paper's", "reward model", "reward model, all pairs"
NOISY, CLEAN = "with label noise", "without"
Scores = dict[str, FloatArray]  # (people, draws, KS) by method


def by_weights(
    values: FloatArray, estimator: str, regularisation: float | None = None
) -> Callable[[Case], list[float]]:
    """Accuracy at each of `KS` of the weights that the first k pairs give."""

    def score(case: Case) -> list[float]:
        leads = case.test.leads(values)
        return [right(leads @ learned(values, case.train.first(k), estimator, regularisation)) for k in KS]

    return score


def by_all(values: FloatArray, ridge: float) -> Callable[[Case], list[float]]:
    """Accuracy of a reward model of all pairs of a case, the same for every k."""

    def score(case: Case) -> list[float]:
        return [right(case.test.leads(values) @ learned(values, case.train, "ridge-bt", ridge))] * len(KS)

    return score


def by_length(world: World) -> Callable[[Case], list[float]]:
    """Going for the longer or the shorter answer, as most of the first k pairs have it."""

    def score(case: Case) -> list[float]:
        train, test = (np.sign(pairs.leads(world.tokens.astype(float))) for pairs in (case.train, case.test))
        return [right(test * np.sign(train[:k].sum())) for k in KS]

    return score


def by_others(values: FloatArray, others: Sequence[Sequence[Case]]) -> Callable[[Case], list[float]]:
    """What the tuning people like on the whole, by Drift on all of theirs: no pair of the person's own is used."""
    p = np.mean([learned(values, drawings[0].train, CHOSEN[0]) for drawings in others], axis=0)
    return lambda case: [right(case.test.leads(values) @ p)] * len(KS)


def chosen_reward_model(embeddings: dict[str, FloatArray], tuning: Sequence[Sequence[Case]]) -> tuple[str, float]:
    """The pooling and the ridge that do best over all k on the tuning people."""
    found = {
        (pooling, ridge): over(tuning, by_weights(values, "ridge-bt", ridge)).mean()
        for pooling, values in embeddings.items()
        for ridge in RIDGES
    }
    return max(found, key=lambda way: found[way])


def compared(world: World, embeddings: FloatArray, ridge: float, people: int, *, noise: bool) -> Scores:
    """All methods on the same people."""
    report = cases(world, people, "report", noise=noise)
    everything = cases(world, people, "report", noise=noise, draws=1, k=10**6)
    chosen, paper = reduced(world, CHOSEN[1]), reduced(world, PAPER[1])
    tuning = cases(world, TUNING, "tuning", noise=noise, draws=1)
    return {
        DRIFT_NAME: over(report, by_weights(chosen[:, :, DRIFT], CHOSEN[0])),
        PAPER_NAME: over(report, by_weights(paper[:, :, DRIFT], PAPER[0])),
        RM: over(report, by_weights(embeddings, "ridge-bt", ridge)),
        GOLD: over(everything, by_all(embeddings, ridge)),
        "HelpSteer2's five": over(report, by_weights(chosen[:, :, HELP], CHOSEN[0])),
        "length only": over(report, by_length(world)),
        "what others like": over(report, by_others(chosen[:, :, DRIFT], tuning)),
        "the true taste's attributes": over(
            report, lambda case: [right(case.test.leads(world.features[:, :, :LENGTH]) @ case.person.taste[:LENGTH])]
        ).repeat(len(KS), axis=2),
    }


def by_taste(values: FloatArray, whose: Sequence[Person]) -> dict[str, dict[str, list[float]]]:
    """Accuracy of the people with a taste in length, which no attribute says exactly, and of the others.

    Of one person there is no interval, and nothing is told.
    """
    length = np.array([person.taste[LENGTH] != 0 for person in whose])
    groups = {"in length": length, "in attributes alone": ~length}
    return {name: interval(values[who]) for name, who in groups.items() if who.sum() > 1}


def figure(scores: dict[str, Scores]) -> Figure:
    """Accuracy against k; one panel with noise, one without."""
    drawn = Figure(figsize=(8.4, 3.4), layout="constrained")
    panels = drawn.subplots(1, 2, sharey=True)
    for axes, (title, methods) in zip(panels, scores.items(), strict=True):
        for i, (name, values) in enumerate(methods.items()):
            told = interval(values)
            mean, half = np.array(told["mean"]), np.array(told["half"])
            flat = np.ptp(mean) == 0
            axes.plot(KS, mean, "--" if flat else "o-", color=f"C{i}", markersize=3, linewidth=1.2, label=name)
            if not flat:
                axes.fill_between(KS, mean - half, mean + half, color=f"C{i}", alpha=0.15)
        axes.set(title=f"training judgements {title}", xlabel="pairs, k", xscale="log")
        axes.set_xticks(KS, [str(k) for k in KS])
        axes.minorticks_off()
    panels[0].set_ylabel("accuracy on unseen pairs")
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    return drawn


def table(scores: Scores) -> str:
    """Means with half of their 95 % intervals."""
    rows = []
    for name, values in scores.items():
        told = interval(values)
        rows.append(
            [name, *(f"{mean:.3f} ± {half:.3f}" for mean, half in zip(told["mean"], told["half"], strict=True))]
        )
    text: str = aligned(["", *(f"k = {k}" for k in KS)], rows)
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = options("few_shot", __doc__).parse_args(arguments)
    world = load(given)
    with Embedder(given.slm) as embedder:
        embeddings = embedder.pooled(world)
    pooling, ridge = chosen_reward_model(embeddings, cases(world, TUNING, "tuning", noise=True, draws=1))
    scores = {
        title: compared(world, embeddings[pooling], ridge, given.people, noise=title == NOISY)
        for title in (NOISY, CLEAN)
    }
    whose = [person for person, _ in people(given.people, "report", given.seed)]
    tastes = {title: by_taste(methods[DRIFT_NAME], whose) for title, methods in scores.items()}
    for title, methods in scores.items():
        print(f"{title}:\n{table(methods)}\n")
        for kind, told in tastes[title].items():
            print(f"Drift, a taste {kind}: " + ", ".join(f"{mean:.3f}" for mean in told["mean"]))
    facts = {
        "ks": KS,
        "reward model": {"pooling": pooling, "ridge": ridge},
        "accuracy": {
            title: {name: interval(values) for name, values in methods.items()} for title, methods in scores.items()
        },
        "accuracy of Drift by taste": tastes,
    }
    keep("few_shot", given, world, facts, figure(scores))


if __name__ == "__main__":
    main()
