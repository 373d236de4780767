"""Drift for someone with a `llama_cpp.Llama` of their own: a logits processor that adds the steering term.

```python
llama = llama_cpp.Llama("llm.gguf", n_ctx=4096)
with DriftLogitsProcessor(llama, "slm.gguf") as drift:
    steer = drift.for_chat(messages, weights={"concise": 0.8})
    llama.create_chat_completion(messages, logits_processor=LogitsProcessorList([steer]))
```

The samplers are the class's own, so there is no plausibility mask, which `Drift` has by default.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drift_edge.attributes import Attributes
from drift_edge.errors import UsageError
from drift_edge.fusion import Fusion, check_steering
from drift_edge.llama.chat import ChatFormat
from drift_edge.llama.model import Model
from drift_edge.messages import check_prompt
from drift_edge.pair import shared_vocabulary
from drift_edge.request import active_weights
from drift_edge.steering import ContextSettings, Steering
from drift_edge.weights import DEFAULT_BLOCKED

Processor = Callable[[NDArray[np.intc], NDArray[np.single]], NDArray[np.single]]


class LlamaLike(Protocol):
    """What is needed of `llama_cpp.Llama`."""

    model_path: str

    def n_ctx(self) -> int:
        """Tokens of its context."""
        ...


class DriftLogitsProcessor:
    """The sLM's side of Eq. 15, for use with `llama_cpp.Llama`.

    Args:
        llama: the LLM, loaded by its owner; its file's vocabulary is compared with the sLM's.
        slm: GGUF file of the small LM.
        attributes: the pool; None is Table 5's.
        threads: for the sLM; None chooses by its size.

    Raises:
        ModelFileError: a file is missing or damaged.
        TokenizerMismatchError: the two models do not share a tokenizer.
    """

    def __init__(
        self,
        llama: LlamaLike,
        slm: str | Path,
        *,
        attributes: Attributes | None = None,
        threads: int | None = None,
    ) -> None:
        self.attributes = attributes or Attributes.builtin()
        self._model = Model(slm)
        try:
            with Model(llama.model_path, vocab_only=True) as llm:
                self._n_vocab = shared_vocabulary(llm, self._model)
            self._steering = Steering(self._model, ContextSettings(llama.n_ctx(), threads))
        except BaseException:
            self._model.close()
            raise
        self._format = ChatFormat(self._model)

    def close(self) -> None:
        """Free the sLM."""
        self._steering.close()
        self._model.close()

    def __enter__(self) -> DriftLogitsProcessor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def for_chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        weights: Mapping[str, float],
        beta: float | None = None,
        strength: float | None = None,
        active: int = 7,
        blocked: Collection[str] = DEFAULT_BLOCKED,
    ) -> Processor:
        """A processor for one completion of `messages`; make a new one for the next.

        Args:
            messages: as handed to `create_chat_completion`.
            weights: p_i by attribute.
            beta, strength: as in `Drift.chat`.
            active: how many attributes take part.
            blocked: attributes that count as 0, as in `Drift.chat`.

        Returns:
            A function of (input_ids int32 (n,), scores float32 (n_vocab,)) that returns the fused scores, as
            llama-cpp-python's `logits_processor` expects. Called from C code, as newer versions do, it cannot end the
            completion with an error: Python then reports the error as ignored, and the token is drawn unsteered.

        Raises:
            UsageError: an argument is out of range or an attribute unknown.
        """
        checked = check_prompt(messages)
        p = active_weights(weights, active, "logits", self.attributes, blocked)
        fusion = Fusion.of(p.values(), *check_steering(beta, strength))
        base = self._format.encode(checked, self.attributes.base, {})
        prompts = {name: self._format.encode(checked, self.attributes[name].prompt, {}) for name in p}
        steering, n = self._steering, self._n_vocab
        seen = -1

        def process(input_ids: NDArray[np.intc], scores: NDArray[np.single]) -> NDArray[np.single]:
            nonlocal seen
            if not p:
                return scores
            if seen < 0:
                steering.fit(len(prompts))
                steering.prefill(base, prompts, None)
            else:
                if len(input_ids) < seen:
                    raise UsageError("a processor serves one completion: make a new one with for_chat")
                for token in input_ids[seen:]:
                    steering.extend(int(token))
            seen = len(input_ids)
            fused = np.full(len(scores), -np.inf, np.float32)
            fusion.into(fused[:n], scores[:n].astype(np.float32), steering.logits()[:, :n])
            return fused

        return process
