"""Cases to read (the paper's Tables 7 to 9): a question, what a person preferred, a plain and a personalised answer.

`python -m experiments.cases` learns the first few people of the report from 100 noisy pairs each, and answers a
question on an unseen topic, of which they judged two answers without noise; `--write` writes docs/cases.md. Nothing is
picked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from drift_edge import Drift
from drift_edge.attributes import Attributes
from drift_edge.models.nano.corpus.reader import garbled
from drift_edge.rewards import FloatArray
from experiments.generation import K, learned_weights
from experiments.modelling import CHOSEN, Case, cases, options
from experiments.modelling import world_of as load
from experiments.world import LENGTH, MAX_TOKENS, TOPIC, World, features_of

OUT = Path(__file__).parent.parent / "docs" / "cases.md"
PEOPLE = 8


def case(world: World, drift: Drift, number: int, who: Case) -> Iterator[str]:
    """One case, as lines of Markdown."""
    weights = learned_weights(world, who.train, CHOSEN)
    question = world.questions[who.test.question[0]]
    answers = world.answers[who.test.question[0]]
    asked = [{"role": "user", "content": question.text}]
    texts = {
        "Preferred": answers[who.test.chosen[0]],
        "Rejected": answers[who.test.rejected[0]],
        "Plain": drift.complete(asked, seed=number, max_tokens=MAX_TOKENS).text,
        "Personalised": drift.complete(asked, weights=weights, seed=number, max_tokens=MAX_TOKENS).text,
    }
    yield from (f"## {number}. {question.text}", "")
    yield from (f"*Taste, which nobody is told:* {tasted(who.person.taste)}.", "")
    yield from (f"*Learned from {len(who.train.question)} choices:* {told(weights)}.", "")
    for name, text in texts.items():
        features = np.array(features_of(question, text))
        marks = [mark for mark, shown in zip(Attributes.builtin(), features, strict=False) if shown]
        seen = f"{float(features @ who.person.taste):+.1f}: {', '.join(marks) or 'no mark'}"
        seen += ("" if features[TOPIC] else ", off topic") + (", garbled" if garbled(text, question.topic) else "")
        yield from (f"> **{name}** ({seen}): {text}".replace("\n", "\n> "), ">" if name != "Personalised" else "")


def told(weights: dict[str, float]) -> str:
    """Weights in words, the largest first."""
    return ", ".join(f"{name} {p:+.2f}" for name, p in sorted(weights.items(), key=lambda item: -abs(item[1])))


def tasted(taste: FloatArray) -> str:
    """A taste in words, but for the topic, which is worth 1 to everybody."""
    named = dict(zip([*Attributes.builtin(), "length"], taste[: LENGTH + 1].tolist(), strict=True))
    return told({name: x for name, x in named.items() if x})


def document(world: World, drift: Drift, people: Sequence[Case]) -> str:
    """All cases as one Markdown document."""
    head = (
        "# Cases\n\n"
        f"Written by `python -m experiments.cases --write --questions {len(world.questions)} --seed {world.seed}`, "
        f"with {world.models}. These are the first {len(people)} people of "
        "[the world of Evidence](evidence.md#the-world); nothing was picked. Each was learned from noisy choices on "
        "other topics, and the personalised answer is by the default settings. Behind each answer stands what it is "
        "worth to the person, whose rule reads marks of style, length and topic off the text, and the marks that it "
        "reads. The built-in pair knows little, so read for manner, not for facts."
    )
    lines = (line for number, who in enumerate(people, 1) for line in case(world, drift, number, who))
    return head + "\n\n" + "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = options("cases", __doc__)
    parser.set_defaults(people=PEOPLE, out=OUT)
    parser.add_argument("--write", action="store_true", help="write the file instead of showing it")
    given = parser.parse_args(arguments)
    world = load(given)
    people = [drawings[0] for drawings in cases(world, given.people, "report", noise=True, draws=1, k=K)]
    with Drift.load(given.llm, given.slm, ctx_size=1_024) as drift:
        text = document(world, drift, people)
    if not given.write:
        print(text)
        return
    given.out.write_text(text, encoding="utf-8")
    print(f"wrote {given.out}: {len(people)} cases, seed {given.seed}", file=sys.stderr)


if __name__ == "__main__":
    main()
