"""Opening models: what llama.cpp refuses, what it says and where, and what is left after closing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from drift_edge import Drift
from drift_edge.errors import ClosedError, ModelFileError, TokenizerMismatchError, UsageError
from drift_edge.llama import library
from drift_edge.llama.context import Context
from drift_edge.llama.model import Model
from tests import tiny
from tests.conftest import ASK

BPE = tiny.byte_bpe()


def test_facts(bpe_files: tuple[Path, Path]) -> None:
    with Model(bpe_files[0]) as model:
        assert model.name == "llm"
        assert model.n_vocab == len(BPE)
        assert model.n_ctx_train == 512
        # 2 matrices of V x 64, 2 layers of 4 64 x 64 and 3 64 x 128 with 2 norms, and the last norm.
        assert model.n_params == 2 * len(BPE) * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 64
        assert model.n_bytes == 4 * model.n_params
        assert model.can_roll_back
        assert "llama" in model.description
        assert len(model.fingerprint) == 16
        assert model.end_ids == {BPE.id("<|end|>")}
        assert model.special_ids["eos"] == BPE.id("<|end|>")


def test_closed_model(bpe_files: tuple[Path, Path]) -> None:
    model = Model(bpe_files[0])
    model.close()
    model.close()
    for use in (
        lambda: model.handle,
        lambda: model.tokenize("a", special=False),
        lambda: model.piece(5),
        lambda: model.token_text(5),
        lambda: model.token_attr(5),
        lambda: model.end_ids,
        lambda: model.n_params,
        lambda: model.template_source,
        lambda: Context(model, n_seq=1, n_ctx=256, threads=1),
    ):
        with pytest.raises(ClosedError, match="closed"):
            use()


def test_vocabulary_alone_is_no_model_to_run(tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "m.gguf", BPE)
    whole = path.read_bytes()
    # The same file without its tensors: counts of zero, and the header cut where the tensors began.
    at = whole.index(b"token_embd.weight") - 8
    path.write_bytes(whole[:8] + bytes(8) + whole[16:at])
    with Model(path, vocab_only=True) as vocabulary:
        assert vocabulary.n_vocab == len(BPE)
    with pytest.raises(ModelFileError, match=r"llama.cpp cannot load this model"):
        Model(path)


def test_foreign_vocabulary_file_is_no_model_to_run(foreign_vocab: Path) -> None:
    with pytest.raises(ModelFileError, match=r"llama.cpp cannot load this model"):
        Drift.load(foreign_vocab, foreign_vocab)


@pytest.mark.parametrize("kind", ["none", "no_vocab"])
def test_model_without_a_vocabulary(kind: str, tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "m.gguf", tiny.replace(BPE, model=kind))
    with pytest.raises(ModelFileError, match=r"no vocabulary|cannot load"):
        Model(path)


def test_wrong_shapes_are_refused_by_llama_cpp(tmp_path: Path) -> None:
    small = {"output_norm.weight": np.ones(16, np.float32)}
    with pytest.raises(ModelFileError, match=r"the log `drift_edge.llama`"):
        Model(tiny.write(tmp_path / "m.gguf", BPE, tensors=small))


def test_nothing_is_printed_where_an_app_has_set_up_no_logging(tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "m.gguf", BPE, tensors={"output_norm.weight": np.ones(16, np.float32)})
    code = (
        "from drift_edge.errors import ModelFileError\nfrom drift_edge.llama.model import Model\n"
        f"try: Model({str(path)!r})\nexcept ModelFileError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_what_llama_cpp_says_goes_to_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG, "drift_edge.llama"):
        with pytest.raises(ModelFileError):
            Model(tiny.write(tmp_path / "m.gguf", BPE, tensors={"output_norm.weight": np.ones(16, np.float32)}))
        assert any("output_norm.weight" in record.message for record in caplog.records)
    with Drift.load(*tiny.write_pair(tmp_path, BPE)) as drift:
        drift.complete(ASK, weights={"concise": 1}, seed=0, max_tokens=3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_path_that_is_no_utf8(tmp_path: Path) -> None:
    path = tiny.write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/t\xff.gguf")), BPE)
    with Drift.load(path, path) as drift:
        assert drift.complete(ASK, seed=0, max_tokens=2).tokens
    with Model(tiny.write(tmp_path / "naïve 茶.gguf", BPE)) as model:
        assert model.n_vocab == len(BPE)


def test_a_failed_load_frees_what_was_opened(bpe_files: tuple[Path, Path], spm_files: tuple[Path, Path]) -> None:
    # Loading again and again would otherwise end in an error of memory or of file handles.
    for _ in range(20):
        with pytest.raises(TokenizerMismatchError):
            Drift.load(bpe_files[0], spm_files[1])
        with pytest.raises(ModelFileError):
            Drift.load(bpe_files[0], bpe_files[0].parent / "none.gguf")


@pytest.mark.parametrize(
    ("settings", "error", "expected"),
    [
        ({"ctx_size": 15}, UsageError, "ctx_size: expected 16 tokens or more, got 15"),
        ({"ctx_size": 1.5}, UsageError, "ctx_size"),
        ({"ctx_size": 1 << 31}, UsageError, "n_ctx: expected 1 to"),
        ({"threads": 0}, UsageError, "threads: expected 1 to"),
        ({"threads": -1}, UsageError, "threads: expected 1 to"),
        ({"flash_attn": "yes"}, UsageError, "flash_attn: expected one of"),
        ({"cache_type": "int8"}, UsageError, "cache_type: expected one of"),
        ({"active": 0}, UsageError, "active: expected"),
        ({"active": "7"}, UsageError, "active: expected"),
        (
            {"cache_type": "q8_0", "flash_attn": "off"},
            UsageError,
            "cache_type: q8_0 needs flash attention, which is off",
        ),
    ],
)
def test_settings_that_are_wrong(
    settings: dict[str, object], error: type[Exception], expected: str, bpe_files: tuple[Path, Path]
) -> None:
    with pytest.raises(error, match=expected):
        Drift.load(*bpe_files, **settings)  # type: ignore[arg-type]


def test_threads_follow_the_size(bpe_files: tuple[Path, Path]) -> None:
    assert library.default_threads(10 << 20) == 1
    assert library.default_threads(1 << 30) == library.physical_cores() >= 1
    with Drift.load(*bpe_files) as drift:
        assert drift._contexts.llm.threads == 1
    with Drift.load(*bpe_files, threads=2) as drift:
        assert drift._contexts.llm.threads == 2
        assert drift.complete(ASK, weights={"concise": 1}, seed=0, max_tokens=5).tokens


def test_one_file_for_both_is_loaded_once(bpe_files: tuple[Path, Path]) -> None:
    with Drift.load(bpe_files[0], str(bpe_files[0])) as drift:
        assert drift.pair.llm is drift.pair.slm
        assert drift.complete(ASK, weights={"concise": 1}, seed=0, max_tokens=5).tokens


@pytest.mark.parametrize("quant", ["F16", "Q8_0"])
def test_quantised_pairs_run(quant: str, tmp_path: Path) -> None:
    with Drift.load(*tiny.write_pair(tmp_path, BPE, quant=quant)) as drift:
        assert drift.complete(ASK, weights={"concise": 1}, seed=0, max_tokens=5).tokens


def test_import_is_cheap() -> None:
    """`import drift_edge` and the names of its public face load nothing heavy, and do no work."""
    code = (
        "import sys, drift_edge; dir(drift_edge); drift_edge.SamplerSettings(); drift_edge.Attribute('a', 'b');"
        "heavy = {'llama_cpp', 'gguf', 'typer', 'numpy', 'jinja2', 'prompt_toolkit', 'platformdirs'};"
        "print(sorted(heavy & set(sys.modules)), end='')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]"
    assert done.stderr == ""


def test_public_names_are_there() -> None:
    import drift_edge

    for name in drift_edge.__all__:
        assert getattr(drift_edge, name) is not None
    assert set(dir(drift_edge)) == set(drift_edge.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = drift_edge.nonsense


def test_only_one_room_imports_llama_cpp() -> None:
    import drift_edge

    root = Path(drift_edge.__file__).resolve().parent
    inside = {
        "llama/batch.py",
        "llama/context.py",
        "llama/library.py",
        "llama/model.py",
        "pair.py",
    }  # the last reads two constants
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if any(line.startswith(("import llama_cpp", "from llama_cpp")) for line in path.read_text("utf-8").splitlines())
    }
    assert found == inside
