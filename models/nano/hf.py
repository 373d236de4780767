"""The same weights in another engine: a float32 GGUF file of the pair as a `transformers` model, for oracles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader
from transformers import LlamaConfig, LlamaForCausalLM

from .export import half_rows

_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def load_gguf(path: Path) -> LlamaForCausalLM:
    """A float32 `LlamaForCausalLM` in evaluation mode.

    Args:
        path: GGUF file with float32 or float16 tensors and tied embeddings, as `export` or `dequantise` writes it.

    Raises:
        ValueError: the file holds quantised tensors, or not the tensors of such a model.
    """
    reader = GGUFReader(path)

    def value(key: str) -> float:
        field = reader.get_field(f"llama.{key}")
        if field is None:
            raise ValueError(f"{path}: expected the key llama.{key}")
        return float(field.contents())

    heads = int(value("attention.head_count"))
    config = LlamaConfig(
        vocab_size=int(value("vocab_size")),
        hidden_size=int(value("embedding_length")),
        intermediate_size=int(value("feed_forward_length")),
        num_hidden_layers=int(value("block_count")),
        num_attention_heads=heads,
        num_key_value_heads=int(value("attention.head_count_kv")),
        max_position_embeddings=int(value("context_length")),
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
        rope_theta=value("rope.freq_base"),
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    weights = {}
    for tensor in reader.tensors:
        if tensor.data.dtype not in (np.float32, np.float16):
            raise ValueError(f"{path}: {tensor.name} is quantised; make a float32 twin with `convert.dequantise`")
        array = np.array(tensor.data, dtype=np.float32)
        if tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
            array = half_rows(array, heads)
        weights[_hf_name(tensor.name)] = torch.from_numpy(np.ascontiguousarray(array))
    with torch.device("cpu"):
        model = LlamaForCausalLM(config).to(torch.float32).eval()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"{path}: tensors do not match; missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model


def _hf_name(name: str) -> str:
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{_BLOCK_NAMES[part]}.weight"
