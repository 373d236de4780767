"""A profile in use: what answers are steered by, and what the person's choices teach it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from drift_edge.errors import UsageError
from drift_edge.events import CancelToken
from drift_edge.preferences import PreferencePair

from .charts import counted, shorten, weight_lines
from .interrupt import cancel_on_interrupt
from .render import Screen

if TYPE_CHECKING:
    from drift_edge.profile import Profile
    from drift_edge.scoring import Scorer

    from .dialogue import Engine, Steering

_TOLD = 3  # weights named in a line
_LEAST = 0.005  # what rounds to a change of 0.01


class Learner:
    """Turns choices into weights: each is on the disk at once, counted as soon as it is scored.

    Args:
        profile: what is learned.
        engine: its sLM scores the choices.
        screen: is told what was learned.
        small: the sLM scores a choice in no time, so that nothing is said while it does.
    """

    def __init__(self, profile: Profile, engine: Engine, screen: Screen, *, small: bool = False) -> None:
        from drift_edge.learner import Learner as Teachable

        self.profile, self._engine, self._screen, self._small = profile, engine, screen, small
        self._scorer: Scorer | None = None
        self._taught = Teachable(profile, self._get_scorer)

    def _get_scorer(self) -> Scorer:
        self._scorer = self._scorer or self._engine.scorer(text_length=self.profile.text_length)
        return self._scorer

    def close(self) -> None:
        """Free the scorer."""
        if self._scorer is not None:
            self._scorer.close()
            self._scorer = None

    def weights(self, most: int | None, allow: Collection[str] = ()) -> dict[str, float]:
        """The weights to answer by.

        Args:
            most: how many attributes take part; None is as many as the profile says.
            allow: attributes that take part although the profile blocks them.

        Raises:
            UsageError: more attributes are pinned or set by hand.
        """
        return self._taught.weights(most, allow)

    def probe(self, own: Steering) -> Steering:
        """What to steer the answer by that is compared with the person's own, so that the choice teaches most."""
        (weights,) = self._taught.probes()
        return own._replace(weights=weights, active=1)

    def learn(self, pair: PreferencePair) -> None:
        """Keep a choice, count it, and say which weights moved.

        Raises:
            ProfileError: it cannot be kept.
            DriftError: it cannot be scored now; it is kept.
        """
        kept = self._taught.keep(pair) if pair.tie or self.profile.settings.journal else None
        if pair.tie:
            self._screen.say("noted that both are equally good; that moves no weight", "dim")
            return
        if kept is not None and not kept.ids:
            self._screen.say("this very choice was learned before, so it counts no more than once", "dim")
        self.catch_up(pair)

    def catch_up(self, newest: PreferencePair | None = None) -> None:
        """Score the choices that wait for it, and say which weights moved. Ctrl-C leaves the rest for later.

        Args:
            newest: the choice made last; where no other waits, the journal need not be read.

        Raises:
            ProfileError, DriftError: as `learn`.
        """
        pairs = self._taught.waiting(newest)
        if not pairs:
            return
        if not self._small:
            what = "your choice" if len(pairs) == 1 else counted(len(pairs), "choice")
            self._screen.say(f"learning from {what} ... (Ctrl-C: later)", "dim")
        cancel = CancelToken()
        with cancel_on_interrupt(cancel):
            lesson = self._taught.count(pairs, cancel)
        for name, why in lesson.refused.items():
            self._screen.error(f"nothing is learned from choice {name}: {why}")
        if lesson.counted:
            self._screen.say(f"learned: {moves(lesson.before, lesson.after)}", "dim")
        if lesson.left and self.profile.pending:
            self._screen.say(f"(kept, to be learned from later: {counted(self.profile.pending, 'choice')})", "dim")

    def undo(self) -> None:
        """Forget the last choice, and say which it was.

        Raises:
            UsageError: there is none, or the profile keeps no journal.
            ProfileError: the profile cannot be written.
        """
        choices = list(self.profile.choices())
        last = choices[-1] if choices else None
        change = self.profile.undo()
        what = f" {_quote(last.pair.chosen)} over {_quote(last.pair.rejected)}" if last else ""
        if last and last.pair.tie:
            what = f" that {_quote(last.pair.chosen)} and {_quote(last.pair.rejected)} are equally good"
        self._screen.say(f"forgot the choice{what}: {moves(change.before, change.after)}", "dim")

    def show(self) -> None:
        """Write what the profile holds, as `drift-edge profile show` does."""
        from .profile_show import summary, weight_rows

        self._screen.say(summary(self.profile), "dim")
        rows = [row for row in weight_rows(self.profile) if row.note]
        if any(row.weight for row in rows):
            self._screen.say("\n".join(weight_lines(rows, color=False)))
        else:
            self._screen.say("nothing is learned yet; /ab lets you choose between two answers", "dim")


def _quote(text: str) -> str:
    return f"'{shorten(text, 40)}'"


def moves(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """The weights that moved most: `concise 0.41 -> 0.47, formal -0.12 -> -0.18`."""
    change = {name: abs(after[name] - before.get(name, 0.0)) for name in after}
    most = sorted((name for name in change if change[name] >= _LEAST), key=lambda name: -change[name])[:_TOLD]
    told = (f"{name} {before.get(name, 0.0) + 0.0:.2f} -> {after[name]:.2f}" for name in most)
    return ", ".join(told) or "no weight moved by 0.01"


def needed(learner: Learner | None) -> Learner:
    """The learner.

    Raises:
        UsageError: the chat has no profile.
    """
    if learner is None:
        raise UsageError("there is no profile to teach: start again without --no-profile")
    return learner
