"""A world of people whose every taste is known, over answers that the built-in pair itself wrote.

Questions are worded as training never saw them; answers come from both models, under different prompts and at
different temperatures. A person is a hidden weighting of what a rule reads off a text: the mark of each attribute
(`corpus.reader`), its length, and whether it keeps to the topic. No model has a say in that.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drift_edge import Drift, SamplerSettings
from drift_edge.attributes import Attribute, Attributes
from drift_edge.models import builtin_pair
from drift_edge.models.nano.corpus import EvalQuestion, heldout_questions, styles
from drift_edge.models.nano.corpus.reader import marker, on_topic
from drift_edge.models.nano.corpus.splits import draw_hash
from drift_edge.models.nano.report import Progress
from drift_edge.preferences import PreferencePair
from drift_edge.reward_cache import RewardCache
from drift_edge.rewards import REDUCTIONS, FloatArray
from drift_edge.storage import folders

QUESTIONS = 150
ANSWERS = 8  # to each question, half by the LLM and half by the sLM; a multiple of four
TEMPERATURES = (0.5, 0.8, 1.1)
SAMPLER = SamplerSettings(plausibility=0)  # as in the paper
TEMPERATURE = 0.4  # of the noise in training judgements (Bradley-Terry): a lead of 1 is seen right 92 times in 100
TIE = 0.1  # a smaller lead decides nothing
MAX_TOKENS = 160
LENGTH, TOPIC = len(Attributes.builtin()), len(Attributes.builtin()) + 1  # features after the marks
_NEUTRAL, _ONE = 0.1, 0.65  # shares of answers without a style and with one; the rest mix two
_TRIES = 40

#: The five attributes of HelpSteer2 as prompts, which the paper compares with.
HELPSTEER = (
    Attribute("helpfulness", "You are a helpful AI assistant."),
    Attribute("correctness", "You are an AI assistant that gives correct answers."),
    Attribute("coherence", "You are an AI assistant that gives coherent and clear answers."),
    Attribute("complexity", "You are an AI assistant that gives complex answers for experts."),
    Attribute("verbosity", "You are an AI assistant that gives verbose and detailed answers."),
)
POOL = Attributes.builtin().extended(HELPSTEER)
DRIFT, HELP = slice(0, LENGTH), slice(LENGTH, len(POOL))  # columns of the rewards


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Questions, answers, what shows in them and what the sLM makes of them.

    Attributes:
        seed: of all draws.
        pair: GGUF files of the LLM and the sLM.
        models: their names and fingerprints.
        questions: as asked.
        answers: `ANSWERS` different ones to each.
        test: bool (questions,), True for those on topics of which no training pair is drawn.
        features: float64 (questions, ANSWERS, 43): see `features_of`.
        rewards: float64 (questions, ANSWERS, 46), by `POOL`: log pi(y|x,s_i) - log pi(y|x,s_0), nats, summed.
        tokens: int (questions, ANSWERS), the end of turn counted.
    """

    seed: int
    pair: tuple[Path, Path]
    models: str
    questions: list[EvalQuestion]
    answers: list[list[str]]
    test: NDArray[np.bool_]
    features: FloatArray
    rewards: FloatArray
    tokens: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """Somebody's hidden taste: what a text is worth to them is the taste times its features.

    Attributes:
        taste: float64 (43,): 3 to 5 attributes with a sign and a size from 0.5 to 1, for one in four people a taste in
            length, and for everybody 1 for keeping to the topic.
    """

    taste: FloatArray

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Person:
        """Another person."""
        taste = np.zeros(LENGTH + 2)
        k = int(rng.integers(3, 6))
        taste[rng.choice(LENGTH, k, replace=False)] = rng.choice([-1, 1], k) * rng.uniform(0.5, 1, k)
        if rng.random() < 0.25:
            taste[LENGTH] = rng.choice([-1, 1]) * rng.uniform(0.3, 0.6)
        taste[TOPIC] = 1
        return cls(taste)

    @property
    def weights(self) -> dict[str, float]:
        """The taste in attributes as weights p of length 1, which nobody can know: a ceiling for what is learned."""
        p = self.taste[:LENGTH] / np.linalg.norm(self.taste[:LENGTH])
        return {name: float(x) for name, x in zip(Attributes.builtin(), p, strict=True) if x}


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs that a person judged, as indices into a world.

    Attributes:
        question: int (n,).
        chosen: int (n,), which answer.
        rejected: int (n,).
    """

    question: NDArray[np.int64]
    chosen: NDArray[np.int64]
    rejected: NDArray[np.int64]

    def leads(self, values: FloatArray) -> FloatArray:
        """What the chosen answers have more of: (n, …), of (questions, ANSWERS, …)."""
        leads: FloatArray = values[self.question, self.chosen] - values[self.question, self.rejected]
        return leads

    def first(self, k: int) -> Pairs:
        """The first `k` of them."""
        return Pairs(self.question[:k], self.chosen[:k], self.rejected[:k])

    def then(self, more: Pairs) -> Pairs:
        """These, and `more` after them."""
        both = zip(
            (self.question, self.chosen, self.rejected), (more.question, more.chosen, more.rejected), strict=True
        )
        return Pairs(*(np.concatenate(columns) for columns in both))


def features_of(question: EvalQuestion, text: str) -> list[float]:
    """What a text shows: 41 marks (0 or 1), its length, and 1 if it keeps to the topic.

    Length is in units of 20 words around 30, and nobody cares for more than 1.5 of them either way.
    """
    length = min(1.5, max(-1.5, (len(text.split()) - 30) / 20))
    return [
        *(float(marker(name, text)) for name in Attributes.builtin()),
        length,
        float(on_topic(question.topic, text)),
    ]


def judge(
    world: World, person: Person, rng: np.random.Generator, n: int, *, test: bool, noise: bool, least: float = TIE
) -> Pairs:
    """Up to `n` random pairs between which the person's taste decides.

    Both answers keep to the topic: that one loses which does not says nothing about a person.

    Args:
        world: where the pairs are from.
        person: whose choices they are.
        rng: draws the pairs, and the noise.
        n: how many at most; training has at most 28 for each of its questions.
        test: from the questions that are kept for testing.
        noise: choose by Bradley-Terry at `TEMPERATURE` instead of always the better one.
        least: the lead from which on it decides.
    """
    first, second = np.triu_indices(ANSWERS, 1)
    liking = world.features @ person.taste
    topical = world.features[:, :, TOPIC] > 0
    fit = (world.test == test)[:, None] & topical[:, first] & topical[:, second]
    lead = liking[:, first] - liking[:, second]
    question, pair = np.nonzero(fit & (np.abs(lead) >= least))
    drawn = rng.permutation(len(question))[:n]
    question, pair = question[drawn], pair[drawn]
    lead = lead[question, pair]
    forward = rng.random(len(lead)) < 1 / (1 + np.exp(-lead / TEMPERATURE)) if noise else lead > 0
    chosen, rejected = np.where(forward, first[pair], second[pair]), np.where(forward, second[pair], first[pair])
    return Pairs(question, chosen, rejected)


def people(n: int, kind: str, seed: int) -> list[tuple[Person, np.random.Generator]]:
    """`n` people, each with a source of draws; `kind` is `tuning` or `report`, whose people differ."""
    found = []
    for i in range(n):
        rng = np.random.default_rng([*f"{kind} {seed}".encode(), i])
        found.append((Person.draw(rng), rng))
    return found


def reduced(world: World, reduction: str) -> FloatArray:
    """The rewards as a reduction has them: float64 (questions, ANSWERS, 46)."""
    rewards: FloatArray = world.rewards / np.vectorize(REDUCTIONS[reduction], otypes=[float])(world.tokens)[:, :, None]
    return rewards


# --- making it -------------------------------------------------------------------------------------------------------


def load(n: int = QUESTIONS, seed: int = 1, pair: tuple[Path, Path] | None = None) -> World:
    """The world of `n` questions; answers and scores are made once and kept in the cache folder.

    Args:
        n: how many questions.
        seed: of all draws.
        pair: GGUF files of the LLM and the sLM; None is the built-in pair.
    """
    llm, slm = pair or builtin_pair()
    folder = folders().cache / "experiments"
    folder.mkdir(parents=True, exist_ok=True)
    with Drift.load(llm, slm, ctx_size=1_024, attributes=POOL) as drift:
        models = models_of(drift)
        questions = ask(n, seed)
        kept = folder / f"{drift.pair.llm.fingerprint}-{drift.slm.fingerprint}-{n}-{seed}.json"
        if kept.exists():
            answers = json.loads(kept.read_text(encoding="utf-8"))
        else:
            with Drift.load(slm, slm, ctx_size=1_024) as small:
                halves = [_write(model, questions, seed) for model in (drift, small)]
            answers = [[*large, *little] for large, little in zip(*halves, strict=True)]
            kept.write_text(json.dumps(answers), encoding="utf-8")
        rewards, tokens = _score(drift, questions, answers)
    test = np.array([draw_hash(f"world {question.topic.id}") < 0.5 for question in questions])
    pairs = zip(questions, answers, strict=True)
    features = np.array([[features_of(question, text) for text in row] for question, row in pairs])
    return World(seed, (llm, slm), models, questions, answers, test, features, rewards, tokens)


def models_of(drift: Drift) -> str:
    """Names and fingerprints of the LLM and the sLM."""
    return f"{drift.pair.llm.name} ({drift.pair.llm.fingerprint}), {drift.slm.name} ({drift.slm.fingerprint})"


def ask(n: int, seed: int) -> list[EvalQuestion]:
    """`n` different questions in words that training never saw, on topics that it knows."""
    halves = [heldout_questions((n + 1) // 2, seed, unseen) for unseen in ("cell", "phrasing")]
    return list(chain.from_iterable(zip(*halves, strict=True)))[:n]


def _write(model: Drift, questions: Sequence[EvalQuestion], seed: int) -> list[list[str]]:
    """`ANSWERS // 2` different answers of one model to each question."""
    names = [style.name for style in styles()]
    progress, answers = Progress(len(questions)), []
    for question in questions:
        rng = random.Random(f"world {seed} {question.text} {model.pair.llm.name}")
        texts: list[str] = []
        for _ in range(_TRIES):
            draw = rng.random()
            shown = rng.sample(names, (draw >= _NEUTRAL) + (draw >= _NEUTRAL + _ONE))
            answer = model.complete(
                [{"role": "user", "content": question.text}],
                weights=dict.fromkeys(shown, 1.0),
                steer="prompt" if shown else "off",
                sampler=replace(SAMPLER, temperature=rng.choice(TEMPERATURES)),
                seed=rng.getrandbits(32),
                max_tokens=MAX_TOKENS,
                blocked=(),
            )
            if answer.text.strip() and answer.text not in texts:
                texts.append(answer.text)
            if len(texts) == ANSWERS // 2:
                break
        else:
            raise RuntimeError(f"{question.text!r}: {_TRIES} tries gave {len(texts)} different answers")
        answers.append(texts)
        progress.tick(1)
    return answers


def _score(
    drift: Drift, questions: Sequence[EvalQuestion], answers: Sequence[Sequence[str]]
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Rewards and tokens of all answers, two at a time, since that is what a scorer takes; neither is preferred."""
    progress, shape = Progress(len(questions)), (len(questions), ANSWERS)
    rewards, tokens = np.empty((*shape, len(POOL))), np.empty(shape, np.int64)
    with drift.scorer(cache=RewardCache(folders().cache / "experiments.sqlite3")) as scorer:
        for q, (question, row) in enumerate(zip(questions, answers, strict=True)):
            x = ({"role": "user", "content": question.text},)
            for a in range(0, ANSWERS, 2):
                scores = scorer.score(PreferencePair(x, row[a], row[a + 1]))
                rewards[q, a], rewards[q, a + 1] = scores.rewards()
                tokens[q, a], tokens[q, a + 1] = scores.n_chosen, scores.n_rejected
            progress.tick(1)
    return rewards, tokens
