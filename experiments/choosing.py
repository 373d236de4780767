"""Active learning: which of the pairs at hand to ask a person about, chosen or at random.

`python -m experiments.choosing` asks each of 30 people about 60 pairs of one pool, one after another: at random, or
always the pair that would teach most by then (`drift_edge.active_learning.gains`). The pool has all pairs between which
the person's taste decides, with noise, as in the other experiments; then also those that are a tie to the person, so
that most questions teach nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from drift_edge.active_learning import gains
from drift_edge.approximation import estimate
from drift_edge.models.nano.report import aligned
from drift_edge.rewards import FloatArray
from drift_edge.statistics import Statistics
from experiments.modelling import CHOSEN, DRAWS, TEST_PAIRS, interval, keep, options, right
from experiments.modelling import world_of as load
from experiments.world import DRIFT, TIE, Pairs, World, judge, people, reduced

AFTER = tuple(range(5, 61, 5))  # questions
TOLD = (20, 40, 60)
RANDOM, ACTIVE = "random pairs", "those that teach most"
DECIDED, ALL = "pairs that are decided", "ties among them"
RESAMPLES = 1_000

#: The place of the next pair among those left, from the statistics so far, their leads and those of ties.
Way = Callable[[Statistics, FloatArray, FloatArray], int]
WAYS: Mapping[str, Way] = {
    RANDOM: lambda _, __, ___: 0,  # the pool's order is random
    ACTIVE: lambda statistics, leads, tied: int(np.argmax(gains(statistics, leads, tied=tied))),
}


def ask(values: FloatArray, pool: Pairs, ties: NDArray[np.bool_], test: Pairs, way: Way) -> list[float]:
    """Accuracy on the test after each of `AFTER` questions; where the pool is used up, it stays.

    Args:
        values: float64 (questions, ANSWERS, K), rewards.
        pool: pairs to ask about, in random order, as the person judges them.
        ties: bool (n,), those of which the person says neither.
        test: pairs to predict.
        way: which one is next.
    """
    W, L, unseen = values[pool.question, pool.chosen], values[pool.question, pool.rejected], test.leads(values)
    statistics, left, tied = Statistics(tuple(map(str, range(W.shape[1])))), list(range(len(W))), list[int]()
    found = []
    for n in range(1, max(AFTER) + 1):
        if left:
            i = left.pop(way(statistics, (W - L)[left], (W - L)[tied]))
            if ties[i]:
                tied.append(i)
            else:
                statistics.add(W[i], L[i])
        if n in AFTER:
            found.append(right(unseen @ estimate(statistics, CHOSEN[0]).weights))
    return found


def measured(world: World, n: int, kind: str, least: float) -> dict[str, FloatArray]:
    """Of `n` people, accuracy by way: float64 (people, draws, AFTER); pairs that lead by less are not in the pool."""
    values, found = reduced(world, CHOSEN[1])[:, :, DRIFT], []
    for person, rng in people(n, kind, world.seed):
        drawings = []
        for _ in range(DRAWS):
            pool = judge(world, person, rng, 10**6, test=False, noise=True, least=least)
            test = judge(world, person, rng, TEST_PAIRS, test=True, noise=False)
            ties = np.abs(pool.leads(world.features) @ person.taste) < TIE
            drawings.append([ask(values, pool, ties, test, way) for way in WAYS.values()])
        found.append(drawings)
    by_way = np.array(found)
    return {name: by_way[:, :, i] for i, name in enumerate(WAYS)}


def share_needed(random: FloatArray, active: FloatArray, n: int) -> float:
    """Questions after which the one mean curve is where the other is after `n`, as a share of `n`.

    Args:
        random: float64 (AFTER,), accuracy.
        active: float64 (AFTER,), straight between the points, and from 0.5 without a question; infinite if never there.
        n: one of `AFTER`.
    """
    level, curve = random[AFTER.index(n)], np.maximum.accumulate(np.append(0.5, active))
    return float(np.interp(level, curve, (0, *AFTER)) / n) if level <= curve[-1] else np.inf


def needed(scores: Mapping[str, FloatArray], seed: int) -> dict[str, list[float]]:
    """`share_needed` at each of `TOLD`, with 95 % intervals over resampled people."""
    random, active = (scores[name].mean(axis=1) for name in (RANDOM, ACTIVE))
    rng, n = np.random.default_rng(seed), len(random)
    drawn = [rng.integers(n, size=n) for _ in range(RESAMPLES)]
    told = {}
    for at in TOLD:
        shares = [share_needed(random[who].mean(axis=0), active[who].mean(axis=0), at) for who in drawn]
        low, high = np.quantile(shares, [0.025, 0.975], method="nearest").tolist()
        told[str(at)] = [share_needed(random.mean(axis=0), active.mean(axis=0), at), low, high]
    return told


def figure(scores: Mapping[str, Mapping[str, FloatArray]]) -> Figure:
    """Accuracy against the number of questions; one panel a pool."""
    drawn = Figure(figsize=(8, 3.2), layout="constrained")
    panels = drawn.subplots(1, len(scores), sharey=True)
    for axes, (title, ways) in zip(panels, scores.items(), strict=True):
        for i, (name, values) in enumerate(ways.items()):
            told = interval(values)
            mean, half = np.array(told["mean"]), np.array(told["half"])
            axes.plot(AFTER, mean, "o-", color=f"C{i}", markersize=3, linewidth=1.2, label=name)
            axes.fill_between(AFTER, mean - half, mean + half, color=f"C{i}", alpha=0.15)
        axes.set(title=title, xlabel="questions")
    panels[0].set_ylabel("accuracy on unseen pairs")
    panels[0].legend(fontsize=7)
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = options("choosing", __doc__).parse_args(arguments)
    world = load(given)
    scores = {title: measured(world, given.people, "report", least) for title, least in ((DECIDED, TIE), (ALL, 0.0))}
    facts: dict[str, object] = {"after": AFTER}
    for title, by_way in scores.items():
        told = {name: interval(values) for name, values in by_way.items()}
        rows = [
            [name, *(f"{x['mean'][i]:.3f} ± {x['half'][i]:.3f}" for i in map(AFTER.index, (5, 10, *TOLD)))]
            for name, x in told.items()
        ]
        shares = needed(by_way, given.seed)
        print(f"{title}:\n{aligned(['', *(f'n = {n}' for n in (5, 10, *TOLD))], rows)}")
        for n, (share, low, high) in shares.items():
            print(f"  as good as {n} at random: {share:.2f} of the questions ({low:.2f} to {high:.2f})")
        finite = {n: [x if np.isfinite(x) else None for x in found] for n, found in shares.items()}  # JSON has no inf
        facts[title] = {"accuracy": told, "share of questions": finite}
    keep("choosing", given, world, facts, figure(scores))


if __name__ == "__main__":
    main()
