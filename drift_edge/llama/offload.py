"""Memory of this machine and of its GPUs: how many layers of a model to offload, and how much context fits."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drift_edge.llama import library
from drift_edge.llama.gguf_header import GGUFHeader, read_header

ALL = -1  # llama.cpp's word for all layers
BUFFERS = 1 << 30  # bytes left free on a GPU for llama.cpp's own buffers and the screen
SLM_CACHES = 2 << 30  # bytes of the small LM's KV caches, all sequences together, unless a context size is asked for
_CONTEXT_STEP = 256  # llama.cpp rounds a sequence's size up to a multiple of it
_GPU_KINDS = (1, 2)  # GGML_BACKEND_DEVICE_TYPE_GPU, and _IGPU
_F16 = 2  # bytes
_CACHE_BYTES = {"f32": 4.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32, "q4_1": 20 / 32}
_CACHE_BYTES["q4_0"] = 18 / 32


@dataclass(frozen=True, slots=True)
class GPU:
    """A GPU that llama.cpp can use.

    Attributes:
        name: as its driver calls it.
        free, total: bytes of its memory.
    """

    name: str
    free: int
    total: int


def gpus() -> list[GPU]:
    """GPUs that this build of llama.cpp can offload to; empty also where it does not tell."""
    if not library.supports_gpu():
        return []
    try:
        return _gpus()
    except (AttributeError, ImportError, OSError):  # llama-cpp-python binds none of this
        return []


def _gpus() -> list[GPU]:
    from llama_cpp._ctypes_extensions import load_shared_library
    from llama_cpp._ggml import libggml, libggml_base_path

    base: Any = load_shared_library("ggml-base", libggml_base_path)
    libggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    libggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    libggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    base.ggml_backend_dev_description.restype = ctypes.c_char_p
    for function in (base.ggml_backend_dev_type, base.ggml_backend_dev_description):
        function.argtypes = [ctypes.c_void_p]
    size_p = ctypes.POINTER(ctypes.c_size_t)
    base.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, size_p, size_p]
    base.ggml_backend_dev_memory.restype = None
    found = []
    for i in range(libggml.ggml_backend_dev_count()):
        device = libggml.ggml_backend_dev_get(i)
        if base.ggml_backend_dev_type(device) in _GPU_KINDS:
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            base.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
            name = (base.ggml_backend_dev_description(device) or b"GPU").decode("utf-8", "replace")
            found.append(GPU(name, free.value, total.value))
    return found


def ram() -> int | None:
    """Bytes of main memory that this process may use; None where the system does not tell."""
    if sys.platform == "win32":
        return _windows_ram()
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None
    try:  # a container's limit
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):
        return total
    return min(total, limit)


def _windows_ram() -> int | None:
    fields = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32)]
    numbers = [(f"n{i}", ctypes.c_uint64) for i in range(7)]  # the first is the total
    status = type("MEMORYSTATUSEX", (ctypes.Structure,), {"_fields_": fields + numbers})()
    status.length = ctypes.sizeof(status)
    kernel32 = getattr(ctypes, "windll").kernel32  # noqa: B009 (there on Windows alone)
    return int(status.n0) if kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None


def cache_bytes(header: GGUFHeader, cache_type: str = "f16") -> int:
    """Bytes that one token takes in the KV cache, over all layers; at most, where layers differ."""
    at, metadata = header.architecture, header.metadata

    def number(key: str, default: int) -> int:
        value = metadata.get(f"{at}.{key}")
        return value if isinstance(value, int) and value > 0 else default

    heads = number("attention.head_count", 1)
    head = number("embedding_length", heads) // heads
    width = number("attention.key_length", head) + number("attention.value_length", head)
    numbers = layers(header) * min(number("attention.head_count_kv", heads), heads) * width
    return int(numbers * _CACHE_BYTES.get(cache_type, _F16))


def default_context(slm: GGUFHeader, n_seq: int, cache_type: str, most: int) -> int:
    """Tokens of context for which the small LM's caches stay within `SLM_CACHES`.

    Args:
        slm: its header.
        n_seq: its sequences.
        cache_type: of its cache.
        most: tokens, where that many fit.

    Returns:
        `most`, or a multiple of 256 below it; 256 at least.
    """
    fit = SLM_CACHES // (n_seq * cache_bytes(slm, cache_type))
    return most if fit >= most else min(most, max(_CONTEXT_STEP, fit - fit % _CONTEXT_STEP))


def layers(header: GGUFHeader) -> int:
    """Layers of the network."""
    value = header.metadata.get(f"{header.architecture}.block_count")
    return value if isinstance(value, int) else 1


def choose_layers(
    llm: str | Path,
    slm: str | Path | None,
    given: tuple[int | None, int | None],
    *,
    n_ctx: int,
    n_seq: int,
    cache_type: str,
) -> tuple[int, int]:
    """How many layers of two model files to offload: what is given, else what fits the GPU memory that is free now.

    Args:
        llm, slm: the files; no `slm` where both are one.
        given: layers of each; None is for us to choose.
        n_ctx, n_seq, cache_type: as in `fit`.

    Raises:
        ModelFileError: a file is missing or damaged.
    """
    a, b = given
    if a is not None and b is not None:
        return a, b
    found = gpus()
    if not library.supports_gpu():
        chosen = 0, 0
    elif not found:  # llama.cpp does not tell of its GPUs: all, as it does by itself
        chosen = ALL, ALL
    else:
        free = sum(gpu.free for gpu in found)
        chosen = fit(read_header(llm), None if slm is None else read_header(slm), free, n_ctx, n_seq, cache_type)
    return chosen[0] if a is None else a, chosen[1] if b is None else b


def fit(llm: GGUFHeader, slm: GGUFHeader | None, free: int, n_ctx: int, n_seq: int, cache_type: str) -> tuple[int, int]:
    """How many layers of each model to offload, into `free` bytes of GPU memory.

    The LLM comes first, since its tokens cost most. The small LM goes there whole, or not at all: on the CPU it decodes
    while the GPU is at work on the LLM.

    Args:
        llm, slm: headers of the files; no `slm` where both are one file.
        free: bytes of GPU memory.
        n_ctx: tokens of each sequence.
        n_seq: sequences of the small LM.
        cache_type: of the KV caches.

    Returns:
        Layers of the LLM and of the small LM; `ALL` is all.
    """
    room = free - BUFFERS
    of_llm = llm.file_bytes + n_ctx * cache_bytes(llm, cache_type)
    if of_llm > room:
        return max(0, int(room * (layers(llm) + 1) / of_llm)), 0  # one more than the blocks: the output layer
    room -= of_llm
    of_slm = n_seq * n_ctx * cache_bytes(slm or llm, cache_type) + (slm.file_bytes if slm else 0)
    return ALL, ALL if of_slm <= room else 0
