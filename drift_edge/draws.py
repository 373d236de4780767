"""Draws of one answer: the samplers of its settings, with its noise and its recent tokens.

Apart from the settings, which load neither numpy nor the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from drift_edge.errors import DecodeError
from drift_edge.kernel import Sample, Sampler
from drift_edge.sampling import SamplerSettings


class Draws:
    """The draws of one answer, one position after another.

    Args:
        sampler: of the kernel's, for rows of the shared vocabulary.
        settings: of the samplers.
        seed: 64-bit seed of this answer's noise.
        prompt: ids before the answer, which penalties look at too.
        most: how many tokens may be appended.
    """

    def __init__(
        self, sampler: Sampler, settings: SamplerSettings, seed: int, prompt: Sequence[int], most: int
    ) -> None:
        self.position = 0
        self._plausibility = settings.plausibility
        self._last_n = settings.repeat_last_n if settings.has_penalties else 0
        tail = prompt[-self._last_n :] if self._last_n else ()
        self._start = len(tail)
        self._ids = np.zeros(self._start + (most if self._last_n else 0), np.int32)
        self._ids[: self._start] = tail
        self._sample = partial(
            sampler.sample,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            min_p=settings.min_p,
            repeat_penalty=settings.repeat_penalty,
            presence_penalty=settings.presence_penalty,
            frequency_penalty=settings.frequency_penalty,
            plausibility=settings.plausibility,
            seed=seed,
        )

    def draw(self, h: NDArray[np.float32], h_llm: NDArray[np.float32]) -> Sample:
        """Draw the token of the present position; the same rows give the same token, however often.

        Args:
            h: float32 (n_vocab,), the logits to draw from.
            h_llm: float32 (n_vocab,), the LLM's own, for the plausibility mask.

        Raises:
            DecodeError: a row has NaN or infinity.
        """
        end = self._start + self.position
        with usable():
            return self._sample(
                h,
                history=self._ids[max(0, end - self._last_n) : end] if self._last_n else None,
                llm=h_llm if self._plausibility else None,
                position=self.position,
            )

    def append(self, token: int) -> None:
        """Go on to the next position, `token` being drawn."""
        if self._last_n:
            self._ids[self._start + self.position] = token
        self.position += 1

    def drop(self, n: int) -> None:
        """Take the last `n` tokens back."""
        self.position -= n


@contextmanager
def usable() -> Iterator[None]:
    """The kernel refuses NaN and infinity among the logits: that is the models' fault, not the caller's."""
    try:
        yield
    except ValueError as error:
        raise DecodeError(f"the models' logits cannot be used: {error}") from error
