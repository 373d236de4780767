"""Measure a pair on what its training never saw, through llama.cpp, on the files that ship.

Answers are read by rule (`corpus.reader`); a reward is log pi(y|x,s_i) - log pi(y|x,s_0) under the sLM. Every draw
comes from one seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from operator import attrgetter
from statistics import fmean, median

import numpy as np

from drift_edge import Answer, Drift

from .corpus import EvalQuestion, documents, heldout_questions
from .corpus.answers import Voice, plan, render
from .corpus.outside import outside_question
from .corpus.questions import KINDS, ask, follow_ups, phrasings
from .corpus.reader import followup_right, garbled, marker, mentions, on_topic, owns_up, repeated_items
from .corpus.splits import heldout_follow_ups
from .corpus.styles import Style, styles
from .corpus.system import intensity
from .corpus.topics import Topic
from .corpus.unknown import unknown_topic
from .likelihood import Message, Scorer, auc, drafting, user
from .results import Figure, Judged, Results, StyleRow

BETA = 0.5
MAX_TOKENS = 250
SCORED_AT_ONCE = 42
_WAYS = 4  # of asking for a style: its sentence, an unseen paraphrase of it, weight +1, weight -1
_FOLLOW_UPS = ("follow-ups", "follow-ups in unseen phrasings")
_SCORE_COST = 0.12  # of an answer's

Tick = Callable[[float], None]
"""Told the cost of work done, in the units of `Sizes.cost`."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much to measure.

    Attributes:
        styled: texts in each attribute's style whose reward is measured, on known and again on unseen topics.
        neutral: neutral texts to compare them with.
        cells, phrasings, topics, nouns, outside, follow_ups: questions put to the LLM, by what is unseen in them.
        per_style: questions for each attribute, each asked in every way of steering.
        drafted: answers over which the acceptance of drafted tokens is measured, plain and again steered.
        documents: unseen conversations on which each model's loss is measured.
    """

    styled: int = 50
    neutral: int = 100
    cells: int = 200
    phrasings: int = 80
    topics: int = 40
    nouns: int = 150
    outside: int = 40
    follow_ups: int = 150
    per_style: int = 16
    drafted: int = 50
    documents: int = 250

    def cost(self) -> float:
        """Work in all, in units of about one generated answer."""
        answers = self.cells + self.phrasings + self.topics + self.nouns + self.outside + 2 * self.follow_ups
        scored = 2 * (len(styles()) * (2 * self.styled + self.neutral) + self.neutral) + 2 * self.documents
        return answers + _WAYS * len(styles()) * self.per_style + 4 * self.drafted + scored * _SCORE_COST


FULL = Sizes()
QUICK = Sizes(12, 24, 40, 20, 15, 30, 15, 30, 3, 12, 60)


def evaluate(drift: Drift, sizes: Sizes, seed: int, tick: Tick) -> Results:
    """Measure a pair.

    Args:
        drift: the pair, loaded.
        sizes: how much to measure.
        seed: of every draw.
        tick: told of work done, in the units of `Sizes.cost`.
    """
    losses = _losses(drift, sizes.documents, seed, tick)
    known = _reward_aucs(drift, known_questions(sizes.neutral, seed), sizes.styled, seed, tick)
    unseen = _reward_aucs(drift, heldout_questions(sizes.neutral, seed, "topic"), sizes.styled, seed, tick)
    asker = Asker(drift, seed, tick)
    base, judged = _base_answers(asker, sizes, seed)
    plain = [j.text for j in judged if j.group in ("cells", "phrasings")]
    rows = [
        StyleRow(
            style.name,
            known[style.name],
            unseen[style.name],
            fmean(marker(style.name, text) for text in plain),
            *_styled(asker, style, sizes.per_style, seed),
        )
        for style in styles()
    ]
    lowest = min(rows, key=lambda row: row.auc)
    lowest_topics = min(rows, key=lambda row: row.auc_topics)
    asked = len(rows) * sizes.per_style
    figures = [
        Figure("reward AUC, mean of the attributes", fmean(row.auc for row in rows), len(rows), 0.97),
        Figure("reward AUC, lowest", lowest.auc, len(rows), 0.88, note=lowest.name),
        Figure("reward AUC on unseen topics, mean", fmean(row.auc_topics for row in rows), len(rows), 0.95),
        Figure("reward AUC on unseen topics, lowest", lowest_topics.auc_topics, len(rows), note=lowest_topics.name),
        *base,
        Figure("marker, plain", fmean(row.plain for row in rows), len(plain)),
        Figure("marker, attribute prompted", fmean(row.prompted for row in rows), asked),
        Figure("marker, unseen paraphrase prompted", fmean(row.paraphrased for row in rows), asked),
        Figure(f"marker, fused, +1 at beta {BETA:g}", fmean(row.plus for row in rows), asked),
        Figure(f"marker, fused, -1 at beta {BETA:g}", fmean(row.minus for row in rows), asked),
        Figure(f"on topic, fused, +1 at beta {BETA:g}", fmean(row.on_topic for row in rows), asked),
        Figure(f"garbled, fused, +1 at beta {BETA:g}", fmean(row.garbled for row in rows), asked),
        *_drafts(drift, sizes.drafted, seed, tick),
        *losses,
    ]
    return Results(seed, figures, rows, [j for j in judged if not j.right or j.garbled or j.repeats])


# --- answers -------------------------------------------------------------------------------------------------------


class Asker:
    """Puts questions to a pair, no two with the same noise.

    Args:
        drift: the pair.
        seed: of the noise.
        tick: told 1 for every answer.
    """

    def __init__(self, drift: Drift, seed: int, tick: Tick) -> None:
        self.drift, self.seed, self._tick, self._asked = drift, seed, tick, 0

    def ask(
        self, messages: Sequence[Message], weights: Mapping[str, float] | None = None, *, prompt: bool = False
    ) -> Answer:
        """The pair's answer at the default sampler settings; `prompt` tells the LLM the attributes, else they fuse."""
        self._asked += 1
        answer = self.drift.complete(
            messages,
            weights=weights,
            beta=BETA,
            steer="prompt" if prompt else "logits",
            seed=self.seed,
            attempt=self._asked,
            max_tokens=MAX_TOKENS,
            blocked=(),
        )
        self._tick(1)
        return answer


def known_questions(n: int, seed: int) -> list[EvalQuestion]:
    """n questions about topics of training, in cells and in phrasings that it never saw, the two in turn."""
    cells, others = (heldout_questions((n + 1) // 2, seed, unseen) for unseen in ("cell", "phrasing"))
    return list(chain.from_iterable(zip(cells, others, strict=True)))[:n]


class _Judge:
    """Puts questions under the base prompt and judges the answers."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self.judged: list[Judged] = []

    def ask(self, group: str, messages: Sequence[Message], topic: Topic, right: Callable[[str], bool]) -> None:
        """Ask and judge; `topic` is what the question is about, `right` says whether an answer's text is right."""
        answer = self._asker.ask(messages)
        self.judged.append(
            Judged(
                group,
                [message["content"] for message in messages],
                answer.text,
                len(answer.tokens),
                right(answer.text),
                _garbled(answer, topic, messages[-1]["content"]),
                owns_up(topic, answer.text),
                repeated_items(answer.text) > 0,
            )
        )

    def share(
        self, name: str, good: Callable[[Judged], bool], groups: Sequence[str], target: float | None, most: bool = False
    ) -> Figure:
        """The share of some groups' answers that is good; of several groups, the note tells each one's."""
        by_group = {group: [good(j) for j in self.judged if j.group == group] for group in groups}
        pooled = list(chain.from_iterable(by_group.values()))
        several = [f"{group} {fmean(values):.3f}" for group, values in by_group.items()]
        note = ", ".join(several) if len(several) > 1 else ""
        return Figure(name, fmean(pooled), len(pooled), target, most, note)


def _base_answers(asker: Asker, sizes: Sizes, seed: int) -> tuple[list[Figure], list[Judged]]:
    """What the LLM says under the base prompt: figures, and all answers."""
    judge, rng = _Judge(asker), random.Random(seed)
    for unseen, n in (("cell", sizes.cells), ("phrasing", sizes.phrasings), ("topic", sizes.topics)):
        for question in heldout_questions(n, seed, unseen):
            # Of an unseen topic there is nothing to say but that one does not know it.
            topic = replace(question.topic, known=False) if unseen == "topic" else question.topic
            judge.ask(f"{unseen}s", [user(question.text)], topic, partial(on_topic, topic))
    for _ in range(sizes.nouns):
        topic = unknown_topic(rng, heldout=True)
        text = ask(topic, rng.choice(phrasings(rng.choice(KINDS))))
        judge.ask("nouns", [user(text)], topic, partial(mentions, topic.key))
    for _ in range(sizes.outside):
        text, topic, _ = outside_question(rng, heldout=True)
        judge.ask("outside", [user(text)], topic, partial(mentions, topic.key))
    for pair in heldout_follow_ups(sizes.follow_ups, seed):
        first, topic = user(pair.first.text), pair.first.topic
        said = asker.ask([first]).text
        turns = [first, {"role": "assistant", "content": said}, user(pair.text)]
        group = _FOLLOW_UPS[pair.text in follow_ups(pair.kind, heldout=True)]
        judge.ask(group, turns, topic, partial(followup_right, topic, pair.kind, [said]))
    share, right = judge.share, attrgetter("right")
    groups = list(dict.fromkeys(j.group for j in judge.judged))
    tokens = [j.tokens for j in judge.judged]
    return [
        share("on topic, held-out cells", right, ["cells"], 0.97),
        share("on topic, held-out phrasings", right, ["phrasings"], None),
        share("unseen nouns mentioned", right, ["nouns"], 0.9),
        share("unseen topics mentioned", right, ["topics"], None),
        share("thing asked named, outside the domain", right, ["outside"], None),
        share("follow-ups right", right, _FOLLOW_UPS, 0.9),
        share("garbled or unfinished answers", attrgetter("garbled"), groups, 0.02, most=True),
        share("known topics answered by not knowing", attrgetter("owns_up"), ["cells", "phrasings"], None),
        share("answers that repeat an item", attrgetter("repeats"), groups, None),
        Figure("tokens an answer, median", median(tokens), len(tokens), note=f"mean {fmean(tokens):.1f}"),
    ], judge.judged


def _styled(asker: Asker, style: Style, n: int, seed: int) -> Iterator[float]:
    """The last six fields of a `StyleRow`: shares of answers to the same n questions."""
    found: list[list[bool]] = []
    for question in known_questions(n, random.Random(f"{seed} {style.name}").getrandbits(32)):
        asked = [user(question.text)]
        plus = asker.ask(asked, {style.name: 1.0})
        answers = [
            asker.ask(asked, {style.name: 1.0}, prompt=True),
            asker.ask([{"role": "system", "content": style.heldout_prompt}, *asked]),
            plus,
            asker.ask(asked, {style.name: -1.0}),
        ]
        marks = [marker(style.name, answer.text) for answer in answers]
        found.append([*marks, on_topic(question.topic, plus.text), _garbled(plus, question.topic, question.text)])
    return map(fmean, zip(*found, strict=True))


def _garbled(answer: Answer, topic: Topic, asked: str) -> bool:
    return answer.finish_reason != "stop" or garbled(answer.text, topic, asked)


# --- scores --------------------------------------------------------------------------------------------------------


def _reward_aucs(
    drift: Drift, questions: Sequence[EvalQuestion], n_styled: int, seed: int, tick: Tick
) -> dict[str, float]:
    """By attribute: the probability that its reward is larger for a text in its style than for a neutral one."""
    rng, pool, pair = random.Random(seed), drift.attributes, drift.pair

    def written(some: Sequence[EvalQuestion], style: Style | None = None) -> list[tuple[str, str]]:
        voices = [Voice((style,), intensity(rng)) if style else Voice() for _ in some]
        texts = [render(plan(q.topic, q.kind, rng), v, rng).text for q, v in zip(some, voices, strict=True)]
        return [(q.text, text) for q, text in zip(some, texts, strict=True)]

    neutral = written(questions)
    found = {}
    with Scorer(pair.slm, pair.slm_format, SCORED_AT_ONCE, lambda n: tick(n * _SCORE_COST)) as scorer:

        def score(sentence: str, texts: Sequence[tuple[str, str]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
            return scorer.score([scorer.job([user(x)], sentence, y) for x, y in texts])

        neutral_base = score(pool.base, neutral)
        for style in styles():
            sentence, styled = pool[style.name].prompt, written(questions[:n_styled], style)
            reward = score(sentence, styled) - score(pool.base, styled)
            found[style.name] = auc(reward, score(sentence, neutral) - neutral_base)
    return found


def _losses(drift: Drift, n: int, seed: int, tick: Tick) -> list[Figure]:
    """Nats an id of an answer, for both models, on conversations that training never draws."""
    sample = list(islice(documents("test", seed=seed), n))
    figures = []
    for name, model, chat in (
        ("LLM", drift.pair.llm, drift.pair.llm_format),
        ("sLM", drift.pair.slm, drift.pair.slm_format),
    ):
        with Scorer(model, chat, SCORED_AT_ONCE // 3, lambda n: tick(n * _SCORE_COST)) as scorer:
            jobs = [scorer.job(d.messages[:-1], None, d.messages[-1]["content"]) for d in sample]
            total = float(scorer.score(jobs).sum())
        ids = sum(len(answer) for _, answer in jobs)
        figures.append(Figure(f"loss of the {name} on unseen documents, nats a token", -total / ids, ids))
    return figures


def _drafts(drift: Drift, n: int, seed: int, tick: Tick) -> list[Figure]:
    """Acceptance of the sLM's drafts and the entropy of what is drawn from, plain and steered."""
    rng = np.random.default_rng(seed)
    figures = []
    for steered, name in ((False, ""), (True, f", 7 attributes at beta {BETA:g}")):
        walks = []
        for question in known_questions(n, seed):
            weights = persona(rng) if steered else {}
            walks.append(drafting(drift, question.text, weights, BETA, rng, MAX_TOKENS))
            tick(2)
        accepted, bits = np.concatenate(walks, axis=1)
        figures += [
            Figure(f"acceptance of a drafted token{name}", float(accepted.mean()), len(bits), 0.85),
            Figure(f"entropy, bits{name}", float(bits.mean()), len(bits)),
        ]
    return figures


def persona(rng: np.random.Generator, k: int = 7) -> dict[str, float]:
    """k random attributes with random signed weights, a vector of length 1."""
    names = rng.choice([style.name for style in styles()], k, replace=False)
    p = rng.standard_normal(k)
    return {str(name): float(weight) for name, weight in zip(names, p / np.linalg.norm(p), strict=True)}
