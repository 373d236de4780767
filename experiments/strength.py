"""What beta and strength do to answers: `python -m experiments.strength`.

People with seven random weights of length 1 each ask the built-in pair the same questions, plain and steered in every
way. A person's liking of a text is the sum of the weights whose marker the text has.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from drift_edge import Drift
from drift_edge.models.nano.corpus.reader import garbled, marker, on_topic
from drift_edge.models.nano.evaluate import known_questions
from drift_edge.weights import DEFAULT_BLOCKED

WAYS: Mapping[str, Mapping[str, float]] = {
    "plain": {"strength": 0.0},
    **{f"beta {beta:g}": {"beta": beta} for beta in (0.5, 0.25)},
    **{f"strength {strength:g}": {"strength": strength} for strength in (0.25, 0.5, 1.0)},
}
WEIGHTS, MAX_TOKENS, QUESTION_SEED = 7, 200, 11


@dataclass(frozen=True, slots=True)
class Row:
    """One way of steering, over all answers.

    Attributes:
        way: beta or strength.
        kl: nats a token, mean.
        won: share of answers that the person likes better than the plain one, ties halved.
        on_topic, garbled: shares.
        tokens: of an answer, mean.
    """

    way: str
    kl: float
    won: float
    on_topic: float
    garbled: float
    tokens: float


def run(people: int, questions: int, seed: int) -> Iterator[Row]:
    """Measure every way.

    Args:
        people: how many.
        questions: asked by each; even.
        seed: of weights and answers.
    """
    rng, asked = np.random.default_rng(seed), known_questions(questions, QUESTION_SEED)
    with Drift.builtin() as drift:
        names = [name for name in drift.attributes if name not in DEFAULT_BLOCKED]
        tastes = []
        for _ in range(people):
            p = rng.normal(size=WEIGHTS)
            chosen = [names[i] for i in rng.choice(len(names), WEIGHTS, replace=False)]
            tastes.append(dict(zip(chosen, (p / np.linalg.norm(p)).tolist(), strict=True)))
        plain: list[float] = []
        for way, how in WAYS.items():
            liked, kl, right, bad, tokens = [], [], [], [], []
            for person, taste in enumerate(tastes):
                for attempt, question in enumerate(asked):
                    answer = drift.complete(
                        [{"role": "user", "content": question.text}],
                        weights=taste,
                        seed=seed + person,
                        attempt=attempt,
                        max_tokens=MAX_TOKENS,
                        measure=True,
                        beta=how.get("beta"),
                        strength=how.get("strength"),
                        blocked=(),
                    )
                    liked.append(sum(p * marker(name, answer.text) for name, p in taste.items()))
                    kl.append(answer.kl_per_token or 0.0)
                    right.append(on_topic(question.topic, answer.text))
                    bad.append(garbled(answer.text, question.topic))
                    tokens.append(len(answer.tokens))
            plain = plain or liked
            won = fmean(0.5 + 0.5 * float(np.sign(a - b)) for a, b in zip(liked, plain, strict=True))
            yield Row(way, fmean(kl), won, fmean(right), fmean(bad), fmean(tokens))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    print("| way | KL, nats a token | preferred to plain | on topic | garbled | tokens |\n|---|---|---|---|---|---|")
    for row in run(given.people, given.questions, given.seed):
        print(
            f"| {row.way} | {row.kl:.2f} | {row.won:.2f} | {row.on_topic:.2f} | {row.garbled:.2f} | {row.tokens:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
