"""Every wrong argument is a TypeError or ValueError that names it and says what was expected."""

from __future__ import annotations

import ctypes
from types import ModuleType
from typing import Any

import numpy as np
import pytest

N = 12
F, D, I = np.float32, np.float64, np.int32  # noqa: E741


def read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array


def unaligned(n: int) -> Any:
    return np.frombuffer(bytearray(4 * n + 1), np.uint8)[1:].view(F)


FUSE: dict[str, Any] = {"out": np.zeros(N, F), "llm": np.zeros(N, F), "slm": np.zeros((3, N), F), "weights": np.ones(2)}
BAD_FUSE: list[tuple[str, Any, type[Exception], str]] = [
    ("out", [0.0] * N, TypeError, "out: expected a float32 array, got list"),
    ("out", None, TypeError, "out: expected a float32 array, got NoneType"),
    ("out", np.zeros(N), TypeError, "out: expected float32"),
    ("out", np.zeros((1, N), F), ValueError, r"out: expected 1 dimension\(s\), got 2"),
    ("out", np.zeros((), F), ValueError, r"out: expected 1 dimension\(s\), got 0"),
    ("out", np.zeros(2 * N, F)[::2], ValueError, "out: expected contiguous"),
    ("out", read_only(np.zeros(N, F)), ValueError, "out: expected a writable array"),
    ("out", b"\0" * 4 * N, TypeError, "out: expected float32"),
    ("out", unaligned(N), ValueError, "out: expected contiguous, aligned"),
    ("llm", np.zeros(N + 1, F), ValueError, f"llm: expected length {N}, got {N + 1}"),
    ("llm", np.zeros(0, F), ValueError, f"llm: expected length {N}, got 0"),
    ("llm", np.zeros(N, np.float16), TypeError, "llm: expected float32"),
    ("llm", np.zeros(N, np.int32), TypeError, "llm: expected float32"),
    ("llm", np.zeros(N, ">f4"), TypeError, "llm: expected float32"),
    ("llm", np.zeros(N, F)[::-1], ValueError, "llm: expected contiguous"),
    ("llm", 3.0, TypeError, "llm: expected a float32 array, got float"),
    ("slm", np.zeros((4, N), F), ValueError, r"slm: expected 3 rows \(base and weights\), got 4"),
    ("slm", np.zeros((0, N), F), ValueError, "slm: expected 3 rows"),
    ("slm", np.zeros((3, N - 1), F), ValueError, f"slm: expected length {N}"),
    ("slm", np.zeros(N, F), ValueError, r"slm: expected 2 dimension\(s\), got 1"),
    ("slm", np.zeros((3, N, 1), F), ValueError, r"slm: expected 2 dimension\(s\), got 3"),
    ("slm", np.zeros((N, 3), F).T, ValueError, "slm: expected contiguous"),
    ("slm", np.zeros((3, 2 * N), F)[:, ::2], ValueError, "slm: expected contiguous"),
    ("slm", np.zeros((3, N)), TypeError, "slm: expected float32"),
    ("weights", np.ones(2, F), TypeError, "weights: expected float64"),
    ("weights", np.ones((2, 1)), ValueError, r"weights: expected 1 dimension\(s\)"),
    ("weights", np.ones(4)[::2], ValueError, "weights: expected contiguous"),
    ("weights", [1.0, 2.0], TypeError, "weights: expected a float64 array, got list"),
    ("weights", np.array([1, np.nan]), ValueError, "weights: expected finite numbers"),
    ("weights", np.array([np.inf, 1]), ValueError, "weights: expected finite numbers"),
    ("weights", np.array([1e60, 1]), ValueError, "weights: expected finite numbers"),
]


@pytest.mark.parametrize(("name", "value", "error", "message"), BAD_FUSE)
def test_fuse(any_kernel: ModuleType, name: str, value: Any, error: type[Exception], message: str) -> None:
    any_kernel.fuse(**FUSE)
    with pytest.raises(error, match=message):
        any_kernel.fuse(**FUSE | {name: value})


def test_fuse_overlaps(any_kernel: ModuleType) -> None:
    buffer = np.zeros((5, N + 4), F)
    slm, p = buffer[1:4, :N], np.ones(2)
    any_kernel.fuse(buffer[0, :N], buffer[0, :N], slm, p)
    with pytest.raises(ValueError, match="out: may be the llm row itself, but must not overlap it in part"):
        any_kernel.fuse(buffer[0, :N], buffer[0, 1 : N + 1], slm, p)
    for out in (buffer[1, :N], buffer[3, 2 : N + 2]):
        with pytest.raises(ValueError, match="out: must not overlap slm"):
            any_kernel.fuse(out, buffer[0, :N], slm, p)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("logits", np.zeros(N - 1, F), ValueError, f"logits: expected length {N}, got {N - 1}"),
        ("logits", np.zeros((1, N), F), ValueError, "logits: expected 1 dimension"),
        ("logits", np.zeros(N), TypeError, "logits: expected float32"),
        ("logits", np.zeros(2 * N, F)[::2], ValueError, "logits: expected contiguous"),
        ("logits", "text", TypeError, "logits: expected a float32 array, got str"),
        ("temperature", -0.1, ValueError, "temperature: expected .*-0.1"),
        ("temperature", np.nan, ValueError, "temperature: expected .*nan"),
        ("temperature", np.inf, ValueError, "temperature: expected .*inf"),
        ("temperature", "hot", TypeError, "temperature: expected a number, got str"),
        ("temperature", None, TypeError, "temperature: expected a number, got NoneType"),
        ("top_k", -1, ValueError, "top_k: expected an integer from 0"),
        ("top_k", 1.5, TypeError, "top_k: expected an integer, got float"),
        ("top_p", 0.0, ValueError, "top_p: expected .*0.0"),
        ("top_p", 1.01, ValueError, "top_p: expected .*1.01"),
        ("top_p", np.nan, ValueError, "top_p: expected .*nan"),
        ("min_p", -0.01, ValueError, "min_p: expected"),
        ("min_p", 1.01, ValueError, "min_p: expected"),
        ("min_p", [], TypeError, "min_p: expected a number, got list"),
        ("repeat_penalty", 0.0, ValueError, "repeat_penalty: expected"),
        ("repeat_penalty", -1.0, ValueError, "repeat_penalty: expected"),
        ("presence_penalty", np.inf, ValueError, "presence_penalty: expected"),
        ("frequency_penalty", np.nan, ValueError, "frequency_penalty: expected"),
        ("history", np.array([0, N], I), ValueError, f"history: expected ids from 0 to {N - 1}, got {N}"),
        ("history", np.array([-1], I), ValueError, f"history: expected ids from 0 to {N - 1}, got -1"),
        ("history", np.array([1], np.int64), TypeError, "history: expected int32"),
        ("history", np.array([1], np.uint32), TypeError, "history: expected int32"),
        ("history", np.zeros(6, I)[::2], ValueError, "history: expected contiguous"),
        ("history", [1, 2], TypeError, "history: expected a int32 array, got list"),
        ("plausibility", 1.5, ValueError, "plausibility: expected"),
        ("plausibility", "a", TypeError, "plausibility: expected a number, got str"),
        ("llm", None, TypeError, "llm: expected a float32 array, got NoneType"),
        ("llm", np.zeros(N + 1, F), ValueError, f"llm: expected length {N}"),
        ("seed", -1, ValueError, r"seed: expected an integer from 0 to 2\^64 - 1, got -1"),
        ("seed", 2**64, ValueError, r"seed: expected an integer from 0 to 2\^64 - 1"),
        ("seed", 1.0, TypeError, "seed: expected an integer, got float"),
        ("position", -1, ValueError, "position: expected an integer from 0"),
        ("position", None, TypeError, "position: expected an integer, got NoneType"),
    ],
)
def test_sample(any_kernel: ModuleType, name: str, value: Any, error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {
        "logits": np.zeros(N, F),
        "seed": np.uint64(2**64 - 1),
        "position": 0,
        "history": np.array([3], I),
        "presence_penalty": 0.5,
        "plausibility": 0.1,
        "llm": np.zeros(N, F),
    }
    sampler = any_kernel.Sampler(N)
    want = sampler.sample(**good)
    with pytest.raises(error, match=message):
        sampler.sample(**good | {name: value})
    assert sampler.sample(**good) == want


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (2**31, ValueError), (2**70, ValueError), (1.5, TypeError)]
)
def test_sampler(any_kernel: ModuleType, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="n_vocab: expected"):
        any_kernel.Sampler(value)


@pytest.mark.parametrize(
    ("logits", "targets", "error", "message"),
    [
        (np.zeros((2, N), F), np.array([0, N], I), ValueError, f"targets: expected ids from 0 to {N - 1}, got {N}"),
        (np.zeros((2, N), F), np.array([-1, 0], I), ValueError, "targets: expected ids from 0"),
        (np.zeros((2, N), F), np.array([0], I), ValueError, "targets: expected length 2, got 1"),
        (np.zeros((2, N), F), np.array([0, 1]), TypeError, "targets: expected int32"),
        (np.zeros(N, F), np.array([0], I), ValueError, "logits: expected 2 dimension"),
        (np.zeros((2, N)), np.array([0, 1], I), TypeError, "logits: expected float32"),
        (np.zeros((N, 2), F).T, np.array([0, 1], I), ValueError, "logits: expected contiguous"),
        (np.zeros((2, 0), F), np.array([0, 1], I), ValueError, "logits: expected rows that are not empty"),
    ],
)
def test_logprobs(any_kernel: ModuleType, logits: Any, targets: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        any_kernel.logprobs(logits, targets)


def test_divergence(any_kernel: ModuleType) -> None:
    with pytest.raises(ValueError, match=f"llm: expected length {N}, got 3"):
        any_kernel.divergence(np.zeros(N, F), np.zeros(3, F))
    with pytest.raises(TypeError, match="fused: expected float32"):
        any_kernel.divergence(np.zeros(N, D), np.zeros(N, F))
    with pytest.raises(ValueError, match="fused: every token is -inf"):
        any_kernel.divergence(np.zeros(0, F), np.zeros(0, F))


def test_other_buffers_and_empty_arrays(any_kernel: ModuleType) -> None:
    """Anything with a float32 buffer will do; no rows and no history are fine."""
    data = memoryview(bytearray(np.arange(N, dtype=F).tobytes())).cast("f")
    sampler = any_kernel.Sampler(N)
    assert sampler.sample(data, seed=1, position=1, temperature=0).token == N - 1
    empty = np.zeros(0, I)
    assert sampler.sample(data, seed=1, position=1, history=empty, presence_penalty=9.0, temperature=0).token == N - 1
    assert any_kernel.logprobs(np.zeros((0, N), F), empty).shape == (0,)
    out = np.zeros(N, F)
    any_kernel.fuse(out, data, np.broadcast_to(np.ones(N, F), (3, N)), np.ones(2))
    assert out.tolist() == list(range(N))


def test_arrays_of_ctypes(any_kernel: ModuleType) -> None:
    """Their buffers come without strides."""
    row, rows = (ctypes.c_float * N)(*range(N)), ((ctypes.c_float * N) * 3)()
    rows[2][5] = 1.0
    out = np.zeros(N, F)
    any_kernel.fuse(out, row, rows, (ctypes.c_double * 2)(1.0, 20.0))
    assert out.tolist() == [0, 1, 2, 3, 4, 25, 6, 7, 8, 9, 10, 11]
    drawn = any_kernel.Sampler(N).sample(row, seed=1, position=1, temperature=0, history=(ctypes.c_int32 * 1)(11))
    assert drawn.token == N - 1
    assert any_kernel.logprobs(rows, (ctypes.c_int32 * 3)(0, 0, 5))[0] == pytest.approx(-np.log(N))


def test_the_c_counts_its_arguments(c_kernel: ModuleType) -> None:
    module = c_kernel._chosen()[0]
    for call in (module.fuse, module.fuse_within, module.logprobs, module.divergence, module.sample):
        with pytest.raises(TypeError, match=r"expected \d+ arguments, got 1"):
            call(None)
    with pytest.raises(ValueError, match="isa: expected one that this machine has"):
        module._use_isa("avx9000")
    with pytest.raises(TypeError):
        module._use_isa(3)
