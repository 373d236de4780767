"""Verdict: a model that is asked for one of a few words; how likely each of them begins its answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drift_edge.errors import UsageError
from drift_edge.llama.chat import ChatFormat
from drift_edge.llama.context import Context
from drift_edge.llama.model import Model
from drift_edge.llama.template import Message
from drift_edge.rewards import FloatArray


class Verdict:
    """Asks a model, and reads the verdict off the logits where its answer begins: nothing is drawn.

    Args:
        model: stays open when this is closed.
        words: what it may say, two or more.
        n_ctx: tokens that a question may have, as the model reads it.

    Attributes:
        beginnings: for each word the first tokens that it can be written with.

    Raises:
        ModelError: no memory for the context.
        UsageError: the model's tokenizer begins two of the words alike.
    """

    def __init__(self, model: Model, words: Sequence[str], *, n_ctx: int) -> None:
        self._format = ChatFormat(model)
        self.beginnings = [_beginnings(model, word) for word in words]
        for i, (word, ids) in enumerate(zip(words, self.beginnings, strict=True)):
            for other, others in zip(words[:i], self.beginnings, strict=False):
                if set(ids) & set(others):
                    raise UsageError(
                        f"{model.path.name}: {other!r} and {word!r} begin with one token in this tokenizer, so it "
                        "cannot judge by these words"
                    )
        # With flash attention, what is left of the question before would move the verdict on this one.
        self._context = Context(model, n_seq=1, n_ctx=n_ctx, flash_attn="off")

    def shares(self, messages: Sequence[Message]) -> FloatArray:
        """How likely each word begins the answer: float64 (words,), whose sum is 1; NaN where a logit is.

        Args:
            messages: the question, as `ChatFormat.encode` takes it.

        Raises:
            ContextOverflowError: the question does not fit.
            ChatTemplateError, DecodeError, ClosedError: as their names say.
        """
        self._context.prefill({0: self._format.encode(messages, None, {})})
        row = self._context.logits()[0].astype(np.float64)
        told = np.array([np.logaddexp.reduce(row[ids]) for ids in self.beginnings])
        raised = np.exp(told - told.max())
        shares: FloatArray = raised / raised.sum()
        return shares

    def close(self) -> None:
        """Free the context."""
        self._context.close()


def _beginnings(model: Model, text: str) -> list[int]:
    """First tokens of the word, with and without a space or a capital."""
    words = [f"{space}{word}" for word in (text, text.lower(), text.upper()) for space in ("", " ")]
    found = (model.tokenize(word, special=False, continues=True) for word in words)
    blank = model.tokenize(" ", special=False, continues=True)
    return sorted({ids[0] for ids in found if ids}.difference(blank))
