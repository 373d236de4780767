"""A conversation under way: questions, answers, another answer, the comparison of plain and steered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from drift_edge.attributes import Attributes
from drift_edge.costs import Draft, Speculate
from drift_edge.errors import DecodeError, UsageError
from drift_edge.events import Answer, CancelToken, Event, Finish, Notice
from drift_edge.sampling import SamplerSettings
from drift_edge.weights import DEFAULT_BLOCKED

from ..models import builtin_does_not_know
from .config import DEFAULT_ACTIVE, DEFAULT_BETA, SAVED, Settings, Steer
from .interrupt import cancel_on_interrupt
from .render import Screen, weights_text
from .session import Autosave, Session, Turn

if TYPE_CHECKING:
    from drift_edge.explanation import Explanation
    from drift_edge.guard import Judge
    from drift_edge.profile import SLM
    from drift_edge.scoring import Scorer

    from .learner import Learner

_BUILTIN_NOTE = (
    "this is the small built-in pair, which knows a few hundred everyday topics and no more. For real models, give "
    "two GGUF files of one family: drift-edge chat --llm LARGE.gguf --slm SMALL.gguf"
)


class Engine(Protocol):
    """The part of `drift_edge.Drift` that a conversation needs."""

    @property
    def attributes(self) -> Attributes:
        """The pool."""
        ...

    @property
    def slm(self) -> SLM:
        """Which sLM it is."""
        ...

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        weights: Mapping[str, float],
        beta: float | None,
        strength: float | None,
        active: int,
        steer: Steer,
        sampler: SamplerSettings,
        seed: int | None,
        attempt: int,
        max_tokens: int,
        stop: Sequence[str],
        cancel: CancelToken,
        measure: bool,
        speculate: Speculate,
        draft: Draft,
        blocked: Collection[str],
    ) -> Iterator[Event]:
        """As `Drift.chat`."""
        ...

    def explain(
        self, messages: Sequence[Mapping[str, str]], answer: Answer, cancel: CancelToken | None = None
    ) -> Explanation:
        """As `Drift.explain`."""
        ...

    def scorer(self, *, text_length: int) -> Scorer:
        """As `Drift.scorer`."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


class Steering(NamedTuple):
    """What an answer is steered by, as `Drift.chat` takes it."""

    weights: Mapping[str, float]
    beta: float | None
    active: int
    strength: float | None = None

    @property
    def how_strong(self) -> str:
        """Beta or strength, for people."""
        return f"beta {self.beta:g}" if self.strength is None else f"strength {self.strength:g}"


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer to the last question, as it was shown.

    Attributes:
        text: of the answer.
        whole: nobody stopped it.
        answer: with how it came about; None of an older sitting, or where a person has edited it.
        replaced: it was kept until another took its place.
    """

    text: str
    whole: bool = True
    answer: Answer | None = None
    replaced: bool = False

    @classmethod
    def of(cls, answer: Answer) -> Shown:
        """An answer of this sitting."""
        return cls(answer.text, answer.finish_reason != "cancelled", answer)


class Dialogue:
    """Holds the turns and asks the engine.

    Args:
        engine: answers.
        settings: may change between turns.
        screen: shows the answers.
        saver: keeps the conversation on disk.
        learner: the profile that answers are steered by and choices are learned into; None is none.
        measure: measure entropies and the divergence of every answer, stats or not.
        judge: sees every answer before it is shown.

    Attributes:
        last: the answer that the last turn keeps; None where it is of an older sitting, or edited.
        other: another one to compare it with.
        ab: whether the next question gets two answers: `off`, `once` or `always`.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        screen: Screen,
        saver: Autosave,
        learner: Learner | None = None,
        *,
        measure: bool = False,
        judge: Judge | None = None,
    ) -> None:
        self.engine, self.settings, self.screen, self.saver = engine, settings, screen, saver
        self.learner = learner
        self.session = Session()
        self.last: Answer | None = None
        self.other: Shown | None = None
        self.ab = "off"
        self._measure, self._judge = measure, judge
        self._told_builtin = False

    @property
    def turns(self) -> list[Turn]:
        """Questions and answers so far."""
        return self.session.turns

    @property
    def steering(self) -> Steering:
        """What the next answer is steered by: the person's own weights, or those of the profile."""
        settings = self.settings
        if settings.weights or self.learner is None:
            usual: tuple[float | None, float | None] = DEFAULT_BETA, None
            weights, active = settings.weights, settings.active or DEFAULT_ACTIVE
        else:
            usual = self.learner.profile.settings.steering
            weights = self.learner.weights(settings.active, settings.allow)
            active = len(weights) or DEFAULT_ACTIVE
        own = settings.beta, settings.strength
        beta, strength = usual if own == (None, None) else own
        return Steering(weights, beta, active, strength)

    @property
    def blocked(self) -> tuple[str, ...]:
        """Attributes that steer nothing, whatever their weight: the profile's list, or the usual one."""
        names = self.learner.profile.settings.blocked if self.learner else DEFAULT_BLOCKED
        return tuple(name for name in names if name not in self.settings.allow)

    def ask(self, question: str) -> Answer:
        """Ask, show the answer and keep both. A last turn that got no answer is forgotten.

        Raises:
            DriftError: the engine cannot answer; the question is kept, unanswered.
        """
        self.begin(question)
        answer = self.generate()
        self.keep(answer)
        return answer

    def begin(self, question: str) -> None:
        """Begin a turn."""
        if self.turns and self.turns[-1].answer is None:
            self.turns.pop()
        self.turns.append(Turn(question))
        self.last = self.other = None

    def regenerate(self) -> Answer:
        """Another answer to the last question, which takes the place of the one so far.

        Raises:
            UsageError: nothing was asked yet.
            DriftError: the engine cannot answer.
        """
        before = self.current()
        self.turn.attempt += before is not None
        answer = self.generate()
        self.keep(answer)
        if before is not None and answer.text:
            self.other = replace(before, replaced=True)
        return answer

    def compare(self) -> None:
        """The plain and the steered answer to the last question, with the same seed; the steered one is kept.

        Raises:
            UsageError: nothing was asked yet, or nothing steers.
            DriftError: the engine cannot answer.
        """
        turn, steering, steer = self.turn, self.steering, self.settings.steer
        if not steering.weights or steer == "off":
            missing = "/steer logits turns steering on" if steering.weights else "/weights concise=0.8 sets a weight"
            raise UsageError(f"nothing steers the answer, so there is nothing to compare: {missing}")
        self.screen.say("plain:", "bold")
        plain = self.generate(steer="off", seed=turn.seed)
        if plain.finish_reason == "cancelled":
            return
        self.screen.say(f"steered ({weights_text(steering.weights)}; {steering.how_strong}):", "bold")
        steered = self.generate(seed=plain.seed)
        if steered.finish_reason != "cancelled" or turn.answer is None:
            self.keep(steered)
            self.other = Shown.of(plain)

    def explain(self) -> Explanation:
        """Which attributes pushed which tokens of the last answer.

        Raises:
            UsageError: there is no answer of this sitting, or nothing was fused into it.
        """
        if self.last is None:
            raise UsageError("there is no answer to explain: /why is for the last answer of this sitting, as it came")
        if self.last.mode not in ("logits", "both"):
            raise UsageError("nothing steered the last answer, so there is nothing to explain")
        cancel = CancelToken()
        with cancel_on_interrupt(cancel):
            return self.engine.explain(self.messages(), self.last, cancel)

    def clear(self) -> None:
        """Forget the conversation; what was saved of it stays, the next goes to another file."""
        self.session = Session()
        self.last = self.other = None
        self.saver.renew()

    def snapshot(self) -> Session:
        """The conversation as it is saved, with the settings of now."""
        self.session.settings = self.settings.to_dict(SAVED)
        return self.session

    @property
    def turn(self) -> Turn:
        """The last turn.

        Raises:
            UsageError: nothing was asked yet.
        """
        if not self.turns:
            raise UsageError("nothing has been asked yet")
        return self.turns[-1]

    def current(self) -> Shown | None:
        """The answer that the last turn keeps.

        Raises:
            UsageError: nothing was asked yet.
        """
        turn = self.turn
        return None if turn.answer is None else Shown(turn.answer, turn.finish_reason != "cancelled", self.last)

    def keep(self, answer: Answer) -> None:
        """Make an answer the last turn's."""
        if answer.text or answer.finish_reason != "cancelled":
            turn = self.turn
            turn.answer, turn.seed, turn.finish_reason = answer.text, answer.seed, answer.finish_reason
            self.last, self.other = answer, None
        self.saver.save(self.snapshot())

    def replace(self, shown: Shown) -> None:
        """Make a text of the person's, or an answer shown before, the last turn's."""
        if shown.answer is not None:
            self.keep(shown.answer)
            return
        self.turn.answer, self.turn.finish_reason = shown.text, "stop"
        self.last = None
        self.saver.save(self.snapshot())

    def messages(self) -> list[dict[str, str]]:
        """What the last turn's answer is given to."""
        messages = [{"role": "system", "content": self.settings.system}] if self.settings.system else []
        for turn in self.turns[:-1]:
            messages.append({"role": "user", "content": turn.question})
            messages.append({"role": "assistant", "content": turn.answer or ""})
        return [*messages, {"role": "user", "content": self.turn.question}]

    def _judged(self, draw: Callable[[int], Iterator[Event]], cancel: CancelToken) -> Iterator[Event]:
        """An answer that the guard lets pass, if there is one; it is shown when it has passed."""
        if self._judge is None:
            return draw(0)
        from drift_edge.guard import guarded

        return guarded(draw, self._judge, self.messages(), tries=self.settings.guard_tries, cancel=cancel)

    def generate(
        self,
        steering: Steering | None = None,
        *,
        steer: Steer | None = None,
        seed: int | None = None,
        attempt: int | None = None,
    ) -> Answer:
        """Show an answer to the last question, and keep nothing of it.

        Args:
            steering: instead of the person's.
            steer, seed, attempt: instead of the settings', and the turn's.

        Raises:
            DriftError: the engine cannot answer.
        """
        settings, screen, cancel = self.settings, self.screen, CancelToken()
        weights, beta, active, strength = steering or self.steering
        answer = None

        def draw(number: int) -> Iterator[Event]:
            return self.engine.chat(
                self.messages(),
                weights=weights,
                beta=beta,
                strength=strength,
                active=active,
                steer=steer or settings.steer,
                sampler=settings.sampler(),
                seed=settings.seed if seed is None else seed,
                attempt=number + (self.turn.attempt if attempt is None else attempt),
                max_tokens=settings.max_tokens,
                stop=settings.stop,
                cancel=cancel,
                measure=self._measure or settings.stats,
                speculate=settings.speculate,
                draft=settings.draft,
                blocked=self.blocked,
            )

        try:
            with cancel_on_interrupt(cancel):
                for event in self._judged(draw, cancel):
                    if isinstance(event, Notice):
                        screen.note(event.text)
                        continue
                    screen.answer(event.text)
                    if isinstance(event, Finish):
                        answer = event.answer
        finally:
            screen.end_answer()
        if answer is None:
            raise DecodeError("the answer ended without its last event")
        if settings.stats:
            screen.stats(answer)
        if settings.llm is None and not self._told_builtin and builtin_does_not_know(answer.text):
            self._told_builtin = True
            screen.note(_BUILTIN_NOTE)
        return answer
