"""Answerer: one answer after another, as streams of events."""

from __future__ import annotations

import time
from collections.abc import Iterator

from drift_edge.contexts import Contexts
from drift_edge.conversation import Prompts
from drift_edge.decoding import Decoder, Generation, InStep
from drift_edge.draws import Draws
from drift_edge.events import Answer, Event, Finish, Notice, Timings
from drift_edge.llama.context import Aborted
from drift_edge.llama.template import PLAIN, PLAIN_STOP
from drift_edge.planning import Planner, speculated
from drift_edge.request import Request


class Answerer:
    """Answers requests, one at a time.

    Args:
        contexts: of both models.
        decoder: for their vocabulary.
        planner: says how tokens are drafted.
        load_s: seconds the models took to load, reported with each answer.
    """

    def __init__(self, contexts: Contexts, decoder: Decoder, planner: Planner, load_s: float) -> None:
        self._contexts, self._decoder, self._planner, self._load_s = contexts, decoder, planner, load_s
        self._told: set[str] = set()

    def events(self, request: Request) -> Iterator[Event]:
        """Notices, tokens, and one `Finish` at the end.

        Raises:
            ContextOverflowError, ChatTemplateError, DecodeError: as their names say.
        """
        start = time.perf_counter()
        contexts, llm = self._contexts, self._contexts.llm
        plan = self._planner.plan(request)
        prompts = contexts.prompts(request, drafts=plan is not None)
        yield from self._notices(prompts, request)
        if contexts.make_room(prompts):
            n = len(prompts.attributes)
            yield Notice("context-rebuilt", f"the sLM's context was rebuilt with room for {n} attributes")
        before = contexts.computed()
        out, steps = Generation(), None
        first = last = start
        try:
            slm = contexts.prefill(prompts, request.cancel)
            plain = InStep(llm, slm if prompts.attributes else None, contexts.pair.n_vocab)
            most = min(request.max_tokens, plain.room())
            draws = Draws(self._decoder.sampler, request.sampler, request.noise, llm.tokens[0], most)
            steps = self._planner.steps(request, plan, plain, slm, draws, most)
            # The plain template has no end token, but a name to stop at.
            stop = (*request.stop, PLAIN_STOP) if contexts.pair.llm.chat_template.source == PLAIN else request.stop
            for token in self._decoder.generate(
                steps,
                request.fusion,
                draws,
                max_tokens=most,
                stop=stop,
                cancel=request.cancel,
                measure=request.measure,
                logprobs=request.logprobs,
                into=out,
            ):
                last = time.perf_counter()
                if len(out.tokens) == 1:
                    first = last
                yield token
        except Aborted:  # during prefill
            out.reason = "cancelled"
        finally:
            contexts.release()
        llm_new, llm_decodes, slm_new, slm_decodes = (b - a for a, b in zip(before, contexts.computed(), strict=True))
        n = len(out.tokens)
        timings = Timings(
            load_s=self._load_s,
            prompt_tokens=len(prompts.llm),
            prefilled_tokens=llm_new + slm_new,
            ttft_s=first - start,
            generated_tokens=n,
            tokens_per_second=(n - 1) / (last - first) if n > 1 and last > first else 0.0,
            llm_decodes=llm_decodes,
            slm_decodes=slm_decodes,
        )
        answer = self._answer(request, out, steps, timings)
        if out.stopped_by is None:
            contexts.answers.remember(answer.text, out.tokens)
        self._planner.save()
        yield Finish(out.held, answer)

    def _answer(self, request: Request, out: Generation, steps: InStep | None, timings: Timings) -> Answer:
        ended = out.reason == "stop" and out.stopped_by is None
        drawn = len(out.tokens) + ended  # the end token was drawn too

        def mean(total: float) -> float | None:
            return total / drawn if request.measure and drawn else None

        pair = self._contexts.pair
        return Answer(
            text=out.text + out.held,
            finish_reason=out.reason,
            tokens=tuple(out.tokens),
            seed=request.seed,
            models={"llm": pair.llm.name, "slm": pair.slm.name},
            mode=request.mode if request.weights else "off",
            beta=request.beta if request.fuses else None,
            strength=request.strength if request.fuses else None,
            weights=request.weights,
            kl_per_token=mean(out.kl),
            entropy_llm_bits=mean(out.entropy_llm),
            entropy_steered_bits=mean(out.entropy_steered),
            timings=timings,
            speculation=speculated(request, steps),
            ended=ended,
        )

    def _notices(self, prompts: Prompts, request: Request) -> Iterator[Notice]:
        llm, slm = self._contexts.pair.llm, self._contexts.pair.slm
        if llm.template_source is None and self._first_time("no-template"):
            yield Notice(
                "no-template", f"{llm.path.name} has no chat template: a generic one is used, answers may suffer"
            )
        if request.drafted != 0 and not self._contexts.can_roll_back and self._first_time("no-speculation"):
            name = (slm if llm.can_roll_back else llm).path.name
            yield Notice("no-speculation", f"{name} is recurrent and cannot take tokens back: nothing is drafted")
        if prompts.dropped:
            yield Notice("dropped-turns", f"the context is full: the {prompts.dropped} oldest messages were left out")
        if request.blocked and self._first_time(f"blocked {' '.join(request.blocked)}"):
            names = ", ".join(request.blocked)
            yield Notice("blocked", f"blocked, so without weight in this answer: {names} (--allow NAME lifts that)")
        negative = [name for name, p in request.weights.items() if p < 0]
        if request.mode == "prompt" and negative:
            yield Notice("negative-weights", f"a prompt cannot push away from {', '.join(negative)}: left out")

    def _first_time(self, kind: str) -> bool:
        first = kind not in self._told
        self._told.add(kind)
        return first
