"""What a request that says nothing gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from drift_edge.conversation import Mode
from drift_edge.costs import Draft, Speculate
from drift_edge.guard import DEFAULT_TRIES
from drift_edge.sampling import SamplerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """Settings of answers, each used where the request has none.

    Attributes:
        profile: name or path of the profile that steers and learns; None is none.
        weights: steer by these instead of the profile's, where not empty.
        beta, strength, active: as `Drift.chat`; None is what the profile says.
        steer, speculate, draft: as `Drift.chat`.
        sampler: of the draws.
        seed, max_tokens, stop: as `Drift.chat`.
        allow: attributes that may steer although they are blocked.
        guard_tries: how many answers are drawn until a guard lets one pass.
        system: put in front of conversations that have no system message.
    """

    profile: str | None = "default"
    weights: Mapping[str, float] = field(default_factory=dict)
    beta: float | None = None
    strength: float | None = None
    active: int | None = None
    steer: Mode = "logits"
    speculate: Speculate = "auto"
    draft: Draft = "auto"
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    seed: int | None = None
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    guard_tries: int = DEFAULT_TRIES
    system: str | None = None
