"""Personalised generation (the paper's Table 2): answers against the plain LLM's, judged by the person's own rule.

`python -m experiments.generation` learns each of 30 people from 100 noisy pairs, answers questions on unseen topics in
every way, and lets the person compare each answer with a plain one; a tie is half a win. Nobody's taste is tuned on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from drift_edge import Drift
from drift_edge.approximation import choose_active
from drift_edge.attributes import Attributes
from drift_edge.conversation import FUSING
from drift_edge.models.nano.corpus import EvalQuestion
from drift_edge.models.nano.corpus.reader import garbled
from drift_edge.models.nano.report import Progress
from drift_edge.profile import DEFAULT_BLOCKED
from drift_edge.request import DEFAULT_ACTIVE
from drift_edge.rewards import FloatArray
from experiments.args_search import TOP, Args
from experiments.few_shot import chosen_reward_model
from experiments.modelling import CHOSEN, PAPER, TUNING, cases, keep, learned, options
from experiments.modelling import world_of as load
from experiments.reward_model import Embedder
from experiments.wins import BETAS, STRENGTHS, TOLD, TRUE, by_dislikes, figure, summed, table
from experiments.world import DRIFT, LENGTH, MAX_TOKENS, SAMPLER, TIE, TOPIC, Pairs, Person, World, features_of, reduced

K = 100
BEST_OF = 10
EXAMPLES = 3
FEW, LIKES = 3, 4  # attributes of those that do best in a system prompt, of either sign and of positive ones
Made = tuple[str, Mapping[str, float]]  # a text, and what was measured while it was made


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One person to answer: what was learned of them, and the questions.

    Attributes:
        person: who judges.
        seed: of the answers.
        questions: on topics that they judged nothing of.
        weights: by the way they were made.
        head: of the reward model, scaled so that the world's answers have a standard deviation of 1.
        pooling: of the reward model.
        examples: questions and answers they preferred.
        pair: GGUF files of the LLM and the sLM.
        plausibility: the mask of all answers but those of ARGS.
    """

    person: Person
    seed: int
    questions: list[EvalQuestion]
    weights: dict[str, dict[str, float]]
    head: FloatArray
    pooling: str
    examples: list[dict[str, str]]
    pair: tuple[Path, Path]
    plausibility: float


def learn(
    world: World, embeddings: dict[str, FloatArray], people: int, kind: str, questions: int, plausibility: float
) -> list[Job]:
    """What every person's pairs teach; `kind` as `world.people`."""
    pooling, ridge = chosen_reward_model(embeddings, cases(world, TUNING, "tuning", noise=True, draws=1))
    vectors, asked = embeddings[pooling], np.flatnonzero(world.test)
    jobs = []
    for i, drawings in enumerate(cases(world, people, kind, noise=True, draws=1, k=K)):
        case, rng = drawings[0], np.random.default_rng([*f"generation {world.seed}".encode(), i])
        head = learned(vectors, case.train, "ridge-bt", ridge)
        jobs.append(
            Job(
                case.person,
                int(rng.integers(2**31)),
                [world.questions[q] for q in rng.choice(asked, questions, replace=False)],
                {
                    "Drift": learned_weights(world, case.train, CHOSEN),
                    "likes": learned_weights(world, case.train, CHOSEN, likes=LIKES),
                    "as learned": learned_weights(world, case.train, CHOSEN, renormalise=False),
                    "paper": learned_weights(world, case.train, PAPER, renormalise=False),
                    "random": _active(rng.normal(size=len(Attributes.builtin()))),
                    "true": case.person.weights,
                },
                head / (vectors @ head).std(),
                pooling,
                _examples(world, case.train),
                world.pair,
                plausibility,
            )
        )
    return jobs


def learned_weights(
    world: World, pairs: Pairs, way: tuple[str, str], *, likes: int | None = None, renormalise: bool = True
) -> dict[str, float]:
    """The active weights that pairs teach, as a profile has them.

    Args:
        world: where the pairs are from.
        pairs: what was chosen.
        way: an estimator and a reduction.
        likes: the largest so many positive ones instead.
        renormalise: scale them to length 1.
    """
    p = learned(reduced(world, way[1])[:, :, DRIFT], pairs, way[0])
    if likes is None:
        return _active(p, renormalise=renormalise)
    return _active(np.maximum(p, 0), likes, renormalise=renormalise)


def _active(p: FloatArray, active: int = DEFAULT_ACTIVE, *, renormalise: bool = True) -> dict[str, float]:
    weights = dict(zip(Attributes.builtin(), p.tolist(), strict=True))
    return choose_active(weights, active, blocked=DEFAULT_BLOCKED, renormalise=renormalise)


def _examples(world: World, pairs: Pairs) -> list[dict[str, str]]:
    """The first few questions with their preferred answers, as earlier turns."""
    turns: dict[int, int] = {}
    for question, chosen in zip(pairs.question.tolist(), pairs.chosen.tolist(), strict=True):
        turns.setdefault(question, chosen)
    return [
        message
        for question, chosen in list(turns.items())[:EXAMPLES]
        for message in (
            {"role": "user", "content": world.questions[question].text},
            {"role": "assistant", "content": world.answers[question][chosen]},
        )
    ]


def stated(person: Person) -> list[dict[str, str]]:
    """A system message of what a person would say of their taste, dislikes and length as well."""
    named = dict(zip(Attributes.builtin(), person.taste, strict=False))
    length = float(person.taste[LENGTH])
    parts = [
        f"{verb} answers that are {', '.join(names)}"
        for verb, sign in (("likes", 1), ("does not like", -1))
        if (names := [name for name, x in named.items() if x * sign > 0])
    ]
    parts += ["likes " + ("long" if length > 0 else "short") + " answers"] if length else []
    return [{"role": "system", "content": f"The user {', and '.join(parts)}."}]


# --- the ways --------------------------------------------------------------------------------------------------------


class Ways:
    """All ways of answering, over one loaded pair."""

    def __init__(self, pair: tuple[Path, Path], pooling: str, plausibility: float) -> None:
        llm, slm = pair
        self.sampler = replace(SAMPLER, plausibility=plausibility)
        self.drift, self.embedder = Drift.load(llm, slm, ctx_size=1_024), Embedder(slm, TOP)
        self.args = Args(llm, self.embedder, pooling)

    def close(self) -> None:
        """Free the models."""
        self.args.close()
        self.embedder.__exit__(None, None, None)
        self.drift.close()

    def all(self, job: Job) -> Iterator[tuple[str, Callable[[str, int], Made]]]:
        """Each way's name, and what answers a question with a seed."""
        w = job.weights
        few = choose_active(w["Drift"], FEW, renormalise=True)
        yield "plain again", lambda x, seed: self.chat(x, seed)
        for beta in BETAS:
            yield f"Drift, beta {beta:g}", lambda x, seed, b=beta: self.chat(x, seed, w["Drift"], "logits", b)
        for strength in STRENGTHS:
            yield (
                f"Drift, strength {strength:g}",
                lambda x, seed, s=strength: self.chat(x, seed, w["Drift"], "logits", strength=s),
            )
        yield "Drift, beta 0.5, not renormalised", lambda x, seed: self.chat(x, seed, w["as learned"], "logits", 0.5)
        yield "Drift, beta 0.5, and prompt", lambda x, seed: self.chat(x, seed, w["Drift"], "both", 0.5)
        for strength in STRENGTHS:
            yield (
                f"Drift, strength {strength:g}, and prompt",
                lambda x, seed, s=strength: self.chat(x, seed, w["Drift"], "both", strength=s),
            )
        for beta in (1.0, 0.5):
            yield (
                f"Drift, beta {beta:g}, and prompt, top {FEW}",
                lambda x, seed, b=beta: self.chat(x, seed, few, "both", b),
            )
        yield (
            f"Drift, strength 0.5, and prompt, top {FEW}",
            lambda x, seed: self.chat(x, seed, few, "both", strength=0.5),
        )
        yield (
            f"Drift, beta 0.5, and prompt, top {LIKES} likes",
            lambda x, seed: self.chat(x, seed, w["likes"], "both", 0.5),
        )
        yield "the paper's Drift, beta 0.5", lambda x, seed: self.chat(x, seed, w["paper"], "logits", 0.5)
        yield "random weights, beta 0.5", lambda x, seed: self.chat(x, seed, w["random"], "logits", 0.5)
        for beta in TRUE:
            yield f"true weights, beta {beta:g}", lambda x, seed, b=beta: self.chat(x, seed, w["true"], "logits", b)
        yield (
            "true weights, strength 0.5, and prompt",
            lambda x, seed: self.chat(x, seed, w["true"], "both", strength=0.5),
        )
        yield "top attributes as system prompt", lambda x, seed: self.chat(x, seed, w["Drift"], "prompt")
        yield f"top {FEW} as system prompt", lambda x, seed: self.chat(x, seed, few, "prompt")
        yield "true likes as system prompt", lambda x, seed: self.chat(x, seed, w["true"], "prompt")
        yield "true taste in words as system prompt", lambda x, seed: self.chat(x, seed, before=stated(job.person))
        yield f"{EXAMPLES} examples in context", lambda x, seed: self.chat(x, seed, before=job.examples)
        yield f"Best-of-{BEST_OF} by the reward model", lambda x, seed: self.best(x, seed, job)
        yield f"ARGS, top {TOP}", lambda x, seed: self.search(x, seed, job)

    def chat(
        self,
        question: str,
        seed: int,
        weights: Mapping[str, float] | None = None,
        steer: Any = "off",
        beta: float | None = None,
        strength: float | None = None,
        before: Sequence[dict[str, str]] = (),
    ) -> Made:
        """One answer of the engine."""
        answer = self.drift.complete(
            [*before, {"role": "user", "content": question}],
            weights=weights,
            steer=steer,
            beta=beta,
            strength=strength,
            sampler=self.sampler,
            seed=seed,
            max_tokens=MAX_TOKENS,
            measure=steer in FUSING,
            blocked=(),
        )
        told = (answer.kl_per_token, answer.entropy_llm_bits, answer.entropy_steered_bits)
        return answer.text, {name: value for name, value in zip(TOLD, told, strict=True) if value is not None}

    def best(self, question: str, seed: int, job: Job) -> Made:
        """The one of ten plain answers that the reward model likes best."""
        texts = [self.chat(question, seed + 1 + i)[0] for i in range(BEST_OF)]
        return max(texts, key=lambda text: float(self.embedder.vectors(question, text)[job.pooling] @ job.head)), {}

    def search(self, question: str, seed: int, job: Job) -> Made:
        """ARGS."""
        tokens = self.args.answer(question, job.head, np.random.default_rng(seed), MAX_TOKENS)
        return self.drift.pair.llm.detokenize(tokens), {}


def contest(job: Job) -> list[dict[str, Any]]:
    """All answers for one person, each compared with a plain one."""
    ways, rows = Ways(job.pair, job.pooling, job.plausibility), []
    try:
        for i, question in enumerate(job.questions):
            seed = job.seed + 1_000 * i
            plain = ways.chat(question.text, seed + 500)[0]
            made = {"plain": (plain, {}), **{name: way(question.text, seed) for name, way in ways.all(job)}}
            bar = float(np.array(features_of(question, plain)) @ job.person.taste)
            for name, (text, told) in made.items():
                features = np.array(features_of(question, text))
                lead = float(features @ job.person.taste) - bar
                rows.append(
                    {
                        "way": name,
                        "question": question.text,
                        "text": text,
                        "win": 0.5 if abs(lead) < TIE else float(lead > 0),
                        "tie": float(abs(lead) < TIE),
                        "on topic": float(features[TOPIC]),
                        "garbled": float(garbled(text, question.topic)),
                        "words": len(text.split()),
                        **told,
                    }
                )
    finally:
        ways.close()
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = options("generation", __doc__)
    parser.add_argument("--asked", type=int, default=4, help="questions to answer for each person")
    parser.add_argument("--jobs", type=int, default=2, help="people answered at once")
    parser.add_argument("--answers", type=Path, help="also write all answers to this JSON file")
    parser.add_argument("--plausibility", type=float, default=0.0, help="mask (default: none, as in the paper)")
    parser.add_argument("--tuning", action="store_true", help="ask the tuning people: to choose, not to report")
    given = parser.parse_args(arguments)
    kind, name = ("tuning", "generation-tuning") if given.tuning else ("report", "generation")
    world = load(given)
    with Embedder(given.slm) as embedder:
        embeddings = embedder.pooled(world)
    jobs = learn(world, embeddings, given.people, kind, given.asked, given.plausibility)
    progress, answers = Progress(len(jobs)), []
    with ProcessPoolExecutor(given.jobs, get_context("spawn")) as pool:
        for rows in pool.map(contest, jobs):
            answers.append(rows)
            progress.tick(1)
    found = summed(answers)
    print(table(found))
    dislikes = by_dislikes([job.weights["true"] for job in jobs], answers)
    facts = {"k": K, "asked": given.asked, "plausibility": given.plausibility, "ways": found, "by dislikes": dislikes}
    keep(name, given, world, facts, figure(found))
    if given.answers:
        people = [
            {"taste": job.person.weights, "learned": job.weights["Drift"], "answers": rows}
            for job, rows in zip(jobs, answers, strict=True)
        ]
        given.answers.write_text(json.dumps(people, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
