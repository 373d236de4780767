"""drift-edge as a model of `llm`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drift_edge import Drift, Profile
from tests.conftest import ASK

llm = pytest.importorskip("llm", reason="the extra `llm` is missing")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def model(bpe_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("DRIFT_EDGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    from drift_edge import llm_plugin

    found: list[Any] = []
    llm_plugin.register_models(found.append)
    (model,) = found
    monkeypatch.setattr(Drift, "builtin", lambda: Drift.load(*bpe_files))
    yield model
    if model._loaded:
        model._loaded[1].close()


QUESTION = ASK[0]["content"]


def test_it_answers_as_the_engine_does(model: Any, bpe_files: tuple[Path, Path]) -> None:
    response = model.prompt(QUESTION, seed=3, max_tokens=12, weights="concise=0.8,vivid=-0.3")
    pieces = list(response)
    with Drift.load(*bpe_files) as drift:
        expected = drift.complete(ASK, seed=3, max_tokens=12, weights={"concise": 0.8, "vivid": -0.3})
    assert "".join(pieces) == response.text() == expected.text
    assert len(pieces) > 2
    assert response.response_json["steering"]["weights"] == expected.weights
    assert response.input_tokens == expected.timings.prompt_tokens
    assert response.output_tokens == 12


def test_a_conversation_goes_on(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    chat = Drift.chat
    monkeypatch.setattr(
        Drift, "chat", lambda self, messages, **more: asked.append(messages) or chat(self, messages, **more)
    )
    conversation = model.conversation()
    first = conversation.prompt(QUESTION, system="You are good.", seed=1, max_tokens=5).text()
    conversation.prompt("Is it good?", seed=1, max_tokens=5).text()
    assert asked[1] == [
        {"role": "system", "content": "You are good."},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Is it good?"},
    ]


def test_the_profile_steers(model: Any, bpe_files: tuple[Path, Path]) -> None:
    with Drift.load(*bpe_files) as drift:
        profile = Profile.open("anna", slm=drift.slm, attributes=drift.attributes)
        profile.set("formal", 0.7)
        profile.configure(beta=0.8)

    def steering(**options: Any) -> Any:
        response = model.prompt(QUESTION, seed=1, max_tokens=2, **options)
        response.text()
        return response.response_json["steering"]

    assert steering(profile="anna")["weights"] == {"formal": 0.7}
    assert steering(profile="anna")["beta"] == 0.8
    assert steering(profile="anna", beta=2.0)["beta"] == 2.0
    assert steering(profile="anna", strength=0.3).items() >= {"beta": None, "strength": 0.3}.items()
    Profile.open("anna").configure(strength=0.6)
    assert steering(profile="anna").items() >= {"beta": None, "strength": 0.6}.items()
    assert steering(profile="anna", beta=2.0).items() >= {"beta": 2.0, "strength": None}.items()
    Profile.open("anna").set("sycophant", 0.5)
    assert steering(profile="anna")["weights"] == steering(profile="anna", weights="formal=0.7,sycophant=1")["weights"]
    Profile.open("anna").allow("sycophant")
    assert steering(profile="anna")["weights"] == {"formal": 0.7, "sycophant": 0.5}
    assert steering(profile="anna", weights="sycophant=1")["weights"] == {"sycophant": 1.0}
    assert steering(profile="none", weights="sycophant=1")["weights"] == {}
    assert steering(profile="anna", weights="vivid=1")["weights"] == {"vivid": 1.0}
    for options in ({}, {"profile": "none"}):
        assert steering(**options)["weights"] == {}


def test_errors_are_told_in_its_way(model: Any, bpe_files: tuple[Path, Path]) -> None:
    llm_path, slm_path = map(str, bpe_files)
    for options, message in (
        ({"weights": "temper=1"}, "temper"),
        ({"weights": "vivid=1", "beta": 0.5, "strength": 0.5}, "exclude each other"),
        ({"llm": "x.gguf"}, "go together"),
        ({"llm": "x.gguf", "slm": "y.gguf"}, "x.gguf"),
        ({"pair": "nothing-1b"}, "nothing-1b"),
        ({"pair": "nothing-1b", "llm": llm_path, "slm": slm_path}, "one of them"),
    ):
        with pytest.raises(llm.ModelError, match=message):
            model.prompt(QUESTION, **options).text()
    assert model.prompt(QUESTION, llm=llm_path, slm=slm_path, max_tokens=3, seed=1).text()
    model._loaded[1].close()


@pytest.mark.usefixtures("model")
def test_the_command_line() -> None:
    from click.testing import CliRunner
    from llm.cli import cli
    from llm.plugins import pm

    from drift_edge import llm_plugin

    if not pm.is_registered(llm_plugin):  # an editable install may be older than the entry point
        pm.register(llm_plugin)
    listed = CliRunner().invoke(cli, ["models", "list", "--options"])
    assert "drift-edge" in listed.output
    assert "max_tokens" in listed.output
    said = CliRunner().invoke(cli, ["-m", "drift-edge", QUESTION, "-o", "seed", "1", "-o", "max_tokens", "5"])
    assert (said.exit_code, bool(said.output.strip())) == (0, True), said.output
    wrong = CliRunner().invoke(cli, ["-m", "drift-edge", QUESTION, "-o", "weights", "temper=1"])
    assert wrong.exit_code == 1
    assert wrong.output.startswith("Error: ")
    assert "temper" in wrong.output


def test_commands_of_llm_stay_quick() -> None:
    program = """import sys, llm
before = set(sys.modules)
import drift_edge.llm_plugin
print(*sorted({"llama_cpp", "numpy", "gguf", "drift_edge.engine"} & (set(sys.modules) - before)))"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "", "llm loads every plugin for every command"
