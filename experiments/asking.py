"""Asking: how much a person's answers to a few questions teach, by which two answers they are shown.

`python -m experiments.asking` uses the texts of `experiments.personas`, and personas like its own. An answer steered by
weights q is drawn by Eq. 7 from the texts at hand: text y with a probability in proportion to b(y) exp(q r(y) / beta),
b being even but for the share of plain texts. So nothing is generated, and thousands of questions take seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from drift_edge.active_learning import Duels, on_top, probes
from drift_edge.approximation import choose_active, estimate
from drift_edge.attributes import Attributes
from drift_edge.models import builtin_pair
from drift_edge.models.nano.corpus.system import BASE_NEUTRAL
from drift_edge.models.nano.report import Progress, aligned
from drift_edge.rewards import FloatArray
from drift_edge.statistics import Statistics
from experiments.personas import TEST_PAIRS, accuracy
from experiments.texts import Persona, Texts, judged, measure

AFTER = (10, 20, 40)
BETA = 1.0
UNSEEN = 0.4  # share of the questions in which duels show what was not shown yet
ESTIMATOR = "whitened"

Weights = dict[str, float]


@dataclass(slots=True)
class Asked:
    """How far the questions have come with one persona."""

    statistics: Statistics
    rng: np.random.Generator
    duels: Duels
    probed: dict[str, int] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    n: int = 0

    def own(self) -> Weights:
        """The weights learned so far, the active few."""
        return choose_active(estimate(self.statistics, ESTIMATOR).as_dict())

    def probe(self, count: int) -> list[Weights]:
        """The weights of the probes that would teach most; noted as asked."""
        found = probes(self.statistics, count, asked=self.probed)
        for probe in found:
            self.probed[probe.attribute] = self.probed.get(probe.attribute, 0) + 1
        return [probe.weights for probe in found]

    def duel(self) -> list[Weights]:
        """Two attributes against each other, as `learn --ask` shows them when it is to ask as many questions."""
        self.shown = self.duels.draw(unseen=self.n < UNSEEN * max(AFTER))
        own = self.own()
        return [on_top(own, name) for name in self.shown]

    def judged(self, first: float, second: float) -> None:
        """How the persona likes the two answers shown."""
        self.n += 1
        if self.shown:
            winner, loser = self.shown if first >= second else self.shown[::-1]
            self.duels.note(winner, loser, tie=first == second)

    def chance(self, count: int) -> list[Weights]:
        """Attributes drawn at random."""
        return [{str(name): 1.0} for name in self.rng.choice(self.statistics.names, count, replace=False)]


#: What the two answers of a question are steered by.
WAYS: dict[str, Callable[[Asked], Sequence[Weights]]] = {
    "two plain answers": lambda _: ({}, {}),
    "two by the own weights": lambda asked: (asked.own(), asked.own()),
    "own against a probe": lambda asked: (asked.own(), *asked.probe(1)),
    "own against chance": lambda asked: (asked.own(), *asked.chance(1)),
    "plain against a probe": lambda asked: ({}, *asked.probe(1)),
    "two probes": lambda asked: asked.probe(2),
    "two by chance": lambda asked: asked.chance(2),
    "duels": lambda asked: asked.duel(),
}


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Half of the texts, and how a persona likes them.

    Attributes:
        rewards: float64 (n, K), nats.
        base: float64 (n,), log b(y) but for a constant.
        liking: float64 (n,).
    """

    rewards: FloatArray
    base: FloatArray
    liking: FloatArray

    @classmethod
    def of(cls, texts: Texts, persona: Persona, *, test: bool) -> World:
        """The texts on topics of the test, or on the others."""
        half = texts.test == test
        rewards, shows = (x[half].reshape(-1, x.shape[-1]) for x in (texts.rewards, texts.shows))
        plain = ~shows.any(axis=1)
        base = np.log(np.where(plain, BASE_NEUTRAL / plain.mean(), (1 - BASE_NEUTRAL) / (1 - plain.mean())))
        return cls(rewards, base, shows @ persona.taste)

    def steered(self, weights: Weights) -> FloatArray:
        """log of Eq. 7 but for a constant: float64 (n,)."""
        q = np.array([weights.get(name, 0.0) for name in Attributes.builtin()])
        return self.base + self.rewards @ q / BETA

    def liked(self, weights: Weights) -> float:
        """How answers steered by these weights are liked, on average."""
        log_p = self.steered(weights)
        p = np.exp(log_p - log_p.max())
        return float(p @ self.liking / p.sum())


def ask(texts: Texts, persona: Persona, way: str, seed: Sequence[int]) -> tuple[list[float], list[float], float]:
    """Put `max(AFTER)` questions to a persona.

    Returns:
        Accuracy on unseen pairs after each of `AFTER`; by how much answers to unseen questions are liked better, once
        the weights steer them; and the share of questions that were ties.
    """
    rng = np.random.default_rng(seed)
    names = tuple(Attributes.builtin())
    test = judged(texts, persona, rng, TEST_PAIRS, test=True)
    seen, unseen = (World.of(texts, persona, test=test) for test in (False, True))

    def answer(weights: Weights) -> int:
        return int(np.argmax(seen.steered(weights) + rng.gumbel(size=len(seen.base))))

    asked = Asked(Statistics(names), rng, Duels(names, int(rng.integers(1 << 32))))
    found, gained = list[float](), list[float]()
    for n in range(1, max(AFTER) + 1):
        first, second = (answer(weights) for weights in WAYS[way](asked))
        like, other = np.round(seen.liking[[first, second]], 9).tolist()
        asked.judged(like, other)
        if like == other:
            asked.statistics.add_tie()
        else:
            w, l = (first, second) if like > other else (second, first)  # noqa: E741
            asked.statistics.add(seen.rewards[w], seen.rewards[l])
        if n in AFTER:
            found.append(accuracy(estimate(asked.statistics, ESTIMATOR).weights, test.W, test.L))
            gained.append(unseen.liked(asked.own()) - unseen.liked({}))
    return found, gained, asked.statistics.ties / max(AFTER)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.asking", description=__doc__)
    parser.add_argument("--slm", type=Path, help="GGUF file of the sLM (default: the built-in one)")
    parser.add_argument("--questions", type=int, default=240, help="of the texts, as for experiments.personas")
    parser.add_argument("--personas", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1, help="of texts, personas and answers")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    options = parser.parse_args(arguments)
    slm = options.slm or builtin_pair()[1]
    texts, told = measure(slm, options.questions, options.seed)
    print(told, file=sys.stderr)
    people = [Persona.draw(np.random.default_rng([options.seed, i])) for i in range(options.personas)]
    progress, rows, facts = Progress(len(WAYS)), list[list[str]](), list[dict[str, object]]()
    for way in WAYS:
        results = [ask(texts, persona, way, [options.seed, i, 1]) for i, persona in enumerate(people)]
        right, liked = (np.array([result[i] for result in results]) for i in (0, 1))
        ties = float(np.mean([share for *_, share in results]))
        told_of = [(x.mean(axis=0), x.std(axis=0, ddof=1) / np.sqrt(len(x))) for x in (right, liked)]
        cells = [f"{a:.3f} ± {e:.3f}" for mean, error in told_of for a, e in zip(mean, error, strict=True)]
        rows.append([way, *cells, f"{ties:.2f}"])
        (mean, error), (gain, gain_error) = ((m.tolist(), e.tolist()) for m, e in told_of)
        facts.append({"way": way, "accuracy": mean, "se": error, "gain": gain, "gain_se": gain_error, "ties": ties})
        progress.tick(1)
    print(f"seed {options.seed}: {options.personas} personas, {ESTIMATOR}; accuracy on unseen pairs after n questions,")
    print("and by how much better answers to unseen questions are liked that the weights steer")
    heads = [f"{what}, n = {n}" for what in ("accuracy", "liked") for n in AFTER]
    print(aligned(["two answers", *heads, "ties"], rows))
    if options.json:
        told_all = {"scored": told, "after": AFTER, "beta": BETA, "rows": facts}
        options.json.write_text(json.dumps(told_all, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
