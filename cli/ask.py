"""`drift-edge learn --ask N`: questions with two answers each, between which a person chooses.

With `--json` a program can choose: each question is one JSON line on stdout, `{"question", "a", "b", "n", "of"}`, and a
line on stdin answers it: `a`, `b`, `=`, `n` or `q`. The last line is `{"done", "of", "profile", "weights"}`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from drift_edge.errors import RefusedError, UsageError
from drift_edge.sampling import new_seed

from . import chat
from .charts import counted
from .config import check_pair
from .dialogue import Dialogue
from .errors import INTERRUPTED
from .judging import BOTH, NEITHER, A, B, read_choice, show_two, take
from .learner import Learner, needed
from .render import Screen
from .repl import open_reader
from .session import Autosave

if TYPE_CHECKING:
    from .config import Settings
    from .judging import ReadKey

SOURCE = "learn --ask"
_ENOUGH = "q"
_FIRST = 0.4  # share of the questions in which attributes that were not shown yet come first
#: A choice's source tells which attributes were shown, so that a later run knows who won.
_OVER, _LIKE = "over", "like"
_DUEL = re.compile(f"{SOURCE}: (?P<winner>\\S+) (?P<how>{_OVER}|{_LIKE}) (?P<loser>\\S+)")


def ask(n: int, settings: Settings, *, as_json: bool = False) -> None:
    """Ask until `n` questions are answered; those of earlier runs count, and none is asked twice.

    Args:
        n: questions in all.
        settings: models, profile and samplers; weights and steering of their own are not used.
        as_json: for a program, as above.

    Raises:
        UsageError: `n` is under 1, or there is no profile.
        DriftError: a model or the profile cannot be used.
        typer.Exit: 130, after Ctrl-C.
    """
    from ..models.onboarding import questions

    if n < 1:
        raise UsageError(f"--ask: expected 1 question or more, got {n}")
    if settings.profile is None:
        raise UsageError("there is no profile to learn into: name one by --profile NAME")
    check_pair(settings)
    settings = replace(settings, weights={}, steer="logits", save=False)
    profile, pool = chat.open_profile(settings, None, wanted=True)
    screen = Screen(settings.color, quiet=as_json)
    with (
        chat.loaded(settings, pool, screen) as engine,
        chat.learning(profile, engine, settings, screen) as learner,
        chat.guarding(settings) as judge,
    ):
        dialogue = Dialogue(engine, settings, screen, Autosave(None, screen.note), learner, judge=judge)
        course = Course(dialogue, questions(builtin=settings.llm is None), n, as_json=as_json)
        interrupted = False
        try:
            needed(learner).catch_up()
            course.run(open_reader(screen, None).key)
        except KeyboardInterrupt:
            interrupted = True
        course.end()
    if interrupted:
        raise typer.Exit(INTERRUPTED)


class Course:
    """Questions asked one after another.

    Args:
        dialogue: with a profile.
        questions: in their order.
        n: how many shall be answered in all.
        as_json: for a program.
    """

    def __init__(self, dialogue: Dialogue, questions: list[str], n: int, *, as_json: bool) -> None:
        from drift_edge.active_learning import Duels

        self._dialogue, self._n, self._as_json = dialogue, n, as_json
        self._learner: Learner = needed(dialogue.learner)
        seed, names = dialogue.settings.seed, self._learner.profile.statistics.names
        self._duels = Duels(names, new_seed() if seed is None else seed)
        self._done, before = 0, set[str]()
        for choice in self._learner.profile.choices():
            if choice.pair.source.startswith(SOURCE):
                self._done += 1
                before.add(choice.pair.messages[-1]["content"])
                duel = _DUEL.fullmatch(choice.pair.source)
                if duel and {duel["winner"], duel["loser"]} <= set(names):
                    self._duels.note(duel["winner"], duel["loser"], tie=duel["how"] == _LIKE)
        # What a person passed over lies before what they answered.
        first = max((i for i, question in enumerate(questions, 1) if question in before), default=0)
        self._left = questions[first:]

    def run(self, read_key: ReadKey) -> None:
        """Ask until all are answered, or the person has enough.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            DriftError: the engine or the profile fails.
        """
        from drift_edge.active_learning import on_top

        dialogue, screen = self._dialogue, self._dialogue.screen
        if self._done:
            screen.say(f"{self._done} answered before", "dim")
        while self._done < self._n and self._left:
            dialogue.clear()
            question = self._left.pop(0)
            where = f"{self._done + 1}/{self._n}"
            if not self._as_json:
                screen.say(f"\n{where}  {question}", "bold")
            dialogue.begin(question)
            unseen = self._done < _FIRST * self._n
            shown = self._duels.draw(blocked=dialogue.blocked, unseen=unseen)
            own, learned = dialogue.steering, self._learned()
            most = self._learner.profile.settings.active + 1
            duel = (on_top(learned, name) for name in shown)
            # With one attribute alone, the person's own answer stands against it.
            sides = [own, *(own._replace(weights=weights, active=most) for weights in duel)]
            try:
                two = show_two(dialogue, *sides[-2:])
            except RefusedError as error:
                screen.note(f"{error}; on to the next question")
                continue
            if two is None:
                continue
            if self._as_json:
                facts = {"question": question, "a": two.a.text, "b": two.b.text, "n": self._done + 1, "of": self._n}
                screen.json(facts)
            try:
                prompt = f"{where}  a, b, = (equally good), n (neither) or q (enough)? "
                key = read_choice(dialogue, read_key, prompt, (A, B, BOTH, NEITHER, _ENOUGH))
            except EOFError:
                key = _ENOUGH
            if key == _ENOUGH:
                return
            source = SOURCE
            if len(shown) == 2 and key != NEITHER:
                winner, loser = shown if key == BOTH or (key == A) == two.first_is_a else shown[::-1]
                self._duels.note(winner, loser, tie=key == BOTH)
                source = f"{SOURCE}: {winner} {_LIKE if key == BOTH else _OVER} {loser}"
            take(dialogue, two, key, source)
            self._done += key != NEITHER

    def _learned(self) -> dict[str, float]:
        """What both answers of a duel stand on: all that was learned, sure or not, for it is to be put to the test."""
        from drift_edge.profile import active_of

        profile = self._learner.profile
        settings = replace(profile.settings, sure=0.0, renormalise=False, blocked=self._dialogue.blocked)
        return active_of(settings, profile.estimate().as_dict() | dict(settings.fixed), {})

    def end(self) -> None:
        """Say how far it came and what was learned."""
        screen, profile = self._dialogue.screen, self._learner.profile
        if self._as_json:
            told = {"done": self._done, "of": self._n, "profile": str(profile.path), "weights": profile.weights()}
            screen.json(told)
            return
        self._learner.show()
        more = f"; the same command goes on, with {counted(len(self._left), 'question')} left"
        screen.say(f"{self._done} of {self._n} answered{more if self._done < self._n else ''}", "dim")
