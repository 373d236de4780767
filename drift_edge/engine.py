"""Drift: the façade that an app embeds. Load a pair, chat, close.

One engine runs one generation at a time: `chat` takes the engine's lock when its first event is asked for and gives
it back when the iterator ends or is closed. A second thread waits for its turn; the same thread asking again while
its own iterator is open gets an error, since waiting would never end. The engine is not for use after `fork`.
"""

from __future__ import annotations

import codecs
import platform
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from drift_edge import __version__
from drift_edge.attributes import Attributes
from drift_edge.conversation import MODES, OVERFLOWS, AnswerIds, Mode, Overflow, Prompts, fit_prompts
from drift_edge.costs import (
    KINDS,
    MOST_DRAFTED,
    Costs,
    Draft,
    DraftKind,
    Plan,
    Speculate,
    check_draft,
    check_speculate,
)
from drift_edge.decoding import Decoder, Generation, InStep
from drift_edge.draws import Draws
from drift_edge.errors import ClosedError, DecodeError, DriftError, UsageError
from drift_edge.events import Answer, CancelToken, Event, Finish, Notice, Speculated, Timings
from drift_edge.explanation import Explanation, token_shares
from drift_edge.llama import library, offload
from drift_edge.llama.chat import check_messages
from drift_edge.llama.context import Aborted
from drift_edge.llama.library import physical_cores
from drift_edge.llama.model import Model
from drift_edge.llama.template import PLAIN, PLAIN_STOP
from drift_edge.pair import ModelPair
from drift_edge.rewards import DEFAULT_TEXT_LENGTH
from drift_edge.sampling import SamplerSettings, new_seed, noise_seed
from drift_edge.speculation import Speculation
from drift_edge.steering import ContextSettings, Steering
from drift_edge.weights import check_active, check_beta, check_weights, select_active

if TYPE_CHECKING:
    from drift_edge.learner import Learner
    from drift_edge.profile import SLM, Profile
    from drift_edge.reward_cache import RewardCache
    from drift_edge.scoring import Scorer

DEFAULT_BETA = 0.5  # the paper's, in its experiments on generation
DEFAULT_ACTIVE = 7  # Section 3.2
DEFAULT_CONTEXT = 4_096
_NO_FUSION: NDArray[np.float64] = np.zeros(0)


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
        self._n_seq = n_seq
        self._llm = settings.make(pair.llm, 1, MOST_DRAFTED + 1)
        self._decoder = Decoder(pair.n_vocab)
        self._steering: Steering | None = None
        self._answers = AnswerIds()
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._closed = False
        self._told: set[str] = set()
        self._scorers: dict[int, Scorer] = {}  # by text_length; for learners
        self._scorers_lock = threading.Lock()
        self._cache = None if cache is None else Path(cache)
        self._known_costs: Costs | None = None

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
            ctx_size: tokens of context; None is 4,096 or what the models were trained for, if less.
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
            UsageError: a setting is out of range.
        """
        start = time.perf_counter()
        if ctx_size is not None and (not isinstance(ctx_size, int) or ctx_size < 16):
            raise UsageError(f"ctx_size: expected 16 tokens or more, got {ctx_size!r}")
        check_active(active)
        n_seq = min(active, len(attributes or Attributes.builtin())) + 1
        one_file = _same_file(llm, slm)
        gpu_layers, slm_gpu_layers = offload.choose_layers(
            llm,
            None if one_file else slm,
            (gpu_layers, slm_gpu_layers),
            n_ctx=ctx_size or DEFAULT_CONTEXT,
            n_seq=n_seq,
            cache_type=cache_type,
        )
        llm_model = Model(llm, gpu_layers=gpu_layers)
        slm_model = llm_model
        try:
            if not one_file:
                slm_model = Model(slm, gpu_layers=slm_gpu_layers)
            pair = ModelPair(llm_model, slm_model)
            trained = min(llm_model.n_ctx_train, slm_model.n_ctx_train)
            n_ctx = ctx_size or min(DEFAULT_CONTEXT, trained)
            settings = ContextSettings(n_ctx, threads, flash_attn, cache_type)
            load_s = time.perf_counter() - start
            return cls(pair, settings, attributes=attributes, n_seq=n_seq, load_s=load_s, cache=cache)
        except BaseException:
            slm_model.close()
            llm_model.close()
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
        if self._owner == threading.get_ident():
            self._free()
            return
        with self._lock:
            self._free()

    def _free(self) -> None:
        self._closed = True
        with self._scorers_lock:
            for scorer in self._scorers.values():
                scorer.close()
        if self._steering is not None:
            self._steering.close()
        self._llm.close()
        self.pair.close()

    def __enter__(self) -> Drift:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # Whoever uses the models writes
    #
    #     self._check_owner()
    #     with self._lock:
    #         try:
    #             self._own()
    #             ...
    #         finally:
    #             self._owner = None
    #
    # and not a context manager of ours. Python handles signals where a function begins or resumes, where a call of C
    # has returned, and where a loop jumps back. The lock's own `__enter__` and `__exit__` are C, and `try` and the
    # assignment to `_owner` are none of these places, so Ctrl-C finds either nothing taken or a handler that gives it
    # back. `__enter__` and `__exit__` written in Python begin, and so can be interrupted, with the lock held.

    def _check_owner(self) -> None:
        if self._owner == threading.get_ident():
            raise DriftError("this thread has another answer of this engine under way: finish or close it first")

    def _own(self) -> None:
        if self._closed:
            raise ClosedError("the engine has been closed")
        self._owner = threading.get_ident()

    # -- chatting

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        weights: Mapping[str, float] | None = None,
        beta: float = DEFAULT_BETA,
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
    ) -> Generator[Event, None, None]:
        """Answer a conversation, as a stream of events: notices, tokens, and one `Finish` at the end.

        Nothing is computed until the first event is asked for, but arguments are checked at once.

        Args:
            messages: dicts with `role` (system, user, assistant) and `content`; the last is the user's.
            weights: p_i by attribute; None or empty steers nothing.
            beta: strength of Eq. 15; smaller steers more.
            active: how many attributes take part, those with the largest |p_i|.
            steer: `logits` fuses (Eq. 15), `prompt` puts the sentences of positive attributes into the LLM's system
                prompt, `off` leaves the LLM alone.
            sampler: settings of the samplers.
            seed: makes the answer reproducible; None takes a fresh one, which `Answer.seed` tells.
            attempt: another number gives another answer for the same seed and turn.
            max_tokens: most tokens of the answer.
            stop: texts that end the answer and are not shown.
            overflow: `drop` leaves out whole oldest turns where the context is full, `error` refuses.
            cancel: stops the answer from another thread or a signal handler.
            measure: also measure entropies and the KL divergence from the LLM.
            speculate: `off`, how many tokens the sLM drafts for one decode of the LLM, or `auto` for what is soonest
                on this machine, which may be none. The same seed gives the same text all the same; where logits
                depend on the number of rows (`Speculated.same_text`) only the distribution is the same, and `auto`
                leaves speculation out when a seed is given.
            draft: `steered`, `base`, or `auto` for the faster; see `drift_edge.speculation`.

        Raises:
            UsageError: an argument is out of range, or an attribute unknown.
            ContextOverflowError: (while iterating) the conversation does not fit.
            ChatTemplateError, DecodeError, ClosedError: (while iterating) as their names say.
        """
        checked = check_messages(messages)
        beta = check_beta(beta)
        if steer not in MODES:
            raise UsageError(f"steer: expected one of {', '.join(MODES)}, got {steer!r}")
        p = select_active(check_weights(weights or {}, self.attributes), active) if steer != "off" else {}
        if not isinstance(max_tokens, int) or max_tokens < 1:
            raise UsageError(f"max_tokens: expected a whole number, 1 or more, got {max_tokens!r}")
        if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
            raise UsageError(f"seed: expected a whole number, got {seed!r}")
        if not isinstance(stop, Sequence) or isinstance(stop, str) or not all(isinstance(text, str) for text in stop):
            raise UsageError(f"stop: expected a list of texts, got {stop!r}")
        if sampler is not None and not isinstance(sampler, SamplerSettings):
            raise UsageError(f"sampler: expected SamplerSettings, got {type(sampler).__name__}")
        if overflow not in OVERFLOWS:
            raise UsageError(f"overflow: expected one of {', '.join(OVERFLOWS)}, got {overflow!r}")
        request = _Request(
            p,
            beta,
            steer,
            sampler or SamplerSettings(),
            new_seed() if seed is None else seed,
            max_tokens,
            overflow,
            check_draft(draft),
            check_speculate(speculate),
            seed is not None,
        )
        return self._chat(checked, request, attempt, tuple(stop), cancel or CancelToken(), measure)

    def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        weights: Mapping[str, float] | None = None,
        beta: float = DEFAULT_BETA,
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
    ) -> Answer:
        """The whole answer at once; arguments and errors as `chat`."""
        events = self.chat(
            messages,
            weights=weights,
            beta=beta,
            active=active,
            steer=steer,
            sampler=sampler,
            seed=seed,
            attempt=attempt,
            max_tokens=max_tokens,
            stop=stop,
            overflow=overflow,
            cancel=cancel,
            measure=measure,
            speculate=speculate,
            draft=draft,
        )
        try:
            for event in events:
                if isinstance(event, Finish):
                    return event.answer
        finally:  # `contextlib.closing` would begin a function first, where an interrupt can come
            events.close()
        raise DecodeError("the answer ended without its last event")

    def _chat(
        self,
        messages: list[dict[str, str]],
        request: _Request,
        attempt: int,
        stop: tuple[str, ...],
        cancel: CancelToken,
        measure: bool,
    ) -> Generator[Event, None, None]:
        self._check_owner()
        with self._lock:
            try:
                self._own()
                yield from self._answer(messages, request, attempt, stop, cancel, measure)
            finally:
                self._owner = None

    def _answer(
        self,
        messages: list[dict[str, str]],
        request: _Request,
        attempt: int,
        stop: tuple[str, ...],
        cancel: CancelToken,
        measure: bool,
    ) -> Iterator[Event]:
        start = time.perf_counter()
        llm = self._llm
        noise = noise_seed(request.seed, _turn(messages), attempt)
        plan = self._plan(request)
        prompts = self._prompts(messages, request, drafts=plan is not None)
        yield from self._notices(prompts, request)
        old = self._steering.context if self._steering else None
        slm = self._prepare_steering(prompts)
        if slm is not None and old is not None and 1 < old.n_seq < slm.context.n_seq:
            yield Notice(
                "context-rebuilt",
                f"the sLM's context was rebuilt with room for {len(prompts.attributes)} attributes",
            )
        before = (llm.counters.prefilled, llm.counters.decodes, *self._slm_counts())
        out, steps = Generation(), None
        first = last = start
        try:
            self._prefill(prompts, slm, cancel)
            steps, draws, most = self._steps(request, prompts, slm, plan, noise)
            if self.pair.llm.chat_template.source == PLAIN:  # it has no end token, but a name to stop at
                stop = (*stop, PLAIN_STOP)
            for token in self._decoder.generate(
                steps,
                request.p_over_beta,
                draws,
                max_tokens=most,
                stop=stop,
                cancel=cancel,
                measure=measure,
                into=out,
            ):
                last = time.perf_counter()
                if len(out.tokens) == 1:
                    first = last
                yield token
        except Aborted:  # during prefill
            out.reason = "cancelled"
        finally:
            self._clear_abort()
        text = out.text + out.held
        if out.stopped_by is None:
            self._answers.remember(text, out.tokens)
        n = len(out.tokens)
        after = (llm.counters.prefilled, llm.counters.decodes, *self._slm_counts())
        llm_new, llm_decodes, slm_new, slm_decodes = (b - a for a, b in zip(before, after, strict=True))
        timings = Timings(
            load_s=self.load_s,
            prompt_tokens=len(prompts.llm),
            prefilled_tokens=llm_new + slm_new,
            ttft_s=first - start,
            generated_tokens=n,
            tokens_per_second=(n - 1) / (last - first) if n > 1 and last > first else 0.0,
            llm_decodes=llm_decodes,
            slm_decodes=slm_decodes,
        )
        speculated = _speculated(request, steps)
        if self._known_costs is not None:
            self._known_costs.save()
        yield Finish(out.held, request.answer(self.pair, text, out, measure, timings, speculated))

    def _steps(
        self, request: _Request, prompts: Prompts, slm: Steering | None, plan: Plan | None, seed: int
    ) -> tuple[InStep, Draws, int]:
        """Where the rows of logits come from, what draws from them, and how many tokens there is room for."""
        n_vocab = self.pair.n_vocab
        plain = InStep(self._llm, slm if prompts.attributes else None, n_vocab)
        most = min(request.max_tokens, plain.room())
        draws = Draws(self._decoder.sampler, request.sampler, seed, self._llm.tokens[0], most)
        if plan is None or slm is None:
            return plain, draws, most
        return Speculation(self._llm, slm, request.p_over_beta, n_vocab, draws, plan, most), draws, most

    def _plan(self, request: _Request) -> Plan | None:
        """How tokens are drafted in this call; None is not at all."""
        if request.drafted == 0 or not self._can_roll_back():
            return None
        auto = request.drafted is None
        k = len(request.p_over_beta)
        only_same, at_once = auto and request.seeded, self._spare_cores()
        plan = Plan(self._costs(), k, request.kinds, request.drafted, only_same, at_once)
        for kind in plan.kinds:
            plan.acceptance(kind).fade()
        settled = auto and plan.measured() and not plan.choose(MOST_DRAFTED, self.settings.n_ctx, 0)[1]
        return None if settled else plan

    def _can_roll_back(self) -> bool:
        return self.pair.llm.can_roll_back and self.pair.slm.can_roll_back

    def _costs(self) -> Costs:
        if self._known_costs is None:
            models = [
                (model.fingerprint, model.offloaded, self.settings.threads or library.default_threads(model.n_bytes))
                for model in (self.pair.llm, self.pair.slm)
            ]
            versions = __version__, library.version(), library.system_info()
            settings = self.settings.flash_attn, self.settings.cache_type
            self._known_costs = Costs.open(self._cache, models, settings, versions, platform.uname())
        return self._known_costs

    def _prompts(self, messages: list[dict[str, str]], request: _Request, drafts: bool = False) -> Prompts:
        n_ctx = self.settings.n_ctx
        prompts = fit_prompts(
            self.pair,
            self.attributes,
            messages,
            request.weights,
            request.mode,
            self._answers.by_text,
            n_ctx=n_ctx,
            reserve=min(request.max_tokens, n_ctx // 4),
            overflow=request.overflow,
            drafts=drafts,
        )
        if not prompts.attributes and len(prompts.base) >= n_ctx:  # no room to draft in, which the answer does not need
            return replace(prompts, base=[])
        return prompts

    def _notices(self, prompts: Prompts, request: _Request) -> Iterator[Notice]:
        if self.pair.llm.template_source is None and self._first_time("no-template"):
            yield Notice(
                "no-template",
                f"{self.pair.llm.path.name} has no chat template: a generic one is used, answers may suffer",
            )
        if request.drafted != 0 and not self._can_roll_back() and self._first_time("no-speculation"):
            model = self.pair.slm if self.pair.llm.can_roll_back else self.pair.llm
            yield Notice(
                "no-speculation", f"{model.path.name} is recurrent and cannot take tokens back: nothing is drafted"
            )
        if prompts.dropped:
            yield Notice("dropped-turns", f"the context is full: the {prompts.dropped} oldest messages were left out")
        negative = [name for name, p in request.weights.items() if p < 0]
        if request.mode == "prompt" and negative:
            yield Notice("negative-weights", f"a prompt cannot push away from {', '.join(negative)}: left out")

    def _first_time(self, kind: str) -> bool:
        first = kind not in self._told
        self._told.add(kind)
        return first

    def _prepare_steering(self, prompts: Prompts) -> Steering | None:
        """The sLM's sequences, with room for the prompts; None where it takes no part."""
        if not prompts.base:
            return None
        n_seq = max(self._n_seq, len(prompts.attributes) + 1) if prompts.attributes else 1  # one is enough to draft
        if self._steering is None:
            self._steering = Steering(self.pair.slm, self.settings, n_seq)
        else:
            self._steering.fit(n_seq - 1)
        return self._steering

    def _spare_cores(self) -> bool:
        """Whether the LLM can decode while the sLM does without taking its cores; a GPU queues by itself."""
        if self.pair.llm.offloaded:
            return False
        slm = self.settings.threads or library.default_threads(self.pair.slm.n_bytes)
        return self.pair.slm.offloaded or self._llm.threads + slm <= physical_cores()

    def _prefill(self, prompts: Prompts, steering: Steering | None, cancel: CancelToken) -> None:
        self._llm.queued = bool(prompts.attributes) and self._spare_cores()
        self._llm.set_abort(cancel.flag)
        self._llm.prefill({0: prompts.llm})
        if steering is not None:
            steering.prefill(prompts.base, prompts.attributes, cancel.flag)

    def _clear_abort(self) -> None:
        if self._closed:  # by this very thread, in the middle of an answer
            return
        self._llm.set_abort(None)
        if self._steering is not None:
            self._steering.context.set_abort(None)

    def _slm_counts(self) -> tuple[int, int]:
        if self._steering is None:
            return 0, 0
        counters = self._steering.context.counters
        return counters.prefilled, counters.decodes

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

        if self._closed:
            raise ClosedError("the engine has been closed")
        known = RewardCache(folders().rewards) if cache is True else cache or None
        threads = self.settings.threads
        return Scorer.for_pair(self.pair, self.attributes, text_length=text_length, threads=threads, cache=known)

    def learner(self, profile: Profile | str | Path = "default") -> Learner:
        """A profile in use: what answers are steered by, and what a person's choices teach.

        Its choices are scored by a scorer that the engine keeps for the next one, and closes.

        Args:
            profile: opened with this engine's `slm` and `attributes`; or its name or path, which is opened so.

        Raises:
            ProfileError, UsageError: as `Profile.open`.
            ClosedError: (while learning) the engine has been closed.
        """
        from drift_edge.learner import Learner
        from drift_edge.profile import Profile

        if not isinstance(profile, Profile):
            profile = Profile.open(profile, slm=self.slm, attributes=self.attributes)
        text_length = profile.text_length
        return Learner(profile, lambda: self._kept_scorer(text_length))

    def _kept_scorer(self, text_length: int) -> Scorer:
        with self._scorers_lock:
            if text_length not in self._scorers:
                self._scorers[text_length] = self.scorer(text_length=text_length)
            return self._scorers[text_length]

    # -- looking inside

    def next_logprobs(
        self,
        messages: Sequence[Mapping[str, str]],
        continuation: Sequence[int] = (),
        *,
        weights: Mapping[str, float] | None = None,
        beta: float = DEFAULT_BETA,
        active: int = DEFAULT_ACTIVE,
        steer: Mode = "logits",
    ) -> NDArray[np.float64]:
        """Log-probabilities of the next token, before any sampler, at the answer's start and after each given token.

        Args:
            messages: as in `chat`.
            continuation: ids the answer begins with; n of them give n + 1 rows.
            weights, beta, active, steer: as in `chat`.

        Returns:
            float64 (n + 1, n_vocab): log softmax of Eq. 15's logits.

        Raises:
            UsageError: a continuation's id does not exist.
            As `chat`.
        """
        checked = check_messages(messages)
        for token in continuation:
            if not isinstance(token, (int, np.integer)) or not 0 <= token < self.pair.n_vocab:
                raise UsageError(f"continuation: expected ids from 0 to {self.pair.n_vocab - 1:,}, got {token!r}")
        p = select_active(check_weights(weights or {}, self.attributes), active) if steer != "off" else {}
        request = _Request(p, check_beta(beta), steer, SamplerSettings(), 0, len(continuation) + 1, "error")
        self._check_owner()
        with self._lock:
            try:
                self._own()
                prompts = self._prompts(checked, request)
                steering = self._prepare_steering(prompts)
                self._prefill(prompts, steering, CancelToken())
                self._clear_abort()
                steps = InStep(self._llm, steering, self.pair.n_vocab)
                rows = np.empty((len(continuation) + 1, self.pair.n_vocab))
                for i in range(len(rows)):
                    rows[i] = self._decoder.fused(steps.rows(), request.p_over_beta)
                    if i < len(continuation):
                        steps.append(continuation[i])
                if np.isnan(rows).any():
                    raise DecodeError("the model's logits cannot be used: there is NaN among them")
                rows -= rows.max(axis=1, keepdims=True)
                rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
                return rows
            finally:
                self._owner = None

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
        if answer.mode != "logits" or answer.beta is None:
            raise UsageError("nothing was fused into this answer: it was not steered by weights")
        checked, cancel = check_messages(messages), cancel or CancelToken()
        weights = check_weights(answer.weights, self.attributes)
        sampler, n = SamplerSettings(), len(answer.tokens)
        request = _Request(weights, check_beta(answer.beta), "logits", sampler, 0, n + 1, "drop")
        tokens = [*answer.tokens, self.pair.llm.end_id] if answer.ended else list(answer.tokens)
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        texts, gains = [], np.zeros(len(tokens))
        shares, pushes = (np.zeros((len(tokens), len(weights))) for _ in range(2))
        self._check_owner()
        with self._lock:
            try:
                self._own()
                prompts = self._prompts(checked, request)
                steering = self._prepare_steering(prompts)
                if steering is None:
                    raise UsageError("the answer has no weights to explain")
                steps = InStep(self._llm, steering, self.pair.n_vocab)
                try:
                    self._prefill(prompts, steering, cancel)
                    for t, token in enumerate(tokens):
                        if t:
                            steps.append(tokens[t - 1])
                        h_llm, H = steps.rows()[0], steering.logits()[:, : self.pair.n_vocab]
                        h = self._decoder.fused((h_llm, H), request.p_over_beta)
                        shares[t], pushes[t], gains[t] = token_shares(token, h_llm, h, H, request.p_over_beta)
                        texts.append(decode(self.pair.llm.piece(token)))
                except Aborted:
                    shares, pushes, gains = (array[: len(texts)] for array in (shares, pushes, gains))
                finally:
                    self._clear_abort()
            finally:
                self._owner = None
        return Explanation(tuple(texts), tuple(weights), shares, pushes, gains)


class _Request:
    """The checked arguments of one call."""

    def __init__(
        self,
        weights: dict[str, float],
        beta: float,
        mode: Mode,
        sampler: SamplerSettings,
        seed: int,
        max_tokens: int,
        overflow: Overflow,
        kinds: tuple[DraftKind, ...] = KINDS,
        drafted: int | None = 0,
        seeded: bool = True,
    ) -> None:
        self.weights, self.beta, self.mode = weights, beta, mode
        self.sampler, self.seed, self.max_tokens, self.overflow = sampler, seed, max_tokens, overflow
        self.kinds, self.drafted, self.seeded = kinds, drafted, seeded
        self.fuses = mode == "logits" and bool(weights)
        p = np.array(list(weights.values()), np.float64)
        self.p_over_beta = p / beta if self.fuses else _NO_FUSION

    def answer(
        self, pair: ModelPair, text: str, out: Generation, measure: bool, timings: Timings, speculated: Speculated
    ) -> Answer:
        n = len(out.tokens) + (out.reason == "stop" and out.stopped_by is None)  # positions drawn, the end's too

        def mean(total: float) -> float | None:
            return total / n if measure and n else None

        return Answer(
            text=text,
            finish_reason=out.reason,
            tokens=tuple(out.tokens),
            seed=self.seed,
            models={"llm": pair.llm.name, "slm": pair.slm.name},
            mode=self.mode if self.weights else "off",
            beta=self.beta if self.fuses else None,
            weights=self.weights,
            kl_per_token=mean(out.kl),
            entropy_llm_bits=mean(out.entropy_llm),
            entropy_steered_bits=mean(out.entropy_steered),
            timings=timings,
            speculation=speculated,
            ended=out.reason == "stop" and out.stopped_by is None,
        )


def _speculated(request: _Request, steps: InStep | None) -> Speculated:
    auto = request.drafted is None
    if not isinstance(steps, Speculation):
        return Speculated(auto=auto)
    kind, g = steps.choice()
    return Speculated(kind if g else "off", request.drafted or g, steps.drafted, steps.accepted, auto, steps.same)


def _same_file(a: str | Path, b: str | Path) -> bool:
    try:
        return Path(a).samefile(b)
    except (OSError, ValueError):  # not there, or no path at all: whoever opens it says so
        return False


def _turn(messages: Sequence[Mapping[str, str]]) -> int:
    return sum(message["role"] == "user" for message in messages)
