"""Both models loaded: how many layers go to the GPU, and how much context there is room for."""

from __future__ import annotations

from pathlib import Path

from drift_edge.errors import UsageError
from drift_edge.llama import offload
from drift_edge.llama.gguf_header import check_path
from drift_edge.pair import ModelPair, same_file
from drift_edge.steering import ContextSettings

DEFAULT_CONTEXT = 4_096


def load_pair(
    llm: str | Path,
    slm: str | Path,
    n_seq: int,
    layers: tuple[int | None, int | None],
    ctx_size: int | None,
    threads: int | None,
    flash_attn: str,
    cache_type: str,
) -> tuple[ModelPair, ContextSettings]:
    """Load the LLM and the sLM, prove that they share a tokenizer, and choose what was left open.

    Args:
        n_seq: sequences of the sLM's context.
        layers: of the LLM and of the sLM to offload; None chooses.

    The others, and the errors, are those of `Drift.load`.
    """
    check_path(llm, "llm")
    check_path(slm, "slm")
    if ctx_size is not None and (not isinstance(ctx_size, int) or ctx_size < 16):
        raise UsageError(f"ctx_size: expected 16 tokens or more, got {ctx_size!r}")
    gpu_layers, slm_gpu_layers = offload.choose_layers(
        llm,
        None if same_file(llm, slm) else slm,
        layers,
        n_ctx=ctx_size or DEFAULT_CONTEXT,
        n_seq=n_seq,
        cache_type=cache_type,
    )
    pair = ModelPair.load(llm, slm, gpu_layers=gpu_layers, slm_gpu_layers=slm_gpu_layers)
    try:
        most = min(DEFAULT_CONTEXT, pair.llm.n_ctx_train, pair.slm.n_ctx_train)
        n_ctx = ctx_size or offload.default_context(pair.slm.header, n_seq, cache_type, most)
        return pair, ContextSettings(n_ctx, threads, flash_attn, cache_type)
    except BaseException:
        pair.close()
        raise
