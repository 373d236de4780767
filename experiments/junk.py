"""Junk under strong steering: how many answers are garbled, by weights, strength and plausibility mask.

`python -m experiments.junk` gives people seven random weights of length 1, all positive, of both signs, or all
negative, and asks the same questions with every mask. A person's liking of a text is the sum of the weights whose mark
it has; an answer is garbled if it has a sentence that the corpus could not have said, so one that blends two styles in
a sentence counts too, and one that did not end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from drift_edge import Drift, SamplerSettings
from drift_edge.models.nano.corpus import EvalQuestion
from drift_edge.models.nano.corpus.reader import garbled, marker, on_topic
from drift_edge.models.nano.report import Progress
from drift_edge.weights import DEFAULT_BLOCKED
from experiments.modelling import markdown, options, write
from experiments.world import MAX_TOKENS, ask, models_of

WEIGHTS = 7
SIGNS = {"positive": 1, "both": 0, "negative": -1}
MASKS = (0.0, SamplerSettings().plausibility, 0.01, 0.1)  # the paper's form, the default, and more of it
WAYS: Mapping[str, Mapping[str, float]] = {
    **{f"beta {beta:g}": {"beta": beta} for beta in (0.5, 0.25)},
    **{f"strength {strength:g}": {"strength": strength} for strength in (0.5, 1.0)},
}
PLAIN = "plain"
MEASURED = ("garbled", "on topic", "gain", "words", "KL per token")


def weights_of(rng: np.random.Generator, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Weights of one size for every sign, on the same attributes."""
    chosen = rng.choice(names, WEIGHTS, replace=False).tolist()
    p = rng.normal(size=WEIGHTS)
    p /= np.linalg.norm(p)
    return {
        kind: dict(zip(chosen, (sign * np.abs(p) if sign else p).tolist(), strict=True)) for kind, sign in SIGNS.items()
    }


def answered(
    pair: tuple[Path, Path], questions: Sequence[EvalQuestion], seed: int, person: int
) -> list[dict[str, Any]]:
    """All answers for one person."""
    rows, rng = list[dict[str, Any]](), np.random.default_rng([*f"junk {seed}".encode(), person])
    with Drift.load(*pair, ctx_size=1_024) as drift:
        tastes = weights_of(rng, [name for name in drift.attributes if name not in DEFAULT_BLOCKED])
        for number, question in enumerate(questions):
            for sign, mask in product(SIGNS, MASKS):
                made = [
                    {"sign": sign, "mask": mask, "way": way}
                    | _answer(drift, question, tastes[sign], mask, how, seed + person, number)
                    for way, how in {PLAIN: {}, **WAYS}.items()
                ]
                rows += [row | {"gain": row["liking"] - made[0]["liking"]} for row in made]
    return rows


def _answer(
    drift: Drift,
    question: EvalQuestion,
    taste: Mapping[str, float],
    mask: float,
    how: Mapping[str, float],
    seed: int,
    attempt: int,
) -> dict[str, Any]:
    answer = drift.complete(
        [{"role": "user", "content": question.text}],
        weights=taste,
        steer="logits" if how else "off",
        beta=how.get("beta"),
        strength=how.get("strength"),
        sampler=SamplerSettings(plausibility=mask),
        seed=seed,
        attempt=attempt,
        max_tokens=MAX_TOKENS,
        measure=True,
        blocked=(),
    )
    return {
        "garbled": garbled(answer.text, question.topic),
        "on topic": on_topic(question.topic, answer.text),
        "liking": sum(p * marker(name, answer.text) for name, p in taste.items()),
        "words": len(answer.text.split()),
        "KL per token": answer.kl_per_token or 0.0,
    }


def summed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means by sign, mask and way, in their order; `gain` is what the answer is liked more than a plain one."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["sign"], row["mask"], row["way"]), []).append(row)
    return [
        {"sign": sign, "mask": mask, "way": way, "n": len(some)}
        | {name: float(np.mean([row[name] for row in some])) for name in MEASURED}
        for (sign, mask, way), some in found.items()
    ]


def figure(found: Sequence[Mapping[str, Any]]) -> Figure:
    """Garbled answers by way, a bar for each mask; a panel for each sign."""
    drawn = Figure(figsize=(10, 3.4), layout="constrained")
    panels = drawn.subplots(1, len(SIGNS), sharey=True)
    names, width = [PLAIN, *WAYS], 0.8 / len(MASKS)
    for axes, sign in zip(panels, SIGNS, strict=True):
        for i, mask in enumerate(MASKS):
            shares = {row["way"]: row["garbled"] for row in found if (row["sign"], row["mask"]) == (sign, mask)}
            places = np.arange(len(names)) + (i - (len(MASKS) - 1) / 2) * width
            label = f"mask {mask:g}" if mask else "no mask"
            axes.bar(places, [shares[name] for name in names], width, label=label)
        axes.set(title=f"weights: {sign}", ylim=(0, 1.02))
        axes.set_xticks(range(len(names)), names, rotation=40, fontsize=8)
    panels[0].set_ylabel("garbled answers")
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = options("junk", __doc__)
    parser.set_defaults(people=16)
    parser.add_argument("--asked", type=int, default=2, help="of the questions, by each person")
    parser.add_argument("--jobs", type=int, default=2, help="people answered at once")
    given = parser.parse_args(arguments)
    pair, asked = (given.llm, given.slm), ask(given.questions, given.seed)[: given.asked]
    progress, rows = Progress(given.people), list[dict[str, Any]]()
    with ProcessPoolExecutor(given.jobs, get_context("spawn")) as pool:
        for some in pool.map(partial(answered, pair, asked, given.seed), range(given.people)):
            rows += some
            progress.tick(1)
    found = summed(rows)
    cells = [[row["sign"], f"{row['mask']:g}", row["way"], *(f"{row[name]:.2f}" for name in MEASURED)] for row in found]
    print(markdown(["weights", "mask", "way", *MEASURED], cells))
    with Drift.load(*pair, ctx_size=1_024) as drift:
        models = models_of(drift)
    about = {"models": models, "seed": given.seed, "asked": len(asked), "people": given.people}
    write("junk", given.out, about | {"rows": found}, figure(found))


if __name__ == "__main__":
    main()
