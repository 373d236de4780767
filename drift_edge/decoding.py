"""Drift Decoding (Algorithm 2): fuse the LLM's logits with the steering term, draw, append, repeat."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from drift_edge import kernel
from drift_edge.draws import Draws, usable
from drift_edge.events import CancelToken, FinishReason, Token, TokenLogprob
from drift_edge.fusion import Fusion
from drift_edge.llama.context import Aborted, Context, Logits
from drift_edge.llama.model import Model
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


class InStep:
    """The rows of logits of every position, both models going one token at a time: one decode of each.

    Args:
        llm: the LLM's context, one sequence, holding its prompt.
        steering: the sLM's sequences, holding theirs; None for the LLM alone.
        n_vocab: ids that both models share; padding past it is cut off.
    """

    def __init__(self, llm: Context, steering: Steering | None, n_vocab: int) -> None:
        self.llm, self.steering, self.n_vocab = llm, steering, n_vocab

    def room(self) -> int:
        """Tokens that both contexts can still take."""
        room = self.llm.n_ctx - len(self.llm.tokens[0])
        return room if self.steering is None else min(room, self.steering.room())

    def rows(self) -> tuple[Logits, Logits | None]:
        """h_llm, float32 (n_vocab,), and h_base, h_1..h_k, float32 (k+1, n_vocab), or None: valid until `append`."""
        H = None if self.steering is None else self.steering.logits()[:, : self.n_vocab]
        return self.llm.logits()[0, : self.n_vocab], H

    def append(self, token: int) -> None:
        """Append the token drawn, and go on to the next position.

        Raises:
            Aborted, DecodeError: as `Context.extend`.
        """
        self.llm.extend([token], [0])  # on a GPU both are queued before either is waited for
        if self.steering is not None:
            self.steering.extend(token)

    def settle(self) -> None:
        """Leave the contexts holding what was appended and no more."""


class Decoder:
    """Draws tokens from rows of logits, fused.

    Args:
        n_vocab: ids that both models share.
    """

    def __init__(self, n_vocab: int) -> None:
        self.sampler = kernel.Sampler(n_vocab)
        self._h = np.empty(n_vocab, np.float32)

    def fused(self, rows: tuple[Logits, Logits | None], fusion: Fusion) -> Logits:
        """The logits to draw from (Eq. 15).

        Args:
            rows: h_llm, and H = h_base, h_1 .. h_k or None; None leaves the LLM's own row.
            fusion: its weights in the order of H.

        Returns:
            float32 (n_vocab,), valid until the next call or decode.

        Raises:
            DecodeError: a row that takes part has NaN or infinity.
        """
        h_llm, H = rows
        if H is None:
            return h_llm
        with usable():
            fusion.into(self._h, h_llm, H)
        return self._h

    def generate(
        self,
        steps: InStep,
        fusion: Fusion,
        draws: Draws,
        *,
        max_tokens: int,
        stop: Sequence[str],
        cancel: CancelToken,
        measure: bool,
        into: Generation,
        logprobs: int | None = None,
    ) -> Iterator[Token]:
        """Algorithm 2, from contexts that hold their prompts.

        Args:
            steps: where the rows of logits come from.
            fusion: its weights in the order of the steering's rows.
            draws: of this answer.
            max_tokens: most tokens to draw.
            stop: texts that end the answer and are not shown.
            cancel: looked at before every token and inside every decode.
            measure: also sum entropies and the KL divergence (two more passes over the vocabulary a token).
            into: filled as tokens come.
            logprobs: tell how likely each token was, and the so many likeliest; None tells nothing.

        Yields:
            One `Token` for every token drawn that does not end the answer.
        """
        model = steps.llm.model
        pieces = _Pieces(model, stop)
        try:
            for position in range(max_tokens):
                if cancel.cancelled:
                    raise Aborted
                h_llm, H = steps.rows()
                h = self.fused((h_llm, H), fusion)
                token, probability, _, entropy = draws.draw(h, h_llm)
                if measure:
                    steered, pure, kl = kernel.divergence(h, h_llm)
                    into.entropy_steered += steered
                    into.entropy_llm += pure
                    into.kl += kl
                if token in model.end_ids:
                    into.reason = "stop"
                    break
                into.tokens.append(token)
                draws.append(token)
                text = pieces.push(token)
                into.text += text
                into.held = pieces.held
                likely = () if logprobs is None else token_logprobs(model, h, token, logprobs)
                yield Token(token, text, math.log(probability), entropy, likely)
                if pieces.stopped_by is not None:
                    into.reason, into.stopped_by = "stop", pieces.stopped_by
                    break
                if position + 1 < max_tokens:
                    steps.append(token)
        except Aborted:
            into.reason = "cancelled"
        finally:
            steps.settle()
        into.held = "" if pieces.stopped_by is not None else pieces.flush()


def token_logprobs(model: Model, h: Logits, token: int, most: int) -> tuple[TokenLogprob, ...]:
    """Log-probabilities of a token and of the likeliest, in softmax(h).

    Args:
        model: has their bytes.
        h: float32 (n_vocab,), finite at `token`.
        token: its id.
        most: how many of the likeliest; tokens that the model bars are none of them.
    """
    logprob = float(kernel.logprobs(h[None], np.array([token], np.int32))[0])
    top = np.argpartition(-h, most)[:most] if most < len(h) else np.arange(len(h))
    ids = [token, *(int(i) for i in top[np.lexsort((top, -h[top]))] if np.isfinite(h[i]))]
    return tuple(TokenLogprob(i, model.piece(i), logprob + float(h[i]) - float(h[token])) for i in ids)


class _Pieces:
    """Token bytes to text: whole characters only, and nothing of a stop string."""

    def __init__(self, model: Model, stop: Sequence[str]) -> None:
        self._model = model
        self._decode = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = stop
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
