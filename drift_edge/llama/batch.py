"""Batch: the tokens that one `llama_decode` takes, in arrays of numpy's that llama.cpp reads where they are."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

Part = tuple[int, Sequence[int]]  # a sequence, and tokens for it


class Batch:
    """Room for `n` tokens.

    Attributes:
        struct: llama.cpp's `llama_batch`, of the tokens it was filled with last.
    """

    def __init__(self, n: int) -> None:
        self._token, self._pos, self._seq = (np.zeros(n, np.int32) for _ in range(3))
        self._wants = np.zeros(n, np.int8)
        self._one = np.ones(n, np.int32)
        self._seq_pointers = self._seq.ctypes.data + 4 * np.arange(n, dtype=np.uintp)  # one id a token

        def pointer(array: NDArray[np.generic], kind: type) -> object:
            return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))

        self.struct = lib.llama_batch(
            n_tokens=0,
            token=pointer(self._token, lib.llama_token),
            embd=None,
            pos=pointer(self._pos, lib.llama_pos),
            n_seq_id=pointer(self._one, ctypes.c_int32),
            seq_id=pointer(self._seq_pointers, ctypes.POINTER(lib.llama_seq_id)),
            logits=pointer(self._wants, ctypes.c_int8),
        )

    def fill(self, parts: Sequence[Part], starts: Sequence[int], outputs: Sequence[int]) -> int:
        """Take `parts` in, one behind the other.

        Args:
            parts: (sequence, token ids); together no more than there is room for.
            starts: position of each part's first token.
            outputs: of each part, how many of its last tokens get a row of logits.

        Returns:
            How many tokens that are.
        """
        n = sum(len(tokens) for _, tokens in parts)
        self._token[:n] = [token for _, tokens in parts for token in tokens]
        self._seq[:n] = [seq for seq, tokens in parts for _ in tokens]
        self._pos[:n] = [
            start + i for (_, tokens), start in zip(parts, starts, strict=True) for i in range(len(tokens))
        ]
        self._wants[:n] = [
            len(tokens) - i <= rows
            for (_, tokens), rows in zip(parts, outputs, strict=True)
            for i in range(len(tokens))
        ]
        self.struct.n_tokens = n
        return n
