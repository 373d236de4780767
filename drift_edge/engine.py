"""Drift: the façade that an app embeds. Load a pair, chat, close.

One engine runs one generation at a time: `chat` takes the engine's lock when its first event is asked for and gives
it back when the iterator ends or is closed. A second thread waits for its turn; the same thread asking again while
its own iterator is open gets an error, since waiting would never end. The engine is not for use after `fork`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from drift_edge import inspection
from drift_edge.answering import Answerer
from drift_edge.attributes import Attributes
from drift_edge.contexts import Contexts
from drift_edge.conversation import Mode, Overflow
from drift_edge.costs import Draft, Speculate
from drift_edge.decoding import Decoder
from drift_edge.errors import ClosedError, DecodeError
from drift_edge.events import Answer, CancelToken, Event, Finish
from drift_edge.explanation import Explanation
from drift_edge.loading import load_pair
from drift_edge.pair import ModelPair
from drift_edge.planning import Planner
from drift_edge.request import DEFAULT_ACTIVE, Request, check_request
from drift_edge.rewards import DEFAULT_TEXT_LENGTH
from drift_edge.sampling import SamplerSettings
from drift_edge.scorers import KeptScorers
from drift_edge.steering import ContextSettings
from drift_edge.turn import Turn
from drift_edge.weights import DEFAULT_BLOCKED, check_active

if TYPE_CHECKING:
    from drift_edge.learner import Learner
    from drift_edge.profile import SLM, Profile
    from drift_edge.reward_cache import RewardCache
    from drift_edge.scoring import Scorer

T = TypeVar("T")


class Drift:
    """A loaded pair, ready to chat. Make one with `Drift.load` or `Drift.builtin`.

    Args:
        pair: the two models; the engine closes them.
        settings: of the contexts.
        attributes: the pool; None is Table 5's.
        n_seq: sequences of the sLM's context to start with (active attributes + 1).
        load_s: seconds the models took to load, reported with each answer.
        cache: folder where measured speeds are remembered for `speculate`; None measures them in every engine.
    """

    def __init__(
        self,
        pair: ModelPair,
        settings: ContextSettings,
        *,
        attributes: Attributes | None = None,
        n_seq: int = DEFAULT_ACTIVE + 1,
        load_s: float = 0.0,
        cache: str | Path | None = None,
    ) -> None:
        self.pair, self.settings, self.load_s = pair, settings, load_s
        self.attributes = attributes or Attributes.builtin()
        self._contexts = Contexts(pair, settings, self.attributes, n_seq)
        self._decoder = Decoder(pair.n_vocab)
        self._planner = Planner(self._contexts, None if cache is None else Path(cache))
        self._answerer = Answerer(self._contexts, self._decoder, self._planner, load_s)
        self._turn = Turn()
        self._scorers = KeptScorers(lambda text_length: self.scorer(text_length=text_length))

    # -- life

    @classmethod
    def load(
        cls,
        llm: str | Path,
        slm: str | Path,
        *,
        ctx_size: int | None = None,
        threads: int | None = None,
        gpu_layers: int | None = None,
        slm_gpu_layers: int | None = None,
        flash_attn: str = "auto",
        cache_type: str = "f16",
        attributes: Attributes | None = None,
        active: int = DEFAULT_ACTIVE,
        cache: str | Path | None = None,
    ) -> Drift:
        """Load the LLM and the sLM and prove that they share a tokenizer.

        Args:
            llm: GGUF file of the LLM.
            slm: GGUF file of the small LM; may be the same file, which is then loaded once.
            ctx_size: tokens of context; None is 4,096, or less where the models were trained for less or the sLM's
                k+1 caches would pass 2 GiB (`offload.SLM_CACHES`).
            threads: None chooses for each model by its size.
            gpu_layers: layers of the LLM to offload, -1 all; None means as many as fit, where llama.cpp can offload.
            slm_gpu_layers: the same for the sLM, which by None goes to the GPU whole or not at all.
            flash_attn: `auto`, `on` or `off`.
            cache_type: type of the KV caches.
            attributes: the pool; None is Table 5's.
            active: how many attributes the sLM's context has room for at once.
            cache: folder where measured speeds are remembered for `speculate`; None measures them in every engine.

        Raises:
            ModelFileError: a file is missing, damaged or refused by llama.cpp.
            TokenizerMismatchError: the two do not share a tokenizer.
            ModelError: no memory for the contexts.
            UsageError: a setting is out of range, or what should be a path is none.
        """
        start = time.perf_counter()
        n_seq = min(check_active(active), len(attributes or Attributes.builtin())) + 1
        layers = gpu_layers, slm_gpu_layers
        pair, settings = load_pair(llm, slm, n_seq, layers, ctx_size, threads, flash_attn, cache_type)
        try:
            load_s = time.perf_counter() - start
            return cls(pair, settings, attributes=attributes, n_seq=n_seq, load_s=load_s, cache=cache)
        except BaseException:
            pair.close()
            raise

    @classmethod
    def builtin(cls, *, ctx_size: int | None = None, attributes: Attributes | None = None) -> Drift:
        """The built-in pair: small enough to ship, good for trying everything, with little knowledge.

        Raises:
            ModelError: as `load`.
        """
        from drift_edge.models import builtin_pair

        llm, slm = builtin_pair()
        return cls.load(llm, slm, ctx_size=ctx_size, attributes=attributes)

    def close(self) -> None:
        """Free everything. Waits for a generation of another thread; ends one of this thread."""
        if self._turn.mine():
            self._free()
            return
        with self._turn.lock:
            self._free()

    def _free(self) -> None:
        self._contexts.close()
        self._scorers.close()
        self.pair.close()

    def __enter__(self) -> Drift:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _enter(self) -> None:
        if self._contexts.closed:
            raise ClosedError("the engine has been closed")
        self._turn.take()

    def _alone(self, call: Callable[[], T]) -> T:
        self._turn.check()
        with self._turn.lock:
            try:
                self._enter()
                return call()
            finally:
                self._turn.owner = None

    # -- chatting

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        weights: Mapping[str, float] | None = None,
        beta: float | None = None,
        strength: float | None = None,
        active: int = DEFAULT_ACTIVE,
        steer: Mode = "logits",
        sampler: SamplerSettings | None = None,
        seed: int | None = None,
        attempt: int = 0,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        overflow: Overflow = "drop",
        cancel: CancelToken | None = None,
        measure: bool = False,
        speculate: Speculate = "off",
        draft: Draft = "auto",
        logprobs: int | None = None,
        blocked: Collection[str] = DEFAULT_BLOCKED,
    ) -> Generator[Event, None, None]:
        """Answer a conversation, as a stream of events: notices, tokens, and one `Finish` at the end.

        Nothing is computed until the first event is asked for, but arguments are checked at once.

        Args:
            messages: dicts with `role` (system, user, assistant) and `content`; the last is the user's.
            weights: p_i by attribute; None or empty steers nothing.
            beta: of Eq. 15; smaller steers more. None is 0.5, the paper's, where there is no strength either.
            strength: 0 to 1, instead of beta: how far steering may go from the LLM's own distribution, which means the
                same with every pair (`drift_edge.fusion`).
            active: how many attributes take part, those with the largest |p_i|.
            steer: `logits` fuses (Eq. 15), `prompt` puts the sentences of positive attributes into the LLM's system
                prompt, `both` does both, `off` leaves the LLM alone.
            sampler: settings of the samplers.
            seed: makes the answer reproducible; None takes a fresh one, which `Answer.seed` tells.
            attempt: another number gives another answer for the same seed and turn.
            max_tokens: most tokens of the answer.
            stop: texts that end the answer and are not shown; none may be empty.
            overflow: `drop` leaves out whole oldest turns where the context is full, `error` refuses.
            cancel: stops the answer from another thread or a signal handler.
            measure: also measure entropies and the KL divergence from the LLM.
            speculate: `off`, how many tokens the sLM drafts for one decode of the LLM, or `auto` for what is soonest
                on this machine, which may be none. The same seed gives the same text all the same; where logits
                depend on the number of rows (`Speculated.same_text`) only the distribution is the same, and `auto`
                leaves speculation out when a seed is given.
            draft: `steered`, `base`, or `auto` for the faster; see `drift_edge.speculation`.
            logprobs: also tell how likely each token was before any sampler, and the so many likeliest
                (`Token.logprobs`); None tells nothing.
            blocked: attributes that count as 0, whatever their weight; by default those that people have to ask for.

        Raises:
            UsageError: an argument is out of range, or an attribute unknown.
            ContextOverflowError: (while iterating) the conversation does not fit.
            ChatTemplateError, DecodeError, ClosedError: (while iterating) as their names say.
        """
        request = check_request(
            self.attributes, messages, weights, beta, strength, active, steer, sampler, seed, attempt, max_tokens,
            stop, overflow, cancel, measure, speculate, draft, logprobs, blocked,
        )  # fmt: skip
        return self._chat(request)

    def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        weights: Mapping[str, float] | None = None,
        beta: float | None = None,
        strength: float | None = None,
        active: int = DEFAULT_ACTIVE,
        steer: Mode = "logits",
        sampler: SamplerSettings | None = None,
        seed: int | None = None,
        attempt: int = 0,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        overflow: Overflow = "drop",
        cancel: CancelToken | None = None,
        measure: bool = False,
        speculate: Speculate = "off",
        draft: Draft = "auto",
        blocked: Collection[str] = DEFAULT_BLOCKED,
    ) -> Answer:
        """The whole answer at once; arguments and errors as `chat`."""
        request = check_request(
            self.attributes, messages, weights, beta, strength, active, steer, sampler, seed, attempt, max_tokens,
            stop, overflow, cancel, measure, speculate, draft, None, blocked,
        )  # fmt: skip
        events = self._chat(request)
        try:
            for event in events:
                if isinstance(event, Finish):
                    return event.answer
        finally:  # `contextlib.closing` would begin a function first, where an interrupt can come
            events.close()
        raise DecodeError("the answer ended without its last event")

    def _chat(self, request: Request) -> Generator[Event, None, None]:
        self._turn.check()
        with self._turn.lock:
            try:
                self._enter()
                yield from self._answerer.events(request)
            finally:
                self._turn.owner = None

    # -- learning

    @property
    def slm(self) -> SLM:
        """Which sLM this is, for `Profile.open`."""
        from drift_edge.profile import SLM

        return SLM(self.pair.slm.name, self.pair.slm.fingerprint)

    def scorer(self, *, text_length: int = DEFAULT_TEXT_LENGTH, cache: RewardCache | bool = True) -> Scorer:
        """A scorer of preference pairs on this engine's sLM, with a context of its own; close it when it is done with.

        If the engine is closed first, a pair that is being scored is finished, and the next one is a ClosedError; the
        sLM stays in memory until the scorer is closed too.

        Args:
            text_length: tokens of a response that are scored; for a profile its `Profile.text_length`.
            cache: where scores are found and kept: True is the user's own (`Folders.rewards`), False none.

        Raises:
            ClosedError: the engine has been closed.
            UsageError: `text_length` is below 1.
            DriftError: the user's cache cannot be used.
        """
        from drift_edge.reward_cache import RewardCache
        from drift_edge.scoring import Scorer
        from drift_edge.storage import folders

        if self._contexts.closed:
            raise ClosedError("the engine has been closed")
        known = RewardCache(folders().rewards) if cache is True else cache or None
        threads = self.settings.threads
        return Scorer.for_pair(self.pair, self.attributes, text_length=text_length, threads=threads, cache=known)

    def learner(self, profile: Profile | str | Path = "default", *, asked: Counter[str] | None = None) -> Learner:
        """A profile in use: what answers are steered by, and what a person's choices teach.

        Its choices are scored by a scorer that the engine keeps for the next one, and closes.

        Args:
            profile: opened with this engine's `slm` and `attributes`; or its name or path, which is opened so.
            asked: as `Learner`, where it shall outlive it.

        Raises:
            ProfileError, UsageError: as `Profile.open`.
            ClosedError: (while learning) the engine has been closed.
        """
        from drift_edge.learner import Learner
        from drift_edge.profile import Profile

        if not isinstance(profile, Profile):
            profile = Profile.open(profile, slm=self.slm, attributes=self.attributes)
        text_length = profile.text_length
        return Learner(profile, lambda: self._scorers.of(text_length), asked)

    # -- looking inside

    def next_logprobs(
        self,
        messages: Sequence[Mapping[str, str]],
        continuation: Sequence[int] = (),
        *,
        weights: Mapping[str, float] | None = None,
        beta: float | None = None,
        strength: float | None = None,
        active: int = DEFAULT_ACTIVE,
        steer: Mode = "logits",
        blocked: Collection[str] = DEFAULT_BLOCKED,
    ) -> NDArray[np.float64]:
        """Log-probabilities of the next token, before any sampler, at the answer's start and after each given token.

        Args:
            messages: as in `chat`.
            continuation: ids the answer begins with; n of them give n + 1 rows.
            weights, beta, strength, active, steer, blocked: as in `chat`.

        Returns:
            float64 (n + 1, n_vocab): log softmax of Eq. 15's logits.

        Raises:
            UsageError: a continuation's id does not exist.
            DriftError: as `chat`.
        """
        request = inspection.check_next(
            self.pair, self.attributes, messages, continuation, weights, beta, strength, active, steer, blocked
        )
        return self._alone(lambda: inspection.next_logprobs(self._contexts, self._decoder, request, continuation))

    def explain(
        self, messages: Sequence[Mapping[str, str]], answer: Answer, cancel: CancelToken | None = None
    ) -> Explanation:
        """Which attributes pushed which tokens of an answer that was steered by fusion.

        The answer's tokens are decoded once more, which takes about as long as the answer took.

        Args:
            messages: what the answer was given to.
            answer: of `chat` or `complete`.
            cancel: stops it; the explanation then covers the tokens so far.

        Returns:
            Shares for every token of the answer, the end token included where it ended by itself.

        Raises:
            UsageError: nothing was fused in the answer; or as `chat`.
            ContextOverflowError: the conversation and the answer do not fit the context.
        """
        request, tokens = inspection.check_answer(self.pair, self.attributes, messages, answer, cancel)
        return self._alone(lambda: inspection.explain(self._contexts, request, tokens))
