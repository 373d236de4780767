"""What a generation yields: `Notice`, `Token`, and one `Finish` at the end; and the token that cancels it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from drift_edge.kernel import AbortFlag

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token was before any sampler: in softmax(h), at temperature 1 (Eq. 15).

    Attributes:
        token: its id.
        piece: its bytes, which need not be whole characters; empty for a control token.
        logprob: natural log of its probability.
    """

    token: int
    piece: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token.

    Attributes:
        token: its id.
        text: new text; empty while a character is incomplete or a stop string may be under way.
        logprob: natural log of its probability in the distribution it was drawn from.
        entropy_bits: entropy of that distribution, in bits.
        logprobs: of the token itself, then of the likeliest, the most likely first; empty unless asked for.
    """

    token: int
    text: str
    logprob: float
    entropy_bits: float
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should know that is not an error, such as turns dropped from a full context.

    Attributes:
        kind: `dropped-turns`, `context-rebuilt`, `no-template`, `negative-weights`, `no-speculation`,
            `blocked`; of a guard `rejected` and `unjudged`.
        text: one sentence for people.
    """

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds and counts of one answer.

    Attributes:
        load_s: seconds the models took to load.
        prompt_tokens: tokens of the LLM's prompt.
        prefilled_tokens: prompt tokens computed, over the LLM's and all of the sLM's sequences.
        ttft_s: seconds from the call to the first token.
        generated_tokens: tokens drawn, the end token not counted.
        tokens_per_second: generated tokens after the first, by the time they took; 0 with fewer than two.
        llm_decodes: calls of `llama_decode` on the LLM for generated tokens.
        slm_decodes: the same on the sLM.
    """

    load_s: float = 0.0
    prompt_tokens: int = 0
    prefilled_tokens: int = 0
    ttft_s: float = 0.0
    generated_tokens: int = 0
    tokens_per_second: float = 0.0
    llm_decodes: int = 0
    slm_decodes: int = 0


@dataclass(frozen=True, slots=True)
class Speculated:
    """What speculation did for one answer.

    Attributes:
        draft: `steered` or `base`; `off` where nothing was drafted. Where the engine chose, and may have changed its
            choice within the answer or drafted for a part of it, that of the most tokens that were drafted for.
        g: tokens drafted at once, by the same rule; 0 where nothing was drafted.
        drafted: tokens drafted.
        accepted: those that the answer has too.
        auto: whether the engine chose.
        same_text: whether the answer is the one that the seed gives without speculation; False where only its
            distribution is, since the logits of this build and machine depend on the number of rows. None where that
            was not looked at: without a seed of one's own, nobody can tell.
    """

    draft: Literal["steered", "base", "off"] = "off"
    g: int = 0
    drafted: int = 0
    accepted: int = 0
    auto: bool = False
    same_text: bool | None = True


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer and what made it.

    Attributes:
        text: the whole text.
        finish_reason: `stop` (end of turn or stop string), `length` or `cancelled`.
        tokens: ids of the answer, the end token not among them.
        seed: the seed that gives this answer again.
        models: `{"llm": name, "slm": name}`.
        mode: `logits`, `prompt`, `both` or `off`.
        beta: of Eq. 15, or None when nothing was fused by it.
        weights: active attributes and their weights p_i.
        kl_per_token: mean KL divergence from the LLM's own distribution, nats; None unless measured.
        entropy_llm_bits: mean entropy of the LLM's distribution; None unless measured.
        entropy_steered_bits: mean entropy of the fused distribution; None unless measured.
        timings: seconds and counts.
        speculation: what was drafted and accepted.
        strength: of steering, or None when nothing was fused by one.
        ended: whether the model ended the answer by its end token, rather than a stop string or a limit.
    """

    text: str
    finish_reason: FinishReason
    tokens: tuple[int, ...]
    seed: int
    models: Mapping[str, str]
    mode: str
    beta: float | None
    weights: Mapping[str, float]
    kl_per_token: float | None = None
    entropy_llm_bits: float | None = None
    entropy_steered_bits: float | None = None
    timings: Timings = field(default_factory=Timings)
    speculation: Speculated = field(default_factory=Speculated)
    strength: float | None = None
    ended: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The answer as plain JSON values, as `drift-edge chat --json` prints it."""
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "tokens": list(self.tokens),
            "seed": self.seed,
            "models": dict(self.models),
            "steering": {
                "mode": self.mode,
                "beta": self.beta,
                "strength": self.strength,
                "weights": dict(self.weights),
                "kl_per_token": self.kl_per_token,
            },
            "entropy_bits": {"llm": self.entropy_llm_bits, "steered": self.entropy_steered_bits},
            "speculation": {
                "draft": self.speculation.draft,
                "g": self.speculation.g,
                "drafted": self.speculation.drafted,
                "accepted": self.speculation.accepted,
                "auto": self.speculation.auto,
            },
            "timings": asdict(self.timings),
        }


@dataclass(frozen=True, slots=True)
class Finish:
    """The last event of a generation.

    Attributes:
        text: text held back until now (the rest of a possible stop string), to be shown after the last token's.
        answer: the whole answer.
    """

    text: str
    answer: Answer

    @property
    def reason(self) -> FinishReason:
        """Why the answer ended."""
        return self.answer.finish_reason


Event = Token | Notice | Finish


class CancelToken:
    """Stops a generation from any thread or from a signal handler, during prefill too."""

    def __init__(self) -> None:
        self.flag = AbortFlag()

    def cancel(self) -> None:
        """Stop the generation that uses this token; it finishes with the reason `cancelled`."""
        self.flag.set()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` has been called."""
        return bool(self.flag.is_set())
