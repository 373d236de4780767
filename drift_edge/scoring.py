"""Scoring: log pi(y | x, s) of both responses of a pair, under s_0 and every s_i (Section 3.1, the input of Eq. 12).

What is computed, and no more: with P_i the tokens of (s_i, x), of which the sequence of s_i holds the first h_i already
(the longest common prefix with the pair before: s_i, and of a conversation what they share), y_w and y_l of n and m
tokens with the end of turn, and c their common prefix (n - 1 or m - 1 at most), one pair takes

    sum_i |P_i| - min(h_i, |P_i| - 1)  +  (K+1) (n - 1 + m - 1 - c)

tokens of prefill: (s_i, x) once for both responses, no last token of a response, since nothing follows it.

The numbers are, bit for bit, those of scoring every (s_i, x, y) by itself: on a CPU with flash attention off, a row of
logits depends on the batch that it is computed in only where the batch has one token of its sequence, or one row alone
(measured: then llama.cpp takes another path, and logits move by up to 0.6; every split into two tokens or more gave the
same bits, with f32, f16 and Q8_0 weights). So no decode here has a single token of a sequence: where one is left, the
token before it is computed again, which adds 1 to the count above.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from drift_edge import kernel
from drift_edge.attributes import Attributes
from drift_edge.errors import ClosedError, ContextOverflowError, DecodeError, UsageError
from drift_edge.kernel import AbortFlag
from drift_edge.llama.chat import ChatFormat
from drift_edge.llama.context import Context, Logits
from drift_edge.llama.library import max_sequences
from drift_edge.llama.model import Model
from drift_edge.pair import ModelPair, real_tokens
from drift_edge.preferences import PreferencePair
from drift_edge.reward_cache import CachedScore, RewardCache, text_key
from drift_edge.rewards import DEFAULT_TEXT_LENGTH, PairScores, check_text_length

DEFAULT_CONTEXT = 4_096
OUTPUT_BYTES = 128 << 20
CACHE_BYTES = 1 << 30
_BATCH = 512  # tokens of one decode
_TOGETHER = 8  # sequences of one decode: fewer tokens of more sequences were slower (42 x 12: 0.78 of 8 x 64)
_LEAST = 3  # tokens a sequence must get in one decode, so that never one alone is left
_LEAST_CONTEXT = 256  # llama.cpp rounds up to a multiple of it
_KEY_VERSION = 1  # counts up when the same files and settings would be scored otherwise
_CACHE_BYTES_EACH = {"f16": 2, "f32": 4}


@dataclass(slots=True)
class ScoringCounters:
    """What a scorer has done since it was made.

    Attributes:
        pairs: pairs scored, those found whole in the cache included.
        cached: (response, prompt) found in the cache.
        scored: (response, prompt) computed.
        tokens: tokens computed, over all sequences.
        reused: tokens found in the sequences.
        rows: rows of logits asked for.
        most_rows: the most of them in one decode.
        decodes: calls of `llama_decode`.
    """

    pairs: int = 0
    cached: int = 0
    scored: int = 0
    tokens: int = 0
    reused: int = 0
    rows: int = 0
    most_rows: int = 0
    decodes: int = 0


class Scorer:
    """Scores pairs under s_0 and every s_i, in a context of its own.

    One pair at a time: a second thread waits. It may score while another thread chats with the same models, but takes
    the cores that the chat needs; between turns it disturbs nothing, and `cancel` ends it when the next turn comes.

    Args:
        model: the sLM. If it is closed before the scorer, a pair that is being scored is finished, and the next one is
            a ClosedError.
        format: how the sLM writes a conversation.
        attributes: the pool, with the base prompt; its order is the order of the scores.
        text_length: tokens of a response that are scored; a longer one is cut there, and its end of turn not scored.
        n_ctx: tokens that (s_i, x) and a response may have together; None is what the model was trained for, 4,096 at
            most. The context starts smaller and grows as pairs need it.
        threads: None chooses by the model's size.
        cache_type: type of the KV cache, `f16` or `f32`.
        output_bytes: most bytes of logits that one decode may give: rows = bytes // (4 V).
        cache_bytes: most bytes of the KV caches. Where they have no room for all prompts, some take turns, and their
            s_i is computed again for every pair.
        cache: scores that are known already, and where new ones go; None keeps none. It is closed with the scorer, and
            opens again when it is next used.

    Raises:
        UsageError: a setting is out of range, or the pool is empty.
    """

    def __init__(
        self,
        model: Model,
        format: ChatFormat,
        attributes: Attributes,
        *,
        text_length: int = DEFAULT_TEXT_LENGTH,
        n_ctx: int | None = None,
        threads: int | None = None,
        cache_type: str = "f16",
        output_bytes: int = OUTPUT_BYTES,
        cache_bytes: int = CACHE_BYTES,
        cache: RewardCache | None = None,
    ) -> None:
        if not attributes:
            raise UsageError("attributes: expected 1 or more to score, got none")
        if cache_type not in _CACHE_BYTES_EACH:
            raise UsageError(f"cache_type: scoring takes f16 or f32 (it needs flash attention off), got {cache_type!r}")
        if n_ctx is not None and (not isinstance(n_ctx, int) or n_ctx < 16):
            raise UsageError(f"n_ctx: expected 16 tokens or more, got {n_ctx!r}")
        self._n_outputs = min(_BATCH, output_bytes // (4 * model.n_vocab))
        if self._n_outputs < _LEAST:
            raise UsageError(
                f"output_bytes: expected {_LEAST * 4 * model.n_vocab:,} or more, room for {_LEAST} rows of "
                f"{model.n_vocab:,} logits; got {output_bytes:,}"
            )
        self.model, self.format, self.attributes = model, format, attributes
        self.text_length, self.threads, self.cache_type = check_text_length(text_length), threads, cache_type
        self.n_ctx = n_ctx or min(DEFAULT_CONTEXT, model.n_ctx_train)
        self.cache_bytes, self.cache = cache_bytes, cache
        self.counters = ScoringCounters()
        self._prompts = [attributes.base, *(attribute.prompt for attribute in attributes.values())]
        self._n_vocab = real_tokens(model)
        self._context: Context | None = None
        self._closed = False
        self._lock = threading.Lock()

    @classmethod
    def for_pair(
        cls,
        pair: ModelPair,
        attributes: Attributes,
        *,
        text_length: int = DEFAULT_TEXT_LENGTH,
        n_ctx: int | None = None,
        threads: int | None = None,
        cache_type: str = "f16",
        cache: RewardCache | None = None,
    ) -> Scorer:
        """A scorer on the sLM of a loaded pair; arguments and errors as the class."""
        return cls(
            pair.slm,
            pair.slm_format,
            attributes,
            text_length=text_length,
            n_ctx=n_ctx,
            threads=threads,
            cache_type=cache_type,
            cache=cache,
        )

    # -- life

    def close(self) -> None:
        """Free the context, and close the cache. Waits for a pair that another thread is scoring: set its `cancel`
        first."""
        with self._lock:
            self._closed = True
            self._drop_context()
            if self.cache is not None:
                self.cache.close()

    def _drop_context(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = None

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes, in the order of the scores behind the base's."""
        return tuple(self.attributes)

    @property
    def key(self) -> str:
        """16 hex digits naming all that scores depend on but pair and prompt: the sLM, its template, the settings."""
        told = [
            _KEY_VERSION,
            self.model.fingerprint,
            self.model.chat_template.source,
            self.text_length,
            self.cache_type,
        ]
        return sha256(json.dumps(told).encode()).hexdigest()[:16]

    # -- scoring

    def score(
        self, pair: PreferencePair, *, names: Sequence[str] | None = None, cancel: AbortFlag | None = None
    ) -> PairScores:
        """Score one pair; what the cache knows is not computed.

        Args:
            pair: x, y_w, y_l.
            names: score these attributes alone, in this order; None is all of the pool's.
            cancel: looked at before and inside every decode.

        Returns:
            log pi(y | x, s) of both responses under s_0 and the attributes, nats.

        Raises:
            UsageError: a name is not in the pool, or is given twice.
            ContextOverflowError: (s_i, x) and a response are longer than `n_ctx`: skip the pair.
            ChatTemplateError, ClosedError, DecodeError, ModelError: as their names say.
            Aborted: `cancel` was set. What the cache was given before (after every 8 prompts) is kept.
        """
        wanted = range(len(self._prompts)) if names is None else self._indices(names)
        with self._lock:
            if self._closed:
                raise ClosedError("the scorer has been closed")
            texts = [text_key(pair.messages, response) for response in (pair.chosen, pair.rejected)]
            known = [self._known(text, wanted) for text in texts]
            todo: dict[tuple[int, ...], list[int]] = {}  # prompts, by which of the two responses they lack
            for i in wanted:
                lacking = tuple(y for y in (0, 1) if self._prompts[i] not in known[y])
                self.counters.cached += 2 - len(lacking)
                if lacking:
                    todo.setdefault(lacking, []).append(i)
            for which, prompts in todo.items():
                for found in self._compute(pair, which, prompts, cancel):
                    for y, scores in found.items():
                        if self.cache is not None:
                            self.cache.put(self.key, texts[y], scores)
                        known[y].update(scores)
                        self.counters.scored += len(scores)
            self.counters.pairs += 1
        chosen, rejected = ([scores[self._prompts[i]] for i in wanted] for scores in known)
        return PairScores(
            np.array([score.logprob for score in chosen]),
            np.array([score.logprob for score in rejected]),
            chosen[0].tokens,
            rejected[0].tokens,
        )

    def _known(self, text: str, wanted: Sequence[int]) -> dict[str, CachedScore]:
        return {} if self.cache is None else self.cache.get(self.key, text, (self._prompts[i] for i in wanted))

    def _indices(self, names: Sequence[str]) -> list[int]:
        for name in names:
            self.attributes.require(name)
        if len(set(names)) < len(names):
            raise UsageError(f"names: expected every attribute once, got {', '.join(names)}")
        order = {name: i for i, name in enumerate(self.attributes, 1)}
        return [0, *(order[name] for name in names)]

    def _compute(
        self, pair: PreferencePair, which: tuple[int, ...], todo: Sequence[int], cancel: AbortFlag | None
    ) -> Iterator[dict[int, dict[str, CachedScore]]]:
        """Scores of some prompts by each response of `which` (0 is y_w, 1 is y_l), a group of prompts at a time."""
        messages = [dict(message) for message in pair.messages]
        tokens = {i: self.format.encode(messages, self._prompts[i], {}) for i in todo}
        any_prompt = tokens[todo[0]]
        texts = (pair.chosen, pair.rejected)
        responses = {y: self.format.encode_response(texts[y], any_prompt, self.text_length) for y in which}
        # One response by itself is a pair with itself: all is shared, and nothing computed for the second.
        chosen, rejected = responses[which[0]], responses[which[-1]]
        longest, response = max(map(len, tokens.values())), max(len(chosen), len(rejected))
        context = self._fit(longest + response - 1)
        context.set_abort(cancel)
        try:
            for group in self._groups(todo, context.n_seq):
                both = self._score(context, {seq: tokens[i] for seq, i in group.items()}, chosen, rejected)
                yield {
                    y: {
                        self._prompts[i]: CachedScore(float(log_pi), len(responses[y]))
                        for i, log_pi in zip(group.values(), column, strict=True)
                    }
                    for y, column in zip(which, both.T, strict=False)
                }
        finally:
            context.set_abort(None)

    def _fit(self, need: int) -> Context:
        """The context, made anew where a sequence of `need` tokens does not fit."""
        if need > self.n_ctx:
            raise ContextOverflowError(
                f"the longest prompt and response of this pair have {need:,} tokens together, scoring has room for "
                f"{self.n_ctx:,}; shorten the conversation, or raise --ctx-size"
            )
        if self._context is not None and need <= self._context.n_ctx:
            return self._context
        self._drop_context()
        n_ctx = min(self.n_ctx, max(_LEAST_CONTEXT, 1 << (need - 1).bit_length()))
        a_sequence = n_ctx * self.model.kv_width * _CACHE_BYTES_EACH[self.cache_type]
        n_seq = min(len(self._prompts), self.cache_bytes // a_sequence, self._n_outputs, max_sequences())
        self._context = Context(
            self.model,
            n_seq=max(1, n_seq),
            n_ctx=n_ctx,
            n_batch=_BATCH,
            threads=self.threads,
            flash_attn="off",
            cache_type=self.cache_type,
            n_outputs=self._n_outputs,
        )
        return self._context

    def _groups(self, todo: Sequence[int], n_seq: int) -> Iterator[dict[int, int]]:
        """Prompts that go through together, by sequence. A prompt always has the same sequence; where there are fewer
        sequences than prompts, the last few are shared."""
        together = min(_TOGETHER, n_seq, self._n_outputs // _LEAST)
        own = len(self._prompts) if n_seq >= len(self._prompts) else n_seq - together
        group: dict[int, int] = {}
        for i in todo:
            seq = i if i < own else own + (i - own) % together
            if seq in group or len(group) == together:
                yield group
                group = {}
            group[seq] = i
        yield group

    def _score(
        self, context: Context, prompts: Mapping[int, list[int]], chosen: list[int], rejected: list[int]
    ) -> NDArray[np.float64]:
        """log pi of both responses behind the prompts of some sequences: float64 (sequences, 2), in their order."""
        n, m, V = len(chosen), len(rejected), self._n_vocab
        common = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(n, m))
        c = min(common, n - 1, m - 1)
        at = {seq: row for row, seq in enumerate(prompts)}
        log_w, log_l = np.empty((len(prompts), n)), np.empty((len(prompts), m))
        for seqs, first, H in self._rows(context, {s: prompt + chosen[:-1] for s, prompt in prompts.items()}, n):
            which, last = [at[seq] for seq in seqs], first + H.shape[1]
            log_w[which, first:last] = _logprobs(H[:, :, :V], chosen[first:last])
            if first <= c < last:  # the row that both responses have in common, besides those before it
                log_l[which, c] = _logprobs(H[:, c - first : c - first + 1, :V], rejected[c : c + 1])[:, 0]
        log_l[:, :c] = log_w[:, :c]
        q = m - 1 - c
        for seqs, first, H in self._rows(context, {s: prompt + rejected[:-1] for s, prompt in prompts.items()}, q):
            which, first = [at[seq] for seq in seqs], first + c + 1
            last = first + H.shape[1]
            log_l[which, first:last] = _logprobs(H[:, :, :V], rejected[first:last])
        return np.stack([log_w.sum(axis=1), log_l.sum(axis=1)], axis=1)

    def _rows(self, context: Context, held: Mapping[int, list[int]], n: int) -> Iterator[tuple[list[int], int, Logits]]:
        """Bring sequences to hold just the given tokens, and yield the rows at the last `n`, part by part.

        Yields:
            The sequences of the part, the index of its first position among the `n`, and float32 (sequences, positions,
            V), valid until the next part is asked for.
        """
        if not n:
            return
        missing: dict[int, list[int]] = {}
        for seq, tokens in held.items():
            context.truncate(seq, max(0, min(context.shared_prefix(seq, tokens), len(tokens) - max(n, 2))))
            missing[seq] = tokens[len(context.tokens[seq]) :]
            self.counters.reused += len(context.tokens[seq])
        # llama.cpp cuts a batch of sequences into pieces of equal length: unequal ones could leave a single token.
        for length in {len(rest): None for rest in missing.values()}:
            seqs = [seq for seq, rest in missing.items() if len(rest) == length]
            most, most_rows = _BATCH // len(seqs), self._n_outputs // len(seqs)
            outputs_from = length - n
            a = 0
            while a < length:
                b = min(length, a + most, max(a, outputs_from) + most_rows)
                b -= length - b == 1
                rows = max(0, b - max(a, outputs_from))
                asked = 2 if rows == len(seqs) == 1 else rows  # one row alone would be computed otherwise
                context.feed([(seq, missing[seq][a:b]) for seq in seqs], [asked] * len(seqs))
                self._count(len(seqs) * (b - a), len(seqs) * asked)
                if rows:
                    H = context.logits().reshape(len(seqs), asked, -1)[:, asked - rows :]
                    yield seqs, max(a, outputs_from) - outputs_from, H
                a = b

    def _count(self, tokens: int, rows: int) -> None:
        self.counters.tokens += tokens
        self.counters.rows += rows
        self.counters.most_rows = max(self.counters.most_rows, rows)
        self.counters.decodes += 1


def _logprobs(H: Logits, targets: Sequence[int]) -> NDArray[np.float64]:
    """log softmax of rows at their targets: float64 (sequences, positions) of float32 (sequences, positions, V)."""
    ids = np.tile(np.array(targets, np.int32), len(H))
    try:
        values = kernel.logprobs(H.reshape(len(ids), -1), ids)
    except ValueError as error:
        raise DecodeError(f"the sLM's logits cannot be used: {error}") from error
    if not np.isfinite(values).all():
        raise DecodeError("the sLM gives a token of the response no probability at all: its logit is -inf")
    return values.reshape(len(H), -1)
