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
    """

    pair: PreferencePair
    scores: PairScores | None = None
    why: str = ""
    computed: bool = False


def score_pairs(
    scorer: Scorer, pairs: Iterable[PreferencePair], cancel: CancelToken | None = None
) -> Generator[Scored, None, None]:
    """Score pairs, one after another, in their order.

    Args:
        scorer: with a cache, so that nothing is computed twice.
        pairs: ties may be among them.
        cancel: ends it, within a pair too; what was yielded stands.

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
            scores = scorer.score(pair, cancel=flag)
            scored = Scored(pair, scores, computed=scorer.counters.scored > before)
        except Aborted:
            return
        except (ContextOverflowError, ChatTemplateError, DecodeError) as error:  # of this pair; others may do
            scored = Scored(pair, why=str(error))
        yield scored


def learn(
    scorer: Scorer, profile: Profile, pairs: Iterable[PreferencePair], cancel: CancelToken | None = None
) -> Generator[Scored, None, None]:
    """Score pairs and have `profile` learn from them; a pair that it knows already is not scored again.

    The profile is written every few seconds, when all is done, and when the iterator is closed. One without a journal
    cannot tell a choice that it knows from a new one, so it is written once, when all is done: what is stopped before
    can be done again, and nothing counts twice.

    Args:
        scorer: of the sLM and the attributes that the profile was opened with.
        profile: changed as it goes.
        pairs: ties are counted, and nothing is learned from them.
        cancel: as for `score_pairs`; the profile then holds what was scored.

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
    fresh: list[tuple[PreferencePair, PairScores | None]] = []
    written = time.monotonic()
    done = False
    try:
        for pair in pairs:
            if (scores := known.get(pair.id)) is not None:
                yield Scored(pair, scores)
                continue
            scored = next(score_pairs(scorer, [pair], cancel), None)
            if scored is None:
                return
            if not scored.why:
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
