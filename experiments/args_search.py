"""ARGS (Khanov et al., 2024): the LLM's likeliest tokens, rescored one by one by a reward model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from drift_edge.llama.context import Context
from drift_edge.llama.model import Model
from drift_edge.rewards import FloatArray
from experiments.reward_model import Embedder

TOP = 10
WEIGHT = 1.5  # of the reward, whose unit is its standard deviation over the world's answers
TEMPERATURE = 0.8


class Args:
    """Decodes with a reward for every beginning of an answer.

    Args:
        llm: GGUF file.
        embedder: of the sLM, with `top` sequences.
        pooling: of the reward model.
        top: tokens that are rescored.
    """

    def __init__(self, llm: Path, embedder: Embedder, pooling: str, top: int = TOP) -> None:
        self.model, self.embedder, self.pooling, self.top = Model(llm), embedder, pooling, top
        self.context = Context(self.model, n_seq=1, n_ctx=1_024)

    def close(self) -> None:
        """Free the LLM."""
        self.context.close()
        self.model.close()

    def answer(self, question: str, head: FloatArray, rng: np.random.Generator, most: int) -> list[int]:
        """Token ids of an answer.

        Args:
            question: the user's message.
            head: float64 (width,): a beginning is worth its embedding times this.
            rng: draws the tokens.
            most: tokens.
        """
        prompt, states = self.embedder.prompt(question), self.embedder.context
        self.context.prefill({0: prompt})
        for seq in range(self.top):
            states.truncate(seq, 0)
            self.embedder.feed([(seq, prompt)])
        tokens: list[int] = []
        total, pending = np.zeros(len(head)), list[int]()  # of the states so far; tokens that the sLM has not seen
        while len(tokens) < most:
            h = self.context.logits()[0]
            top = np.argpartition(-h, self.top)[: self.top]
            found = self.embedder.feed([(seq, [*pending, int(token)]) for seq, token in enumerate(top)])
            found = found.reshape(self.top, len(pending) + 1, -1)
            total += found[0, :-1].sum(axis=0)
            vectors = found[:, -1] if self.pooling == "last" else (total + found[:, -1]) / (len(tokens) + 1)
            chosen = int(top[_drawn(h[top] + WEIGHT * (vectors @ head), rng)])
            if chosen in self.model.end_ids:
                break
            for seq in range(self.top):
                states.truncate(seq, len(prompt) + len(tokens))
            tokens.append(chosen)
            pending = [chosen]
            self.context.extend([chosen], [0])
        return tokens


def _drawn(h: Sequence[float], rng: np.random.Generator) -> int:
    h = np.asarray(h, np.float64) / TEMPERATURE
    weights = np.exp(h - h.max())
    return int(rng.choice(len(weights), p=weights / weights.sum()))
