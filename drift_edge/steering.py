"""Steering: the sLM's k+1 sequences, one for the base prompt and one for each active attribute, kept in step.

The term that Eq. 15 adds to the LLM's logits is `sum_i p_i/beta (h_i - h_base)`; here the rows h_base, h_1..h_k are
made, all with one `llama_decode` per token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drift_edge.kernel import AbortFlag
from drift_edge.llama.context import Context, Logits
from drift_edge.llama.model import Model

BASE = 0  # the base prompt's sequence
_BATCH_ROWS = 32  # rows of attributes caught up in one decode: four tokens for each of k = 7, a multiple of four


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """Settings that every context of an engine shares.

    Attributes:
        n_ctx: tokens a sequence can hold.
        threads: None chooses by the model's size.
        flash_attn: `auto`, `on` or `off`.
        cache_type: type of the KV cache.
    """

    n_ctx: int
    threads: int | None = None
    flash_attn: str = "auto"
    cache_type: str = "f16"

    def make(self, model: Model, n_seq: int, n_outputs: int | None = None) -> Context:
        """A context for `model` with `n_seq` sequences and room for `n_outputs` rows of logits."""
        return Context(
            model,
            n_seq=n_seq,
            n_ctx=self.n_ctx,
            threads=self.threads,
            flash_attn=self.flash_attn,
            cache_type=self.cache_type,
            n_outputs=n_outputs,
        )


class Steering:
    """The sLM's context, with a sequence for each prompt.

    Args:
        model: the sLM.
        settings: of its context.
        n_seq: sequences to start with; more active attributes rebuild the context.
    """

    def __init__(self, model: Model, settings: ContextSettings, n_seq: int = 8) -> None:
        self.model, self.settings = model, settings
        self.context = settings.make(model, n_seq, _BATCH_ROWS)
        self._slots: dict[str, int] = {}  # attribute -> sequence, least recently used first
        self._rows: list[int] = [BASE]
        self._prompts: list[int] = [0]  # tokens of each row's prompt

    def close(self) -> None:
        """Free the context."""
        self.context.close()

    def fit(self, k: int) -> bool:
        """Make room for k attributes; returns whether the context had to be rebuilt, its caches lost."""
        if k < self.context.n_seq:
            return False
        larger = self.settings.make(self.model, k + 1, _BATCH_ROWS)  # first, so that a failure leaves the smaller one
        self._slots.clear()
        smaller, self.context = self.context, larger  # before closing, where an interrupt may come
        smaller.close()
        return True

    def prefill(self, base: Sequence[int], attributes: Mapping[str, Sequence[int]], abort: AbortFlag | None) -> None:
        """Bring the base and attribute sequences to their prompts; an attribute keeps its sequence between calls.

        Args:
            base: token ids under s_0.
            attributes: token ids under s_i, by attribute name; their order is the order of the rows.
            abort: watched during this and the following decodes.

        Raises:
            Aborted, ContextOverflowError, DecodeError: as `Context.prefill`.
        """
        self.context.set_abort(abort)
        for name in attributes:  # those in use move to the end, so that the front is free to take
            if name in self._slots:
                self._slots[name] = self._slots.pop(name)
        for name in attributes:
            if name not in self._slots:
                self._slots[name] = self._free_slot(attributes)
        self._rows = [BASE, *(self._slots[name] for name in attributes)]
        prompts = [base, *attributes.values()]
        self._prompts = [len(prompt) for prompt in prompts]
        self.context.prefill(dict(zip(self._rows, prompts, strict=True)))

    def _free_slot(self, active: Mapping[str, object]) -> int:
        free = set(range(1, self.context.n_seq)) - set(self._slots.values())
        if free:
            return min(free)
        oldest = next(name for name in self._slots if name not in active)
        return self._slots.pop(oldest)

    def extend(self, token: int) -> None:
        """Append `token` to every active sequence: one decode."""
        self.context.extend([token] * len(self._rows), self._rows)

    def extend_base(self, tokens: Sequence[int]) -> None:
        """Append tokens to the base sequence alone; `logits()` has the row after the last."""
        n = self.context.n_batch
        for at in range(0, len(tokens), n):
            self.context.feed([(BASE, tokens[at : at + n])], [int(at + n >= len(tokens))])

    def extend_attributes(self, tokens: Sequence[int], out: Logits) -> None:
        """Append tokens to every attribute's sequence, in as few decodes as rows allow.

        Args:
            tokens: ids, n of them.
            out: float32 (n, k, n_vocab), written: the rows h_1..h_k after each token.
        """
        n, n_vocab, attributes = len(tokens), out.shape[2], self._rows[1:]
        most = max(1, self.context.n_outputs // n)  # sequences in one decode
        for at in range(0, len(attributes), most):
            seqs = attributes[at : at + most]
            self.context.feed([(seq, tokens) for seq in seqs])
            rows = self.context.logits().reshape(len(seqs), n, -1)
            out[:, at : at + most] = rows[:, :, :n_vocab].swapaxes(0, 1)

    def held(self) -> int:
        """Tokens that the base sequence holds after its prompt."""
        return len(self.context.tokens[BASE]) - self._prompts[0]

    def keep(self, n: int) -> None:
        """Roll every active sequence back to its prompt and at most `n` tokens more."""
        for seq, prompt in zip(self._rows, self._prompts, strict=True):
            self.context.truncate(seq, prompt + n)

    def room(self) -> int:
        """Tokens that every active sequence can still take."""
        return self.context.n_ctx - max(len(self.context.tokens[seq]) for seq in self._rows)

    def logits(self) -> Logits:
        """Rows h_base, h_1..h_k: float32 (k+1, V), a view valid until the next decode."""
        return self.context.logits()
