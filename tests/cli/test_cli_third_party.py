"""Models of strangers: a Llama of each tokenizer that llama.cpp brings a file of is checked, and chats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fetch_vocabs, tiny
from tests.cli.fake import Result

Cli = Callable[..., Result]


@pytest.fixture
def vocabulary(request: pytest.FixtureRequest) -> Path:
    path = fetch_vocabs.FOLDER / f"ggml-vocab-{request.param}.gguf"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there: `make vocabs` fetches it")
    return path


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("vocabulary", fetch_vocabs.ALL, indirect=True)
def test_a_llama_of_any_tokenizer_is_checked_and_chats(cli: Cli, vocabulary: Path, tmp_path: Path) -> None:
    tokenizer = tiny.from_gguf(vocabulary)
    files = [str(path) for path in tiny.write_pair(tmp_path, tokenizer, quant="F16")]
    checked = cli("models", "check", files[0])
    assert checked.code == 0
    assert checked.out.startswith(f"ok: {Path(files[0]).name} has a tokenizer of ")
    assert cli("models", "check", *files).code == 0
    args = ["--llm", files[0], "--slm", files[1], "--no-profile", "--weights", "concise=1,vivid=-0.5", "--seed", "3"]
    done = cli("chat", "-p", "Tea? <s> [SEP] naïve 你好 🙂", *args, "--max-tokens", "8", "--json", "--speculate", "off")
    assert done.code == 0
    assert 0 < len(json.loads(done.out)["tokens"]) <= 8
    untold = "no chat template" in checked.out
    assert ("has no chat template: a generic one is used, answers may suffer" in done.err) == untold


def test_a_model_without_a_chat_template_says_so(cli: Cli, tmp_path: Path) -> None:
    files = [str(path) for path in tiny.write_pair(tmp_path, tiny.byte_bpe().with_keys(chat_template=None))]
    assert "no chat template, so a generic one is used" in cli("models", "check", files[0]).out
    done = cli("chat", "-p", "Hi", "--llm", files[0], "--slm", files[1], "--no-profile", "--max-tokens", "2")
    assert done.code == 0
    assert "llm.gguf has no chat template: a generic one is used, answers may suffer" in done.err
