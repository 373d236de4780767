"""Decodes on a thread of the context's own, and Ctrl-C wherever Python handles it: nothing is lost or left over."""

from __future__ import annotations

import _thread
import dis
import functools
import logging
import os
import random
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from drift_edge import Drift, contexts, kernel
from drift_edge.errors import ClosedError, DecodeError
from drift_edge.kernel import AbortFlag
from drift_edge.llama import library
from drift_edge.llama.context import Aborted, Context
from drift_edge.llama.model import Model
from drift_edge.steering import ContextSettings, Steering
from tests import tiny
from tests.conftest import ASK

EXACT = {"cache_type": "f32", "flash_attn": "off"}
WEIGHTS = {"concise": -0.4, "vivid": 0.4, "formal": 0.4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = tiny.write(tmp_path_factory.mktemp("interrupts") / "m.gguf", tiny.byte_bpe(), dim=64, layers=2)
    with Model(path) as opened:
        yield opened


@pytest.fixture
def context(model: Model) -> Iterator[Context]:
    with Context(model, n_seq=2, n_ctx=256, **EXACT) as opened:
        opened.queued = True
        opened.prefill({0: [1, 2, 3], 1: [4]})
        yield opened


@functools.cache
def rows_after(model: Model, held: tuple[tuple[int, ...], ...]) -> NDArray[np.float32]:
    """Rows after `held` and one token more, by a context that never saw anything else."""
    with Context(model, n_seq=len(held), n_ctx=256, **EXACT) as fresh:
        fresh.prefill(dict(enumerate(held)))
        fresh.extend([9] * len(held), range(len(held)))
        return fresh.logits().copy()


def check_rows(context: Context, held: Sequence[Sequence[int]]) -> None:
    """The context holds just `held`, and its next rows are right."""
    assert context.tokens == held
    expected = rows_after(context.model, tuple(map(tuple, held)))
    context.extend([9] * len(held), range(len(held)))
    np.testing.assert_allclose(context.logits(), expected, atol=2e-4)


# -- log lines


def test_ctrl_c_within_a_log_line_is_raised_where_llama_was_called(model: Model) -> None:
    """Nearly every Ctrl-C while a model loads: Python handles it where it next runs, which is when a line is told."""
    if kernel.active().name == "numpy":
        pytest.skip("the twin's callback loses it")
    lines: list[str] = []

    class CtrlC(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())
            if len(lines) == 3:
                signal.raise_signal(signal.SIGINT)

    handler = CtrlC()
    library.logger.addHandler(handler)
    level = library.logger.level
    library.logger.setLevel(logging.DEBUG)
    try:
        with pytest.raises(KeyboardInterrupt):
            Model(model.path)
    finally:
        library.logger.removeHandler(handler)
        library.logger.setLevel(level)
    with Model(model.path) as again:
        assert again.n_vocab == model.n_vocab


# -- queued decodes


def test_what_is_asked_next_waits_for_a_queued_decode(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    go, threads = threading.Event(), []
    decode = lib.llama_decode

    def late(*arguments: object) -> Any:
        threads.append(threading.current_thread())
        assert go.wait(10)
        return decode(*arguments)

    monkeypatch.setattr(lib, "llama_decode", late)
    for ask, expected in (
        (lambda: context.tokens[0][-1], 7),
        (lambda: context.counters.decodes, 2),
        (lambda: context.logits().shape[0], 1),
        (lambda: context.truncate(0, 5), None),
        (lambda: context.set_abort(None), None),
    ):
        context.extend([7], [0])
        threading.Timer(0.02, go.set).start()
        assert ask() == expected
        go.clear()
    assert threading.main_thread() not in threads
    monkeypatch.undo()
    check_rows(context, [[1, 2, 3, 7, 7, 7], [4]])


def test_a_queued_decode_that_fails_is_told_with_the_logits(context: Context) -> None:
    flag = AbortFlag()
    context.set_abort(flag)
    flag.set()
    context.extend([7, 7], [0, 1])
    with pytest.raises(Aborted):
        context.logits()
    flag.clear()
    context.extend([10_000], [0])
    with pytest.raises(DecodeError, match="invalid batch"):
        context.extend([7], [0])
    check_rows(context, [[1, 2, 3], [4]])


def test_a_failure_that_nobody_asked_for_is_forgotten_by_the_next_prompt(context: Context) -> None:
    context.extend([10_000], [0])
    context.prefill({0: [1, 2, 8]})
    check_rows(context, [[1, 2, 8], [4]])


def test_closing_waits_for_a_queued_decode(model: Model) -> None:
    context = Context(model, n_seq=1, n_ctx=256)
    context.queued = True
    context.prefill({0: [1]})
    context.extend([2], [0])
    context.close()
    with pytest.raises(ClosedError):
        context.extend([3], [0])


def test_decodes_of_both_models_at_once_change_no_token(
    builtin_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    for cores in (1, 2):
        monkeypatch.setattr(contexts, "physical_cores", lambda cores=cores: cores)
        with Drift.load(*builtin_files, threads=1) as drift:
            answers.append(drift.complete(ASK, weights=WEIGHTS, seed=3, max_tokens=40))
            assert drift._contexts.llm.queued == (cores == 2)
            drift.complete(ASK, max_tokens=1)
            assert not drift._contexts.llm.queued, "nothing runs beside the LLM, so there is nothing to queue it for"
    assert answers[0].tokens == answers[1].tokens
    assert answers[0].timings.llm_decodes == answers[1].timings.llm_decodes


# -- interrupts


CHECKS = ("RESUME", "CALL", "PRECALL", "JUMP_BACKWARD", "POP_JUMP_BACKWARD")  # instructions that handle signals
OPCODES = {op for op, name in enumerate(dis.opname) if name.startswith(CHECKS)}
# Looking a key up runs `interrupt_main` from C: the signal is then pending, and no instruction has handled it yet.
PENDING: defaultdict[int, None] = defaultdict(_thread.interrupt_main)


def interrupted_at(step: int, call: Callable[[], object], rooms: tuple[str, ...]) -> tuple[bool, BaseException | None]:
    """Run `call`, with a signal pending at the given place where Python looks for one, in files that end in `rooms`.

    Returns:
        Whether there are so many places, and what the signal's handler raised through `call`.
    """
    left = step

    def trace(frame: FrameType, event: str, _arg: object) -> Callable[..., Any] | None:
        nonlocal left
        if left < 0 or not frame.f_code.co_filename.endswith(rooms):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_code.co_code[frame.f_lasti] in OPCODES:
            left -= 1
            if left < 0:
                sys.settrace(None)
                PENDING.clear()
                PENDING[0]
                return None
        return trace

    before, raised = sys.gettrace(), None
    try:
        sys.settrace(trace)
        call()
    except KeyboardInterrupt as interrupt:
        raised = interrupt
    finally:
        sys.settrace(before)
    return left < 0, raised


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C raises, where the tests were started in the background too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


CALLS: dict[str, Callable[[Context], object]] = {
    "prefill": lambda context: context.prefill({0: [1, 2, 5, 6], 1: [4, 7]}),
    "extend": lambda context: context.extend([7, 8], [0, 1]),
    "feed": lambda context: context.feed([(0, [5, 6]), (1, [7])], [1, 1]),
    "truncate": lambda context: context.truncate(0, 1),
    "logits": lambda context: context.logits(),
}


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_a_context_interrupted_anywhere(name: str, queued: bool, context: Context) -> None:
    for step in range(1000):
        context.queued = queued
        context.prefill({0: [1, 2], 1: [4]})
        context.extend([3], [0])
        reached, raised = interrupted_at(step, lambda: CALLS[name](context), ("context.py", "worker.py"))
        assert reached == (raised is not None)
        held = [list(tokens) for tokens in context.tokens]
        assert held[0][:1] == [1]
        assert held[1][:1] == [4]
        check_rows(context, held)
        if not reached:
            break
    assert step > 2


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signal to a thread that waits")
@pytest.mark.usefixtures("ctrl_c")
def test_interrupted_while_waiting_for_a_queued_decode(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, handled = lib.llama_decode, threading.Event()

    def once(*_: object) -> None:
        if not handled.is_set():
            handled.set()
            raise KeyboardInterrupt

    def interrupting(*arguments: object) -> Any:
        while not handled.wait(0.05):  # a signal just before the wait begins does not end it: another one does
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return decode(*arguments)

    signal.signal(signal.SIGINT, once)
    monkeypatch.setattr(lib, "llama_decode", interrupting)
    context.extend([7], [0])
    with pytest.raises(KeyboardInterrupt):
        context.logits()
    monkeypatch.undo()
    check_rows(context, [[1, 2, 3, 7], [4]])


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    "rooms",
    [
        pytest.param(("engine.py", "contexts.py", "answering.py", "steering.py", "worker.py"), id="engine"),
        pytest.param(("",), id="everything", marks=pytest.mark.long),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one that falls into a callback
@pytest.mark.parametrize("cores", [1, 2])
def test_an_answer_interrupted_anywhere(
    cores: int, rooms: tuple[str, ...], bpe_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "physical_cores", lambda: cores)
    with Drift.load(*bpe_files, threads=1) as drift:

        def answer() -> tuple[int, ...]:
            return drift.complete(ASK, weights={"concise": 1}, seed=0, max_tokens=2).tokens

        expected = answer()
        for step in range(100_000):
            reached, raised = interrupted_at(step, answer, rooms)
            assert answer() == expected, f"after {raised!r}"  # while the traceback keeps every frame
            if not reached:
                break
        assert step > 100


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one that falls into a callback
def test_more_room_for_attributes_interrupted_anywhere(model: Model) -> None:
    for step in range(1000):
        steering = Steering(model, ContextSettings(64), 2)
        reached, _ = interrupted_at(step, functools.partial(steering.fit, 2), ("steering.py", "context.py"))
        for prompts in ({"a": [2]}, {"a": [2], "b": [3]}):
            steering.fit(len(prompts))
            steering.prefill([1], prompts, None)
            assert steering.logits().shape[0] == len(prompts) + 1
        steering.close()
        if not reached:
            break
    assert step > 5


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that raise signals")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one that falls into a callback
@pytest.mark.parametrize("cores", [1, 2])
def test_an_answer_interrupted_at_random_moments(
    cores: int, bpe_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = int(os.environ.get("SEED", random.randrange(1 << 30)))
    print("SEED", seed)
    rng = random.Random(seed)
    monkeypatch.setattr(contexts, "physical_cores", lambda: cores)
    before = signal.signal(signal.SIGVTALRM, _interrupt)
    try:
        with Drift.load(*bpe_files, threads=1) as drift:

            def answer(seed: int) -> tuple[int, ...]:
                return drift.complete(ASK, weights=WEIGHTS, seed=seed, max_tokens=12).tokens

            expected, hits = answer(0), 0
            for _ in range(20):
                try:
                    signal.setitimer(signal.ITIMER_VIRTUAL, rng.uniform(1e-4, 0.02))
                    for _ in range(200):  # the time of a busy machine's processes is counted in coarse ticks
                        answer(1)
                except KeyboardInterrupt:
                    hits += 1
                finally:
                    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                assert answer(0) == expected
        assert hits > 10
    finally:
        signal.signal(signal.SIGVTALRM, before)
