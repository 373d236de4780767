"""llama.cpp itself: started once, its log lines handed to `logging`, and what it says of this machine."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import llama_cpp
from llama_cpp import llama_cpp as lib

from drift_edge import kernel

logger = logging.getLogger("drift_edge.llama")

# ggml_log_level: none, debug, info, warn, error, continuation of the line before
_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.INFO, 4: logging.WARNING}
TINY_MODEL_BYTES = 64 << 20


@cache
def start() -> Callable[[int, bytes], None]:
    """Start llama.cpp once; its log lines go to the logger `drift_edge.llama` and never to stdout or stderr.

    llama.cpp has one log callback per process: an app that also uses `llama_cpp.Llama` gets its lines there too.

    Returns:
        The function that gets the lines, which must live as long as the process (the cache keeps it).
    """

    def log(level: int, text: bytes) -> None:
        line = text.decode("utf-8", "replace").rstrip()
        if line.strip("."):
            logger.log(_LEVELS.get(level, logging.DEBUG), "%s", line)

    # Where an app has set up no logging, Python would print the warnings of any room itself.
    logging.getLogger("drift_edge").addHandler(logging.NullHandler())
    lib.llama_log_set(lib.llama_log_callback(kernel.log_callback()), ctypes.c_void_p(id(log)))
    lib.llama_backend_init()
    return log


def version() -> str:
    """Version of llama-cpp-python."""
    return str(llama_cpp.__version__)


def system_info() -> str:
    """llama.cpp's line on backends and CPU features."""
    start()
    return bytes(lib.llama_print_system_info()).decode("utf-8", "replace").strip(" |")


@cache
def has_amx() -> bool:
    """Whether this build of llama.cpp uses AMX, which crashes when an older gcc compiled it.

    gcc's header tells the optimiser that `ldtilecfg` reads 8 of its 64 bytes, so the others may never be written, and
    the first quantised product of several rows ends in a segmentation fault (seen with gcc 12; the same crash:
    ggml-org/llama.cpp#20824, stanfordnlp/dspy#10079). How a library was compiled cannot be seen, so its AMX is never
    used: models are loaded without the buffers that lead there.
    """
    return "AMX_INT8 = 1" in system_info()


def supports_gpu() -> bool:
    """Whether this build of llama.cpp can offload layers to a GPU."""
    start()
    return bool(lib.llama_supports_gpu_offload())


def max_sequences() -> int:
    """Sequences that one context can hold at most."""
    return int(lib.llama_max_parallel_sequences())


def default_threads(model_bytes: int) -> int:
    """Threads for a model: one for a tiny one, else the physical cores.

    With more threads than a tiny model has work for, the barriers between its operations cost more than they save:
    on a busy machine one decode took 600 ms instead of 0.3.
    """
    return 1 if model_bytes < TINY_MODEL_BYTES else physical_cores()


@cache
def physical_cores() -> int:
    """Physical cores this process may use; logical ones where the system does not tell."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    if affinity is None:
        return os.cpu_count() or 1
    allowed = affinity(0)
    siblings = set()
    for cpu in allowed:
        try:
            siblings.add(Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text())
        except OSError:
            return len(allowed)
    return max(1, len(siblings))
