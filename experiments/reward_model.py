"""The reward model that Drift is compared with: a Bradley-Terry head with a ridge on the sLM's own embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from drift_edge.attributes import Attributes
from drift_edge.llama.chat import ChatFormat
from drift_edge.llama.context import Context
from drift_edge.llama.model import Model
from drift_edge.rewards import DEFAULT_TEXT_LENGTH, FloatArray
from experiments.world import ANSWERS, World

RIDGES = (1.0, 10.0, 100.0, 1000.0)
POOLINGS = ("mean", "last")  # of the response's hidden states
_N_CTX, _BATCH = 512, 512


class Embedder:
    """Hidden states of the sLM's last layer, in several sequences of one context.

    Args:
        slm: GGUF file.
        n_seq: sequences.
    """

    def __init__(self, slm: Path, n_seq: int = 1) -> None:
        self.model = Model(slm)
        self.format = ChatFormat(self.model)
        self.context = Context(self.model, n_seq=n_seq, n_ctx=_N_CTX, n_batch=_BATCH, n_outputs=_BATCH)
        lib.llama_set_embeddings(self.context.handle, True)
        self.width = int(lib.llama_model_n_embd(self.model.handle))

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.context.close()
        self.model.close()

    def prompt(self, question: str) -> list[int]:
        """Token ids of the question under the base prompt."""
        return self.format.encode([{"role": "user", "content": question}], Attributes.builtin().base, {})

    def feed(self, parts: Sequence[tuple[int, Sequence[int]]]) -> NDArray[np.float32]:
        """Append tokens to sequences, in one decode: float32 (tokens, width), in the order of the parts."""
        self.context.feed(parts)
        n = sum(len(tokens) for _, tokens in parts)
        return np.ctypeslib.as_array(lib.llama_get_embeddings(self.context.handle), (n, self.width)).copy()

    def pooled(self, world: World) -> dict[str, FloatArray]:
        """Every answer of the world, by pooling: float64 (questions, ANSWERS, width)."""
        found = {pooling: np.empty((len(world.answers), ANSWERS, self.width)) for pooling in POOLINGS}
        for q, (question, row) in enumerate(zip(world.questions, world.answers, strict=True)):
            for a, text in enumerate(row):
                for pooling, vector in self.vectors(question.text, text).items():
                    found[pooling][q, a] = vector
        return found

    def vectors(self, question: str, text: str) -> dict[str, FloatArray]:
        """One answer, by pooling: float64 (width,)."""
        prompt = self.prompt(question)
        response = self.format.encode_response(text, prompt, DEFAULT_TEXT_LENGTH)
        kept = self.context.shared_prefix(0, prompt)
        self.context.truncate(0, kept)
        states = self.feed([(0, [*prompt[kept:], *response])])[-len(response) :].astype(np.float64)
        return {"mean": states.mean(axis=0), "last": states[-1]}
