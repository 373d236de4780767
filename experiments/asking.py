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

from drift_edge.active_learning import probes
from drift_edge.approximation import choose_active, estimate
from drift_edge.attributes import Attributes
from drift_edge.models import builtin_pair
from drift_edge.models.nano.corpus.system import BASE_NEUTRAL
from drift_edge.models.nano.report import Progress, aligned
from drift_edge.statistics import Statistics
from experiments.personas import TEST_PAIRS, accuracy
from experiments.texts import Persona, Texts, judged, measure

AFTER = (10, 20, 40)
BETA = 1.0
ESTIMATOR = "whitened"

Weights = dict[str, float]


@dataclass(slots=True)
class Asked:
    """How far the questions have come with one persona."""

    statistics: Statistics
    rng: np.random.Generator
    probed: dict[str, int] = field(default_factory=dict)

    def own(self) -> Weights:
        """The weights learned so far, the active few."""
        return choose_active(estimate(self.statistics, ESTIMATOR).as_dict())

    def probe(self, count: int) -> list[Weights]:
        """The weights of the probes that would teach most; noted as asked."""
        found = probes(self.statistics, count, asked=self.probed)
        for probe in found:
            self.probed[probe.attribute] = self.probed.get(probe.attribute, 0) + 1
        return [probe.weights for probe in found]

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
}


def ask(texts: Texts, persona: Persona, way: str, seed: Sequence[int]) -> tuple[list[float], float]:
    """Put `max(AFTER)` questions to a persona.

    Returns:
        Accuracy on unseen pairs after each of `AFTER`, and the share of questions that were ties.
    """
    rng = np.random.default_rng(seed)
    names = tuple(Attributes.builtin())
    test = judged(texts, persona, rng, TEST_PAIRS, test=True)
    rewards, shows = texts.rewards[~texts.test], texts.shows[~texts.test]
    rewards, shows = rewards.reshape(-1, len(names)), shows.reshape(-1, len(names))
    liking, plain = shows @ persona.taste, ~shows.any(axis=1)
    base = np.log(np.where(plain, BASE_NEUTRAL / plain.mean(), (1 - BASE_NEUTRAL) / (1 - plain.mean())))

    def answer(weights: Weights) -> int:
        q = np.array([weights.get(name, 0.0) for name in names])
        return int(np.argmax(base + rewards @ q / BETA + rng.gumbel(size=len(base))))

    asked, found = Asked(Statistics(names), rng), list[float]()
    for n in range(1, max(AFTER) + 1):
        first, second = (answer(weights) for weights in WAYS[way](asked))
        if abs(liking[first] - liking[second]) < 1e-9:
            asked.statistics.add_tie()
        else:
            w, l = (first, second) if liking[first] > liking[second] else (second, first)  # noqa: E741
            asked.statistics.add(rewards[w], rewards[l])
        if n in AFTER:
            found.append(accuracy(estimate(asked.statistics, ESTIMATOR).weights, test.W, test.L))
    return found, asked.statistics.ties / max(AFTER)


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
        right, ties = np.array([found for found, _ in results]), float(np.mean([share for _, share in results]))
        mean, error = right.mean(axis=0), right.std(axis=0, ddof=1) / np.sqrt(len(right))
        rows.append([way, *(f"{a:.3f} ± {e:.3f}" for a, e in zip(mean, error, strict=True)), f"{ties:.2f}"])
        facts.append({"way": way, "accuracy": mean.tolist(), "se": error.tolist(), "ties": ties})
        progress.tick(1)
    print(f"seed {options.seed}: {options.personas} personas, {ESTIMATOR}; accuracy on unseen pairs after n questions")
    print(aligned(["two answers", *(f"n = {n}" for n in AFTER), "ties"], rows))
    if options.json:
        told_all = {"scored": told, "after": AFTER, "beta": BETA, "rows": facts}
        options.json.write_text(json.dumps(told_all, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
