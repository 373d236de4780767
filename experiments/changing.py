"""Continual learning: people whose taste changes, learned from with decay and without.

`python -m experiments.changing` lets each of 30 people judge 60 noisy pairs, and 60 more with another taste. After
every fifth pair the weights predict others as the person would judge them by then. Decay is by a half-life in pairs;
the one to report on is that which is right most often 40 pairs after the change, on 20 other people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from drift_edge.approximation import estimate
from drift_edge.models.nano.report import aligned
from drift_edge.rewards import FloatArray
from drift_edge.statistics import Statistics
from experiments.modelling import CHOSEN, DRAWS, TEST_PAIRS, TUNING, interval, keep, options, right
from experiments.modelling import world_of as load
from experiments.world import DRIFT, Pairs, Person, World, judge, people, reduced

CHANGE, AFTER = 60, 60  # pairs
AT = tuple(range(5, CHANGE + AFTER + 1, 5))  # pairs after which is measured
BACK = 40  # pairs after the change
SHARE = 0.95  # of the old level
OLD = AT.index(CHANGE)
HALF_LIVES = (None, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 60.0)
NONE, ANEW = "no decay", "anew at the change"


def ways() -> dict[str, float | None]:
    """Half-lives by their names."""
    return {NONE if half_life is None else f"half-life {half_life:g}": half_life for half_life in HALF_LIVES}


def judged(world: World, person: Person, rng: np.random.Generator, n: int) -> Pairs:
    """Exactly `n` noisy pairs; who has fewer judges some again."""
    pairs = judge(world, person, rng, n, test=False, noise=True)
    while len(pairs.question) < n:
        more = judge(world, person, rng, n - len(pairs.question), test=False, noise=True)
        if not len(more.question):
            raise RuntimeError("somebody decides between no two answers of this world: ask more --questions")
        pairs = pairs.then(more)
    return pairs


def curves(values: FloatArray, streams: Sequence[Pairs], tests: Sequence[Pairs]) -> list[list[float]]:
    """Accuracy at each of `AT`, by way, and at last by a profile that begins anew at the change.

    Args:
        values: float64 (questions, ANSWERS, K), rewards.
        streams: pairs to learn from, before the change and after it.
        tests: pairs to predict, before the change and after it.
    """
    stream = streams[0].then(streams[1])
    W, L = values[stream.question, stream.chosen], values[stream.question, stream.rejected]
    leads = [test.leads(values) for test in tests]
    found = []
    for half_life, anew in [*((half_life, False) for half_life in HALF_LIVES), (None, True)]:
        statistics, curve = Statistics(tuple(map(str, range(values.shape[-1])))), list[float]()
        for n, (w, l) in enumerate(zip(W, L, strict=True), 1):  # noqa: E741
            if anew and n == CHANGE + 1:
                statistics = Statistics(statistics.names)
            if half_life is not None:
                statistics.decay(half_life)
            statistics.add(w, l)
            if n in AT:
                curve.append(right(leads[n > CHANGE] @ estimate(statistics, CHOSEN[0]).weights))
        found.append(curve)
    return found


def measured(world: World, n: int, kind: str) -> dict[str, FloatArray]:
    """Of `n` people, accuracy by way: float64 (people, draws, AT)."""
    values, found = reduced(world, CHOSEN[1])[:, :, DRIFT], []
    for person, rng in people(n, kind, world.seed):
        drawings = []
        for _ in range(DRAWS):
            tastes = (person, Person.draw(rng))
            streams = [judged(world, taste, rng, k) for taste, k in zip(tastes, (CHANGE, AFTER), strict=True)]
            tests = [judge(world, taste, rng, TEST_PAIRS, test=True, noise=False) for taste in tastes]
            drawings.append(curves(values, streams, tests))
        found.append(drawings)
    by_way = np.array(found)
    return {name: by_way[:, :, i] for i, name in enumerate((*ways(), ANEW))}


def back_after(curve: FloatArray, old: float) -> int | None:
    """Pairs after the change when a mean curve is first back at `SHARE` of the old level; None if never."""
    return next((n - CHANGE for n, x in zip(AT, curve, strict=True) if n > CHANGE and x >= SHARE * old), None)


def figure(scores: Mapping[str, FloatArray], chosen: str) -> Figure:
    """Accuracy against the number of pairs, for some of the ways."""
    drawn = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes = drawn.subplots()
    for i, name in enumerate((NONE, "half-life 60", chosen, ANEW)):
        told = interval(scores[name])
        mean, half = np.array(told["mean"]), np.array(told["half"])
        line = "--" if name == ANEW else "-"
        axes.plot(AT, mean, line, color=f"C{i}", linewidth=1.2, label=name)
        if name in (NONE, chosen):
            axes.fill_between(AT, mean - half, mean + half, color=f"C{i}", alpha=0.15)
    old = float(scores[chosen][..., OLD].mean())
    axes.axhline(SHARE * old, color="gray", linestyle=":", label=f"{SHARE:.0%} of the old level")
    axes.axvline(CHANGE, color="gray", linewidth=0.8)
    axes.axvline(CHANGE + BACK, color="gray", linewidth=0.8, linestyle=":")
    axes.set(xlabel="pairs", ylabel="accuracy on unseen pairs")
    axes.legend(fontsize=7)
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = options("changing", __doc__).parse_args(arguments)
    world = load(given)
    later = AT.index(CHANGE + BACK)
    tuning = measured(world, TUNING, "tuning")
    chosen = max(ways(), key=lambda name: float(tuning[name][..., later].mean()))
    scores = measured(world, given.people, "report")
    strict = float(scores[NONE][..., OLD].mean())
    shown, rows, facts = (20, 40, 60, 65, 70, 80, 90, 100, 120), list[list[str]](), dict[str, object]()
    for name, values in scores.items():
        told, margin = interval(values), interval(values[..., [later]] - SHARE * values[..., [OLD]])
        curve = np.array(told["mean"])
        back, strictly = (back_after(curve, old) for old in (curve[OLD], strict))
        (mean,), (half,) = margin["mean"], margin["half"]
        facts[name] = {
            **told,
            "back after": back,
            "back at the level without decay after": strictly,
            "margin": [mean, half],
        }
        cells = [f"{curve[AT.index(n)]:.3f}" for n in shown]
        backs = ["never" if n is None else str(n) for n in (back, strictly)]
        rows.append([name, *cells, *backs, f"{mean:+.3f} ± {half:.3f}"])
    heads = ["", *(f"{n}" for n in shown), "back after", "at no decay's", f"at {CHANGE + BACK}, over {SHARE:g} of old"]
    print(aligned(heads, rows))
    print(f"best on the tuning people {BACK} pairs after the change: {chosen}")
    keep("changing", given, world, {"at": AT, "reported": chosen, "accuracy": facts}, figure(scores, chosen))


if __name__ == "__main__":
    main()
