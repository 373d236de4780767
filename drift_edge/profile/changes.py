"""What the changes of a profile come to: from its state and its journal's records to the state after, and new records.

Nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from drift_edge.approximation import PAIR_ESTIMATORS
from drift_edge.attributes import Attributes
from drift_edge.errors import ProfileError, UsageError
from drift_edge.preferences import PreferencePair
from drift_edge.profile import tally
from drift_edge.profile.file import SLM, State
from drift_edge.profile.journal import Record, new_record
from drift_edge.profile.settings import Settings
from drift_edge.rewards import PairScores
from drift_edge.statistics import Statistics


class Step(NamedTuple):
    """What a change comes to.

    Attributes:
        state: after it, its weights not yet made; the very state before where there is nothing to change.
        records: new ones, or all where the journal is to be written anew.
        ids: of the choices that were recorded, scored or forgotten.
        rewrite: whether the journal is to be written anew.
    """

    state: State
    records: Sequence[Record] = ()
    ids: tuple[str, ...] = ()
    rewrite: bool = False


def now() -> str:
    """The time, ISO 8601, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def record(
    state: State, known: Mapping[str, bool], choices: Iterable[tuple[PreferencePair, PairScores | None]]
) -> Step:
    """Record choices, or scores of those that lack them.

    Args:
        state: before.
        known: of each choice in the journal, whether it needs no more scores.
        choices: those known already are left out.

    Raises:
        UsageError: scores of another number of attributes, or none at all where there is no journal or no sLM.
    """
    if state.slm is None:
        raise UsageError("the profile knows no sLM; open it with the one that its choices are to be scored by")
    here: dict[str, bool] = {}  # as `known`, of these choices
    # A journal without choices begins anew: it may be missing, or of an sLM that was never used.
    records = [] if known else [_start(state)]
    first = len(records)
    for pair, given in choices:
        name = pair.id
        done = here.get(name, known.get(name))
        if done or (done is False and given is None):
            continue
        scores = None if pair.tie else given
        _check_scores(state, pair, scores)
        kind, kept = ("choice", pair) if done is None else ("scored", None)
        records.append(new_record(state.seq + len(records) + 1, now(), kind, name, pair=kept, scores=scores))
        here[name] = pair.tie or scores is not None
    if len(records) == first:
        return Step(state)
    ids = tuple(str(new.value) for new in records[first:])
    return Step(tally.count(state, records), records, ids, rewrite=bool(first))


def forget(state: State, records: Sequence[Record], ids: Iterable[str]) -> Step:
    """Take choices out of the journal, and count the others anew.

    Raises:
        UsageError: there is no such choice.
    """
    gone = tuple(dict.fromkeys(ids))
    made = {old.value for old in records if old.kind == "choice"}
    _refuse_unknown(gone, made)
    if not gone:
        return Step(state)
    kept = [old for old in records if not (isinstance(old.value, str) and old.value in gone)]
    kept.append(new_record(state.seq + 1, now(), "forget", list(gone)))
    return Step(tally.count(state, kept), kept, gone, rewrite=True)


def undo(state: State, records: Sequence[Record]) -> Step:
    """Forget the choice that was recorded last.

    Raises:
        UsageError: there is none.
    """
    made = [str(old.value) for old in records if old.kind == "choice"]
    if not made:
        raise UsageError("there is no choice to undo")
    return forget(state, records, made[-1:])


def reset(state: State) -> Step:
    """Forget all choices, all that was set by hand, and the history."""
    empty = Statistics(tuple(state.attributes))
    records = [_start(replace(state, statistics=empty), reset=True)]
    return Step(tally.count(state, records), records, rewrite=True)


def rebuild(
    state: State,
    records: Sequence[Record],
    scores: Mapping[str, PairScores],
    slm: SLM | None,
    attributes: Attributes,
    text_length: int,
) -> Step:
    """Count all choices anew, by other scores.

    Raises:
        UsageError: scores of an unknown choice, or of another number of attributes.
        ProfileError: choices were counted that are not in the journal.
    """
    _refuse_numbers(state, records)
    made = {str(old.value): old for old in records if old.kind == "choice"}
    _refuse_unknown(scores, made)
    empty = Statistics(tuple(attributes))
    state = replace(state, slm=slm, attributes=attributes, text_length=text_length, statistics=empty)
    new = [_start(state)]
    for seq, (name, old) in enumerate(made.items(), state.seq + 2):
        pair, time = old.pair(), str(old.data.get("time", now()))
        found = None if pair.tie else scores.get(name)
        _check_scores(state, pair, found)
        new.append(new_record(seq, time, "choice", name, pair=pair, scores=found))
    return Step(tally.count(state, new), new, tuple(scores), rewrite=True)


def configure(state: State, records: Iterable[Record], settings: Settings) -> Step:
    """Change the settings; another reduction or half-life counts all choices anew.

    Args:
        state: before.
        records: all of the journal, read where they are needed.
        settings: the new ones.

    Raises:
        UsageError: the journal is to be erased, but has choices that are not scored yet, or the estimator needs it.
        ProfileError: choices would have to be counted anew that are not in the journal.
    """
    old = state.settings
    if settings == old:
        return Step(state)
    if old.journal and not settings.journal and state.pending:
        raise UsageError(f"{state.pending} choices are not scored yet, and without a journal they would be lost")
    if settings.estimator in PAIR_ESTIMATORS and not settings.journal:
        raise UsageError(f"the estimator {settings.estimator!r} needs the choices themselves, hence a journal")
    after = replace(state, settings=settings)
    if state.statistics.pairs and (settings.reduction, settings.half_life) != (old.reduction, old.half_life):
        records = list(records)
        _refuse_numbers(state, records)
        after = tally.count(after, records)
    return Step(after)


def _start(state: State, *, reset: bool = False) -> Record:
    return new_record(state.seq + 1, now(), "start", tally.start_of(state, reset=reset))


def _refuse_unknown(ids: Iterable[str], known: Iterable[object]) -> None:
    there = set(known)
    if unknown := [name for name in ids if name not in there]:
        raise UsageError(f"there is no choice {unknown[0]!r} in the journal")


def _refuse_numbers(state: State, records: Sequence[Record]) -> None:
    counted = state.statistics.pairs + state.statistics.ties
    start = records[0].value if records else None
    if counted and not (isinstance(start, Mapping) and start.get("statistics") is None):
        raise ProfileError(
            f"of {counted} choices some were counted without being kept in the journal, and cannot be counted anew; "
            "only `drift-edge profile reset` begins again"
        )


def _check_scores(state: State, pair: PreferencePair, scores: PairScores | None) -> None:
    if scores is None:
        if not pair.tie and not state.settings.journal:
            raise UsageError("without a journal a choice is kept by its scores alone, but this one has none")
        return
    if len(scores.chosen) != len(state.attributes) + 1:
        raise UsageError(
            f"expected log-probabilities under s_0 and {len(state.attributes)} attributes, got {len(scores.chosen)}"
        )
