"""Choices for tests of profiles: a pool of two attributes, and scores that give the rewards asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from drift_edge.attributes import Attribute, Attributes
from drift_edge.preferences import PreferencePair
from drift_edge.profile import SLM, Profile
from drift_edge.rewards import PairScores

POOL = Attributes("Base.", [Attribute("warm", "You are warm."), Attribute("brief", "You are brief.")])
NANO = SLM("nano", "0123456789abcdef")
OTHER = SLM("other", "fedcba9876543210")


def fresh(path: Path, journal: bool | None = None) -> Profile:
    """The profile there, for `NANO` and `POOL`."""
    return Profile.open(path, slm=NANO, attributes=POOL, journal=journal)


def pair(i: int, *, tie: bool = False) -> PreferencePair:
    """The i-th choice; all differ."""
    asked = {"role": "user", "content": f"Question {i}?"}
    return PreferencePair((asked,), f"The chosen answer {i}.", f"The rejected one {i}.", source="test", tie=tie)


def scores(W: Sequence[float], L: Sequence[float], n_chosen: int = 1, n_rejected: int = 1) -> PairScores:
    """Scores whose rewards are `W` and `L` under the reduction sum; -100 nats under s_0."""
    chosen, rejected = ([-100.0, *(-100.0 + r for r in rewards)] for rewards in (W, L))
    return PairScores(chosen, rejected, n_chosen, n_rejected)  # type: ignore[arg-type]
