"""Pairs made for benchmarks: true sizes, blocks that another reader reads, prompts that matter, acceptance as asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize

from benchmarks import pairs
from benchmarks.bare import rate_of
from benchmarks.blocks import Patterns, encode, row_bytes
from benchmarks.pairs import SHAPES, Shape, make_pair, model_tensors, noise_of, write_model
from benchmarks.questions import BETA, QUESTION, SAMPLER, WEIGHTS
from drift_edge import Drift
from drift_edge.errors import DriftError, UsageError

N = 4_096  # tokens
LLM = Shape(512, 2, 512, 8, 4, tied=False, n_vocab=N)
SLM = Shape(256, 2, 512, 4, 2, n_vocab=N)
ASK = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "llm.gguf"
    write_model(path, LLM, "Q4_0", None)
    return path


@pytest.mark.parametrize("kind", [Kind.Q4_0, Kind.Q8_0, Kind.Q6_K])
def test_blocks_decode_to_the_numbers_they_were_made_of(kind: Kind) -> None:
    numbers = np.random.default_rng(0).integers(-7, 8, (5, 512), np.int8)
    blocks = encode(kind, numbers, 0.25)
    assert blocks.shape == (5, row_bytes(kind, 512))
    assert np.array_equal(dequantize(blocks, kind), numbers * np.float32(0.25))


def test_matrices_keep_the_size_of_vectors() -> None:
    columns, rows = 1_024, 300
    chunks = Patterns(np.random.default_rng(1)).matrix(Kind.Q8_0, columns, rows * row_bytes(Kind.Q8_0, columns), 2.0)
    matrix = dequantize(np.concatenate(list(chunks)).reshape(rows, -1), Kind.Q8_0)
    x = np.random.default_rng(2).standard_normal(columns)
    assert (matrix @ x).std() == pytest.approx(2.0 * x.std(), rel=0.15)
    assert np.linalg.matrix_rank(matrix) == rows


# Gigabytes of the files that people download: Llama 3.1 8B, Llama 3.2 3B and 1B, as llama-quantize makes them.
@pytest.mark.parametrize(
    ("name", "quant", "gigabytes"),
    [
        ("8b", "Q4_0", 4.66),
        ("8b", "Q8_0", 8.54),
        ("3b", "Q4_0", 1.92),
        ("3b", "Q8_0", 3.42),
        ("1b", "Q4_0", 0.77),
        ("1b", "Q8_0", 1.32),
    ],
)
def test_sizes_are_those_of_the_real_files(name: str, quant: str, gigabytes: float) -> None:
    size = sum(tensor.n_bytes for tensor in model_tensors(SHAPES[name], quant, None).values())
    assert size / 1e9 == pytest.approx(gigabytes, rel=0.02)


def test_parameters_are_those_of_the_real_models() -> None:
    for name, billions in (("8b", 8.03), ("3b", 3.21), ("1b", 1.24)):
        found = sum(int(np.prod(tensor.shape)) for tensor in model_tensors(SHAPES[name], "Q4_0", None).values())
        assert found / 1e9 == pytest.approx(billions, abs=0.005)


@pytest.mark.parametrize("acceptance", [0.6, 0.9])
def test_drafted_tokens_are_accepted_as_often_as_asked(acceptance: float, llm: Path, tmp_path: Path) -> None:
    slm, g = tmp_path / "slm.gguf", 3
    write_model(slm, SLM, "Q4_0", noise_of(acceptance, N))
    with Drift.load(llm, slm, ctx_size=256) as drift:
        assert drift.pair.n_vocab == N
        answers = [
            drift.complete(ASK, weights=WEIGHTS, beta=BETA, sampler=SAMPLER, seed=seed, max_tokens=64, speculate=g)
            for seed in range(6)
        ]
    assert {len(answer.tokens) for answer in answers} == {64}  # none ends before
    accepted, drafted = (sum(getattr(a.speculation, name) for a in answers) for name in ("accepted", "drafted"))
    assert rate_of(accepted, drafted, g) == pytest.approx(acceptance, abs=0.08)


def test_prompts_matter(llm: Path) -> None:
    with Drift.load(llm, llm, ctx_size=256) as drift:
        plain = drift.next_logprobs(ASK)[0]
        other = drift.next_logprobs([{"role": "system", "content": "Be formal."}, *ASK])[0]
        steered = drift.next_logprobs(ASK, weights=WEIGHTS, beta=BETA)[0]
    assert np.abs(other - plain).max() > 0.05
    assert np.abs(steered - plain).max() > 0.05


def test_words_of_our_prompts_are_single_tokens(llm: Path) -> None:
    with Drift.load(llm, llm, ctx_size=256) as drift:
        assert len(drift.pair.llm.tokenize("You are an AI assistant with a formal tone.", special=False)) <= 12


def test_files_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "SHAPES", {"8b": LLM, "1b": SLM})
    said: list[str] = []
    first = make_pair(tmp_path, "8b+1b", "Q8_0", 0.7, said.append)
    assert [path.is_file() for path in first] == [True, True]
    assert len(said) == 4
    assert make_pair(tmp_path, "8b+1b", "Q8_0", 0.7, said.append) == first
    assert len(said) == 4
    assert make_pair(tmp_path, "8b+1b", "Q8_0", 0.8, said.append)[0] == first[0]  # the LLM serves every acceptance
    assert len(list(tmp_path.iterdir())) == 3


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pairs, "write", full)
    with pytest.raises(OSError, match="No space"):
        write_model(tmp_path / "a.gguf", SLM, "Q4_0", None)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(pairs.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 20}))
    with pytest.raises(DriftError, match="make room"):
        write_model(tmp_path / "a.gguf", SLM, "Q4_0", None)


def test_wrong_names(tmp_path: Path) -> None:
    for pair, quant, acceptance in (("9b", "Q4_0", 0.8), ("8b+1b", "Q5_0", 0.8), ("8b+1b", "Q4_0", 1.0)):
        with pytest.raises(UsageError, match="expected"):
            make_pair(tmp_path, pair, quant, acceptance)


def test_acceptance_from_counts() -> None:
    assert rate_of(0.5 + 0.25 + 0.125, 3, 3) == pytest.approx(0.5)
    assert rate_of(0, 7, 7) == pytest.approx(0.0, abs=1e-9)
    assert rate_of(7, 7, 7) == pytest.approx(1.0)
