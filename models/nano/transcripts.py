"""A hundred transcripts to read: `python -m drift_edge.models.nano.transcripts` writes docs/nano-transcripts.md.

A spread over what people may do with the pair: questions that training never saw, every attribute, mixtures, things
it does not know, several turns, small talk, and a system prompt of the user's own. Each ends with a line for a
reader's verdict.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drift_edge import Drift

from .. import builtin_pair
from .corpus import heldout_questions, styles
from .corpus.outside import outside_question
from .corpus.questions import KINDS, ask, phrasings
from .corpus.smalltalk import small_talk
from .corpus.splits import heldout_follow_ups
from .corpus.unknown import unknown_topic
from .evaluate import BETA, MAX_TOKENS, known_questions
from .likelihood import Message, user

OUT = Path("docs/nano-transcripts.md")
_NEGATIVE = ("concise", "exclamatory", "formal", "storyteller", "easy")
_MIXTURES: tuple[Mapping[str, float], ...] = (
    {"concise": 0.8, "formal": 0.6},
    {"vivid": 0.7, "concise": -0.7},
    {"exclamatory": 0.7, "eco-friendly": 0.7},
    {"old-fashioned": 0.6, "humor": 0.6},
    {"empathetic": 0.7, "direct": -0.5, "easy": 0.5},
    {"engineer": 0.6, "analytic": 0.6, "emotion": -0.5},
    {"internet-slang": 0.7, "energy": 0.5},
    {"respect": 0.5, "modest": 0.5, "formal": 0.4, "critical": -0.4},
)
_SYSTEMS = (
    "The user is called Mira.",
    "You help people who live in Oslo.",
    "Answer the questions of a school class.",
    "You belong to the small library of Tarvel. The user is called Ben.",
    "The user has little time.",
    "You are talking to a beekeeper called Ingrid.",
)


@dataclass(frozen=True, slots=True)
class Talk:
    """What a transcript asks.

    Attributes:
        group: what it shows.
        asks: the user's turns.
        weights: p_i by attribute.
        system: the user's own system prompt, or empty.
    """

    group: str
    asks: Sequence[str]
    weights: Mapping[str, float] = field(default_factory=dict)
    system: str = ""


def talks(seed: int) -> list[Talk]:
    """A hundred of them; the same for the same seed."""
    rng = random.Random(seed)
    plain = [
        Talk(f"unseen {what}, plain", [question.text])
        for what, n in (("cell", 8), ("phrasing", 3), ("topic", 3))
        for question in heldout_questions(n, seed, what)
    ]
    questions = iter(known_questions(80, seed + 1))

    def steered(weights: Mapping[str, float]) -> Talk:
        return Talk("steered", [next(questions).text], weights)

    return [
        *plain,
        *(steered({style.name: 1.0}) for style in styles()),
        *(steered({name: -1.0}) for name in _NEGATIVE),
        *(steered(weights) for weights in _MIXTURES),
        *_unknown(rng),
        *_several_turns(seed),
        *_small_talk(rng),
        *(Talk("own system prompt", ["Hello!", next(questions).text], system=system) for system in _SYSTEMS[:3]),
        *(Talk("own system prompt", [next(questions).text], {"concise": 0.5}, system) for system in _SYSTEMS[3:]),
    ]


def _unknown(rng: random.Random) -> Iterator[Talk]:
    for i in range(6):
        topic = unknown_topic(rng, heldout=True)
        text = ask(topic, rng.choice(phrasings(rng.choice(KINDS))))
        yield Talk("unseen noun", [text], {"exclamatory": 0.7} if i % 3 == 2 else {})
    for i in range(5):
        text, _, _ = outside_question(rng, heldout=True)
        yield Talk("outside the domain", [text], {"formal": 0.7} if i % 3 == 2 else {})


def _several_turns(seed: int) -> Iterator[Talk]:
    pairs = heldout_follow_ups(9, seed)
    for i, pair in enumerate(pairs):
        asks = [pair.first.text, pair.text]
        if i % 3 == 2:
            asks += ["Thanks!", heldout_questions(1, seed + i, "cell")[0].text]
        yield Talk("several turns", asks, {"engineer": 0.6} if i % 3 == 1 else {})


def _small_talk(rng: random.Random) -> Iterator[Talk]:
    for kind in ("greet", "who", "can", "maker", "thanks", "feel"):
        question, _ = small_talk(rng, kind)
        yield Talk("small talk", [question], {"old-fashioned": 0.7} if kind == "who" else {})


def transcript(drift: Drift, number: int, talk: Talk, seed: int) -> str:
    """Hold a talk and write it down in Markdown; temperature 0.8, the number sets the noise apart."""
    messages: list[Message] = [{"role": "system", "content": talk.system}] if talk.system else []
    steering = ", ".join(f"{name} {weight:+g}" for name, weight in talk.weights.items())
    lines = [f"### {number}. {talk.group}{': ' + steering if steering else ''}", ""]
    if talk.system:
        lines += [f"*System: {talk.system}*", ""]
    for text in talk.asks:
        messages.append(user(text))
        answer = drift.complete(
            messages,
            weights=talk.weights,
            beta=BETA,
            seed=seed,
            attempt=number,
            max_tokens=MAX_TOKENS,
            blocked=(),
        )
        messages.append({"role": "assistant", "content": answer.text})
        ending = "" if answer.finish_reason == "stop" else " *(did not end)*"
        lines += [f"> **You:** {text}", ">", f"> **nano:** {answer.text}{ending}", ""]
    return "\n".join([*lines, "Verdict:"])


def document(drift: Drift, seed: int) -> str:
    """All transcripts as one Markdown document."""
    head = (
        "# A hundred transcripts of the built-in pair\n\n"
        f"Written by `python -m drift_edge.models.nano.transcripts --seed {seed}`: default samplers, beta {BETA:g}. "
        'Nothing was picked: these are the first hundred of that seed. "Unseen" is '
        "what training never saw: a kind of question about a topic, a phrasing, a whole topic, a noun. The verdicts "
        "are a reader's."
    )
    held = (transcript(drift, number, talk, seed) for number, talk in enumerate(talks(seed), 1))
    return "\n\n".join([head, *held]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="drift_edge.models.nano.transcripts", description=__doc__)
    parser.add_argument("--llm", type=Path, help="GGUF file of the LLM (default: the built-in one)")
    parser.add_argument("--slm", type=Path, help="GGUF file of the sLM (default: the built-in one)")
    parser.add_argument("--seed", type=int, default=1, help="of questions and answers")
    parser.add_argument("--out", type=Path, default=OUT, help=f"file to write (default: {OUT})")
    options = parser.parse_args(arguments)
    if (options.llm is None) != (options.slm is None):
        parser.error("--llm and --slm go together")

    llm, slm = (options.llm, options.slm) if options.llm else builtin_pair()
    with Drift.load(llm, slm) as drift:
        text = document(drift, options.seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")
    print(f"{options.out}: {len(talks(options.seed))} transcripts, seed {options.seed}", file=sys.stderr)


if __name__ == "__main__":
    main()
