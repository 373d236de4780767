"""The seam's choice, threads, the GIL, leaks, and the abort flag."""

from __future__ import annotations

import ctypes
import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from drift_edge import kernel
from drift_edge.errors import KernelUnavailableError, UsageError

_C = "drift_edge.kernel._kernel"


def test_choice_of_numpy(unchosen: pytest.MonkeyPatch) -> None:
    unchosen.setenv("DRIFT_EDGE_KERNEL", "numpy")
    assert kernel.active() == kernel.KernelInfo("numpy", "DRIFT_EDGE_KERNEL asks for it", "numpy")


def test_choice_of_c(c_kernel: ModuleType) -> None:
    info = c_kernel.active()
    assert (info.name, info.reason) == ("c", "DRIFT_EDGE_KERNEL asks for it")
    assert info.isa in ("avx512", "avx2", "baseline", "neon")


def test_missing_c_is_told(unchosen: pytest.MonkeyPatch) -> None:
    unchosen.delenv("DRIFT_EDGE_KERNEL", raising=False)
    unchosen.setitem(sys.modules, _C, None)
    info = kernel.active()
    assert info.name == "numpy"
    assert info.reason.startswith("the C kernel cannot be loaded: ")
    assert kernel.Sampler(3).sample(np.zeros(3, np.float32), seed=0, position=0).survivors == 3


def test_missing_c_is_an_error_where_it_was_asked_for(unchosen: pytest.MonkeyPatch) -> None:
    unchosen.setenv("DRIFT_EDGE_KERNEL", "c")
    unchosen.setitem(sys.modules, _C, None)
    for call in (kernel.active, kernel.AbortFlag, lambda: kernel.Sampler(3)):
        with pytest.raises(KernelUnavailableError, match="DRIFT_EDGE_KERNEL=c, but the C kernel cannot be loaded"):
            call()


def test_unknown_choice(unchosen: pytest.MonkeyPatch) -> None:
    unchosen.setenv("DRIFT_EDGE_KERNEL", "rust")
    with pytest.raises(UsageError, match="DRIFT_EDGE_KERNEL: expected c or numpy, got 'rust'"):
        kernel.active()


def test_import_chooses_nothing() -> None:
    code = "import sys, drift_edge.kernel; sys.exit(any('kernel.' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_one_sampler_in_many_threads(any_kernel: ModuleType, rng: np.random.Generator) -> None:
    n = 20_000
    sampler = any_kernel.Sampler(n)
    rows = rng.normal(0, 2, (4, n)).astype(np.float32)
    history = rng.integers(0, n, 50).astype(np.int32)
    settings: list[dict[str, Any]] = [
        {},
        {"top_k": 40, "top_p": 0.9},
        {"top_p": 0.8, "history": history, "repeat_penalty": 1.3, "frequency_penalty": 0.2},
        {"min_p": 0.1, "plausibility": 0.01, "llm": rows[0]},
    ]

    def draws(i: int) -> list[Any]:
        return [sampler.sample(rows[i % 4], seed=i, position=p, **settings[i % 4]) for p in range(15)]

    want = [draws(i) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(draws, range(8))) == want


def test_fuse_in_many_threads(any_kernel: ModuleType, rng: np.random.Generator) -> None:
    llm = rng.normal(0, 2, 20_000).astype(np.float32)
    slm = rng.normal(0, 2, (5, 20_000)).astype(np.float32)

    def run(i: int) -> float:
        out = np.empty_like(llm)
        any_kernel.fuse(out, llm, slm, np.full(4, float(i)))
        return float(out.sum(dtype=np.float64))

    want = [run(i) for i in range(16)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(16))) == want


def test_loops_release_the_gil(c_kernel: ModuleType) -> None:
    """With a switch interval of hours, another thread can run only if the call lets it."""
    n, k = 1_000_000, 4
    slm = np.zeros((k + 1, n), np.float32)
    out, weights, sampler = np.empty(n, np.float32), np.ones(k), c_kernel.Sampler(n)
    calls: dict[str, Callable[[], Any]] = {
        "fuse": lambda: c_kernel.fuse(out, slm[0], slm, weights),
        "sample": lambda: sampler.sample(slm[0], seed=1, position=1),
        "logprobs": lambda: c_kernel.logprobs(slm, np.zeros(k + 1, np.int32)),
        "divergence": lambda: c_kernel.divergence(slm[0], slm[1]),
        "fuse_within": lambda: c_kernel.fuse_within(out, slm[0], slm, weights, 0.5),
    }
    interval = sys.getswitchinterval()
    for name, call in calls.items():
        ran: list[bool] = []
        start = threading.Event()
        other = threading.Thread(target=lambda start=start, ran=ran: start.wait() and ran.append(True))
        other.start()
        try:
            sys.setswitchinterval(10_000)
            start.set()
            before = len(ran)
            for _ in range(100):  # until the machine finds time for the other thread
                call()
                if ran:
                    break
            after = len(ran)
        finally:
            sys.setswitchinterval(interval)
        other.join()
        assert (before, after) == (0, 1), name


def test_nothing_leaks(any_kernel: ModuleType) -> None:
    """Buffers (each holds a reference) are given back on every path, good and bad; memory does not grow."""
    n, k = 4096, 3
    f = {name: np.zeros(n, np.float32) for name in ("out", "llm", "bad", "none")}
    f["bad"][7], f["none"][:] = np.nan, -np.inf
    slm, weights, ids = np.zeros((k + 1, n), np.float32), np.ones(k), np.zeros(k + 1, np.int32)
    wrong = np.array([n], np.int32)
    arrays = [*f.values(), slm, weights, ids, wrong]
    sampler = any_kernel.Sampler(n)
    s: dict[str, Any] = {"seed": 2**63, "position": 2**62}
    calls: list[Callable[[], Any]] = [
        lambda: any_kernel.fuse(f["out"], f["llm"], slm, weights),
        lambda: any_kernel.fuse(f["out"], f["bad"], slm, weights),
        lambda: any_kernel.fuse(f["out"], f["llm"], slm, weights * np.nan),
        lambda: any_kernel.fuse(f["out"], f["llm"], slm[:2], weights),
        lambda: any_kernel.fuse(f["out"], f["llm"], slm, ids),
        lambda: sampler.sample(f["llm"], **s),
        lambda: sampler.sample(f["llm"], top_k=5, history=ids, presence_penalty=0.5, plausibility=0.1, llm=slm[0], **s),
        lambda: sampler.sample(f["llm"], history=wrong, presence_penalty=0.5, **s),
        lambda: sampler.sample(f["bad"], **s),
        lambda: sampler.sample(f["none"], **s),
        lambda: sampler.sample(f["llm"], plausibility=0.5, llm=f["bad"], **s),
        lambda: sampler.sample(f["llm"], temperature="x", **s),
        lambda: sampler.sample(f["llm"], seed=-1, position=0),
        lambda: any_kernel.logprobs(slm, ids),
        lambda: any_kernel.logprobs(slm, ids[:2]),
        lambda: any_kernel.logprobs(f["bad"][None], ids[:1]),
        lambda: any_kernel.divergence(f["out"], f["llm"]),
        lambda: any_kernel.divergence(f["out"], f["bad"]),
        lambda: any_kernel.fuse_within(f["out"], f["llm"], slm, weights, 0.5),
        lambda: any_kernel.fuse_within(f["out"], f["none"], slm, weights, 0.5),
        lambda: any_kernel.Sampler(n),
        lambda: any_kernel.Sampler(0),
        lambda: any_kernel.AbortFlag().set(),
    ]

    def round_() -> None:
        for call in calls:
            try:
                call()
            except (TypeError, ValueError):
                continue

    for _ in range(20):
        round_()
    references = [sys.getrefcount(a) for a in arrays]
    memory = _resident()
    for _ in range(300):
        round_()
    assert [sys.getrefcount(a) for a in arrays] == references
    grown = 0 if "ASAN_OPTIONS" in os.environ else _resident() - memory  # it puts freed memory aside
    assert grown < 4 << 20, f"{grown} bytes in 300 rounds; one sampler takes about 120,000"


def test_small_things_do_not_leak(c_kernel: ModuleType) -> None:
    """What fuse allocates for a call is about 150 bytes."""
    llm, slm, weights = np.zeros(8, np.float32), np.zeros((8, 8), np.float32), np.ones(7)
    bad = np.full(8, np.nan, np.float32)
    memory = _resident()
    for _ in range(50_000):
        c_kernel.fuse(llm, llm, slm, weights)
        try:
            c_kernel.fuse(llm, bad, slm, weights)
        except ValueError:
            continue
    grown = 0 if "ASAN_OPTIONS" in os.environ else _resident() - memory
    assert grown < 4 << 20, f"{grown} bytes in 100,000 calls"


def _resident() -> int:
    """Bytes of this process in memory; 0 where the system does not tell it this way."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0


def test_abort_flag(any_kernel: ModuleType) -> None:
    flag, other = any_kernel.AbortFlag(), any_kernel.AbortFlag()
    callback = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)(flag.callback)
    assert not flag.is_set()
    assert callback(flag.data) is False
    flag.set()
    assert flag.is_set()
    assert callback(flag.data) is True
    assert not other.is_set()
    assert ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)(other.callback)(other.data) is False
    flag.set()
    flag.clear()
    assert not flag.is_set()
    assert callback(flag.data) is False


def test_abort_flag_from_another_thread(any_kernel: ModuleType) -> None:
    flag = any_kernel.AbortFlag()
    callback = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)(flag.callback)
    timer = threading.Timer(0.05, flag.set)
    timer.start()
    while not callback(flag.data):
        continue
    timer.join()
    assert flag.is_set()


def test_abort_callback_runs_without_the_gil(c_kernel: ModuleType) -> None:
    """CFUNCTYPE lets the GIL go, so this would crash if the C took it for granted."""
    flag = c_kernel.AbortFlag()
    callback = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)(flag.callback)
    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(lambda _: callback(flag.data), range(2000)))


def test_every_instruction_set_answers_alike(c_kernel: ModuleType, rng: np.random.Generator) -> None:
    module = importlib.import_module(_C)
    chosen = module.isa()
    logits = rng.normal(0, 2, 5000).astype(np.float32)
    answers = []
    for isa in ("avx512", "avx2", "baseline", "neon"):
        try:
            module._use_isa(isa)
        except ValueError:
            continue
        assert module.isa() == isa
        answers.append([c_kernel.Sampler(5000).sample(logits, seed=1, position=i).token for i in range(200)])
    module._use_isa(chosen)
    assert answers
    assert all(a == answers[0] for a in answers)
