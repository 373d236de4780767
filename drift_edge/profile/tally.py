"""What the records of a journal make of a profile: counted one by one, the same when they are written and when a
program that was killed in between is caught up with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import replace

import numpy as np

from drift_edge.approximation import PAIR_ESTIMATORS, Estimate, choose_active, estimate, estimate_from_rewards
from drift_edge.attributes import Attributes
from drift_edge.errors import ProfileCorruptError, ProfileError, ProfileVersionError, UsageError
from drift_edge.profile.file import (
    SCHEMA,
    SLM,
    Snapshot,
    State,
    Weight,
    check_schema,
    made_with,
    read_made_with,
    read_statistics,
)
from drift_edge.profile.journal import Record
from drift_edge.profile.settings import Settings
from drift_edge.rewards import DEFAULT_TEXT_LENGTH, FloatArray, PairScores
from drift_edge.statistics import Statistics

MAX_HISTORY = 64


def start_of(state: State, *, reset: bool = False) -> dict[str, object]:
    """What the first record of a journal says: what the scores are of, and what was counted before it began.

    Args:
        state: of the profile.
        reset: whether what was set by hand, and the history, end here too.
    """
    counted = state.statistics.pairs or state.statistics.ties
    statistics = state.statistics.to_dict() if counted else None
    return {"schema": SCHEMA, "profile": state.id, "reset": reset, **made_with(state), "statistics": statistics}


def count(state: State, records: Iterable[Record]) -> State:
    """`state` after more records; the weights are as they were (`settle`).

    Args:
        state: of the profile.
        records: those behind `state.seq`, or all from a `start` on.

    Raises:
        ProfileCorruptError: a record is malformed; names its line.
    """
    statistics, pending, seq = deepcopy(state.statistics), state.pending, state.seq
    name, slm, attributes, text_length = state.id, state.slm, state.attributes, state.text_length
    for record in records:
        seq = record.seq
        if record.kind == "start":
            name, slm, attributes, text_length, statistics = _start(record)
            if record.seq > state.seq and _resets(record):
                state = replace(state, settings=replace(state.settings, fixed={}), history=())
            pending = 0
        elif record.kind in ("choice", "scored"):
            scores = record.scores()
            if record.tie:
                statistics.add_tie()
            elif scores is None:
                pending += 1
            else:
                pending -= record.kind == "scored"
                _add(statistics, scores, state.settings, record.where)
    settings = state.settings
    if attributes is not state.attributes:
        fixed = {key: value for key, value in settings.fixed.items() if key in attributes}
        pinned = tuple(key for key in settings.pinned if key in attributes)
        settings = replace(settings, fixed=fixed, pinned=pinned)
    counted = replace(state, statistics=statistics, pending=pending, seq=seq)
    return replace(counted, id=name, slm=slm, attributes=attributes, text_length=text_length, settings=settings)


def rewards_of(scores: Iterable[PairScores], reduction: str, K: int) -> tuple[FloatArray, FloatArray]:
    """W and L of several pairs, each float64 (n, K)."""
    rewards = np.array([s.rewards(reduction) for s in scores]).reshape(-1, 2, K)
    return rewards[:, 0], rewards[:, 1]


def estimate_of(state: State, records: Iterable[Record]) -> Estimate:
    """The weights that were learned.

    Args:
        state: of the profile.
        records: all of the journal; read for the estimators that need the pairs themselves.

    Raises:
        ProfileError: such an estimator, and there are choices whose numbers alone were kept.
        ProfileCorruptError: a record is malformed; names its line.
    """
    estimator = state.settings.estimator
    if estimator not in PAIR_ESTIMATORS:
        return estimate(state.statistics, estimator)
    names = state.statistics.names
    scored = (scores for record in records if (scores := record.scores()) is not None)
    W, L = rewards_of(scored, state.settings.reduction, len(names))
    if len(W) != state.statistics.pairs:
        raise ProfileError(
            f"the estimator {estimator!r} needs the choices themselves, but the journal has {len(W)} of "
            f"{state.statistics.pairs}; take another estimator"
        )
    return estimate_from_rewards(names, W, L, estimator)


def settle(state: State, records: Iterable[Record], time: str) -> State:
    """`state` with the weights that its statistics and settings make, and its history gone on.

    Args:
        state: of the profile.
        records: as for `estimate_of`.
        time: ISO 8601.

    Raises:
        UsageError: more attributes are pinned or set by hand than may be active, or one is pinned and blocked.
        ProfileError: as `estimate_of`.
    """
    weights = weigh(state.settings, estimate_of(state, records), state.statistics.n_scored)
    told = {name: round(weight.weight, 4) for name, weight in weights.items() if round(weight.weight, 4)}
    history = state.history
    if told != (history[-1].weights if history else {}):
        history = (*history, Snapshot(time, state.statistics.n, told))
    if len(history) > MAX_HISTORY:  # every second one goes, so that the beginning stays in sight
        history = (*history[:-1:2], history[-1])
    return replace(state, weights=weights, history=history, updated=time)


def _start(record: Record) -> tuple[str, SLM | None, Attributes, int, Statistics]:
    try:
        told = record.value
        if not isinstance(told, Mapping) or not isinstance(schema := told.get("schema"), int):
            raise UsageError("at $.start.schema: expected a whole number")
        check_schema(schema)
        name = str(told.get("profile"))
        if schema == 1:  # it said nothing of the length
            told = {"text_length": DEFAULT_TEXT_LENGTH, **told}
        slm, attributes, text_length = read_made_with(told, "$.start")
        if told.get("statistics") is None:
            statistics = Statistics(tuple(attributes))
        else:
            statistics = read_statistics(told, attributes, "$.start")
    except (UsageError, ProfileVersionError) as error:
        kind = ProfileVersionError if isinstance(error, ProfileVersionError) else ProfileCorruptError
        raise kind(f"{record.where}: {error}") from error
    return name, slm, attributes, text_length, statistics


def _resets(record: Record) -> bool:
    return isinstance(record.value, Mapping) and record.value.get("reset") is True


def weigh(settings: Settings, learned: Estimate, n: FloatArray) -> dict[str, Weight]:
    """The table of weights, which decoding takes its active ones from.

    Args:
        settings: what the person sets.
        learned: what the choices say.
        n: float64 (K,), in how many of them each attribute was scored.

    Raises:
        UsageError: more attributes are pinned or set by hand than may be active, or one is pinned and blocked.
    """
    p = learned.as_dict()
    used = p | dict(settings.fixed)
    errors = dict(zip(learned.names, learned.standard_errors.tolist(), strict=True))
    chosen = active_of(settings, used, errors)
    # Renormalised, all learned weights are scaled alike, so that they can still be compared.
    scale = next((value / used[name] for name, value in chosen.items() if name not in settings.fixed), 1.0)
    return {
        name: Weight(
            weight=used[name] * (1.0 if name in settings.fixed else scale),
            se=float(se) * scale if np.isfinite(se) else None,
            n=float(pairs),
            active=name in chosen,
            learned=p[name] * scale if name in settings.fixed else None,
        )
        for name, se, pairs in zip(learned.names, learned.standard_errors, n, strict=True)
    }


def active_of(settings: Settings, weights: Mapping[str, float], errors: Mapping[str, float]) -> dict[str, float]:
    """The few weights that decoding takes, the largest |p_i| first.

    Args:
        settings: what the person sets.
        weights: of all attributes, those set by hand among them.
        errors: standard errors of those that are learned.

    Raises:
        UsageError: more attributes are pinned or set by hand than may be active, or one is pinned and blocked.
    """
    # What a person sets is used, however small it is.
    by_hand = {name for name, value in settings.fixed.items() if value and name not in settings.blocked}
    first = by_hand | set(settings.pinned)
    if len(first) > settings.active:
        raise UsageError(
            f"{len(first)} attributes are pinned or set by hand, but only {settings.active} may be active; "
            "unpin some, or raise the number of active attributes"
        )
    return choose_active(
        weights,
        settings.active,
        pinned=first,
        blocked=settings.blocked,
        by_hand=settings.fixed,
        errors=errors,
        sure=settings.sure,
        renormalise=settings.renormalise,
    )


def _add(statistics: Statistics, scores: PairScores, settings: Settings, where: str) -> None:
    if settings.half_life is not None:
        statistics.decay(settings.half_life)
    try:
        statistics.add(*scores.rewards(settings.reduction), scored=scores.scored)
    except UsageError as error:
        raise ProfileCorruptError(f"{where}: at $.scores: {error}") from error
