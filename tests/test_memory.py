"""How much context fits: by hand, and as an engine takes it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.memory import BESIDES, measure
from drift_edge import Drift
from drift_edge.llama import offload
from drift_edge.llama.gguf_header import GGUFHeader
from drift_edge.llama.offload import SLM_CACHES, cache_bytes, default_context


def header(layers: int, kv_heads: int, head: int) -> GGUFHeader:
    """Of a model whose cache takes layers * kv_heads * 2 * head numbers a token."""
    sizes: dict[str, str | int | float | bool] = {
        "llama.block_count": layers,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.key_length": head,
        "llama.attention.value_length": head,
    }
    return GGUFHeader(3, {"general.architecture": "llama", **sizes}, 1, file_bytes=1)


@pytest.mark.parametrize(
    ("slm", "n_seq", "cache_type", "tokens"),
    [
        (header(16, 8, 64), 8, "f16", 4096),  # Llama-3.2-1B: 32 KiB a token, eight times 4,096 of them are 1 GiB
        (header(28, 8, 128), 8, "f16", 2304),  # Qwen3-0.6B: 112 KiB, so 2,340 fit
        (header(28, 8, 128), 8, "q8_0", 4096),  # 59.5 KiB: 4,405
        (header(28, 8, 128), 8, "f32", 1024),  # 224 KiB: 1,170
        (header(28, 8, 128), 41, "f16", 256),  # 456
        (header(80, 32, 128), 41, "f32", 256),  # 5 MiB: not even 256 fit, but nothing could be said in less
    ],
)
def test_the_small_models_caches_stay_within_the_budget(
    slm: GGUFHeader, n_seq: int, cache_type: str, tokens: int
) -> None:
    assert default_context(slm, n_seq, cache_type, 4096) == tokens
    assert default_context(slm, n_seq, cache_type, 100) == 100  # what the models were trained for
    if tokens > 256:
        assert tokens * n_seq * cache_bytes(slm, cache_type) <= SLM_CACHES
        assert tokens == 4096 or (tokens + 256) * n_seq * cache_bytes(slm, cache_type) > SLM_CACHES


def test_an_engine_takes_it_unless_told(bpe_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with Drift.load(*bpe_files) as drift:
        assert drift.settings.n_ctx == 512  # the models were trained for no more
        a_token = cache_bytes(drift.pair.slm.header)
    monkeypatch.setattr(offload, "SLM_CACHES", 300 * 8 * a_token)
    with Drift.load(*bpe_files) as drift:
        assert drift.settings.n_ctx == 256
    with Drift.load(*bpe_files, active=3, cache_type="q8_0", flash_attn="on") as drift:
        assert drift.settings.n_ctx == 512
    with Drift.load(*bpe_files, ctx_size=400) as drift:
        assert drift.settings.n_ctx == 400


@pytest.mark.skipif(sys.platform != "linux", reason="a peak can be told on Linux alone")
@pytest.mark.parametrize("scoring", [False, True])
def test_what_is_measured(bpe_files: tuple[Path, Path], scoring: bool) -> None:
    with Drift.load(*bpe_files) as drift:
        llm, slm = cache_bytes(drift.pair.llm.header), cache_bytes(drift.pair.slm.header)
        n_vocab = drift.pair.n_vocab
    found = measure(*bpe_files, "f16", scoring)
    a_hundredth = 0.01 * (1 << 20)  # llama.cpp tells MiB to two digits
    scorer = 42 * 256 * slm if scoring else 0  # 42 prompts of 256 cells
    assert found["KV"] == pytest.approx(512 * llm + 8 * 512 * slm + scorer, abs=3 * a_hundredth)
    rows = 8 + 32 + (512 if scoring else 0)  # of the LLM, for speculation; of the sLM; of scoring
    assert found["output"] == rows * n_vocab * 4
    assert found["limit"] == sum(found[kind] for kind in ("model", "KV", "compute", "output")) + BESIDES
    assert found["n_ctx"] == 512
    assert found["peak"] > found["KV"]
