"""Drift Decoding (Algorithm 2): fuse the LLM's logits with the steering term, draw, append, repeat."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drift_edge import kernel
from drift_edge.errors import DecodeError
from drift_edge.events import CancelToken, FinishReason, Token
from drift_edge.llama.context import Aborted, Context
from drift_edge.llama.model import Model
from drift_edge.sampling import SamplerSettings
from drift_edge.steering import Steering


@dataclass(slots=True)
class Generation:
    """What a generation has produced so far.

    Attributes:
        tokens: ids, the end token not among them.
        text: text shown so far.
        held: text held back because a stop string may be under way.
        reason: why it ended.
        stopped_by: the stop string that ended it, or None.
        kl: sum over tokens of KL(steered || LLM), nats; entropies likewise, bits. Zero unless measured.
    """

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    held: str = ""
    reason: FinishReason = "length"
    stopped_by: str | None = None
    kl: float = 0.0
    entropy_llm: float = 0.0
    entropy_steered: float = 0.0


class Decoder:
    """Draws tokens from the LLM's context, steered by the sLM's.

    Args:
        llm: the LLM's context, one sequence.
        n_vocab: ids that both models share; padding past it is never drawn.
    """

    def __init__(self, llm: Context, n_vocab: int) -> None:
        self.llm, self.n_vocab = llm, n_vocab
        self._sampler = kernel.Sampler(n_vocab)
        self._h = np.empty(n_vocab, np.float32)

    def fused(self, steering: Steering | None, p_over_beta: NDArray[np.float64]) -> NDArray[np.float32]:
        """The logits to draw from at the contexts' present position (Eq. 15).

        Args:
            steering: None leaves the LLM's own row.
            p_over_beta: float64 (k,), p_i / beta in the order of the steering's rows.

        Returns:
            float32 (n_vocab,), valid until the next call or decode.

        Raises:
            DecodeError: a row that takes part has NaN or infinity.
        """
        h_llm = self.llm.logits()[0, : self.n_vocab]
        if steering is None:
            return h_llm
        H = steering.logits()[:, : self.n_vocab]  # h_base, h_1 .. h_k
        with _usable():
            # h = h_llm + sum_i p_i/beta (h_i - h_base)                                   (Eq. 15)
            kernel.fuse(self._h, h_llm, H, p_over_beta)
        return self._h

    def generate(
        self,
        steering: Steering | None,
        p_over_beta: NDArray[np.float64],
        *,
        settings: SamplerSettings,
        seed: int,
        max_tokens: int,
        stop: Sequence[str],
        cancel: CancelToken,
        measure: bool,
        into: Generation,
    ) -> Iterator[Token]:
        """Algorithm 2, from contexts that hold their prompts.

        Each token costs one decode of the LLM and one of the sLM, whatever k is.

        Args:
            steering: the sLM's sequences, or None for the LLM alone.
            p_over_beta: float64 (k,), p_i / beta in the order of the steering's rows.
            settings: of the samplers.
            seed: 64-bit seed of this answer's noise.
            max_tokens: most tokens to draw.
            stop: texts that end the answer and are not shown.
            cancel: looked at before every token and inside every decode.
            measure: also sum entropies and the KL divergence (two more passes over the vocabulary a token).
            into: filled as tokens come.

        Yields:
            One `Token` for every token drawn that does not end the answer.
        """
        llm, model, n = self.llm, self.llm.model, self.n_vocab
        pieces = _Pieces(model, stop)
        room = llm.n_ctx - len(llm.tokens[0])
        max_tokens = min(max_tokens, room if steering is None else min(room, steering.room()))
        recent = _Recent(llm.tokens[0], settings, max_tokens)
        try:
            for position in range(max_tokens):
                if cancel.cancelled:
                    raise Aborted
                h = self.fused(steering, p_over_beta)
                h_llm = llm.logits()[0, :n]
                with _usable():
                    token, probability, _, entropy = self._sampler.sample(
                        h,
                        temperature=settings.temperature,
                        top_k=settings.top_k,
                        top_p=settings.top_p,
                        min_p=settings.min_p,
                        repeat_penalty=settings.repeat_penalty,
                        presence_penalty=settings.presence_penalty,
                        frequency_penalty=settings.frequency_penalty,
                        history=recent.window(),
                        plausibility=settings.plausibility,
                        llm=h_llm if settings.plausibility else None,
                        seed=seed,
                        position=position,
                    )
                if measure:
                    steered, pure, kl = kernel.divergence(h, h_llm)
                    into.entropy_steered += steered
                    into.entropy_llm += pure
                    into.kl += kl
                if token in model.end_ids:
                    into.reason = "stop"
                    break
                into.tokens.append(token)
                recent.append(token)
                text = pieces.push(token)
                into.text += text
                into.held = pieces.held
                yield Token(token, text, math.log(probability), entropy)
                if pieces.stopped_by is not None:
                    into.reason, into.stopped_by = "stop", pieces.stopped_by
                    break
                if position + 1 < max_tokens:
                    llm.extend([token], [0])  # on a GPU both are queued before either is waited for
                    if steering is not None:
                        steering.extend(token)
        except Aborted:
            into.reason = "cancelled"
        into.held = "" if pieces.stopped_by is not None else pieces.flush()


@contextmanager
def _usable() -> Iterator[None]:
    """The kernel refuses NaN and infinity among the logits: that is the models' fault, not the caller's."""
    try:
        yield
    except ValueError as error:
        raise DecodeError(f"the models' logits cannot be used: {error}") from error


class _Recent:
    """The tokens that penalties look at: the last of the prompt and of the answer."""

    def __init__(self, prompt: Sequence[int], settings: SamplerSettings, max_tokens: int) -> None:
        self._last_n = settings.repeat_last_n if settings.has_penalties else 0
        tail = list(prompt[-self._last_n :]) if self._last_n else []
        self._n = len(tail)
        self._ids = np.zeros(self._n + (max_tokens if self._last_n else 0), np.int32)
        self._ids[: self._n] = tail

    def append(self, token: int) -> None:
        if self._last_n:
            self._ids[self._n] = token
            self._n += 1

    def window(self) -> NDArray[np.int32] | None:
        return self._ids[max(0, self._n - self._last_n) : self._n] if self._last_n else None


class _Pieces:
    """Token bytes to text: whole characters only, and nothing of a stop string."""

    def __init__(self, model: Model, stop: Sequence[str]) -> None:
        self._model = model
        self._decode = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = [s for s in stop if s]
        self.held = ""
        self.stopped_by: str | None = None

    def push(self, token: int) -> str:
        """The text that may be shown after `token`."""
        text = self.held + self._decode.decode(self._model.piece(token))
        if not self._stop:
            return text
        found = min(((at, s) for s in self._stop if (at := text.find(s)) >= 0), default=None)
        if found is not None:
            self.held, self.stopped_by = "", found[1]
            return text[: found[0]]
        keep = max((n for s in self._stop for n in range(1, len(s)) if text.endswith(s[:n])), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, once no more tokens come."""
        return self.held + self._decode.decode(b"", True)
