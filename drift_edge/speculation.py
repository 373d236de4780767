"""Exact speculation: the rows of logits that `InStep` gives, sooner.

The sLM drafts g tokens, one decode of the LLM computes the rows of all g + 1 positions, and the target draws from them
one after another as it always does. As long as its draw is the drafted token, the next position's rows are there
already; at the first other token both models are rolled back to what was drawn. So what is drawn depends on the
target's rows and the seed alone, and never on the draft. The draft uses the same samplers, the same noise and the same
penalties on a history of its own, so that the two draws agree as often as their distributions allow.

Two drafts: *steered* draws from softmax(h_base + s_t), one decode of k+1 rows a token, and s_t is the very term that
the target needs; *base* draws from softmax(h_base), one row a token, and the attributes' rows of all positions follow
in one batch. Without steering, the base prompt's sLM drafts for the plain LLM.

After Leviathan et al. (arXiv 2211.17192); the shared noise is that of arXiv 2408.07978.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from drift_edge import kernel
from drift_edge.costs import DraftKind, Plan, shape_name
from drift_edge.decoding import InStep
from drift_edge.errors import ClosedError, DecodeError
from drift_edge.llama.context import Context, Logits
from drift_edge.sampling import Draws, usable
from drift_edge.steering import Steering

_RECONSIDER = 32  # tokens without a draft until the plan is asked again


class Speculation(InStep):
    """The rows of every position, several of them by one decode of the LLM.

    Args:
        llm: the LLM's context, holding its prompt, with room for the rows of `MOST_DRAFTED` + 1 positions.
        slm: the sLM's sequences, holding theirs.
        p_over_beta: float64 (k,), p_i / beta; empty where the sLM drafts for the plain LLM.
        n_vocab: ids that both models share.
        draws: of the answer; drafts are drawn by them too, and taken back.
        plan: says how many tokens to draft, and by which draft.
        max_tokens: most tokens of the answer.

    Attributes:
        drafted: tokens drafted so far.
        accepted: those of them that the target drew too.
        same: whether every shape of decode used gave the same bits as single rows do.
    """

    def __init__(
        self,
        llm: Context,
        slm: Steering,
        p_over_beta: NDArray[np.float64],
        n_vocab: int,
        draws: Draws,
        plan: Plan,
        max_tokens: int,
    ) -> None:
        k = len(p_over_beta)
        super().__init__(llm, slm if k else None, n_vocab)
        self.drafted = self.accepted = 0
        self.same = True
        self._choices: Counter[tuple[DraftKind, int]] = Counter()
        self._kind: DraftKind = plan.kinds[0]
        self._g = 0
        self._slm, self._k, self._p_over_beta = slm, k, p_over_beta
        self._draws, self._plan, self._max_tokens = draws, plan, max_tokens
        self._prompt = len(llm.tokens[0])
        self._appended: list[int] = []
        self._ahead: list[int] = []  # drafted tokens that both models hold, behind what was appended when they were
        self._at = 0  # how many of them the target has drawn too
        self._stored = False  # whether the present rows are among those of a block
        self._H: Logits = np.empty((0, k + 1, n_vocab), np.float32)
        self._h = np.empty(n_vocab, np.float32)
        self._reconsider = 0

    def rows(self) -> tuple[Logits, Logits | None]:
        """As `InStep.rows`."""
        if not self._stored:
            return super().rows()
        return self.llm.logits()[self._at, : self.n_vocab], self._H[self._at] if self._k else None

    def append(self, token: int) -> None:
        """As `InStep.append`; costs nothing where `token` was drafted."""
        if self._at < len(self._ahead) and token == self._ahead[self._at]:
            self._at += 1
            self.accepted += 1
        else:
            self._tell_acceptance(missed=self._at < len(self._ahead))
            self.settle()
            self._choose()
            if self._g:
                self._decode_ahead(token)
            else:
                self._step(token)
        self._choices[self._kind, self._g] += 1
        self._appended.append(token)

    def choice(self) -> tuple[DraftKind, int]:
        """The draft that most tokens were decoded with, and its length; 0 is without one."""
        return self._choices.most_common(1)[0][0] if self._choices else (self._kind, 0)

    def settle(self) -> None:
        """As `InStep.settle`: whatever was decoded ahead, or half decoded when it was stopped, is rolled back."""
        with suppress(ClosedError):  # the engine was closed in the middle of the answer
            self.llm.truncate(0, self._prompt + len(self._appended))
            self._slm.keep(len(self._appended))
        self._tell_acceptance(missed=False)
        self._ahead, self._at, self._stored = [], 0, False

    def _tell_acceptance(self, *, missed: bool) -> None:
        if self._ahead:
            self._plan.acceptance(self._kind).add(self._at, self._at + missed)
            self._ahead, self._at = [], 0

    # -- how many

    def _choose(self) -> None:
        position = self._draws.position
        if position < self._reconsider:
            return
        # One more token is drawn from the last row, and the answer's last token is never appended.
        most = min(self._max_tokens - position - 1, self._slm.room() - self._behind() - 1)
        plan, held = self._plan, len(self.llm.tokens[0])
        self._kind, self._g = plan.choose(most, held)
        while self._g and not self._is_same(self._kind, self._g):
            if not plan.only_same:
                self.same = False
                break
            self._kind, self._g = plan.choose(most, held)
        if not self._g and plan.fixed is None and plan.measured():
            self._reconsider = position + _RECONSIDER

    def _behind(self) -> int:
        """Tokens appended that the sLM lacks; none where it steers."""
        return len(self._appended) - self._slm.held()

    # -- one token

    def _step(self, token: int) -> None:
        if self._plan.fixed is not None or self._plan.measured():
            super().append(token)
            return
        start = perf_counter()
        self.llm.extend([token], [0])
        self.llm.logits()
        self._plan.costs.add(self._plan.costs.llm, 1, perf_counter() - start)
        if self.steering is not None:
            start = perf_counter()
            self.steering.extend(token)
            self.steering.logits()
            self._plan.costs.add(self._plan.costs.slm, self._k + 1, perf_counter() - start)

    # -- several

    def _decode_ahead(self, token: int) -> None:
        costs, g = self._plan.costs, self._g
        if len(self._H) <= g:
            self._H = np.empty((g + 1, self._k + 1, self.n_vocab), np.float32)
        ahead = self._draft(token, g)
        start = perf_counter()
        self.llm.feed([(0, [token, *ahead])])
        self.llm.logits()
        costs.add(costs.llm, len(ahead) + 1, perf_counter() - start)
        self._ahead, self._at, self._stored = ahead, 0, True
        self.drafted += len(ahead)

    def _draft(self, token: int, g: int) -> list[int]:
        """Up to `g` tokens to follow `token`; an end token or unusable logits end the draft."""
        steered, ends, costs = self._kind == "steered", self.llm.model.end_ids, self._plan.costs
        start, steps = perf_counter(), 0
        behind = self._appended[self._slm.held() :]
        drafted: list[int] = []
        for i in range(g + 1):
            last = drafted[-1] if drafted else token
            if i == g and not self._k:
                break  # the row after the last token would serve the target's steering term alone
            if steered:
                self._slm.extend(last)
                self._H[i] = self._slm.logits()[:, : self.n_vocab]
            else:
                self._slm.extend_base([*behind, last])
                self._H[i, 0] = self._slm.logits()[0, : self.n_vocab]
                behind = []
            steps += 1
            if i == g:
                break
            drawn = self._drawn(self._H[i], steered)
            if drawn is None or drawn in ends:
                break
            drafted.append(drawn)
            self._draws.append(drawn)
        self._draws.drop(len(drafted))
        now = perf_counter()
        costs.add(costs.slm, self._k + 1 if steered else 1, (now - start) / steps)
        if self._k and not steered:
            fed = [token, *drafted]
            self._slm.extend_attributes(fed, self._H[: len(fed), 1:])
            costs.add(costs.slm, self._k * len(fed), perf_counter() - now)
        return drafted

    def _drawn(self, H: Logits, steered: bool) -> int | None:
        """The draft's own draw; None where the sLM's logits cannot be used, which is the target's to say."""
        h = H[0]
        with suppress(DecodeError):
            if steered:
                with usable():
                    kernel.fuse(self._h, H[0], H, self._p_over_beta)  # softmax(h_base + s_t)
                h = self._h
            return self._draws.draw(h, H[0]).token
        return None

    # -- whether logits depend on the number of rows

    def _is_same(self, kind: DraftKind, g: int) -> bool:
        """Whether decodes of `g` + 1 positions give the bits that single ones give; tried once for each shape."""
        costs = self._plan.costs
        name = shape_name(kind, self._k, g, len(self.llm.tokens[0]))
        if name not in costs.same:
            tokens = self.llm.tokens[0][-g - 1 :]
            tokens = [*tokens, *[tokens[-1]] * (g + 1 - len(tokens))]
            same = self._llm_is_same(tokens)
            if same and self._k and kind == "base":
                same = self._slm_is_same(tokens)
            costs.same[name], costs.changed = same, True
            self.settle()
        return costs.same[name]

    def _llm_is_same(self, tokens: Sequence[int]) -> bool:
        held, rows = len(self.llm.tokens[0]), []
        for token in tokens:
            self.llm.extend([token], [0])
            rows.append(self.llm.logits()[0].copy())
        self.llm.truncate(0, held)
        self.llm.feed([(0, tokens)])
        return _same_bits(np.array(rows), self.llm.logits())

    def _slm_is_same(self, tokens: Sequence[int]) -> bool:
        held, n = self._slm.held(), self.n_vocab
        singly, batched = np.empty((2, len(tokens), self._k + 1, n), np.float32)
        for row, token in zip(singly, tokens, strict=True):
            self._slm.extend(token)
            row[:] = self._slm.logits()[:, :n]
        self._slm.keep(held)
        for row, token in zip(batched, tokens, strict=True):
            self._slm.extend_base([token])
            row[0] = self._slm.logits()[0, :n]
        self._slm.extend_attributes(tokens, batched[:, 1:])
        return _same_bits(singly, batched)


def _same_bits(a: Logits, b: Logits) -> bool:
    return a.tobytes() == b.tobytes()
