"""Scoring: tokens per second against bare `llama_decode` calls over the same tokens.

The limit is what `Scorer` asked llama.cpp for, done again by `llama_decode` and `llama_memory_seq_rm` alone: the same
tokens and rows in the same batches, no template, no tokenizer, no log-probabilities. A second limit packs as many
tokens and rows into full batches, as a loop that knew nothing of pairs would. All take turns, and are timed by the
processor time of the process, which other programs on the machine disturb less than the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
from llama_cpp import llama_cpp as lib

from drift_edge import Attributes
from drift_edge.approximation import choose_active, estimate_from_rewards
from drift_edge.llama.chat import ChatFormat
from drift_edge.llama.context import Context
from drift_edge.llama.model import Model
from drift_edge.preferences import PreferencePair
from drift_edge.scoring import Scorer

_QUESTIONS = ("How do I make tea?", "What is a bicycle?", "Why should I grow tomatoes?", "Is chess worth it?")
_CHOSEN = (
    "First, boil some fresh water. Then, put one spoon of leaves in the pot. Next, pour the water over the leaves. "
    "Wait a few minutes before you pour it. I hope that this is of some use to you."
)
_REJECTED = "Oh, what a question! You will love it! It keeps you fit, and it costs next to nothing! Just begin today!"
_BATCH, _TOGETHER = 512, 8


def run(slm: Path, quick: bool = False) -> list[dict[str, Any]]:
    """Rows of {name, tokens, us_per_token, tokens_per_second, of_the_limit}: medians over rounds, all in turn.

    Args:
        slm: GGUF of the sLM.
        quick: fewer rounds.
    """
    pairs = _pairs()
    contexts: list[_Recorded] = []

    def make(*args: Any, **settings: Any) -> _Recorded:
        contexts.append(_Recorded(*args, **settings))
        return contexts[-1]

    with (
        Model(slm) as model,
        mock.patch("drift_edge.scoring.Context", make),
        Scorer(model, ChatFormat(model), Attributes.builtin()) as scorer,
    ):

        def score() -> None:
            for pair in pairs:
                scorer.score(pair)

        score()  # the context is made, and s_i is in every sequence
        context = contexts[-1]
        context.steps = []
        score()
        recorded, context.steps = context.steps, None
        full = _FullBatches(model, context)
        programs: dict[str, Callable[[], None]] = {
            "drift-edge": score,
            "limit: the same llama_decode calls, bare": lambda: context.replay(recorded),
            "limit: full batches, bare": full.run,
        }
        times: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(3 if quick else 9):
            for name, program in programs.items():
                start = time.process_time()
                program()
                times[name].append(time.process_time() - start)
        cpu = {name: median(values) for name, values in times.items()}
        full.context.close()
    return [
        {
            "name": name,
            "tokens": context.n_tokens,
            "rows": context.n_rows,
            "us_per_token": value / context.n_tokens * 1e6,
            "tokens_per_second": context.n_tokens / value,
            "of_the_limit": cpu["limit: the same llama_decode calls, bare"] / value,
            "of_full_batches": cpu["limit: full batches, bare"] / value,
        }
        for name, value in cpu.items()
    ]


def learned_weights(slm: Path, active: int = 7) -> dict[str, float]:
    """Weights that the paper's Algorithm 1 makes of the pairs that are scored here."""
    with Model(slm) as model, Scorer(model, ChatFormat(model), Attributes.builtin()) as scorer:
        rewards = [scorer.score(pair).rewards() for pair in _pairs()]
    W, L = (np.stack([pair[side] for pair in rewards]) for side in (0, 1))
    names = tuple(Attributes.builtin())
    return choose_active(estimate_from_rewards(names, W, L, "closed-form").as_dict(), active, renormalise=True)


def _pairs() -> list[PreferencePair]:
    return [PreferencePair(({"role": "user", "content": q},), _CHOSEN, _REJECTED) for q in _QUESTIONS]


class _Recorded(Context):
    """A context that remembers, while `steps` is a list, what it is asked for, and can do it again bare."""

    steps: list[tuple[int, int] | Any] | None = None  # (sequence, tokens to keep) or a llama_batch
    n_tokens = n_rows = 0

    def truncate(self, seq: int, n: int) -> None:
        """As `Context`."""
        if self.steps is not None:
            self.steps.append((seq, n))
        super().truncate(seq, n)

    def feed(self, parts: Sequence[tuple[int, Sequence[int]]], outputs: Sequence[int] | None = None) -> None:
        """As `Context`."""
        if self.steps is not None and outputs is not None:
            self.steps.append(self._batch_of(parts, outputs))
        super().feed(parts, outputs)

    def _batch_of(self, parts: Sequence[tuple[int, Sequence[int]]], outputs: Sequence[int]) -> Any:
        n = sum(len(tokens) for _, tokens in parts)
        batch, at = lib.llama_batch_init(n, 0, 1), 0
        for (seq, tokens), rows in zip(parts, outputs, strict=True):
            for i, token in enumerate(tokens):
                batch.token[at], batch.pos[at] = token, len(self.tokens[seq]) + i
                batch.n_seq_id[at], batch.seq_id[at][0], batch.logits[at] = 1, seq, len(tokens) - i <= rows
                at += 1
        batch.n_tokens = n
        self.n_tokens += n
        self.n_rows += sum(outputs)
        return batch

    def replay(self, steps: Sequence[tuple[int, int] | Any]) -> None:
        """Recorded steps once more; they must leave the sequences as they found them."""
        handle = self.handle
        memory = lib.llama_get_memory(handle)
        for step in steps:
            if isinstance(step, tuple):
                lib.llama_memory_seq_rm(memory, *step, -1)
            elif lib.llama_decode(handle, step):
                raise RuntimeError("llama.cpp could not decode a recorded batch")
            else:
                lib.llama_get_logits(handle)  # waits for the rows


class _FullBatches:
    """As many tokens and rows, in batches of 8 sequences of 64 tokens."""

    def __init__(self, model: Model, like: _Recorded) -> None:
        self.n_tokens, self.share = like.n_tokens, like.n_rows / like.n_tokens
        self.context = Context(
            model,
            n_seq=_TOGETHER,
            n_ctx=like.n_ctx,
            n_batch=_BATCH,
            threads=like.threads,
            flash_attn="off",
            n_outputs=_BATCH,
        )
        self.tokens = np.random.default_rng(0).integers(0, 256, _BATCH // _TOGETHER).tolist()

    def run(self) -> None:
        """Sequences of three parts each, about as long as a prompt and a response."""
        parts = [(seq, self.tokens) for seq in range(_TOGETHER)]
        rows = [round(self.share * len(self.tokens))] * _TOGETHER
        for i in range(round(self.n_tokens / _BATCH)):
            if i % 3 == 0:
                for seq in range(_TOGETHER):
                    self.context.truncate(seq, 0)
            self.context.feed(parts, rows)
            self.context.logits()


def lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The rows as a table."""
    yield (f"Scoring, 42 prompts, {rows[0]['tokens']:,} tokens, {rows[0]['rows']:,} rows; medians of processor time")
    yield (f"{'':48} {'us/token':>9} {'tokens/s':>9} {'of limit':>8} {'of full':>8}")
    for row in rows:
        yield (
            f"{row['name']:48} {row['us_per_token']:9.2f} {row['tokens_per_second']:9.0f} "
            f"{row['of_the_limit']:8.2f} {row['of_full_batches']:8.2f}"
        )
    yield (f"scoring / limit                 {rows[0]['of_the_limit']:.2f}  (aim: at least 0.9)")
