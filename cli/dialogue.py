"""A conversation under way: questions, answers, another answer, the comparison of plain and steered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from drift_edge.attributes import Attributes
from drift_edge.errors import DecodeError, UsageError
from drift_edge.events import Answer, CancelToken, Event, Finish, Notice
from drift_edge.sampling import SamplerSettings

from ..models import builtin_does_not_know
from .config import SAVED, Settings, Steer
from .interrupt import cancel_on_interrupt
from .render import Screen, weights_text
from .session import Autosave, Session, Turn

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

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        weights: Mapping[str, float],
        beta: float,
        active: int,
        steer: Steer,
        sampler: SamplerSettings,
        seed: int | None,
        attempt: int,
        max_tokens: int,
        stop: Sequence[str],
        cancel: CancelToken,
        measure: bool,
    ) -> Iterator[Event]:
        """As `Drift.chat`."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


class Dialogue:
    """Holds the turns and asks the engine.

    Args:
        engine: answers.
        settings: may change between turns.
        screen: shows the answers.
        saver: keeps the conversation on disk.
        measure: measure entropies and the divergence of every answer, stats or not.
    """

    def __init__(
        self, engine: Engine, settings: Settings, screen: Screen, saver: Autosave, *, measure: bool = False
    ) -> None:
        self.engine, self.settings, self.screen, self.saver = engine, settings, screen, saver
        self.session = Session()
        self._measure = measure
        self._told_builtin = False

    @property
    def turns(self) -> list[Turn]:
        """Questions and answers so far."""
        return self.session.turns

    def ask(self, question: str) -> Answer:
        """Ask, show the answer and keep both. A last turn that got no answer is forgotten.

        Raises:
            DriftError: the engine cannot answer; the question is kept, unanswered.
        """
        if self.turns and self.turns[-1].answer is None:
            self.turns.pop()
        self.turns.append(Turn(question))
        return self._answer()

    def regenerate(self) -> Answer:
        """Another answer to the last question.

        Raises:
            UsageError: nothing was asked yet.
            DriftError: the engine cannot answer.
        """
        turn = self._last()
        turn.attempt += turn.answer is not None
        return self._answer()

    def compare(self) -> None:
        """The plain and the steered answer to the last question, with the same seed; the steered one is kept.

        Raises:
            UsageError: nothing was asked yet, or nothing steers.
            DriftError: the engine cannot answer.
        """
        turn, settings = self._last(), self.settings
        if not settings.weights or settings.steer == "off":
            missing = "/steer logits turns steering on" if settings.weights else "/weights concise=0.8 sets a weight"
            raise UsageError(f"nothing steers the answer, so there is nothing to compare: {missing}")
        self.screen.say("plain:", "bold")
        plain = self._stream("off", turn.seed if turn.seed is not None else settings.seed)
        if plain.finish_reason == "cancelled":
            return
        self.screen.say(f"steered ({weights_text(settings.weights)}; beta {settings.beta:g}):", "bold")
        steered = self._stream(settings.steer, plain.seed)
        if steered.finish_reason != "cancelled" or turn.answer is None:
            self._keep(steered)

    def clear(self) -> None:
        """Forget the conversation; what was saved of it stays, the next goes to another file."""
        self.session = Session()
        self.saver.renew()

    def snapshot(self) -> Session:
        """The conversation as it is saved, with the settings of now."""
        self.session.settings = self.settings.to_dict(SAVED)
        return self.session

    def _last(self) -> Turn:
        if not self.turns:
            raise UsageError("nothing has been asked yet")
        return self.turns[-1]

    def _answer(self) -> Answer:
        answer = self._stream(self.settings.steer, self.settings.seed)
        self._keep(answer)
        return answer

    def _keep(self, answer: Answer) -> None:
        turn = self.turns[-1]
        if answer.text or answer.finish_reason != "cancelled":
            turn.answer, turn.seed, turn.finish_reason = answer.text, answer.seed, answer.finish_reason
        self.saver.save(self.snapshot())

    def _messages(self) -> list[dict[str, str]]:
        messages = [{"role": "system", "content": self.settings.system}] if self.settings.system else []
        for turn in self.turns[:-1]:
            messages.append({"role": "user", "content": turn.question})
            messages.append({"role": "assistant", "content": turn.answer or ""})
        return [*messages, {"role": "user", "content": self.turns[-1].question}]

    def _stream(self, steer: Steer, seed: int | None) -> Answer:
        settings, screen, cancel = self.settings, self.screen, CancelToken()
        answer = None
        try:
            with cancel_on_interrupt(cancel):
                for event in self.engine.chat(
                    self._messages(),
                    weights=settings.weights,
                    beta=settings.beta,
                    active=settings.active,
                    steer=steer,
                    sampler=settings.sampler(),
                    seed=seed,
                    attempt=self.turns[-1].attempt,
                    max_tokens=settings.max_tokens,
                    stop=settings.stop,
                    cancel=cancel,
                    measure=self._measure or settings.stats,
                ):
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
