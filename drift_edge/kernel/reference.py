"""The kernel in numpy: the same functions and the same draws as the C, for machines without it and as its oracle.

What a draw is, bit for bit up to the rounding of `exp` and `log`:

- `mix(x)`: x ^= x >> 30; x *= 0xBF58476D1CE4E5B9; x ^= x >> 27; x *= 0x94D049BB133111EB; x ^= x >> 31 (mod 2^64).
- G = 0x9E3779B97F4A7C15, key = mix(mix(seed + G) + position), bits(id) = mix(key + (id + 1) G).
- u = ((bits >> 12) + 1/2) / 2^52, inside (0, 1); noise = -log(-log(u)), in float64.
- score(id) = (logit(id) - max logit) / temperature + noise(id); the largest wins, the lower id on a tie.

Cut-offs compare with a slack of 2^-20 in favour of fewer tokens (top-p) or of keeping one (min-p, plausibility), so
that a boundary which is met exactly on paper is met in floating point too.
"""

from __future__ import annotations

import ctypes
import math
from functools import cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

SLACK = 2.0**-20
_BLOCK = 4096
_CLOSE_ENOUGH, _MOST_STEPS = 2.5e-7, 128
_U64 = np.uint64
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_DTYPES = {np.dtype(np.float32): "float32", np.dtype(np.float64): "float64", np.dtype(np.int32): "int32"}


def isa() -> str:
    """The instruction set, as far as this implementation knows it."""
    return "numpy"


def fuse(out: Floats, llm: Floats, slm: Floats, weights: Doubles) -> None:
    """See `drift_edge.kernel.fuse`."""
    out = _array("out", out, np.float32, 1, writable=True)
    n = out.shape[0]
    llm = _array("llm", llm, np.float32, 1, n)
    slm = _array("slm", slm, np.float32, 2, n, strided_rows=True)
    weights = _array("weights", weights, np.float64, 1)
    if slm.shape[0] != weights.shape[0] + 1:
        raise ValueError(f"slm: expected {weights.shape[0] + 1} rows (base and weights), got {slm.shape[0]}")
    if not _same(out, llm) and np.may_share_memory(out, llm):
        raise ValueError("out: may be the llm row itself, but must not overlap it in part")
    if any(np.may_share_memory(out, row) for row in slm):
        raise ValueError("out: must not overlap slm")
    if not (np.abs(weights) <= np.finfo(np.float32).max).all():
        raise ValueError("weights: expected finite numbers")
    used = np.flatnonzero(weights)
    if used.size == 0:
        _check_row("llm row", llm)
        out[:] = llm
        return
    base, fused = slm[0], np.empty(n, np.float32)
    p, term = weights[used].astype(np.float32), np.empty(min(n, _BLOCK), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for at in range(0, n, _BLOCK):  # small enough to stay in the processor's nearest cache
            here = slice(at, min(at + _BLOCK, n))
            h, d = fused[here], term[: here.stop - at]
            h.fill(0)
            # h = h_llm + sum_i P_i (h_i - h_base); differences first: they are small where logits are large
            for i, p_i in zip(used, p, strict=True):
                np.subtract(slm[i + 1, here], base[here], out=d)
                np.multiply(d, p_i, out=d)
                h += d
            h += llm[here]
    if not np.isfinite(fused).all():
        _check_row("llm row", llm)
        _check_row("base row", base)
        for i in used:
            _check_row(f"attribute row {i + 1}", slm[i + 1])
        barred = np.isneginf(llm) | np.isneginf(base) | np.isneginf(slm[used + 1]).any(axis=0)
        fused[barred] = -np.inf
        over = ~barred & ~np.isfinite(fused)
        if over.any():
            raise ValueError(f"the fused row overflows float32 at index {int(np.argmax(over))}")
    out[:] = fused


def fuse_within(out: Floats, llm: Floats, slm: Floats, weights: Doubles, budget: float) -> tuple[float, float]:
    """See `drift_edge.kernel.fuse_within`. The search is that of budget.h."""
    _number("budget", budget, 0, 1e30)
    out = _array("out", out, np.float32, 1, writable=True)
    llm = _array("llm", llm, np.float32, 1, out.shape[0])
    if np.may_share_memory(out, llm):
        raise ValueError("out: must not overlap llm")
    fuse(out, llm, slm, weights)
    _check_row("llm row", llm)
    top = float(llm.max(initial=-np.inf))
    if top == -math.inf:
        raise ValueError("llm row: every token is -inf")
    live = out > -np.inf
    z_llm, term = llm[live].astype(np.float64) - top, (out[live] - llm[live]).astype(np.float64)
    llm_weight = float(np.exp(llm.astype(np.float64) - top).sum())

    def kl_and_slope(t: float) -> tuple[float, float]:
        if not term.size:
            return math.inf, 0.0
        z = z_llm + t * term
        w = np.exp(z - z.max())
        total = float(w.sum())
        mean = float(w @ term) / total
        kl = t * mean - float(z.max()) - math.log(total / llm_weight)
        return kl, t * float(w @ np.square(term - mean)) / total

    if budget == 0:
        out[:] = llm
        return 0.0, 0.0
    kl, slope = kl_and_slope(1.0)
    if kl <= budget:
        return 1.0, max(0.0, kl)
    close = _CLOSE_ENOUGH * max(1.0, budget)
    best, low, high = (0.0, 0.0), 0.0, 1.0
    t = math.sqrt(budget / kl)
    for i in range(1, _MOST_STEPS + 1):
        t = float(np.float32(t))
        if not low < t < high or i % 4 == 0:
            t = float(np.float32(low + (high - low) / 2))
        if not low < t < high:
            break
        kl, slope = kl_and_slope(t)
        if kl <= budget + close:
            best = t, max(0.0, kl)
        if abs(kl - budget) <= close:
            break
        low, high = (low, t) if kl > budget else (t, high)
        t = t + 2 * (math.sqrt(max(0.0, kl) * budget) - kl) / slope if slope > 0 and kl < math.inf else 0.0
    with np.errstate(invalid="ignore"):
        row = np.where(live, llm + np.float32(best[0]) * (out - llm), np.float32(-np.inf))
    out[:] = row if best[0] else llm
    return best


def sample(
    n_vocab: int,
    logits: Floats,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    repeat_penalty: float,
    presence_penalty: float,
    frequency_penalty: float,
    history: NDArray[np.int32] | None,
    plausibility: float,
    llm: Floats | None,
    seed: int,
    position: int,
) -> tuple[int, float, int, float]:
    """See `drift_edge.kernel.Sampler.sample`; a plain tuple."""
    row = _array("logits", logits, np.float32, 1, n_vocab)
    _number("temperature", temperature, 0, 1e30)
    _number("top_p", top_p, 0, 1, open_low=True)
    _number("min_p", min_p, 0, 1)
    _number("repeat_penalty", repeat_penalty, 0, 1e30, open_low=True)
    _number("presence_penalty", presence_penalty, -1e30, 1e30)
    _number("frequency_penalty", frequency_penalty, -1e30, 1e30)
    _number("plausibility", plausibility, 0, 1)
    top_k, seed, position = _integer("top_k", top_k), _integer("seed", seed), _integer("position", position)
    _check_row("logits", row)
    if history is not None:
        recent = _ids("history", history, n_vocab)
        if recent.size and (repeat_penalty != 1 or presence_penalty != 0 or frequency_penalty != 0):
            row = _penalised(row, recent, repeat_penalty, presence_penalty, frequency_penalty)
    plausible = None
    if plausibility > 0:
        plausible = _plausible(_array("llm", llm, np.float32, 1, n_vocab), plausibility)
    best = int(row.argmax())
    top = float(row[best])
    if top == -math.inf:
        raise ValueError("logits: every token is -inf")
    if temperature == 0:
        if plausible is not None:
            masked = np.where(plausible, row, np.float32(-np.inf))
            best = int(masked.argmax()) if np.isfinite(masked.max()) else best
        return best, 1.0, 1, 0.0
    ids = _ranked(row, top_k if 0 < top_k < n_vocab else 0, top_p < 1)
    z = (row[ids].astype(np.float64) - top) / temperature
    keep = np.ones(ids.size, bool)
    if top_p < 1:
        mass = np.cumsum(np.exp(z))
        keep[int(np.searchsorted(mass, top_p * mass[-1] * (1 - SLACK))) + 1 :] = False
    if min_p > 0:
        keep &= z >= math.log(min_p) - SLACK
    if plausible is not None:
        keep &= plausible[ids]
        if not keep.any():
            keep[ids == best] = True
    ids, z = ids[keep], z[keep]
    score = z + gumbel(seed, position, ids)
    drawn = int(ids[score == score.max()].min())
    p = np.exp(z)
    total = float(p.sum())
    p /= total
    entropy = math.log2(total) - float(np.sum(p * np.maximum(z, -800))) / math.log(2)
    return drawn, float(p[ids == drawn][0]), int(ids.size), max(0.0, entropy)


def logprobs(logits: Floats, targets: NDArray[np.int32], out: Doubles) -> None:
    """See `drift_edge.kernel.logprobs`; into out, float64 (n,)."""
    logits = _array("logits", logits, np.float32, 2, strided_rows=True)
    targets = _array("targets", targets, np.int32, 1, logits.shape[0])
    out = _array("out", out, np.float64, 1, logits.shape[0], writable=True)
    _ids("targets", targets, logits.shape[1])
    for i, row in enumerate(logits):
        _check_row(f"logits row {i}", row)
        top = float(row.max())
        if top == -math.inf:
            raise ValueError(f"logits row {i}: every token is -inf")
        out[i] = float(row[targets[i]]) - top - math.log(np.exp(row.astype(np.float64) - top).sum())


def divergence(fused: Floats, llm: Floats) -> tuple[float, float, float]:
    """See `drift_edge.kernel.divergence`."""
    fused = _array("fused", fused, np.float32, 1)
    llm = _array("llm", llm, np.float32, 1, fused.shape[0])
    log_f, entropy_f = _log_softmax("fused", fused)
    log_l, entropy_l = _log_softmax("llm", llm)
    p = np.exp(log_f)
    live = p > 0
    with np.errstate(over="ignore"):
        kl = float(np.sum(p[live] * (log_f[live] - log_l[live])))
    return entropy_f, entropy_l, max(0.0, kl)


def abort_callback() -> int:
    """Address of `bool (*)(void *flag)`, for `drift_edge.kernel.AbortFlag`. It runs Python: slower than C's."""
    return ctypes.cast(_callbacks()[0], ctypes.c_void_p).value or 0


def log_callback() -> int:
    """See `drift_edge.kernel.log_callback`."""
    return ctypes.cast(_callbacks()[1], ctypes.c_void_p).value or 0


@cache
def _callbacks() -> tuple[Any, Any]:
    is_set = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)(lambda flag: ctypes.c_bool.from_address(flag).value)
    line = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.py_object)
    return is_set, line(lambda level, text, function: function(level, text or b""))


def _ranked(row: Floats, top_k: int, ranked: bool) -> NDArray[np.intp]:
    """Ids of finite logits: the top_k best (0: all), by descending logit then id if ranked."""
    if top_k:
        bar = np.partition(row, row.size - top_k)[row.size - top_k]
        above, level = np.flatnonzero(row > bar), np.flatnonzero(row == bar)
        ids = np.sort(np.concatenate([above, level[: top_k - above.size]]))
        ids = ids[row[ids] > -np.inf]
    else:
        ids = np.flatnonzero(row > -np.inf)
    return ids[np.argsort(-row[ids], kind="stable")] if ranked else ids


def _penalised(row: Floats, ids: NDArray[np.int32], repeat: float, presence: float, frequency: float) -> Floats:
    """llama.cpp's penalties, computed in float64 and rounded once; `row` stays as it is."""
    row = row.copy()
    seen, counts = np.unique(ids, return_counts=True)
    old = row[seen].astype(np.float64)
    with np.errstate(over="ignore"):
        new = np.where(old > 0, old / repeat, old * repeat) - (counts * frequency + presence)
        row[seen] = np.clip(new, None, np.finfo(np.float32).max)
    return row


def _plausible(llm: Floats, share: float) -> NDArray[np.bool_]:
    _check_row("llm", llm)
    top = float(llm.max())
    if top == -math.inf:
        raise ValueError("llm: every token is -inf")
    return llm.astype(np.float64) - top >= math.log(share) - SLACK


def _log_softmax(name: str, row: Floats) -> tuple[Doubles, float]:
    """Log-probabilities and their entropy in bits."""
    _check_row(name, row)
    top = row.max() if row.size else -np.inf
    if top == -np.inf:
        raise ValueError(f"{name}: every token is -inf")
    z = row.astype(np.float64) - top
    log_p = z - math.log(np.exp(z).sum())
    return log_p, max(0.0, -float(np.sum(np.exp(log_p) * np.maximum(log_p, -800))) / math.log(2))


def gumbel(seed: int, position: int, ids: NDArray[Any]) -> Doubles:
    """The noise of a draw: float64 (n,) for integers (n,), ids of tokens."""
    key = _mix_int((_mix_int((seed + _GOLDEN) & _MASK) + position) & _MASK)
    x = (ids.astype(_U64) + _U64(1)) * _U64(_GOLDEN) + _U64(key)  # arrays of uint64 wrap, silently and as wanted
    x ^= x >> _U64(30)
    x *= _U64(0xBF58476D1CE4E5B9)
    x ^= x >> _U64(27)
    x *= _U64(0x94D049BB133111EB)
    x ^= x >> _U64(31)
    u = ((x >> _U64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return -np.log(-np.log(u))


def _mix_int(x: int) -> int:
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _MASK
    return x ^ x >> 31


def _check_row(name: str, row: Floats) -> None:
    """NaN and +inf are errors; -inf is a token that cannot be drawn."""
    bad = ~(row < np.inf)
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(f"{name}: {'NaN' if np.isnan(row[at]) else '+inf'} at index {at}")


def _ids(name: str, ids: NDArray[np.int32], n: int) -> NDArray[np.int32]:
    ids = _array(name, ids, np.int32, 1)
    wrong = (ids < 0) | (ids >= n)
    if wrong.any():
        raise ValueError(f"{name}: expected ids from 0 to {n - 1}, got {int(ids[np.argmax(wrong)])}")
    return ids


def _integer(name: str, value: int) -> int:
    if not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    value = value.__index__()
    if not 0 <= value <= _MASK:
        raise ValueError(f"{name}: expected an integer from 0 to 2^64 - 1, got {value}")
    return value


def _number(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    if not hasattr(value, "__float__") and not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not low <= value <= high or (open_low and value == low):
        raise ValueError(f"{name}: expected {'over' if open_low else 'from'} {low:g} to {high:g}, got {value}")


def _array(
    name: str, value: Any, dtype: Any, ndim: int, size: int = -1, *, writable: bool = False, strided_rows: bool = False
) -> NDArray[Any]:
    """A numpy view of a buffer, checked as the C checks it."""
    want = _DTYPES[np.dtype(dtype)]
    if not isinstance(value, np.ndarray):
        try:
            value = np.asarray(memoryview(value))
        except TypeError:
            raise TypeError(f"{name}: expected a {want} array, got {type(value).__name__}") from None
    if value.dtype != dtype:
        raise TypeError(f"{name}: expected {want}, got {value.dtype}")
    if value.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} dimension(s), got {value.ndim}")
    if size >= 0 and value.shape[-1] != size:
        raise ValueError(f"{name}: expected length {size}, got {value.shape[-1]}")
    if ndim == 2 and value.shape[1] == 0:
        raise ValueError(f"{name}: expected rows that are not empty")
    inner = value[:1] if strided_rows else value
    if not inner.flags.c_contiguous or not value.flags.aligned:
        raise ValueError(f"{name}: expected contiguous, aligned values, got strides {value.strides}")
    if writable and not value.flags.writeable:
        raise ValueError(f"{name}: expected a writable array, got a read-only one")
    return cast(NDArray[Any], value)


def _same(a: Floats, b: Floats) -> bool:
    return bool(a.__array_interface__["data"][0] == b.__array_interface__["data"][0])
