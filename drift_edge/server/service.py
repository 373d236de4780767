"""What all routes share: the engine and its turns, profiles, recent answers, and what a request comes to."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

from drift_edge.aio import AsyncDrift
from drift_edge.conversation import Mode
from drift_edge.events import Answer, CancelToken, Event, Finish
from drift_edge.fusion import DEFAULT_BETA
from drift_edge.guard import Judge, guarded
from drift_edge.learner import Learner, Lesson
from drift_edge.preferences import PreferencePair
from drift_edge.profile import Profile
from drift_edge.request import DEFAULT_ACTIVE
from drift_edge.sampling import SamplerSettings, new_seed, noise_seed
from drift_edge.server.defaults import Defaults
from drift_edge.server.errors import RequestError
from drift_edge.server.requests import DriftField, Question
from drift_edge.server.turns import Turns
from drift_edge.weights import DEFAULT_BLOCKED

T = TypeVar("T")
U = TypeVar("U")
Strong = tuple[float | None, float | None]  # beta and strength

_REMEMBERED = 64  # answers that can be explained
_PROFILES = 64  # whose probes are counted
_REDRAWS = 3  # how often an answer is drawn again that came out as the one before
_SAMPLERS = (
    *("temperature", "top_k", "top_p", "min_p", "plausibility"),
    *("repeat_penalty", "presence_penalty", "frequency_penalty"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One answer to make: what `Drift.chat` takes, and whose profile it is."""

    messages: list[dict[str, str]]
    profile: str | None
    weights: Mapping[str, float]
    beta: float | None
    strength: float | None
    active: int
    steer: Mode
    sampler: SamplerSettings
    seed: int | None
    attempt: int
    max_tokens: int
    stop: tuple[str, ...]
    measure: bool
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """What happened to one of two answers.

    Attributes:
        index: 0 or 1.
        own: whether the person's own weights steer it.
        event: None where it begins again, since it had come out as the other.
    """

    index: int
    own: bool
    event: Event | None


class Service:
    """One engine, for many requests.

    Args:
        engine: answers.
        defaults: for what requests leave out.
        waiting: how many requests may wait for their turn.
        model: the name that clients ask for.
        judge: sees every answer before the client does; None lets all pass.
    """

    def __init__(
        self, engine: AsyncDrift, defaults: Defaults, waiting: int, model: str, judge: Judge | None = None
    ) -> None:
        self.engine, self.defaults, self.model, self._judge = engine, defaults, model, judge
        self.turns = Turns(waiting)
        self._blocked = tuple(name for name in DEFAULT_BLOCKED if name not in defaults.allow)
        self._answers: OrderedDict[str, list[tuple[list[dict[str, str]], Answer]]] = OrderedDict()
        self._asked: OrderedDict[str, Counter[str]] = OrderedDict()

    # -- profiles

    async def profile(self, name: str | None) -> Profile:
        """A profile as it is on the disk now.

        Args:
            name: None is the server's.

        Raises:
            RequestError: 404, there is none.
            ProfileError: it cannot be used, or was made with another sLM or pool.
        """
        if name is None:
            name = self.defaults.profile
            if name is None:
                raise RequestError(404, "this server has no profile: name one", "profile_not_found", param="profile")
        drift = self.engine.drift

        def look() -> Profile:
            # A name and no path: what lies elsewhere on the disk is not for clients to choose.
            if name != self.defaults.profile and name not in Profile.names():
                raise RequestError(404, f"there is no profile {name!r:.70}", "profile_not_found", param="profile")
            return Profile.open(name, slm=drift.slm, attributes=drift.attributes)

        return await asyncio.to_thread(look)

    def learner(self, profile: Profile) -> Learner:
        """What learns into a profile."""
        asked = self._asked.setdefault(str(profile.path), Counter())
        self._asked.move_to_end(str(profile.path))
        if len(self._asked) > _PROFILES:
            self._asked.popitem(last=False)
        return self.engine.drift.learner(profile, asked=asked)

    async def learn(self, pair: PreferencePair, profile: Profile) -> Lesson:
        """Keep a choice at once, and count it when its turn comes.

        Raises:
            RequestError: 503, the queue is full; the choice is kept, where the profile keeps a journal.
            ProfileError: it cannot be kept.
            DriftError: it cannot be scored; it is kept as well.
        """
        learner, cancel = self.learner(profile), CancelToken()
        known = False
        if pair.tie or profile.settings.journal:
            kept = await asyncio.to_thread(learner.keep, pair)
            known = not kept.ids
            if pair.tie or not profile.pending:
                return Lesson((), kept.before, kept.after, known=known)

        def count() -> Lesson:
            profile.refresh()  # others may have learned meanwhile, of this choice too
            return learner.catch_up(pair, cancel)

        async with self.turns.turn():
            lesson = await self.engine.run(count, cancel=cancel)
        return replace(lesson, known=known)

    # -- answers

    async def call(self, question: Question, logprobs: int | None = None) -> Call:
        """What a request comes to.

        Args:
            question: its body.
            logprobs: as `Drift.chat`.

        Raises:
            RequestError: 404, unknown model or profile.
            ProfileError: the profile cannot be used.
            UsageError: a value is out of range.
        """
        if question.model not in (None, self.model):
            raise RequestError(
                404, f"there is no model {question.model!r:.80}; it is {self.model!r}", "model_not_found", param="model"
            )
        defaults, drift = self.defaults, question.drift or DriftField()
        given = {name: value for name in _SAMPLERS if (value := getattr(question, name)) is not None}
        stop = (question.stop,) if isinstance(question.stop, str) else question.stop
        profile, weights, usual, active = await self._steering(drift)
        beta, strength = _strong(drift, defaults, usual)
        return Call(
            messages=question.conversation(defaults.system),
            profile=profile,
            weights=weights,
            beta=beta,
            strength=strength,
            active=active,
            steer=drift.mode or defaults.steer,
            sampler=replace(defaults.sampler, **given),
            seed=_first(question.seed, defaults.seed),
            attempt=drift.attempt,
            max_tokens=question.max_completion_tokens or question.max_tokens or defaults.max_tokens,
            stop=defaults.stop if stop is None else tuple(filter(None, stop)),  # some clients send empty ones
            measure=drift.measure,
            logprobs=logprobs,
        )

    async def _steering(self, drift: DriftField) -> tuple[str | None, Mapping[str, float], Strong, int]:
        """Profile, weights, the beta or strength that goes with them, and how many are active."""
        defaults, named = self.defaults, "profile" in drift.model_fields_set
        active = _first(drift.active, defaults.active)
        name = drift.profile if named else defaults.profile
        weights = drift.weights if named else _first(drift.weights, defaults.weights or None)
        if weights is not None or name is None:
            return None, weights or {}, (DEFAULT_BETA, None), _first(active, DEFAULT_ACTIVE)
        profile = await self.profile(name)
        learned = self.learner(profile).weights(active, defaults.allow)
        return name, learned, profile.settings.steering, len(learned) or DEFAULT_ACTIVE

    def events(self, call: Call) -> AsyncGenerator[Event, None]:
        """An answer, when its turn comes.

        Raises:
            UsageError: an argument is out of range.
            RequestError: (while iterating) 503, the queue is full.
            DriftError: (while iterating) the engine cannot answer.
        """
        return self._in_turn(self._chat(call))

    async def _in_turn(self, stream: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        async with self.turns.turn(), aclosing(stream):
            async for event in stream:
                yield event

    def _chat(self, call: Call) -> AsyncGenerator[Event, None]:
        cancel = CancelToken()
        if self._judge is None:
            return self.engine.each(self._draw(call, cancel), cancel)

        def draw(number: int) -> Iterator[Event]:
            return self._draw(replace(call, attempt=call.attempt + number), cancel)

        tries = self.defaults.guard_tries
        return self.engine.each(guarded(draw, self._judge, call.messages, tries=tries, cancel=cancel), cancel)

    def _draw(self, call: Call, cancel: CancelToken) -> Iterator[Event]:
        return self.engine.drift.chat(
            call.messages,
            weights=call.weights,
            beta=call.beta,
            strength=call.strength,
            active=call.active,
            steer=call.steer,
            sampler=call.sampler,
            seed=call.seed,
            attempt=call.attempt,
            max_tokens=call.max_tokens,
            stop=call.stop,
            cancel=cancel,
            measure=call.measure,
            speculate=self.defaults.speculate,
            draft=self.defaults.draft,
            logprobs=call.logprobs,
            blocked=self._blocked if call.profile is None else (),  # a profile's own list has been applied
        )

    async def candidates(self, call: Call) -> AsyncGenerator[Candidate, None]:
        """Two answers to choose between: one by the weights of the call, one that probes, in no fixed order.

        Both are drawn with the same noise, so that what steers them is all that they differ by; the second is drawn
        again, a few times, where it comes out as the first.

        Raises:
            RequestError: 404, there is no profile to teach; 503, the queue is full.
            DriftError: the engine cannot answer.
        """
        profile = await self.profile(call.profile)
        seed = new_seed() if call.seed is None else call.seed
        call = replace(call, seed=seed, steer="logits")
        probe = replace(call, weights=self.learner(profile).probes()[0], active=1)
        own_first = noise_seed(seed, len(call.messages), call.attempt) % 2
        order = (True, False) if own_first else (False, True)
        texts: list[str] = []
        async with self.turns.turn():
            for index, own in enumerate(order):
                for redraw in range(_REDRAWS + 1):
                    made = replace(call if own else probe, attempt=call.attempt + redraw)
                    text = ""
                    async with aclosing(self._chat(made)) as stream:
                        async for event in stream:
                            if isinstance(event, Finish):
                                text = event.answer.text.strip()
                                if text in texts and redraw < _REDRAWS:
                                    yield Candidate(index, own, None)
                                    break
                            yield Candidate(index, own, event)
                    if text not in texts:
                        break
                texts.append(text)

    def remember(self, name: str, messages: list[dict[str, str]], answers: list[Answer]) -> None:
        """Keep the answers of one reply, to be explained."""
        self._answers[name] = [(messages, answer) for answer in answers]
        while len(self._answers) > _REMEMBERED:
            self._answers.popitem(last=False)

    def recall(self, name: str, index: int) -> tuple[list[dict[str, str]], Answer]:
        """What an answer was given to, and the answer.

        Raises:
            RequestError: 404, it is not known any more.
        """
        try:
            return self._answers[name][index]
        except (KeyError, IndexError):
            raise RequestError(
                404, f"there is no answer {name!r:.60} among the last {_REMEMBERED}", "answer_not_found", param="id"
            ) from None


def _strong(drift: DriftField, defaults: Defaults, usual: Strong) -> Strong:
    """Beta and strength: the request's, where it has either, else the server's, else the profile's."""
    given = (drift.beta, drift.strength), (defaults.beta, defaults.strength)
    return next((strong for strong in given if strong != (None, None)), usual)


def _first(value: T | None, other: U) -> T | U:
    """The value, or where there is none, the other."""
    return other if value is None else value
