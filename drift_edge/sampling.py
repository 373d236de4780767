"""How a token is drawn from the fused logits: settings, and their one way into the kernel.

Order: penalties, temperature, top-k, top-p, min-p, plausibility mask, then the largest of logit plus Gumbel noise
among the survivors. The noise is keyed by (seed, position, token id), so a draw depends on nothing else.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from dataclasses import dataclass

from drift_edge.errors import UsageError


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """Sampler settings, with the defaults that users of llama.cpp know.

    Attributes:
        temperature: 0 takes the most likely token; at most 100.
        top_k: keep the k most likely tokens; 0 is off.
        top_p: keep the smallest set with this probability, in (0, 1]; 1 is off.
        min_p: drop tokens less likely than this share of the best, in [0, 1]; 0 is off.
        repeat_penalty: divides positive and multiplies negative logits of recent tokens; 1 is off.
        presence_penalty: subtracted once from a recent token's logit; 0 is off.
        frequency_penalty: subtracted for each time it occurred; 0 is off.
        repeat_last_n: how many recent tokens (prompt included) the penalties look at.
        plausibility: drop tokens whose LLM probability is under this share of the LLM's best, in [0, 1]; 0 is off, and
            the paper's form. What neither model expects, strong steering else brings up: a ratio of two tiny numbers.

    Raises:
        UsageError: a value is not a number or out of range; names the setting.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_last_n: int = 64
    plausibility: float = 0.001

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0, 100, "0 to 100")
        _check_int("top_k", self.top_k)
        _check("top_p", self.top_p, 0, 1, "over 0 and at most 1", open_low=True)
        _check("min_p", self.min_p, 0, 1, "0 to 1")
        _check("repeat_penalty", self.repeat_penalty, 0, 100, "over 0 and at most 100", open_low=True)
        _check("presence_penalty", self.presence_penalty, -100, 100, "-100 to 100")
        _check("frequency_penalty", self.frequency_penalty, -100, 100, "-100 to 100")
        _check_int("repeat_last_n", self.repeat_last_n)
        _check("plausibility", self.plausibility, 0, 1, "0 to 1")

    @property
    def has_penalties(self) -> bool:
        """Whether any penalty looks at recent tokens."""
        off = self.repeat_penalty == 1 and self.presence_penalty == 0 and self.frequency_penalty == 0
        return not off and self.repeat_last_n > 0


def _check(name: str, value: float, low: float, high: float, expected: str, *, open_low: bool = False) -> None:
    ok = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not ok or not low <= value <= high or (open_low and value == low):
        raise UsageError(f"{name}: expected a number, {expected}, got {value!r}")


def _check_int(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
        raise UsageError(f"{name}: expected a whole number, 0 or more, got {value!r}")


def new_seed() -> int:
    """A fresh seed of 32 bits."""
    return secrets.randbits(32)


def noise_seed(seed: int, turn: int, attempt: int) -> int:
    """The 64-bit seed of one answer's noise: another turn or attempt differs, a rerun does not."""
    digest = hashlib.blake2b(f"{seed}:{turn}:{attempt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
