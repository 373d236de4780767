"""Request: what one call asks of the engine, checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from drift_edge.attributes import Attributes
from drift_edge.conversation import FUSING, MODES, OVERFLOWS, Mode, Overflow
from drift_edge.costs import KINDS, Draft, DraftKind, Speculate, check_draft, check_speculate
from drift_edge.errors import UsageError
from drift_edge.events import CancelToken
from drift_edge.fusion import Fusion, check_steering
from drift_edge.llama.template import Message
from drift_edge.messages import check_prompt
from drift_edge.sampling import SamplerSettings, new_seed, noise_seed
from drift_edge.weights import check_names, check_weights, select_active

DEFAULT_ACTIVE = 7  # Section 3.2


@dataclass(frozen=True, slots=True)
class Request:
    """The checked arguments of one call. Those with a default matter only where tokens are drawn.

    Attributes:
        messages: the conversation; the last message is the user's.
        weights: p_i of the active attributes.
        blocked: attributes that had a weight and are kept out of decoding.
        beta: of Eq. 15, or None where a strength is given.
        strength: how far steering may go (`drift_edge.fusion`), or None where beta is given.
        mode: what the weights steer.
        max_tokens: most tokens behind the prompt.
        overflow: what to do where the context is full.
        sampler: settings of the samplers.
        seed: of this answer and its other attempts.
        seeded: whether the caller chose the seed.
        attempt: which of them this is.
        stop: texts that end the answer.
        cancel: stops it.
        measure: whether entropies and the KL divergence are measured.
        kinds: the drafts to choose from.
        drafted: tokens drafted at once, or None for what is soonest.
        logprobs: how many of the likeliest tokens are told of at each position; None tells of none.
    """

    messages: Sequence[Message]
    weights: Mapping[str, float]
    beta: float | None
    strength: float | None
    mode: Mode
    max_tokens: int
    overflow: Overflow
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    seed: int = 0
    seeded: bool = True
    attempt: int = 0
    stop: tuple[str, ...] = ()
    cancel: CancelToken = field(default_factory=CancelToken)
    measure: bool = False
    kinds: tuple[DraftKind, ...] = KINDS
    drafted: int | None = 0
    logprobs: int | None = None
    blocked: tuple[str, ...] = ()

    @property
    def fuses(self) -> bool:
        """Whether the steering term is added."""
        return self.mode in FUSING and bool(self.weights)

    @property
    def fusion(self) -> Fusion:
        """How rows are fused, the weights in their order; without any where nothing is."""
        return Fusion.of(self.weights.values() if self.fuses else (), self.beta, self.strength)

    @property
    def noise(self) -> int:
        """The seed of this very answer's noise."""
        turn = sum(message["role"] == "user" for message in self.messages)
        return noise_seed(self.seed, turn, self.attempt)


def active_weights(
    weights: Mapping[str, float] | None, active: int, steer: Mode, pool: Attributes, blocked: Collection[str]
) -> dict[str, float]:
    """The weights that take part in a call; its arguments are those of `Drift.chat`.

    Raises:
        UsageError: an argument is out of range, or an attribute unknown.
    """
    if steer not in MODES:
        raise UsageError(f"steer: expected one of {', '.join(MODES)}, got {steer!r}")
    checked, out = check_weights(weights or {}, pool), check_names(blocked, "blocked")
    allowed = {name: p for name, p in checked.items() if name not in out}
    return select_active(allowed, active) if steer != "off" else {}


def check_request(
    pool: Attributes,
    messages: Sequence[Mapping[str, str]],
    weights: Mapping[str, float] | None,
    beta: float | None,
    strength: float | None,
    active: int,
    steer: Mode,
    sampler: SamplerSettings | None,
    seed: int | None,
    attempt: int,
    max_tokens: int,
    stop: Sequence[str],
    overflow: Overflow,
    cancel: CancelToken | None,
    measure: bool,
    speculate: Speculate,
    draft: Draft,
    logprobs: int | None,
    blocked: Collection[str],
) -> Request:
    """The request that the arguments of `Drift.chat` make.

    Raises:
        UsageError: an argument is out of range, or an attribute unknown.
    """
    checked = check_prompt(messages)
    p = active_weights(weights, active, steer, pool, blocked)
    if not isinstance(max_tokens, int) or max_tokens < 1:
        raise UsageError(f"max_tokens: expected a whole number, 1 or more, got {max_tokens!r}")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise UsageError(f"seed: expected a whole number, got {seed!r}")
    if not isinstance(stop, Sequence) or isinstance(stop, str) or not all(isinstance(text, str) for text in stop):
        raise UsageError(f"stop: expected a list of texts, got {stop!r}")
    if "" in stop:
        raise UsageError(f"stop[{stop.index('')}]: expected text that is not empty")
    if sampler is not None and not isinstance(sampler, SamplerSettings):
        raise UsageError(f"sampler: expected SamplerSettings, got {type(sampler).__name__}")
    if logprobs is not None and (not isinstance(logprobs, int) or isinstance(logprobs, bool) or logprobs < 0):
        raise UsageError(f"logprobs: expected a whole number, 0 or more, or None, got {logprobs!r}")
    if overflow not in OVERFLOWS:
        raise UsageError(f"overflow: expected one of {', '.join(OVERFLOWS)}, got {overflow!r}")
    return Request(
        checked,
        p,
        *check_steering(beta, strength),
        steer,
        max_tokens,
        overflow,
        sampler or SamplerSettings(),
        new_seed() if seed is None else seed,
        seed is not None,
        attempt,
        tuple(stop),
        cancel or CancelToken(),
        measure,
        check_draft(draft),
        check_speculate(speculate),
        logprobs,
        tuple(name for name, weight in (weights or {}).items() if weight and name in blocked and steer != "off"),
    )
