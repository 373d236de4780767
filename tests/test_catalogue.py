"""The catalogue: whole, honest about memory, and ordered for a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from drift_edge.cli.catalogue import rows_of_catalogue
from drift_edge.cli.progress import ByteProgress, size
from drift_edge.cli.render import Screen
from drift_edge.errors import UsageError
from drift_edge.llama import offload
from drift_edge.llama.context import CACHE_TYPES
from drift_edge.llama.gguf_header import GGUFHeader
from drift_edge.llama.offload import _CACHE_BYTES, ALL, BUFFERS, GPU, cache_bytes, fit, gpus, ram
from drift_edge.models.catalogue import SPARE, CatalogueModel, CataloguePair, catalogue, is_pair, named
from drift_edge.models.hub.reference import Reference

GIB = 1 << 30


def test_every_entry_is_whole() -> None:
    assert {
        "llama-3.1-8b",
        "gemma-2-9b",
        "llama-3.2-3b",
        "qwen3-8b",
        "qwen2.5-7b",
        "gemma-3-4b",
        "smollm2-1.7b",
    } <= set(catalogue())
    for pair in catalogue().values():
        assert pair.llm.parameters > pair.slm.parameters
        for model in (pair.llm, pair.slm):
            assert str(Reference.parse(model.repository)) == model.repository
            # 2 to 9 bits a parameter, with embeddings that stay larger in small models
            assert all(2 <= 8 * size / model.parameters <= 9 for size in model.sizes.values()), model.repository
            assert model.kv_bytes % (4 * model.layers) == 0
        assert pair.note
        assert pair.name == pair.name.lower()


def test_no_pair_is_said_to_be_verified() -> None:
    assert not any(pair.verified for pair in catalogue().values())


def test_memory_by_hand() -> None:
    llm = CatalogueModel("a/b", "mit", False, 8, 2, 100, {"Q4_K_M": 5_000, "Q8_0": 9_000, "Q3_K_M": 3_000})
    slm = CatalogueModel("a/c", "mit", False, 1, 1, 10, {"Q8_0": 700})
    pair = CataloguePair("x", llm, slm, "", False)
    # 5,000 + 700 + 50 tokens x (100 + 8 sequences x 10)
    assert pair.needs("Q4_K_M", 50) - SPARE == 5_700 + 50 * 180
    assert pair.needs("Q8_0", 50, active=0) - SPARE == 9_700 + 50 * 110
    assert pair.fitting(SPARE + 14_700, 50) == "Q4_K_M"
    assert pair.fitting(SPARE + 99_999, 50) == "Q4_K_M"  # the usual one, even where a larger would fit
    assert pair.fitting(SPARE + 14_699, 50) == "Q3_K_M"
    assert pair.fitting(SPARE + 12_699, 50) is None


def test_the_papers_pair_needs_what_its_shapes_say() -> None:
    pair = catalogue()["llama-3.1-8b"]
    assert pair.llm.kv_bytes == 32 * 8 * (128 + 128) * 2
    assert pair.slm.kv_bytes == 16 * 8 * (64 + 64) * 2
    caches = pair.needs("Q4_K_M", 4_096) - SPARE - pair.llm.sizes["Q4_K_M"] - pair.slm.sizes["Q4_K_M"]
    assert caches == GIB // 2 + GIB  # 128 KiB a token, and eight sequences of 32 KiB


@pytest.mark.parametrize(("ram", "best"), [(64 * GIB, "qwen3-14b"), (8 * GIB, "gemma-3-4b"), (2 * GIB, None)])
def test_best_first_for_a_machine(ram: int, best: str | None) -> None:
    rows = rows_of_catalogue({"ram": ram, "gpus": []}, 4_096, ["gemma-3-4b"])
    fitting = [row for row in rows if row["fits"]]
    if best is None:
        assert [row["name"] for row in fitting] == []
    else:
        assert best in [row["name"] for row in fitting[:3]]
        assert all(row["needs_bytes"] <= 0.8 * ram for row in fitting)
    assert len(rows) == len(catalogue())
    too_large = [row["needs_bytes"] for row in rows if not row["fits"]]
    assert too_large == sorted(too_large)
    assert [row["name"] for row in rows if row["pulled"]] == ["gemma-3-4b"]


def test_a_gpu_may_hold_what_main_memory_does_not() -> None:
    small: dict[str, object] = {"ram": 2 * GIB, "gpus": []}
    large = {**small, "gpus": [{"name": "one", "bytes": 80 * GIB}]}
    assert not any(row["fits"] for row in rows_of_catalogue(small, 4_096, []))
    assert all(row["fits"] for row in rows_of_catalogue(large, 4_096, []))


def test_names() -> None:
    assert named("llama-3.1-8b")[1] == "Q4_K_M"
    assert named("Llama-3.1-8B:q8_0") == (catalogue()["llama-3.1-8b"], "Q8_0")
    assert is_pair("llama-3.1-8b:q8_0")
    assert not is_pair("llama-9")
    with pytest.raises(UsageError, match="no pair 'llama-9' in the catalogue; there are "):
        named("llama-9")
    with pytest.raises(UsageError, match="has no quantisation 'Q1' in the catalogue; there are Q4_K_M, Q8_0"):
        named("llama-3.1-8b:Q1")


# -- offloading


def header(file_bytes: int, layers: int = 10, kv_heads: int = 2, **more: int) -> GGUFHeader:
    sizes = {"block_count": layers, "embedding_length": 64, "attention.head_count": 8}
    metadata: dict[str, str | int | float | bool] = {"general.architecture": "llama"}
    metadata |= {f"llama.{key}": value for key, value in {**sizes, "attention.head_count_kv": kv_heads, **more}.items()}
    return GGUFHeader(3, metadata, 1, file_bytes=file_bytes)


def test_bytes_of_a_cache_by_hand() -> None:
    assert cache_bytes(header(1)) == 10 * 2 * (8 + 8) * 2
    assert cache_bytes(header(1), "q8_0") == 10 * 2 * 16 * 34 // 32
    assert cache_bytes(header(1, **{"attention.key_length": 100})) == 10 * 2 * (100 + 8) * 2
    assert cache_bytes(header(1, kv_heads=10)) == 10 * 8 * 16 * 2  # a list by layer shows as its length: at most all
    assert set(_CACHE_BYTES) | {"f16"} == set(CACHE_TYPES)


def test_the_llm_comes_first_and_the_small_one_goes_whole_or_not_at_all() -> None:
    llm, slm = header(10 * GIB), header(2 * GIB)
    caches = 1_000 * cache_bytes(llm)
    everything = 12 * GIB + 9 * caches + BUFFERS
    assert fit(llm, slm, everything, 1_000, 8, "f16") == (ALL, ALL)
    assert fit(llm, slm, everything - 1, 1_000, 8, "f16") == (ALL, 0)
    assert fit(llm, slm, 10 * GIB + caches + BUFFERS, 1_000, 8, "f16") == (ALL, 0)
    # half of what the LLM needs holds half of its ten blocks and its output layer
    assert fit(llm, slm, (10 * GIB + caches) // 2 + BUFFERS, 1_000, 8, "f16") == (5, 0)
    assert fit(llm, slm, BUFFERS // 2, 1_000, 8, "f16") == (0, 0)
    assert fit(llm, None, 10 * GIB + 9 * caches + BUFFERS, 1_000, 8, "f16") == (ALL, ALL)


def test_layers_that_are_given_are_taken(monkeypatch: pytest.MonkeyPatch, bpe_files: tuple[Path, Path]) -> None:
    monkeypatch.setattr(offload.library, "supports_gpu", lambda: True)
    large, none = [GPU("one", 80 * GIB, 80 * GIB)], [GPU("one", BUFFERS, 80 * GIB)]

    def choose(found: list[GPU], *given: int | None) -> tuple[int, int]:
        monkeypatch.setattr(offload, "gpus", lambda: found)
        return offload.choose_layers(*bpe_files, given, n_ctx=64, n_seq=8, cache_type="f16")

    assert choose(large, None, None) == (ALL, ALL)
    assert choose(none, None, None) == (0, 0)
    assert choose(none, 3, None) == (3, 0)
    assert choose(large, None, 0) == (ALL, 0)
    assert choose([], None, None) == (ALL, ALL)
    assert choose(none, 1, 2) == (1, 2)
    monkeypatch.setattr(offload.library, "supports_gpu", lambda: False)
    assert choose(large, None, None) == (0, 0)


def test_memory_of_this_machine() -> None:
    found = ram()
    assert found is None or found > 1 << 28
    assert all(gpu.name and gpu.total >= gpu.free for gpu in gpus())


def test_progress_of_bytes_by_hand() -> None:
    progress = ByteProgress(3 << 30, Screen(), wanted=False)
    progress.reach("tea.gguf", 1 << 30, 512 << 20)
    # 512 MiB in 10 s; the first half was here before and tells nothing of the speed; 2 GiB are left
    assert progress.line(10.0) == "tea.gguf: 1.0 GiB of 3.0 GiB, 51.2 MiB/s, 40 s left"
    progress.reach("tea.gguf", 1 << 30, 0)
    assert progress.line(10.0) == "tea.gguf: 1.0 GiB of 3.0 GiB"
    assert [size(n) for n in (0, 1023, 1024, 1 << 20, 5 << 40)] == ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "5120.0 GiB"]
