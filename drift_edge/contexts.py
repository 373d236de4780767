"""Contexts: the LLM's and the sLM's, brought to the prompts of one call after another."""

from __future__ import annotations

from dataclasses import replace

from drift_edge.attributes import Attributes
from drift_edge.conversation import AnswerIds, Prompts, fit_prompts
from drift_edge.costs import MOST_DRAFTED
from drift_edge.events import CancelToken
from drift_edge.llama.library import default_threads, physical_cores
from drift_edge.pair import ModelPair
from drift_edge.request import Request
from drift_edge.steering import ContextSettings, Steering


class Contexts:
    """The contexts of both models. What they hold of a conversation is kept for its next turn.

    Args:
        pair: the two models.
        settings: of the contexts.
        attributes: the pool.
        n_seq: sequences of the sLM's context to start with (active attributes + 1).

    Attributes:
        llm: the LLM's context, of one sequence.
        steering: the sLM's sequences; None until they are needed.
        answers: ids of the answers that may come up in a prompt.
        closed: whether `close` has been called.
    """

    def __init__(self, pair: ModelPair, settings: ContextSettings, attributes: Attributes, n_seq: int) -> None:
        self.pair, self.settings, self.attributes = pair, settings, attributes
        self._n_seq = n_seq
        self.llm = settings.make(pair.llm, 1, MOST_DRAFTED + 1)
        self.steering: Steering | None = None
        self.answers = AnswerIds()
        self.closed = False

    def close(self) -> None:
        """Free both contexts."""
        self.closed = True
        if self.steering is not None:
            self.steering.close()
        self.llm.close()

    @property
    def can_roll_back(self) -> bool:
        """Whether both models can take tokens back."""
        return self.pair.llm.can_roll_back and self.pair.slm.can_roll_back

    def spare_cores(self) -> bool:
        """Whether the LLM can decode while the sLM does without taking its cores; a GPU queues by itself."""
        if self.pair.llm.offloaded:
            return False
        slm = self.settings.threads or default_threads(self.pair.slm.n_bytes)
        return self.pair.slm.offloaded or self.llm.threads + slm <= physical_cores()

    def prompts(self, request: Request, drafts: bool = False) -> Prompts:
        """The prompts of a call, cut to fit.

        Args:
            drafts: prompt the sLM even where it does not steer, since it drafts.

        Raises:
            ContextOverflowError: as `fit_prompts`.
        """
        n_ctx = self.settings.n_ctx
        prompts = fit_prompts(
            self.pair,
            self.attributes,
            request.messages,
            request.weights,
            request.mode,
            self.answers.by_text,
            n_ctx=n_ctx,
            reserve=min(request.max_tokens, n_ctx // 4),
            overflow=request.overflow,
            drafts=drafts,
        )
        if not prompts.attributes and len(prompts.base) >= n_ctx:  # no room to draft in, which the answer does not need
            return replace(prompts, base=[])
        return prompts

    def make_room(self, prompts: Prompts) -> bool:
        """Sequences for the sLM's prompts, where it takes part; returns whether attributes lost their caches by it."""
        if not prompts.base:
            return False
        n_seq = max(self._n_seq, len(prompts.attributes) + 1) if prompts.attributes else 1  # one is enough to draft
        if self.steering is None:
            self.steering = Steering(self.pair.slm, self.settings, n_seq)
            return False
        few = self.steering.context.n_seq
        return self.steering.fit(n_seq - 1) and few > 1

    def prefill(self, prompts: Prompts, cancel: CancelToken) -> Steering | None:
        """Bring both contexts to the prompts, in the room that was made.

        Returns:
            The sLM's sequences; None where it takes no part.

        Raises:
            Aborted, DecodeError: as `Context.prefill`.
        """
        self.llm.queued = bool(prompts.attributes) and self.spare_cores()
        self.llm.set_abort(cancel.flag)
        self.llm.prefill({0: prompts.llm})
        steering = self.steering if prompts.base else None
        if steering is not None:
            steering.prefill(prompts.base, prompts.attributes, cancel.flag)
        return steering

    def release(self) -> None:
        """Let go of the cancel token of the last `prefill`."""
        if self.closed:  # by this very thread, in the middle of an answer
            return
        self.llm.set_abort(None)
        if self.steering is not None:
            self.steering.context.set_abort(None)

    def computed(self) -> tuple[int, int, int, int]:
        """Tokens prefilled and decodes so far: the LLM's, and the sLM's."""
        llm = self.llm.counters
        if self.steering is None:
            return llm.prefilled, llm.decodes, 0, 0
        slm = self.steering.context.counters
        return llm.prefilled, llm.decodes, slm.prefilled, slm.decodes
