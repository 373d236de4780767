"""Learner: a profile in use, that answers are steered by and that a person's choices teach, one after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from drift_edge.active_learning import probes
from drift_edge.events import CancelToken
from drift_edge.learning import score_pairs
from drift_edge.preferences import PreferencePair
from drift_edge.profile import Change, Profile, active_of
from drift_edge.scoring import Scorer

_MAX_CONTEXT = 2_000  # characters of the turns before that a choice keeps: scoring reads them under every prompt


@dataclass(frozen=True, slots=True)
class Lesson:
    """What became of choices.

    Attributes:
        counted: ids of those that the weights are learned from now.
        before: all weights before, by attribute.
        after: and after.
        refused: why a choice cannot be scored, by id; it is kept.
        known: whether the choice was recorded before, and so counts no more than once.
        left: whether choices wait for another time, since `cancel` was set.
    """

    counted: tuple[str, ...]
    before: Mapping[str, float]
    after: Mapping[str, float]
    refused: Mapping[str, str] = field(default_factory=dict)
    known: bool = False
    left: bool = False


class Learner:
    """Turns choices into weights: each is on the disk at once, and counted as soon as it is scored.

    Args:
        profile: what is learned; opened with the scorer's sLM.
        scorer: makes a scorer, or gives one that there is; called when the first choice is scored.
        asked: how often each attribute was probed; counted on, since of a tie nothing else tells.

    Attributes:
        refused: ids of choices that could not be scored, which are not tried again.
    """

    def __init__(self, profile: Profile, scorer: Callable[[], Scorer], asked: Counter[str] | None = None) -> None:
        self.profile, self._scorer = profile, scorer
        self._asked = Counter[str]() if asked is None else asked
        self.refused: set[str] = set()

    def weights(self, active: int | None = None, allow: Collection[str] = ()) -> dict[str, float]:
        """The weights to answer by.

        Args:
            active: how many attributes take part; None is as many as the profile says.
            allow: attributes that may take part although the profile blocks them.

        Raises:
            UsageError: more attributes are pinned or set by hand.
        """
        settings = self.profile.settings
        blocked = tuple(name for name in settings.blocked if name not in allow)
        if active is None and blocked == settings.blocked:
            return self.profile.weights()
        table = self.profile.table()
        return active_of(
            replace(settings, active=settings.active if active is None else active, blocked=blocked),
            {name: weight.weight for name, weight in table.items()},
            {name: weight.se for name, weight in table.items() if weight.se is not None},
        )

    def probes(self, count: int = 1) -> tuple[dict[str, float], ...]:
        """Weights, the first few, to steer an answer by whose comparison with another would teach most.

        Raises:
            UsageError: every attribute is blocked.
        """
        found = probes(self.profile.statistics, count, asked=self._asked, blocked=self.profile.settings.blocked)
        self._asked.update(probe.attribute for probe in found)
        return tuple(probe.weights for probe in found)

    def learn(self, pair: PreferencePair, cancel: CancelToken | None = None) -> Lesson:
        """Keep a choice and count it, and those that waited.

        Args:
            pair: a tie moves no weight.
            cancel: leaves what is not scored yet for later.

        Raises:
            ProfileError: it cannot be kept.
            DriftError: it cannot be scored now; it is kept, where the profile keeps a journal.
        """
        if not pair.tie and not self.profile.settings.journal:
            return self.catch_up(pair, cancel)
        kept = self.keep(pair)
        if pair.tie:
            return Lesson((), kept.before, kept.after, known=not kept.ids)
        return replace(self.catch_up(pair, cancel), known=not kept.ids)

    def keep(self, pair: PreferencePair) -> Change:
        """Record a choice, to be counted by `catch_up`.

        Raises:
            UsageError: the profile keeps no journal, and the choice is no tie.
            ProfileError: it cannot be kept.
        """
        return self.profile.add(pair)

    def catch_up(self, newest: PreferencePair | None = None, cancel: CancelToken | None = None) -> Lesson:
        """Count the choices that wait for it.

        Args:
            newest: the choice made last: where no other waits, the journal need not be read; without a journal, it is
                the one to count.
            cancel: leaves what is not scored yet for later.

        Raises:
            ProfileError: the profile cannot be read or written.
            DriftError: they cannot be scored now.
        """
        return self.count(self.waiting(newest), cancel)

    def waiting(self, newest: PreferencePair | None = None) -> list[PreferencePair]:
        """The choices that `catch_up` counts, oldest first.

        Args:
            newest: as `catch_up`.

        Raises:
            ProfileError: the journal cannot be read.
        """
        alone = not self.profile.settings.journal or self.profile.pending == 1
        if newest is not None and alone:
            return [newest]
        if self.profile.pending <= len(self.refused):
            return []
        found = (choice.pair for choice in self.profile.choices() if choice.scores is None)
        return [pair for pair in found if not pair.tie and pair.id not in self.refused]

    def count(self, pairs: Sequence[PreferencePair], cancel: CancelToken | None = None) -> Lesson:
        """Score choices, and count each as soon as it is.

        Raises:
            ProfileError: the profile cannot be written.
            DriftError: they cannot be scored now.
        """
        before = after = {name: weight.weight for name, weight in self.profile.table().items()}
        counted: list[str] = []
        refused: dict[str, str] = {}
        scored_pairs = score_pairs(self._scorer(), pairs, cancel) if pairs else ()
        for scored in scored_pairs:
            if scored.why:
                refused[scored.pair.id] = scored.why
                self.refused.add(scored.pair.id)
            else:
                after = dict(self.profile.add(scored.pair, scored.scores).after)
                counted.append(scored.pair.id)
        return Lesson(tuple(counted), before, after, refused, left=len(pairs) > len(counted) + len(refused))


def choice_context(messages: Sequence[Mapping[str, str]]) -> tuple[dict[str, str], ...]:
    """What a choice keeps of a conversation: the system message, the question, and of the turns before as many whole
    ones, the last, as are short enough.

    Args:
        messages: the last is the question.
    """
    plain = [dict(message) for message in messages]
    head = 1 if plain and plain[0]["role"] == "system" else 0
    first, length = len(plain) - 1, 0
    for i in range(first - 2, head - 1, -2):
        length += len(plain[i]["content"]) + len(plain[i + 1]["content"])
        if length > _MAX_CONTEXT:
            break
        first = i
    return (*plain[:head], *plain[first:])
