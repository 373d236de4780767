"""Exact speculation: the rows of logits that `InStep` gives, sooner.

The sLM drafts g tokens, one decode of the LLM computes the rows of all g + 1 positions, and the target draws from them
one after another as it always does. As long as its draw is the drafted token, the next position's rows are there
already; at the first other token both models are rolled back to what was drawn. So what is drawn depends on the
target's rows and the seed alone, and never on the draft. The draft uses the same samplers, the same noise and the same
penalties on a history of its own, so that the two draws agree as often as their distributions allow.

Two drafts: *steered* draws from softmax(h_base + s_t), one decode of k+1 rows a token, and s_t is the very term that
the target needs; *base* draws from softmax(h_base), one row a token, and the attributes' rows of all positions follow
in one batch. Without steering, the base prompt's sLM drafts for the plain LLM. Within a budget, a steered draft takes
the share of s_t that spends it on h_base: an estimate, and no more than that is asked of a draft.

After Leviathan et al. (arXiv 2211.17192); the shared noise is that of arXiv 2408.07978.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter

import numpy as np

from drift_edge.costs import MOST_DRAFTED, DraftKind, Plan, shape_names
from drift_edge.decoding import InStep
from drift_edge.draws import Draws, usable
from drift_edge.errors import ClosedError, DecodeError
from drift_edge.fusion import Fusion
from drift_edge.llama.context import Context, Logits
from drift_edge.steering import Steering

_RECONSIDER = 16  # tokens without a draft until the plan is asked again
_REPEAT = 4  # blocks of a draft whose prices are firm until it is asked again
_REST = 8  # times as many tokens without a thought, where a token takes little time
_WATCHED, _WATCH = 32, 2  # trials to begin with; then, of so many tokens one is compared with drafts not made


class Speculation(InStep):
    """The rows of every position, several of them by one decode of the LLM.

    Args:
        llm: the LLM's context, holding its prompt, with room for the rows of `MOST_DRAFTED` + 1 positions.
        slm: the sLM's sequences, holding theirs.
        fusion: without weights where the sLM drafts for the plain LLM.
        n_vocab: ids that both models share.
        draws: of the answer; drafts are drawn by them too, and taken back.
        plan: says how many tokens to draft, and by which draft.
        max_tokens: most tokens of the answer.

    Attributes:
        drafted: tokens drafted so far.
        accepted: those of them that the target drew too.
        same: whether every shape of decode used gave the same bits as single rows do; None where none is known not to,
            but not all were looked at, since no seed was asked for.
    """

    def __init__(
        self,
        llm: Context,
        slm: Steering,
        fusion: Fusion,
        n_vocab: int,
        draws: Draws,
        plan: Plan,
        max_tokens: int,
    ) -> None:
        k = len(fusion.weights)
        super().__init__(llm, slm if k else None, n_vocab)
        self.drafted = self.accepted = 0
        self.same: bool | None = True
        self._choices: Counter[tuple[DraftKind, int]] = Counter()
        self._kind: DraftKind = plan.kinds[0]
        self._g = 0  # the decodes' shape, one position more
        self._slm, self._k, self._fusion = slm, k, fusion
        self._draws, self._plan, self._max_tokens = draws, plan, max_tokens
        self._prompt = len(llm.tokens[0])
        self._appended: list[int] = []
        self._ahead: list[int] = []  # drafted tokens that both models hold, behind what was appended when they were
        self._at = 0  # how many of them the target has drawn too
        self._stored = False  # whether the present rows are among those of a block
        self._H: Logits = np.empty((0, k + 1, n_vocab), np.float32)
        self._h = np.empty(n_vocab, np.float32)
        self._reconsider = self._repeat = 0
        self._timed = False
        self._rest = _REST if plan.quick() else 1

    def rows(self) -> tuple[Logits, Logits | None]:
        """As `InStep.rows`."""
        if not self._stored:
            return super().rows()
        return self.llm.logits()[self._at, : self.n_vocab], self._H[self._at] if self._k else None

    def append(self, token: int) -> None:
        """As `InStep.append`; costs nothing where `token` was drafted."""
        if self._k and self._plan.fixed is None:
            self._watch(token)
        if self._at < len(self._ahead) and token == self._ahead[self._at]:
            self._at += 1
            self.accepted += 1
        else:
            if self._stored:
                self._tell_acceptance(missed=self._at < len(self._ahead))
                self.settle()
            n = self._choose()
            if n:
                self._decode_ahead(token, n)
            else:
                self._step(token)
        if self._g:
            self._choices[self._kind, self._g] += 1
        self._appended.append(token)

    def choice(self) -> tuple[DraftKind, int]:
        """The draft that most tokens were decoded with, of those that had one, and its length; 0 where none had."""
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

    def _watch(self, token: int) -> None:
        """Counts whether drafts that were not made would have been `token`, the target's draw: all rows are there."""
        due = self._draws.position % (_WATCH * self._rest) == 0
        for kind in self._plan.kinds:
            known = self._plan.acceptance(kind)
            if (due or known.trials < _WATCHED) and not (self._stored and kind == self._kind):
                _, H = self.rows()
                if H is not None:
                    self._draws.drop(1)
                    known.add(int(self._drawn(kind, H) == token), 1)
                    self._draws.append(token)

    # -- how many

    def _choose(self) -> int:
        """Settles the kind of draft and the shape of the decodes; returns how many tokens to draft."""
        position, plan, n_ctx = self._draws.position, self._plan, self.llm.n_ctx
        self._timed = plan.fixed is None and position >= self._reconsider
        if position < self._reconsider:
            return 0
        behind = len(self._appended) - self._slm.held()  # appended, but not to an sLM that does not steer
        held = max(len(self.llm.tokens[0]), n_ctx - self._slm.room() + behind)
        most = self._max_tokens - position - 1  # the token after the drafted ones is the answer's, too
        if self._repeat and min(most, n_ctx - held - 1) >= MOST_DRAFTED:
            self._repeat -= 1
            return self._g
        self._kind, self._g = plan.choose(most, n_ctx - held, held)
        while self._g and (same := self._is_same(self._kind, self._g, held)) is not True:
            if plan.fixed is not None or not plan.seeded:
                self.same = self.same and same
                break
            self._kind, self._g = plan.choose(most, n_ctx - held, held)
        if self._g:
            self._repeat = _REPEAT if plan.firm(self._kind, self._g) else 0
        elif plan.fixed is None and plan.measured():
            self._reconsider = position + _RECONSIDER * self._rest
            if not self._k:  # nothing is seen of drafts that are not made
                plan.acceptance(self._kind).fade()
        return min(self._g, most)

    # -- one token

    def _step(self, token: int) -> None:
        if not self._timed:
            super().append(token)
            return
        costs, start = self._plan.costs, perf_counter()
        if self._plan.decoded():
            super().append(token)
            self.rows()
            costs.add(costs.steps, self._k, perf_counter() - start)
            return
        self.llm.extend([token], [0])
        self.llm.logits()
        costs.add(costs.llm, 1, perf_counter() - start)
        if self.steering is not None:
            start = perf_counter()
            self.steering.extend(token)
            self.steering.logits()
            costs.add(costs.slm, self._k + 1, perf_counter() - start)

    # -- several

    def _decode_ahead(self, token: int, n: int) -> None:
        costs, rows = self._plan.costs, self._g + 1
        if len(self._H) < rows:
            self._H = np.empty((rows, self._k + 1, self.n_vocab), np.float32)
        ahead = self._draft(token, n)
        # A short draft is filled up, since another number of rows could be computed in another way.
        fed = [token, *ahead, *[token] * (rows - 1 - len(ahead))]
        if self._k and self._kind == "base":
            start = perf_counter()
            self._slm.extend_attributes(fed, self._H[:rows, 1:])
            costs.add(costs.slm, self._k * rows, perf_counter() - start)
        start = perf_counter()
        self.llm.feed([(0, fed)])
        self.llm.logits()
        costs.add(costs.llm, rows, perf_counter() - start)
        self._ahead, self._at, self._stored = ahead, 0, True
        self.drafted += len(ahead)

    def _draft(self, token: int, n: int) -> list[int]:
        """Up to `n` tokens to follow `token`; an end token or unusable logits end the draft."""
        behind, ends = self._appended[self._slm.held() :], self.llm.model.end_ids
        start, drafted, row = perf_counter(), [token], 0
        self._draft_row(row, [*behind, token])
        if behind:  # that was no decode of one row
            start = perf_counter()
        while row < n and (drawn := self._drawn(self._kind, self._H[row])) is not None and drawn not in ends:
            drafted.append(drawn)
            self._draws.append(drawn)
            if row + 1 == n and not self._k:
                break  # the row after the last token would serve the steering term alone
            row += 1
            self._draft_row(row, [drawn])
        self._draws.drop(len(drafted) - 1)
        if priced := row + (not behind):
            costs, rows = self._plan.costs, self._k + 1 if self._kind == "steered" else 1
            costs.add(costs.slm, rows, (perf_counter() - start) / priced)
        return drafted[1:]

    def _draft_row(self, row: int, tokens: list[int]) -> None:
        if self._kind == "steered":
            self._slm.extend(tokens[0])
            self._H[row] = self._slm.logits()[:, : self.n_vocab]
        else:
            self._slm.extend_base(tokens)
            self._H[row, 0] = self._slm.logits()[0, : self.n_vocab]

    def _drawn(self, kind: DraftKind, H: Logits) -> int | None:
        """The draft's own draw; None where the sLM's logits cannot be used, which is the target's to say."""
        h = H[0]
        with suppress(DecodeError):
            if kind == "steered":
                h = self._h
                with usable():
                    self._fusion.into(h, H[0], H)  # h_base + s_t
            return self._draws.draw(h, H[0]).token
        return None

    # -- whether logits depend on the number of rows

    def _is_same(self, kind: DraftKind, g: int, held: int) -> bool | None:
        """Whether decodes of `g` + 1 positions give the bits of single ones; where a seed was asked for, each shape is
        tried once and remembered, else None is not known.

        The first and the last position are compared. Where they differ, a single row is computed in a way of its own,
        and no other number of rows is tried.
        """
        plan, same = self._plan, self._plan.costs.same
        if not plan.seeded:
            return plan.same(kind, g, held)
        tokens = self.llm.tokens[0][-g - 1 :]
        tokens += [tokens[-1]] * (g + 1 - len(tokens))
        tries = self._llm_is_same, self._slm_is_same
        for i, (name, is_same) in enumerate(zip(shape_names(kind, self._k, g, held), tries, strict=False)):
            if name not in same:
                if is_same(tokens):
                    same[name] = True
                else:
                    same |= {shape_names(kind, self._k, n, held)[i]: False for n in range(1, MOST_DRAFTED + 1)}
                plan.costs.changed = True
                self.settle()
        return plan.same(kind, g, held)

    def _llm_is_same(self, tokens: Sequence[int]) -> bool:
        held, g = len(self.llm.tokens[0]), len(tokens) - 1
        self.llm.feed([(0, tokens)])
        rows = self.llm.logits().copy()

        def single(at: int) -> bool:
            self.llm.truncate(0, held + at)
            self.llm.extend([tokens[at]], [0])
            return _same_bits(self.llm.logits()[0], rows[at])

        return single(g) and single(0)

    def _slm_is_same(self, tokens: Sequence[int]) -> bool:
        held, g, n = self._slm.held(), len(tokens) - 1, self.n_vocab
        rows = np.empty((g + 1, self._k + 1, n), np.float32)
        for row, token in zip(rows, tokens, strict=True):
            self._slm.extend_base([token])
            row[0] = self._slm.logits()[0, :n]
        self._slm.extend_attributes(tokens, rows[:, 1:])

        def single(at: int) -> bool:
            self._slm.keep(held + at)
            self._slm.extend(tokens[at])
            return _same_bits(self._slm.logits()[:, :n], rows[at])

        return single(g) and single(0)


def _same_bits(a: Logits, b: Logits) -> bool:
    return a.tobytes() == b.tobytes()
