"""Checkpoints to GGUF files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFReader, GGUFWriter, TokenType
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .convert import FILE_TYPES, finish
from .model import CONTEXT, NORM_EPS, ROPE_BASE, Shape
from .tokenizer import CONTROL, END, TEMPLATE, VOCAB_SIZE

Array = NDArray[np.float32]

_BLOCK_NAMES = {
    "attn_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def file_name(name: str, kind: str = "Q8_0") -> str:
    """File name of model `llm` or `slm` in a format of `FILE_TYPES`."""
    return f"drift-nano-{name}-{kind}.gguf"


def export(shape: Shape, weights: Mapping[str, Array], tokenizer: Tokenizer, path: Path, kind: str = "Q8_0") -> None:
    """Write a GGUF file.

    Args:
        shape: of the model.
        weights: float32 arrays by `Nano`'s parameter names.
        tokenizer: of the pair.
        path: of the new file.
        kind: of the matrices, one of `FILE_TYPES`; norms stay float32.

    Raises:
        KeyError: unknown kind, or a weight is missing.
    """
    tensor_type, file_type = FILE_TYPES[kind]
    writer = GGUFWriter(path, "llama")
    _write_about(writer, shape, file_type)
    _write_vocabulary(writer, tokenizer)
    for name, array in _tensors(shape, weights).items():
        stored = tensor_type if array.ndim == 2 else Kind.F32
        data = quantize(np.ascontiguousarray(array, np.float32), stored)
        writer.add_tensor(name, data, raw_dtype=stored)
    finish(writer)


def rope_rows(matrix: Array, heads: int) -> Array:
    """Reorder the rows of Q or K from rotary pairs (i, i + half) to adjacent pairs (2i, 2i + 1), head by head."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def half_rows(matrix: Array, heads: int) -> Array:
    """The inverse of `rope_rows`."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def read_weights(path: Path) -> dict[str, Array]:
    """The inverse of `export`: float32 arrays by `Nano`'s parameter names, quantised ones at what they decode to."""
    reader = GGUFReader(path)
    heads = int(reader.fields["llama.attention.head_count"].contents())
    ours = {theirs: name for name, theirs in _BLOCK_NAMES.items()}
    weights: dict[str, Array] = {}
    for tensor in reader.tensors:
        array = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.name == "token_embd.weight":
            weights["embedding"] = array
        elif tensor.name == "output_norm.weight":
            weights["norm"] = array
        else:
            _, layer, part, _ = tensor.name.split(".")
            weights[f"blocks.{layer}.{ours[part]}"] = half_rows(array, heads) if ours[part] in "qk" else array
    return weights


def _tensors(shape: Shape, weights: Mapping[str, Array]) -> dict[str, Array]:
    tensors = {"token_embd.weight": weights["embedding"], "output_norm.weight": weights["norm"]}
    for layer in range(shape.layers):
        for ours, theirs in _BLOCK_NAMES.items():
            array = weights[f"blocks.{layer}.{ours}"]
            if ours in ("q", "k"):
                array = rope_rows(array, shape.heads)
            tensors[f"blk.{layer}.{theirs}.weight"] = array
    return tensors


def _write_about(writer: GGUFWriter, shape: Shape, file_type: int) -> None:
    writer.add_type("model")
    writer.add_name(f"Drift Nano {shape.name}")
    writer.add_author("The drift-edge authors")
    writer.add_description("Built-in demonstration model of drift-edge, trained on a corpus the project generates")
    writer.add_license("MIT")
    writer.add_languages(["en"])
    writer.add_file_type(file_type)
    writer.add_vocab_size(VOCAB_SIZE)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(NORM_EPS)


def _write_vocabulary(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    by_text = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(by_text, key=lambda text: by_text[text])
    # A small corpus may end below the full size; the rest is never produced and never read.
    unused = [f"<|unused_{index}|>" for index in range(len(tokens), VOCAB_SIZE)]
    kinds = [TokenType.CONTROL if token in CONTROL else TokenType.NORMAL for token in tokens]
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens + unused)
    writer.add_token_types(kinds + [TokenType.UNUSED] * len(unused))
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    writer.add_eos_token_id(END)
    writer.add_eot_token_id(END)
    writer.add_pad_token_id(END)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)
