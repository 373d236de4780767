"""From preference pairs to a profile: score each pair once, then count it (Algorithm 1)."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass

from drift_edge.errors import ChatTemplateError, ContextOverflowError, DecodeError, UsageError
from drift_edge.events import CancelToken
from drift_edge.llama.context import Aborted
from drift_edge.preferences import PreferencePair
from drift_edge.profile import Profile
from drift_edge.racing import DEFAULT_CONFIDENCE, RACING_ESTIMATORS, Race
from drift_edge.rewards import PairScores
from drift_edge.scoring import Scorer

_EVERY = 2.0  # seconds between two writes of the profile: what a kill loses of it is still in the scorer's cache


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of one pair.

    Attributes:
        pair: as given.
        scores: None for a tie, which has no reward to learn from, and for a pair that cannot be scored.
        why: why it cannot be scored; else empty.
        computed: whether the sLM worked for it: nobody knew all of its scores.
        dropped: attributes that were not scored, since they can no longer become active.
    """

    pair: PreferencePair
    scores: PairScores | None = None
    why: str = ""
    computed: bool = False
    dropped: tuple[str, ...] = ()


def score_pairs(
    scorer: Scorer,
    pairs: Iterable[PreferencePair],
    cancel: CancelToken | None = None,
    *,
    race: Race | None = None,
) -> Generator[Scored, None, None]:
    """Score pairs, one after another, in their order.

    Args:
        scorer: with a cache, so that nothing is computed twice.
        pairs: ties may be among them.
        cancel: ends it, within a pair too; what was yielded stands.
        race: says which attributes are scored, and is told the scores; None scores all.

    Raises:
        ModelError: no memory for the scorer's context.
        DriftError: the cache cannot be used.
    """
    flag = None if cancel is None else cancel.flag
    for pair in pairs:
        if cancel is not None and cancel.cancelled:
            return
        if pair.tie:
            yield Scored(pair)
            continue
        before = scorer.counters.scored
        try:
            dropped: tuple[str, ...] = ()
            if race is None:
                scores = scorer.score(pair, cancel=flag)
            else:
                dropped = tuple(name for name in scorer.names if name not in race.names)
                scores = scorer.score(pair, names=race.names, cancel=flag).among(race.racing)
                race.add(scores)
            scored = Scored(pair, scores, computed=scorer.counters.scored > before, dropped=dropped)
        except Aborted:
            return
        except (ContextOverflowError, ChatTemplateError, DecodeError) as error:  # of this pair; others may do
            scored = Scored(pair, why=str(error))
        yield scored


def learn(
    scorer: Scorer,
    profile: Profile,
    pairs: Iterable[PreferencePair],
    cancel: CancelToken | None = None,
    *,
    confidence: float | None = DEFAULT_CONFIDENCE,
) -> Generator[Scored, None, None]:
    """Score pairs and have `profile` learn from them; a pair that it knows already is not scored again.

    The profile is written every few seconds, when all is done, and when the iterator is closed. One without a journal
    cannot tell a choice that it knows from a new one, so it is written once, when all is done: what is stopped before
    can be done again, and nothing counts twice.

    Attributes that can no longer become active are dropped as pairs come in (`drift_edge.racing`): they have fewer
    pairs. That is so where the profile's estimator is one of `RACING_ESTIMATORS` and it has no half-life. Else, or
    without a `confidence`, all are scored, and choices that lack scores of dropped ones get them, when all is done.

    Args:
        scorer: of the sLM and the attributes that the profile was opened with.
        profile: changed as it goes.
        pairs: ties are counted, and nothing is learned from them.
        cancel: as for `score_pairs`; the profile then holds what was scored.
        confidence: of the race, see `Race`; None runs none.

    Raises:
        ProfileError: the profile cannot be written.
        UsageError: the scorer scores more or less of a response than the profile's other choices were scored.
        ModelError, DriftError: as for `score_pairs`.
    """
    if scorer.text_length != profile.text_length:
        raise UsageError(
            f"the scorer scores up to {scorer.text_length:,} tokens of a response, but the profile's choices are "
            f"scored by up to {profile.text_length:,}: make the scorer with the profile's text_length, or rebuild the "
            "profile"
        )
    known = {choice.id: choice.scores for choice in profile.choices() if choice.scores is not None}
    pairs = list(pairs)
    race = _race(profile, sum(not pair.tie and pair.id not in known for pair in pairs), confidence)
    fresh: list[tuple[PreferencePair, PairScores | None]] = []
    completed: dict[str, PairScores] = {}
    written = time.monotonic()
    done = False
    try:
        for pair in pairs:
            scores = known.get(pair.id)
            if scores is not None and (race or scores.scored.all()):
                yield Scored(pair, scores)
                continue
            scored = next(score_pairs(scorer, [pair], cancel, race=race), None)
            if scored is None:
                return
            if scores is not None and scored.scores is not None:
                completed[pair.id] = scored.scores
            elif not scored.why:
                fresh.append((pair, scored.scores))
            yield scored
            if profile.settings.journal and time.monotonic() - written > _EVERY:
                profile.extend(fresh)
                fresh.clear()
                written = time.monotonic()
        done = True
    finally:
        if fresh and (done or profile.settings.journal):
            profile.extend(fresh)
        if completed and done:
            counted = {choice.id: choice.scores for choice in profile.choices() if choice.scores is not None}
            profile.rebuild(counted | completed)


def _race(profile: Profile, to_come: int, confidence: float | None) -> Race | None:
    settings = profile.settings
    if confidence is None or settings.half_life is not None or settings.estimator not in RACING_ESTIMATORS:
        return None
    return Race(
        profile.statistics,
        to_come,
        estimator=settings.estimator,
        reduction=settings.reduction,
        active=settings.active,
        blocked=settings.blocked,
        pinned=settings.pinned,
        confidence=confidence,
    )
