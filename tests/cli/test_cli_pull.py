"""`models pull|list|rm|verify` and `chat PAIR`, against a hub on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drift_edge.models.hub.cache import HubCache
from tests import hub as loopback
from tests.cli.fake import Result, command
from tests.hub import Fault, Hub

Cli = Callable[..., Result]
Files = tuple[Path, Path]

LLM, SLM = "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", "bartowski/Llama-3.2-1B-Instruct-GGUF"
LLM_NAME, SLM_NAME = "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf", "Llama-3.2-1B-Instruct-Q4_K_M.gguf"


@pytest.fixture(name="hub")
def running_hub(bpe_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a tiny pair under the names of the paper's."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_", "XDG_CACHE")):
            monkeypatch.delenv(name)
    with loopback.running() as server:
        server.files = {LLM: {LLM_NAME: bpe_files[0].read_bytes()}, SLM: {SLM_NAME: bpe_files[1].read_bytes()}}
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield server


def cache(tmp_path: Path) -> HubCache:
    return HubCache(tmp_path / "hf" / "hub")


def test_a_pair_is_pulled_listed_checked_and_chatted_with(cli: Cli, hub: Hub, tmp_path: Path) -> None:
    done = cli("models", "pull", "llama-3.1-8b")
    assert done.code == 0
    paths = [Path(line) for line in done.out.splitlines()]
    assert [path.name for path in paths] == [LLM_NAME, SLM_NAME]
    assert f"{LLM}: {LLM_NAME} (" in done.err
    assert "licence mit" in done.err
    listed = json.loads(cli("models", "list", "--json").out)
    assert listed["pairs"] == ["llama-3.1-8b"]
    assert [str(path) for path in paths] == [row["path"] for row in listed["models"] if "hf" in row["path"]][::-1]
    assert [row["name"] for row in listed["catalogue"] if row["pulled"]] == ["llama-3.1-8b"]
    text = cli("models", "list").out
    assert "Pairs that are here: llama-3.1-8b\n" in text
    assert text.index(str(paths[0])) < text.index("To be had by")
    hub.seen.clear()
    assert cli("models", "check", "llama-3.1-8b").out.startswith(f"ok: {LLM_NAME} and {SLM_NAME} share")
    assert "name " in cli("models", "info", LLM).out
    flags = ["--no-profile", "--weights", "concise=1", "--max-tokens", "4", "--seed", "1"]
    by_pair = json.loads(cli("chat", "llama-3.1-8b", "-p", "Hi", "--json", *flags).out)
    by_name = json.loads(cli("chat", "--llm", f"hf:{LLM}", "--slm", f"{SLM}:q4_k_m", "-p", "Hi", "--json", *flags).out)
    by_path = json.loads(cli("chat", "--llm", str(paths[0]), "--slm", str(paths[1]), "-p", "Hi", "--json", *flags).out)
    assert by_pair["tokens"] == by_name["tokens"] == by_path["tokens"]
    assert not hub.seen  # none of these asks the network
    assert cli("models", "pull", "llama-3.1-8b", "--offline").out == done.out
    assert not hub.seen
    assert cli("models", "verify").out == f"ok       {SLM}/{SLM_NAME}\nok       {LLM}/{LLM_NAME}\n"
    assert cli("models", "rm", "llama-3.1-8b").code == 2
    assert cli("models", "rm", "llama-3.1-8b", "--yes").code == 0
    assert not list(cache(tmp_path).files())


def test_what_was_not_pulled_names_the_command(cli: Cli, hub: Hub) -> None:
    for args in (["chat", "llama-3.1-8b", "-p", "Hi"], ["models", "check", "llama-3.1-8b"]):
        done = cli(*args)
        assert (done.code, done.out) == (3, "")
        assert f"{LLM}:Q4_K_M: not on this machine" in done.err
        assert "`drift-edge models pull llama-3.1-8b`" in done.err
    done = cli("models", "pull", SLM, "--offline")
    assert (done.code, done.out) == (3, "")
    assert f"`drift-edge models pull {SLM}` fetches it" in done.err
    done = cli("chat", "--llm", "ann/tea", "--slm", "ann/tea", "-p", "Hi")
    assert (done.code, "--llm" not in done.err) == (3, True)
    assert not hub.seen
    assert cli("models", "pull", "nano").code == 2
    assert "expected user/repo[:quant], or a pair: " in cli("models", "pull", "llama").err
    unknown = cli("chat", "llama-4", "-p", "Hi")
    assert unknown.code == 2
    assert "`drift-edge models list` shows" in unknown.err


def test_a_file_damaged_behind_our_back_is_not_loaded(cli: Cli, hub: Hub, tmp_path: Path) -> None:
    cli("models", "pull", "llama-3.1-8b")
    blob = next(cache(tmp_path).files(LLM)).path.resolve()
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = cli("chat", "llama-3.1-8b", "-p", "Hi")
    assert (done.code, done.out) == (3, "")
    assert f"damaged: its hash is not {blob.name}" in done.err
    done = cli("models", "verify", LLM)
    assert (done.code, done.out) == (3, f"DAMAGED  {LLM}/{LLM_NAME}\n")
    assert cli("models", "pull", "llama-3.1-8b").code == 0
    assert cli("models", "verify").code == 0
    assert len(hub.asked("/bytes/")) == 3  # two files, and the damaged one again


@pytest.mark.usefixtures("hub")
def test_what_another_program_fetched_is_hashed_once(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("models", "pull", "llama-3.1-8b")
    (tmp_path / "home" / "cache" / "verified.json").unlink()
    from drift_edge.models import installed

    hashed: list[Path] = []
    real = installed.hash_file
    monkeypatch.setattr(installed, "hash_file", lambda path, etag: hashed.append(path) or real(path, etag))
    for _ in range(2):
        assert cli("models", "check", "llama-3.1-8b").code == 0
    assert [path.name for path in hashed] == [LLM_NAME, SLM_NAME]


def test_wrong_bytes_end_in_one_line_and_exit_1(cli: Cli, hub: Hub, tmp_path: Path) -> None:
    hub.faults.append(Fault(body=b"x" * len(hub.files[LLM][LLM_NAME])))
    done = cli("models", "pull", LLM)
    assert (done.code, done.out) == (1, "")
    assert "what came is not what the hub's list names" in done.err.splitlines()[-1]
    assert not list(cache(tmp_path).files())


def test_a_gated_model_says_what_to_do_and_the_token_stays_secret(
    cli: Cli, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token, hub.gated = "hf_secret", True
    done = cli("models", "pull", LLM)
    assert done.code == 1
    assert f"Accept its terms on {hub.endpoint}/{LLM}, then set HF_TOKEN" in done.err
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    monkeypatch.setenv("DRIFT_EDGE_DEBUG", "1")
    done = cli("models", "pull", LLM)
    assert done.code == 1
    assert "hf_wrong" not in done.err + done.out
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    done = cli("models", "pull", LLM, "--json")
    assert json.loads(done.out)["files"][0].endswith(LLM_NAME)
    assert "hf_secret" not in done.err + done.out
    assert ", gated)" in done.err


def test_a_small_lm_that_another_pair_needs_stays(cli: Cli, hub: Hub, tmp_path: Path) -> None:
    hub.files["bartowski/Llama-3.2-3B-Instruct-GGUF"] = {"Llama-3.2-3B-Instruct-Q4_K_M.gguf": b"three"}
    cli("models", "pull", "llama-3.1-8b")
    cli("models", "pull", "llama-3.2-3b")
    done = cli("models", "rm", "llama-3.1-8b", "-y")
    assert f"note: {SLM}:Q4_K_M stays: llama-3.2-3b needs it too" in done.err
    assert {file.repo for file in cache(tmp_path).files()} == {SLM, "bartowski/Llama-3.2-3B-Instruct-GGUF"}
    assert cli("models", "rm", "llama-3.1-8b", "-y").code == 3


def test_config_and_environment_name_models_too(
    cli: Cli, hub: Hub, config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("models", "pull", "llama-3.1-8b")
    hub.seen.clear()
    config(f'llm = "{LLM}"\nslm = "{SLM}:Q4_K_M"\n')
    done = json.loads(cli("chat", "-p", "Hi", "--json", "--no-profile", "--max-tokens", "1").out)
    assert done["models"]["llm"] != "Drift Nano llm"
    monkeypatch.setenv("DRIFT_EDGE_LLM", "ann/tea")
    assert "ann/tea: not on this machine" in cli("chat", "-p", "Hi").err
    assert not hub.seen


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_interrupted_program_goes_on_next_time(cli: Cli, hub: Hub, tmp_path: Path, number: int, code: int) -> None:
    data = os.urandom(3 << 20)
    hub.files["ann/tea"], hub.pace = {"tea.gguf": data}, 0.03
    with subprocess.Popen(
        command(["models", "pull", "ann/tea"], real=True), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not any(path.stat().st_size > 200_000 for path in tmp_path.rglob("*.incomplete")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate()
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    assert (number == signal.SIGKILL) or "what has come is kept, the same command goes on" in err
    hub.pace = 0.0
    done = cli("models", "pull", "ann/tea")
    assert Path(done.out.strip()).read_bytes() == data
    assert "going on: " in done.err
    assert hub.asked("/bytes/")[-1]["Range"].startswith("bytes=")
