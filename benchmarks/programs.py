"""The programs that are compared: what people have now, what they would write, and drift-edge."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from unittest import mock

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from drift_edge import Drift, Finish, Token
from drift_edge.conversation import Mode, Prompts
from drift_edge.costs import Costs, Draft, Speculate

from .questions import BETA, QUESTION, SAMPLER

Message = dict[str, str]
Clock = Callable[[], float]
MESSAGES: list[Message] = [{"role": "user", "content": QUESTION}]
_LEAST = 16  # tokens of an answer that counts
_TRIES = 8


@dataclass(frozen=True, slots=True)
class Measured:
    """One answer.

    Attributes:
        tokens: those after the first.
        seconds: from the first token to the last.
        first: seconds to the first token.
        text: of the answer.
        drafted, accepted: tokens.
        choice: what speculation was, in words.
        prefilled: prompt tokens computed, over all sequences.
    """

    tokens: int
    seconds: float
    first: float = 0.0
    text: str = ""
    drafted: int = 0
    accepted: int = 0
    choice: str = ""
    prefilled: int = 0

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds if self.seconds else 0.0


class Program(Protocol):
    """Answers; the same `seed` gives the same answer."""

    def answer(self, messages: Sequence[Message], seed: int, most: int) -> Measured:
        """Answer a conversation with at most `most` tokens."""


def measure(program: Program, seed: int, most: int) -> Measured:
    """An answer to the usual question that is long enough to count."""
    for attempt in range(_TRIES):
        found = program.answer(MESSAGES, seed * _TRIES + attempt, most)
        if found.tokens >= min(_LEAST, most - 1):
            break
    return found


@dataclass(frozen=True, slots=True)
class Steered:
    """drift-edge.

    Attributes:
        drift: the engine.
        weights, steer, speculate, draft: as `Drift.chat`.
        clock: seconds.
        apart: learn and tell nothing of what decodes cost, so that `auto` has to find it out by itself.
    """

    drift: Drift
    weights: Mapping[str, float]
    steer: Mode = "logits"
    speculate: Speculate = "off"
    draft: Draft = "auto"
    clock: Clock = time.perf_counter
    apart: bool = False

    def answer(self, messages: Sequence[Message], seed: int, most: int) -> Measured:
        """As `Program`."""
        if not self.apart:
            return self._answer(messages, seed, most)
        with mock.patch.object(self.drift._planner, "_known_costs", Costs()):
            return self._answer(messages, seed, most)

    def _answer(self, messages: Sequence[Message], seed: int, most: int) -> Measured:
        times, finish = [self.clock()], None
        # No seed is given, since `auto` is more careful with one; the one that is drawn is ours all the same.
        with mock.patch("drift_edge.sampling.secrets.randbits", return_value=seed):
            events = self.drift.chat(
                messages,
                weights=self.weights,
                beta=BETA,
                active=max(1, len(self.weights)),
                steer=self.steer,
                sampler=SAMPLER,
                max_tokens=most,
                speculate=self.speculate,
                draft=self.draft,
            )
        for event in events:
            if isinstance(event, Token):
                times.append(self.clock())
            elif isinstance(event, Finish):
                finish = event
        if finish is None or len(times) < 2:
            return Measured(0, 0.0)
        s = finish.answer.speculation
        return Measured(
            len(times) - 2,
            times[-1] - times[1],
            times[1] - times[0],
            finish.answer.text,
            s.drafted,
            s.accepted,
            f"{s.draft} {s.g}" if s.g else "off",
            finish.answer.timings.prefilled_tokens,
        )


@dataclass(frozen=True, slots=True)
class PlainLlama:
    """What a user of llama-cpp-python has: one model, the same samplers, no steering.

    Attributes:
        llama: a `llama_cpp.Llama`.
        clock: seconds.
    """

    llama: Any
    clock: Clock = time.perf_counter

    def answer(self, messages: Sequence[Message], seed: int, most: int) -> Measured:
        """As `Program`."""
        times, text = [self.clock()], ""
        for part in self.llama.create_chat_completion(
            list(messages),
            stream=True,
            temperature=SAMPLER.temperature,
            top_k=SAMPLER.top_k,
            top_p=SAMPLER.top_p,
            min_p=SAMPLER.min_p,
            seed=seed,
            max_tokens=most,
        ):
            piece = part["choices"][0]["delta"].get("content")
            if piece:
                text += piece
                times.append(self.clock())
        if len(times) < 2:
            return Measured(0, 0.0)
        return Measured(len(times) - 2, times[-1] - times[1], times[1] - times[0], text)


class Naive:
    """Algorithm 2 as most people would write it: an object for each prompt, numpy, a full sort.

    Args:
        llama: a `llama_cpp.Llama` of the LLM.
        slms: k+1 of the sLM.
        prompts: of `MESSAGES`; other messages are not for this program.
        weights: p, in the order of the prompts.
        clock: seconds.
    """

    def __init__(
        self,
        llama: Any,
        slms: Sequence[Any],
        prompts: Prompts,
        weights: Mapping[str, float],
        clock: Clock = time.perf_counter,
    ) -> None:
        self._clock = clock
        self._models, self._p = [llama, *slms], list(weights.values())
        self._prompts = [prompts.llm, prompts.base, *prompts.attributes.values()]

    def answer(self, messages: Sequence[Message], seed: int, most: int) -> Measured:
        """As `Program`."""
        if messages != MESSAGES:
            raise ValueError("this program answers one question")
        rng = np.random.default_rng(seed)
        for model, prompt in zip(self._models, self._prompts, strict=True):
            model.n_tokens = 0
            model.eval(prompt)
        first = self._clock()
        for _ in range(most):
            rows = [np.array(_last_logits(model)) for model in self._models]
            h = rows[0] + sum(p / BETA * (h_i - rows[1]) for p, h_i in zip(self._p, rows[2:], strict=True))
            order = np.argsort(-h)[: SAMPLER.top_k]
            probability = np.exp((h[order] - h[order[0]]) / SAMPLER.temperature)
            probability /= probability.sum()
            keep = np.searchsorted(np.cumsum(probability), SAMPLER.top_p) + 1
            token = int(rng.choice(order[:keep], p=probability[:keep] / probability[:keep].sum()))
            for model in self._models:
                model.eval([token])
        return Measured(most, self._clock() - first)


def _last_logits(model: Any) -> NDArray[np.float32]:
    return np.ctypeslib.as_array(llama_cpp.llama_get_logits(model.ctx), (model.n_vocab(),))
