"""Pairs with the shapes, sizes and vocabulary of real models, made on the spot: their costs are real, their words not.

The weights are random, and the projections that add to the residual stream are zero save in the last layer, where they
are small: so logits come from a table of bigrams, `O N E_a` for the last token a (embedding E, output norm N, head O),
and from the prompt a little, enough to show a wrong cache. Both models of a pair hold the same table; the sLM adds
noise of its own, as much as the acceptance asked for needs.

Tied or not, the head repeats the embedding. Were N all ones, every token would be its own likeliest follower; with
signs that alternate, `sum_j N_j E_aj E_bj` has no such favourite. The first `RANK` columns are the shared table; N is
zero on the LLM's other columns, and on the sLM's it is the size of the noise.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter
from numpy.typing import NDArray

from drift_edge.errors import DriftError, UsageError

from .acceptance import noise_for, signs
from .blocks import MOST, SPREAD, Chunks, Patterns, Tensor, encode, row_bytes, vector, write
from .vocabulary import N_CONTROL, Vocabulary

RANK = 128  # columns that all models share
LOGITS = 4.0  # standard deviation of the bigrams' logits: answers then have some 1.5 bits a token at temperature 0.8
N_VOCAB = 128_256
QUANTS = {"Q4_0": 2, "Q8_0": 7}  # and GGUF's number of such a file
_ATTENTION, _FFN = 0.02, 0.005  # what the last layer adds to a residual stream of size 1
_SEED = 20_250_225
_TABLE_ROWS = 4_096


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama model's shape.

    Attributes:
        dim, layers, ffn, heads, kv_heads: as they are named everywhere.
        tied: whether the embedding is the head as well.
        n_vocab: tokens.
    """

    dim: int
    layers: int
    ffn: int
    heads: int
    kv_heads: int
    tied: bool = True
    n_vocab: int = N_VOCAB


SHAPES: Mapping[str, Shape] = {
    "8b": Shape(4_096, 32, 14_336, 32, 8, tied=False),  # Llama-3.1-8B
    "3b": Shape(3_072, 28, 8_192, 24, 8),  # Llama-3.2-3B
    "1b": Shape(2_048, 16, 8_192, 32, 8),  # Llama-3.2-1B
    "135m": Shape(576, 30, 1_536, 9, 3),  # SmolLM2-135M, with Llama's vocabulary
}
PAIRS: Mapping[str, tuple[str, str]] = {"8b+1b": ("8b", "1b"), "3b+135m": ("3b", "135m"), "8b+135m": ("8b", "135m")}


def make_pair(
    folder: Path, pair: str, quant: str = "Q4_0", acceptance: float = 0.8, say: Callable[[str], None] = lambda _: None
) -> tuple[Path, Path]:
    """Files of the LLM and the sLM, written unless they are there.

    Args:
        folder: where they lie, and may be deleted at any time.
        pair: one of `PAIRS`.
        quant: one of `QUANTS`.
        acceptance: share of drafted tokens to be accepted, under the benchmarks' samplers.
        say: told what is done.

    Raises:
        UsageError: no such pair, quant or acceptance.
        DriftError: the disk has no room.
    """
    for what, value, known in (("pair", pair, PAIRS), ("quant", quant, QUANTS)):
        if value not in known:
            raise UsageError(f"{what}: expected one of {', '.join(known)}, got {value!r}")
    if not 0 < acceptance < 1:
        raise UsageError(f"acceptance: expected a number between 0 and 1, got {acceptance!r}")
    llm, slm = PAIRS[pair]
    files = folder / f"{llm}-{quant}.gguf", folder / f"{slm}-{quant}-draft-{acceptance:g}.gguf"
    for name, path, share in ((llm, files[0], None), (slm, files[1], acceptance)):
        if not path.is_file():
            start = time.monotonic()
            say(f"making {path}")
            shape = SHAPES[name]
            write_model(path, shape, quant, None if share is None else noise_of(share, shape.n_vocab))
            say(f"made {path} ({path.stat().st_size / 1e9:.2f} GB) in {time.monotonic() - start:.0f} s")
    return files


def noise_of(acceptance: float, n_vocab: int) -> float:
    """Noise on the sLM's logits, for a share of drafted tokens to be accepted."""
    return noise_for(acceptance, table(n_vocab), LOGITS, Vocabulary(n_vocab).before_answer)


def write_model(path: Path, shape: Shape, quant: str, noise: float | None) -> None:
    """Write a model.

    Args:
        path: of the file; it appears once it is whole.
        shape: of the model.
        quant, noise: as `model_tensors`.

    Raises:
        DriftError: the disk has no room.
    """
    tensors = model_tensors(shape, quant, noise)
    needed = sum(tensor.n_bytes for tensor in tensors.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < needed + (64 << 20):
        raise DriftError(f"{path}: needs {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB left: make room")
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    try:
        writer = GGUFWriter(unfinished, "llama")
        _write_about(writer, shape, path.stem, QUANTS[quant])
        Vocabulary(shape.n_vocab).write(writer)
        write(writer, tensors)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def table(n_vocab: int) -> NDArray[np.float32]:
    """The shared columns, float32 (n_vocab, RANK), of size 1 each; 0 for control tokens, which are never likely."""
    return np.concatenate(list(_shared(n_vocab))).astype(np.float32) / np.float32(SPREAD)


def _shared(n_vocab: int) -> Iterator[NDArray[np.int8]]:
    rng = np.random.default_rng(_SEED)
    for at in range(0, n_vocab, _TABLE_ROWS):
        rows = rng.integers(-MOST, MOST + 1, (min(_TABLE_ROWS, n_vocab - at), RANK), np.int8)
        rows[max(0, n_vocab - N_CONTROL - at) :] = 0
        yield rows


def model_tensors(shape: Shape, quant: str, noise: float | None) -> dict[str, Tensor]:
    """The tensors of a model.

    Args:
        shape: of the model.
        quant: one of `QUANTS`; as in llama.cpp's own files of that name, the head of a Q4_0 file is Q6_K (Q8_0 where
            rows are no multiple of 256), a tied embedding with it.
        noise: standard deviation of the noise on its logits; None is none, the LLM's case.
    """
    kind = Kind[quant]
    head = Kind.Q8_0 if kind == Kind.Q8_0 or shape.dim % 256 else Kind.Q6_K
    dim, heads = shape.dim, shape.heads
    kv = dim // heads * shape.kv_heads
    patterns = Patterns(np.random.default_rng(_SEED + dim))
    norm = signs(dim)
    norm[:RANK] *= LOGITS / RANK**0.5
    norm[RANK:] *= (noise or 0) / (dim - RANK) ** 0.5

    def matrix(rows: int, columns: int, gain: float) -> Tensor:
        size = rows * row_bytes(kind, columns)
        return Tensor(kind, (rows, columns), partial(patterns.matrix, kind, columns, size, gain))

    def embedding(as_kind: Kind) -> Tensor:
        return Tensor(as_kind, (shape.n_vocab, dim), partial(_embedding, shape, as_kind))

    ones = vector(np.ones(dim, np.float32))
    tensors = {"token_embd.weight": embedding(head if shape.tied else kind), "output_norm.weight": vector(norm)}
    if not shape.tied:
        tensors["output.weight"] = embedding(head)
    for i in range(shape.layers):
        last = i == shape.layers - 1
        block = {
            "attn_norm": ones,
            "attn_q": matrix(dim, dim, 1.5),  # attention picks few tokens
            "attn_k": matrix(kv, dim, 1.5),
            "attn_v": matrix(kv, dim, 1.0),
            "attn_output": matrix(dim, dim, _ATTENTION * last),
            "ffn_norm": ones,
            "ffn_gate": matrix(shape.ffn, dim, 1.0),
            "ffn_up": matrix(shape.ffn, dim, 1.0),
            "ffn_down": matrix(dim, shape.ffn, _FFN * last),
        }
        tensors |= {f"blk.{i}.{name}.weight": tensor for name, tensor in block.items()}
    return tensors


def _embedding(shape: Shape, kind: Kind) -> Chunks:
    rng = np.random.default_rng(_SEED + shape.dim)
    for shared in _shared(shape.n_vocab):
        numbers = rng.integers(-MOST, MOST + 1, (len(shared), shape.dim), np.int8)
        numbers[:, :RANK] = shared
        yield encode(kind, numbers, 1 / SPREAD)


def _write_about(writer: GGUFWriter, shape: Shape, name: str, file_type: int) -> None:
    writer.add_name(f"{name} (random weights, for measuring speed)")
    writer.add_file_type(file_type)
    writer.add_vocab_size(shape.n_vocab)
    writer.add_context_length(8_192)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.dim // shape.heads)
    writer.add_rope_freq_base(500_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
