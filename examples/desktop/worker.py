"""The engine in a thread of its own, so that the window never waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

from drift_edge import CancelToken, Drift, DriftError, Finish, Learner, Notice, PreferencePair, Token
from drift_edge.profile import Weight

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Ready:
    """The models are loaded."""

    name: str


@dataclass(frozen=True)
class Said:
    """More text of an answer: of the only one, 0, or of the second of two, 1."""

    side: int
    text: str


@dataclass(frozen=True)
class Done:
    """All answers are there; `whole` is false where one was stopped."""

    texts: tuple[str, ...]
    whole: bool
    tokens_per_second: float


@dataclass(frozen=True)
class Weights:
    """The profile, as it is now."""

    n: int
    table: Mapping[str, Weight]


@dataclass(frozen=True)
class Told:
    """A line for the person, such as an error."""

    text: str


class Worker:
    """Does what it is asked, one after another; what comes of it is put into `inbox`.

    Args:
        load: makes the engine, which may take seconds.
        profile: name or path of the profile that steers and learns.
    """

    def __init__(self, load: Callable[[], Drift], profile: str) -> None:
        self.inbox: SimpleQueue[object] = SimpleQueue()
        self._jobs: SimpleQueue[Callable[[Drift, Learner], None] | None] = SimpleQueue()
        self._cancel = CancelToken()
        self._thread = threading.Thread(target=self._work, args=(load, profile), name="engine")
        self._thread.start()

    def ask(self, messages: Messages, strength: float) -> None:
        """Answer a conversation by the profile's weights."""
        cancel = self._cancel = CancelToken()
        self._jobs.put(
            lambda drift, learner: self._answer(drift, learner, [learner.weights()], messages, strength, cancel)
        )

    def ask_twice(self, messages: Messages, strength: float) -> None:
        """Answer twice: by the profile's weights, and by those whose comparison teaches most."""
        cancel = self._cancel = CancelToken()

        def job(drift: Drift, learner: Learner) -> None:
            self._answer(drift, learner, [learner.weights(), learner.probes()[0]], messages, strength, cancel)

        self._jobs.put(job)

    def learn(self, pair: PreferencePair) -> None:
        """Keep a choice and learn from it."""
        self._jobs.put(lambda _, learner: self._learn(learner, pair))

    def stop(self) -> None:
        """Stop the answer under way, within one token."""
        self._cancel.cancel()

    def close(self) -> None:
        """Stop everything and free the engine."""
        self._jobs.put(None)
        self.stop()
        self._thread.join()

    # -- in the engine's thread

    def _work(self, load: Callable[[], Drift], profile: str) -> None:
        try:
            with load() as drift:
                learner = drift.learner(profile)
                self.inbox.put(Ready(drift.pair.llm.name))
                self._show(learner)
                while job := self._jobs.get():
                    try:
                        job(drift, learner)
                    except DriftError as error:
                        self.inbox.put(Told(str(error)))
                        self.inbox.put(Done((), False, 0.0))
        except DriftError as error:
            self.inbox.put(Told(str(error)))

    def _answer(
        self,
        drift: Drift,
        learner: Learner,
        sides: Sequence[Mapping[str, float]],
        messages: Messages,
        strength: float,
        cancel: CancelToken,
    ) -> None:
        answers, blocked = [], learner.profile.settings.blocked
        for side, weights in enumerate(sides):
            events = drift.chat(
                messages, weights=weights, strength=strength, blocked=blocked, attempt=side, cancel=cancel
            )
            for event in events:
                if isinstance(event, Notice):
                    self.inbox.put(Told(event.text))
                elif isinstance(event, Token | Finish):
                    self.inbox.put(Said(side, event.text))
                if isinstance(event, Finish):
                    answers.append(event.answer)
        whole = not any(answer.finish_reason == "cancelled" for answer in answers)
        speed = answers[-1].timings.tokens_per_second
        self.inbox.put(Done(tuple(answer.text for answer in answers), whole, speed))

    def _learn(self, learner: Learner, pair: PreferencePair) -> None:
        try:
            refused = learner.learn(pair).refused
        except DriftError as error:  # of no answer: the next one may be asked for already
            refused = {pair.id: str(error)}
        for why in refused.values():
            self.inbox.put(Told(why))
        self._show(learner)

    def _show(self, learner: Learner) -> None:
        self.inbox.put(Weights(learner.profile.n, learner.profile.table()))
