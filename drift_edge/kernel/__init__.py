"""The kernel's one seam: fuse, sample and score rows of logits, in C or in numpy.

`DRIFT_EDGE_KERNEL=c|numpy` chooses; unset, it is the C where it can be loaded. The choice falls on first use, and
`active()` tells it with its reason. Both implementations take the same arguments and make the same draws.

Rows are cut to the real vocabulary by the caller: a padded id that is not in the row can never be drawn. Arrays may be
numpy's or anything with a buffer; each must be contiguous along the vocabulary. A wrong type or dtype is a TypeError; a
wrong shape, stride, range or value is a ValueError; both name the argument. Loops run without the GIL, and everything
here may be called from several threads.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from drift_edge.errors import KernelUnavailableError, UsageError

__all__ = [
    "AbortFlag",
    "KernelInfo",
    "Sample",
    "Sampler",
    "active",
    "divergence",
    "fuse",
    "fuse_within",
    "log_callback",
    "logprobs",
]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """Which implementation is active.

    Attributes:
        name: "c" or "numpy".
        reason: why this one, as a sentence.
        isa: instruction set of its loops: "avx512", "avx2", "neon", "baseline"; "numpy" where numpy chooses.
    """

    name: str
    reason: str
    isa: str


class Sample(NamedTuple):
    """One draw.

    Attributes:
        token: its id.
        probability: of this token, in the distribution it was drawn from (after all cuts).
        survivors: how many tokens the cuts left.
        entropy_bits: of that distribution.
    """

    token: int
    probability: float
    survivors: int
    entropy_bits: float


class _Implementation(Protocol):
    def isa(self) -> str: ...
    def fuse(self, out: Floats, llm: Floats, slm: Floats, weights: Doubles, /) -> None: ...
    def fuse_within(
        self, out: Floats, llm: Floats, slm: Floats, weights: Doubles, budget: float, /
    ) -> tuple[float, float]: ...
    def logprobs(self, logits: Floats, targets: Ints, out: Doubles, /) -> None: ...
    def divergence(self, fused: Floats, llm: Floats, /) -> tuple[float, float, float]: ...
    def sample(self, n_vocab: int, *arguments: Any) -> tuple[int, float, int, float]: ...
    def abort_callback(self) -> int: ...
    def log_callback(self) -> int: ...


@functools.cache
def _chosen() -> tuple[_Implementation, KernelInfo]:
    wish = os.environ.get("DRIFT_EDGE_KERNEL", "")
    if wish not in ("", "c", "numpy"):
        raise UsageError(f"DRIFT_EDGE_KERNEL: expected c or numpy, got {wish!r}")
    reason = "DRIFT_EDGE_KERNEL asks for it" if wish else "the C kernel loaded"
    name = "numpy" if wish == "numpy" else "c"
    try:
        module = importlib.import_module(f"drift_edge.kernel.{'reference' if wish == 'numpy' else '_kernel'}")
    except ImportError as error:
        if wish == "c":
            raise KernelUnavailableError(
                f"DRIFT_EDGE_KERNEL=c, but the C kernel cannot be loaded ({error}); "
                "reinstall drift-edge with a C compiler, or unset DRIFT_EDGE_KERNEL to run on numpy"
            ) from error
        name, reason = "numpy", f"the C kernel cannot be loaded: {error}"
        module = importlib.import_module("drift_edge.kernel.reference")
    implementation = cast(_Implementation, module)
    return implementation, KernelInfo(name, reason, implementation.isa())


def active() -> KernelInfo:
    """Which implementation is active, and why.

    Raises:
        KernelUnavailableError: `DRIFT_EDGE_KERNEL=c`, and the C cannot be loaded.
        UsageError: `DRIFT_EDGE_KERNEL` is neither c nor numpy.
    """
    return _chosen()[1]


def fuse(out: Floats, llm: Floats, slm: Floats, weights: Doubles) -> None:
    """h = h_llm + sum_i P_i (h_i - h_base), Eq. 15, in one pass over the rows that have a weight.

    -inf in a row that is used makes the token -inf: it can never be drawn. Without any weight other than 0 the LLM's
    row is copied bit for bit and the sLM's rows are not read.

    Args:
        out: float32 (V,), written; may be `llm` itself, must not overlap anything else. Unspecified after an error.
        llm: float32 (V,), the LLM's logits.
        slm: float32 (k+1, V), the sLM's logits: h_base, h_1 .. h_k; rows may be strided.
        weights: float64 (k,), P_i = p_i / beta.

    Raises:
        ValueError: NaN or +inf in a row that is used, named with its first index ("llm row", "base row",
            "attribute row 3"); a sum that overflows; or an argument of the wrong form.
        TypeError: an argument of the wrong type or dtype.
    """
    _chosen()[0].fuse(out, llm, slm, weights)


def fuse_within(out: Floats, llm: Floats, slm: Floats, weights: Doubles, budget: float) -> tuple[float, float]:
    """h = h_llm + t sum_i P_i (h_i - h_base), with the largest t of 0 to 1 whose KL(softmax(h) || softmax(h_llm)) is
    within a budget.

    The KL grows with t, so that t is found by bisection; Newton's steps make it a handful of passes over two rows, the
    sLM's rows being read once. Where t is below 1, the KL is the budget within 1e-6 nats (of a budget over 1, its
    millionth part), or the rounding of the float32 row where that is more. With a budget of 0 the LLM's row is copied
    bit for bit; so it is where barred tokens alone cost more than the budget.

    Args:
        out: float32 (V,), written; must not overlap anything else. Unspecified after an error.
        llm: float32 (V,), the LLM's logits.
        slm: float32 (k+1, V), as `fuse`.
        weights: float64 (k,), P_i of the whole term.
        budget: nats, 0 to 1e30.

    Returns:
        t, and the KL in nats.

    Raises:
        ValueError: as `fuse`; the LLM's row is all -inf; or a budget out of range.
        TypeError: an argument of the wrong type or dtype.
    """
    return _chosen()[0].fuse_within(out, llm, slm, weights, budget)


class Sampler:
    """Draws tokens from rows of one length.

    Args:
        n_vocab: length of the rows, at least 1.

    Raises:
        ValueError, TypeError: `n_vocab` is out of range, or no integer.
    """

    __slots__ = ("_n_vocab", "_sample")

    def __init__(self, n_vocab: int) -> None:
        if not isinstance(n_vocab, (int, np.integer)):
            raise TypeError(f"n_vocab: expected an integer, got {type(n_vocab).__name__}")
        if not 1 <= n_vocab < 1 << 31:
            raise ValueError(f"n_vocab: expected 1 to 2^31 - 1, got {n_vocab}")
        self._n_vocab, self._sample = n_vocab, _chosen()[0].sample

    def sample(
        self,
        logits: Floats,
        *,
        seed: int,
        position: int,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repeat_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        history: Ints | None = None,
        plausibility: float = 0.0,
        llm: Floats | None = None,
    ) -> Sample:
        """Draw one token. The steps, in order; each works on what the one before left.

        1. Penalties, as llama.cpp has them, on the ids in `history`: a positive logit is divided by `repeat_penalty`,
           another multiplied; then `presence_penalty` once and `frequency_penalty` per occurrence are subtracted.
        2. `temperature` divides. 0 is the argmax, the lowest id on a tie (among plausible tokens, if step 6 is on).
        3. `top_k` best tokens stay (0: all); at equal logits the lower id goes first, here and in step 4.
        4. `top_p`: the shortest run of best tokens whose renormalised probability reaches it.
        5. `min_p`: tokens with at least this share of the best token's probability.
        6. `plausibility` a: tokens with p_LLM >= a max p_LLM at temperature 1; if none is left, the best of `logits`.
        7. Gumbel-max: the largest of logit plus noise, the noise keyed by (seed, position, token id) alone
           (`reference.gumbel`).

        Args:
            logits: float32 (n_vocab,), not modified. -inf bars a token.
            seed: 0 to 2^64 - 1, of the answer.
            position: 0 to 2^64 - 1, of the token in the answer.
            temperature: 0 or more.
            top_k: 0 or more.
            top_p: over 0, at most 1 (off).
            min_p: 0 (off) to 1.
            repeat_penalty: over 0; 1 is off.
            presence_penalty: logits; 0 is off.
            frequency_penalty: logits per occurrence; 0 is off.
            history: int32 (n,), ids in range, repeats count.
            plausibility: 0 (off) to 1.
            llm: float32 (n_vocab,), the unsteered row; needed if plausibility is set.

        Raises:
            ValueError: NaN or +inf in a row, all of it -inf, or an argument out of range or of the wrong form.
            TypeError: an argument of the wrong type or dtype.
        """
        return Sample(
            *self._sample(
                self._n_vocab,
                logits,
                temperature,
                top_k,
                top_p,
                min_p,
                repeat_penalty,
                presence_penalty,
                frequency_penalty,
                history,
                plausibility,
                llm,
                seed,
                position,
            )
        )


def logprobs(logits: Floats, targets: Ints) -> Doubles:
    """Log-softmax of each row at its target id, in nats.

    Args:
        logits: float32 (n, V); rows may be strided. -inf bars a token.
        targets: int32 (n,), ids in range.

    Returns:
        float64 (n,).

    Raises:
        ValueError: NaN or +inf in a row, all of it -inf, a target out of range, or an argument of the wrong form.
        TypeError: an argument of the wrong type or dtype.
    """
    out = np.empty(len(targets), np.float64)
    _chosen()[0].logprobs(logits, targets, out)
    return out


def divergence(fused: Floats, llm: Floats) -> tuple[float, float, float]:
    """How far steering moved a row: (entropy of fused in bits, entropy of llm in bits, KL(fused || llm) in nats).

    Args:
        fused: float32 (V,); -inf bars a token.
        llm: float32 (V,). Where it is -inf and fused is not, KL is infinite.

    Raises:
        ValueError: NaN or +inf in a row, all of it -inf, or an argument of the wrong form.
        TypeError: an argument of the wrong type or dtype.
    """
    return _chosen()[0].divergence(fused, llm)


class AbortFlag:
    """One byte that any thread may set, and a function for C that reads it: what `llama_set_abort_callback` wants.

    The addresses are good while this object lives; keep it as long as C code may call.

    Attributes:
        callback: address of `bool (*)(void *data)`.
        data: address to hand to it.
    """

    __slots__ = ("_flag", "callback", "data")

    def __init__(self) -> None:
        self._flag = ctypes.c_bool(False)
        self.callback = _chosen()[0].abort_callback()
        self.data = ctypes.addressof(self._flag)

    def set(self) -> None:
        """Ask whoever reads the flag to stop."""
        self._flag.value = True

    def clear(self) -> None:
        """Take the wish back."""
        self._flag.value = False

    def is_set(self) -> bool:
        """Whether the flag is up."""
        return self._flag.value


def log_callback() -> int:
    """Address of `void (*)(int level, const char *text, void *function)`: what `llama_log_set` wants.

    It calls the Python function whose `id` it is given, with the level and the text as bytes; whoever hands it over
    keeps the function alive. Ctrl-C that comes in there is raised where llama.cpp was called; numpy's loses it.
    """
    return _chosen()[0].log_callback()
