"""Whole numbers as blocks of quantised GGUF files, and a writer that never holds a tensor.

Numbers from -7 to 7 are exact in every format here, so that models in different formats can hold the very same table.
Layouts: ggml-common.h of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from numpy.typing import NDArray

MOST = 7
SPREAD = float(np.sqrt(MOST * (MOST + 1) / 3))  # standard deviation of whole numbers drawn from -7 to 7
_PATTERN = 65_521  # blocks, a prime number, so that no two rows of a matrix are alike

Bytes = NDArray[np.uint8]
Chunks = Iterator[Bytes]


def row_bytes(kind: Kind, columns: int) -> int:
    """Bytes of one row.

    Raises:
        ValueError: a row is no whole number of blocks.
    """
    size, n_bytes = GGML_QUANT_SIZES[kind]
    if columns % size:
        raise ValueError(f"{columns} columns: expected a multiple of {kind.name}'s block of {size}")
    return int(columns // size * n_bytes)


def encode(kind: Kind, numbers: NDArray[np.int8], scale: float) -> Bytes:
    """Rows of blocks that decode to `scale` (as a half) times `numbers`.

    Args:
        kind: Q4_0, Q8_0 or Q6_K.
        numbers: int8 (rows, columns), from -7 to 7.
        scale: the blocks' own.

    Returns:
        uint8 (rows, `row_bytes`).
    """
    rows, columns = numbers.shape
    size = GGML_QUANT_SIZES[kind][0]
    row_bytes(kind, columns)
    x: NDArray[np.int8] = numbers.reshape(rows, columns // size, size)
    parts: list[NDArray[Any]]
    half = np.broadcast_to(np.array([scale], np.float16).view(np.uint8), (*x.shape[:2], 2))
    if kind == Kind.Q8_0:
        parts = [half, _as_bytes(x)]
    elif kind == Kind.Q4_0:
        nibbles = _as_bytes(x + np.int8(8))
        parts = [half, nibbles[..., :16] | nibbles[..., 16:] << 4]
    elif kind == Kind.Q6_K:
        # Two halves of 128 numbers, each four runs of 32: ql has the low four bits, qh the high two, of each.
        runs = _as_bytes(x + np.int8(32)).reshape(*x.shape[:2], 2, 4, 32)
        low, high = runs & 15, runs >> 4
        ql = np.concatenate([low[..., 0, :] | low[..., 2, :] << 4, low[..., 1, :] | low[..., 3, :] << 4], axis=-1)
        qh = high[..., 0, :] | high[..., 1, :] << 2 | high[..., 2, :] << 4 | high[..., 3, :] << 6
        ones = np.ones((*x.shape[:2], 16), np.uint8)
        parts = [ql.reshape(*x.shape[:2], 128), qh.reshape(*x.shape[:2], 64), ones, half]
    else:
        raise ValueError(f"cannot write {kind.name}")
    return np.concatenate(parts, axis=-1).reshape(rows, -1)


def _as_bytes(x: NDArray[np.int8]) -> Bytes:
    return x.view(np.uint8)


class Patterns:
    """Matrices of random numbers, made of one pattern of blocks over and over.

    Args:
        rng: draws the pattern.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._numbers = rng.integers(-MOST, MOST + 1, (_PATTERN, 32), np.int8)
        self._made: dict[tuple[Kind, float], Bytes] = {}

    def matrix(self, kind: Kind, columns: int, n_bytes: int, gain: float) -> Chunks:
        """Chunks of a matrix, `n_bytes` in all, that makes vectors of `columns` about `gain` times as large."""
        scale = gain / (SPREAD * columns**0.5)
        if (kind, scale) not in self._made:
            self._made[kind, scale] = encode(kind, self._numbers, scale).reshape(-1)
        pattern = self._made[kind, scale]
        for at in range(0, n_bytes, len(pattern)):
            yield pattern[: n_bytes - at]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor to be written.

    Attributes:
        kind: its format.
        shape: rows and columns, or elements alone.
        chunks: makes its bytes, in order.
    """

    kind: Kind
    shape: tuple[int, ...]
    chunks: Callable[[], Chunks]

    @property
    def n_bytes(self) -> int:
        """Size in the file."""
        return row_bytes(self.kind, self.shape[-1]) * (self.shape[0] if len(self.shape) == 2 else 1)


def vector(values: NDArray[np.float32]) -> Tensor:
    """A float32 vector."""
    return Tensor(Kind.F32, values.shape, lambda: iter([values.view(np.uint8)]))


def write(writer: GGUFWriter, tensors: Mapping[str, Tensor]) -> None:
    """Write a file of tensors, chunk by chunk, and close it.

    Args:
        writer: of the file, with all keys added and no tensor.
        tensors: by name.

    Raises:
        ValueError: a tensor's chunks are not as many bytes as its shape needs.
        OSError: the file cannot be written.
    """
    for name, tensor in tensors.items():
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), tensor.n_bytes, raw_dtype=tensor.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    (file,) = writer.fout or []
    writer.write_padding(file, file.tell())
    for name, tensor in tensors.items():
        written = sum(file.write(chunk) for chunk in tensor.chunks())
        if written != tensor.n_bytes:
            raise ValueError(f"{name} has {written:,} bytes, expected {tensor.n_bytes:,}")
        writer.write_padding(file, written)
    writer.close()
