"""A pair whose decodes take the seconds of a table, on a clock of its own, and whose drafts fit as often as asked.

Everything above the contexts is the real thing, so that what `auto` loses against the best fixed choice can be counted
to the second, whatever this machine is doing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from drift_edge import CancelToken, SamplerSettings
from drift_edge.costs import KINDS, DraftKind, Plan
from drift_edge.decoding import Decoder, Generation, InStep
from drift_edge.draws import Draws
from drift_edge.fusion import Fusion
from drift_edge.speculation import Speculation
from drift_edge.steering import Steering

_VOCAB = 4
_GREEDY = SamplerSettings(temperature=0, plausibility=0)
_CONTEXT, _PROMPT = 4_096, 40


@cache
def random_at(answer: int, position: int) -> tuple[int, float]:
    """The token that the target draws at a position, and how lucky a draft has to be there, in [0, 1)."""
    token, luck = np.random.default_rng((answer, position)).random(2)
    return int(3 * token), float(luck)


@dataclass(slots=True)
class Clock:
    """Seconds that decodes took.

    Attributes:
        jitter: standard deviation of a decode's seconds, as a share; one in 25 takes half as long again.
        first: what the first decode of a shape takes, in units of its price.
    """

    rng: np.random.Generator
    jitter: float = 0.0
    first: float = 1.0
    now: float = 0.0
    _seen: set[tuple[str, int]] = field(default_factory=set)

    def __call__(self) -> float:
        return self.now

    def spend(self, name: str, rows: int, seconds: float) -> None:
        """Let a decode of `rows` rows pass."""
        if self.jitter:
            seconds *= float(np.exp(self.jitter * self.rng.standard_normal()))
            seconds *= 1.5 if self.rng.random() < 0.04 else 1.0
        if (name, rows) not in self._seen:
            self._seen.add((name, rows))
            seconds *= self.first
        self.now += seconds


class PricedContext:
    """Sequences whose next token is given by the position, for sequence `i` with the probability `fits[i]`."""

    n_ctx, n_batch, n_outputs = _CONTEXT, 512, 32
    model = SimpleNamespace(end_ids=frozenset(), piece=lambda _: b"x")

    def __init__(self, name: str, prices: Mapping[int, float], clock: Clock, fits: Sequence[float]) -> None:
        self.name, self.prices, self.clock, self.fits, self.n_seq = name, prices, clock, list(fits), len(fits)
        self.tokens: list[list[int]] = [[] for _ in fits]
        self.answer = 0
        self._logits: NDArray[np.float32] = np.empty((0, _VOCAB), np.float32)

    def prefill(self, prompts: Mapping[int, Sequence[int]]) -> None:
        for seq, prompt in prompts.items():
            self.tokens[seq] = list(prompt)
        self._logits = np.array([self._row(seq) for seq in prompts])

    def extend(self, tokens: Sequence[int], seqs: Sequence[int]) -> None:
        self.feed([(seq, [token]) for seq, token in zip(seqs, tokens, strict=True)])

    def feed(self, parts: Sequence[tuple[int, Sequence[int]]], outputs: Sequence[int] | None = None) -> None:
        rows = []
        for (seq, tokens), last in zip(parts, outputs or [len(tokens) for _, tokens in parts], strict=True):
            for at, token in enumerate(tokens):
                self.tokens[seq].append(token)
                if at >= len(tokens) - last:
                    rows.append(self._row(seq))
        self.clock.spend(self.name, len(rows), self.prices[len(rows)])
        self._logits = np.array(rows)

    def _row(self, seq: int) -> NDArray[np.float32]:
        at = len(self.tokens[seq])
        token, luck = random_at(self.answer, at)
        row = np.zeros(_VOCAB, np.float32)
        row[token if luck < self.fits[seq] else 3] = 10
        return row

    def truncate(self, seq: int, n: int) -> None:
        del self.tokens[seq][n:]

    def set_abort(self, flag: object) -> None:
        pass

    def logits(self) -> NDArray[np.float32]:
        return self._logits


@dataclass(slots=True)
class World:
    """A pair on a machine, asked one answer after another.

    Attributes:
        llm, slm: seconds of a decode by its rows.
        k: attributes; 0 is an sLM that drafts for the plain LLM.
        accepted: share of drafted tokens that fit: of steered drafts, and of base drafts.
        clock: of all its decodes.
    """

    llm: Mapping[int, float]
    slm: Mapping[int, float]
    k: int
    accepted: tuple[float, float]
    clock: Clock

    def answers(self, plan: Callable[[], Plan | None], answers: Sequence[int], tokens: int = 64) -> list[float]:
        """Seconds of each of the answers numbered, of `tokens` tokens; `plan()` says how the next one is drafted."""
        steered, base = self.accepted
        llm: Any = PricedContext("llm", self.llm, self.clock, [1.0])
        fits = [base, *[steered] * self.k]
        settings: Any = SimpleNamespace(make=lambda *_: PricedContext("slm", self.slm, self.clock, fits))
        slm = Steering(llm.model, settings, self.k + 1)
        # With weights that add up to 1, h_base + s_t is the attributes' common row.
        fusion = Fusion(np.full(self.k, 1 / self.k) if self.k else np.empty(0))
        decoder, prompt, taken = Decoder(_VOCAB), [0] * _PROMPT, []
        with mock.patch("drift_edge.speculation.perf_counter", self.clock):
            for answer in answers:
                llm.answer = slm.context.answer = answer  # type: ignore[attr-defined]
                llm.prefill({0: prompt})
                slm.prefill(prompt, {str(i): prompt for i in range(self.k)}, None)
                draws, start, planned = Draws(decoder.sampler, _GREEDY, answer, prompt, tokens), self.clock.now, plan()
                steps = (
                    InStep(llm, slm if self.k else None, _VOCAB)
                    if planned is None
                    else Speculation(llm, slm, fusion, _VOCAB, draws, planned, tokens)
                )
                cancel, into = CancelToken(), Generation()
                for _ in decoder.generate(
                    steps, fusion, draws, max_tokens=tokens, stop=(), cancel=cancel, measure=False, into=into
                ):
                    pass
                assert into.tokens == [random_at(answer, _PROMPT + i)[0] for i in range(tokens)]
                taken.append(self.clock.now - start)
        return taken

    def seconds(self, kind: DraftKind, g: int, answers: Sequence[int], tokens: int = 64) -> float:
        """What they take with a fixed draft at the table's prices, by counting; `g` of 0 is without."""
        fits, total = self.accepted[kind == "base"], 0.0
        for answer in answers:
            drawn = 1  # by the prompt's last row
            while drawn < tokens:
                n = min(g, tokens - drawn - 1)
                total += self._block(kind, g, n) if n else self.llm[1] + (self.slm[self.k + 1] if self.k else 0.0)
                hits = 0
                while hits < n and random_at(answer, _PROMPT + drawn + hits)[1] < fits:
                    hits += 1
                drawn += hits + 1
        return total

    def _block(self, kind: DraftKind, g: int, n: int) -> float:
        if not self.k:
            return n * self.slm[1] + self.llm[g + 1]
        if kind == "steered":
            return (n + 1) * self.slm[self.k + 1] + self.llm[g + 1]
        at_once = PricedContext.n_outputs // (g + 1)  # attributes in one decode
        whole, rest = divmod(self.k, at_once)
        attributes = whole * self.slm[at_once * (g + 1)] + (self.slm[rest * (g + 1)] if rest else 0.0)
        return (n + 1) * self.slm[1] + attributes + self.llm[g + 1]

    def best(self) -> tuple[DraftKind, int]:
        """The fixed draft that is soonest in the long run."""
        many = range(10_000, 10_040)
        return min(((kind, g) for kind in KINDS for g in range(8)), key=lambda draft: self.seconds(*draft, many))
