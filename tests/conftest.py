"""Fixtures that all tests share. Nothing here is loaded before a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from drift_edge import Drift, storage
from drift_edge.errors import ModelFileError
from drift_edge.models import builtin_pair
from tests import fetch_vocabs, tiny

ASK = [{"role": "user", "content": "How do you make tea?"}]


@pytest.fixture(autouse=True, scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Data, state, cache and config of every test lie in a temporary folder."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIFT_EDGE_HOME", str(folder))
        patch.setenv("HF_HOME", str(folder / "hf"))
        yield folder


@pytest.fixture(scope="session")
def builtin_files() -> tuple[Path, Path]:
    """The built-in pair's files."""
    try:
        return builtin_pair()
    except ModelFileError as error:
        pytest.skip(f"the built-in pair is not there: {error}")


@pytest.fixture
def builtin(builtin_files: tuple[Path, Path]) -> Iterator[Drift]:
    """An engine of its own on the built-in pair."""
    with Drift.load(*builtin_files) as drift:
        yield drift


@pytest.fixture(scope="session")
def bpe_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny random pair on a byte-level BPE vocabulary."""
    return tiny.write_pair(tmp_path_factory.mktemp("bpe"), tiny.byte_bpe())


@pytest.fixture(scope="session")
def spm_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny random pair on a SentencePiece vocabulary."""
    return tiny.write_pair(tmp_path_factory.mktemp("spm"), tiny.spm())


@pytest.fixture(params=["bpe", "spm"])
def tiny_files(request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """Either tiny pair."""
    files: tuple[Path, Path] = request.getfixturevalue(f"{request.param}_files")
    return files


@pytest.fixture
def drift(bpe_files: tuple[Path, Path]) -> Iterator[Drift]:
    """An engine of its own on the tiny byte-level BPE pair."""
    with Drift.load(*bpe_files) as engine:
        yield engine


@pytest.fixture(scope="session", params=fetch_vocabs.NAMES)
def foreign_vocab(request: pytest.FixtureRequest) -> Path:
    """One of llama.cpp's vocabulary-only files."""
    path = fetch_vocabs.FOLDER / f"ggml-vocab-{request.param}.gguf"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there: `make vocabs` fetches it")
    return path


@pytest.fixture(scope="session")
def foreign_files(foreign_vocab: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny random pair on a foreign vocabulary."""
    folder = tmp_path_factory.mktemp(foreign_vocab.stem)
    return tiny.write_pair(folder, tiny.from_gguf(foreign_vocab), quant="F16", n_ctx=1024)


@pytest.fixture
def no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of profiles are written, but not synced: for tests that cut no power."""
    for name in ("_sync", "_sync_folder"):
        monkeypatch.setattr(storage, name, lambda _: None)
