"""`models`, `attributes` and `doctor`, and `chat` on real engines and on files that are none."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from drift_edge.attributes import Attributes
from drift_edge.cli.doctor import advice
from drift_edge.models import builtin_does_not_know, builtin_pair
from drift_edge.models.nano.corpus import documents
from tests import tiny
from tests.cli.fake import Result

Cli = Callable[..., Result]
Files = tuple[Path, Path]

BROKEN = {
    "missing": None,
    "empty": b"",
    "one byte": b"G",
    "no GGUF": b"PK\x03\x04" + bytes(400),
    "endless array": b"GGUF"
    + struct.pack("<IQQ", 3, 0, 1)
    + struct.pack("<Q", 1)
    + b"a"
    + struct.pack("<IIQ", 9, 8, 1 << 63),
    "a million keys": b"GGUF" + struct.pack("<IQQ", 3, 0, 1_000_000),
}


@pytest.mark.parametrize("kind", [*BROKEN, "cut short"])
@pytest.mark.parametrize("command", ["chat", "info", "check"])
def test_unusable_file_exits_3_in_one_line(cli: Cli, bpe_files: Files, tmp_path: Path, kind: str, command: str) -> None:
    path = tmp_path / "bad.gguf"
    content = bpe_files[0].read_bytes()[:-100] if kind == "cut short" else BROKEN[kind]
    if content is not None:
        path.write_bytes(content)
    args = {
        "chat": ["chat", "-p", "Hi", "--llm", str(path), "--slm", str(bpe_files[1])],
        "info": ["models", "info", str(path)],
        "check": ["models", "check", str(bpe_files[0]), str(path)],
    }
    result = cli(*args[command])
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith(f"Error: {path}: ")
    assert result.err.count("\n") == 1


def test_check_proves_a_pair(cli: Cli, bpe_files: Files) -> None:
    result = cli("models", "check", *map(str, bpe_files))
    assert result.code == 0
    assert result.out.splitlines()[0].startswith(
        f"ok: {bpe_files[0].name} and {bpe_files[1].name} share a tokenizer of "
    )
    assert result.out.splitlines()[1] == f"{bpe_files[0].name}: its own chat template, with a system role"
    assert cli("models", "check", str(bpe_files[0])).out.startswith(f"ok: {bpe_files[0].name} has a tokenizer")


def test_check_refuses_a_pair_with_the_first_difference(cli: Cli, tmp_path: Path) -> None:
    vocab = tiny.byte_bpe()
    llm, _ = tiny.write_pair(tmp_path, vocab)
    other = tmp_path / "other"
    other.mkdir()
    _, slm = tiny.write_pair(other, vocab.changed(70, text="another"))
    result = cli("models", "check", str(llm), str(slm))
    assert (result.code, result.out) == (3, "")
    assert "token 70 is " in result.err
    assert "'another' in the sLM" in result.err


def test_info(cli: Cli, bpe_files: Files) -> None:
    facts = json.loads(cli("models", "info", str(bpe_files[0]), "--json").out)
    assert facts["architecture"] == "llama"
    assert facts["chat_template"] is True
    assert facts["tokens"] == len(tiny.byte_bpe())
    assert facts["context_length"] == 512
    assert facts["parameters"] > 0
    assert re.fullmatch("[0-9a-f]{16}", facts["fingerprint"])
    text = cli("models", "info", str(bpe_files[0])).out
    assert re.search(r"^chat template +yes$", text, re.MULTILINE)
    assert re.search(r"^tensors +\d+ F32$", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["nano", "builtin"])
def test_info_and_check_of_the_builtin_pair(cli: Cli, name: str) -> None:
    facts = json.loads(cli("models", "info", name, "--json").out)
    assert facts["name"] == "nano"
    assert [Path(facts[which]["path"]) for which in ("llm", "slm")] == list(builtin_pair())
    assert facts["llm"]["tokens"] == facts["slm"]["tokens"]
    assert facts["llm"]["parameters"] > facts["slm"]["parameters"]
    assert re.search(r"^slm chat template +yes$", cli("models", "info", name).out, re.MULTILINE)
    assert cli("models", "check", name).out.startswith(
        "ok: drift-nano-llm-Q8_0.gguf and drift-nano-slm-Q8_0.gguf share"
    )


def test_list_shows_what_is_there_and_what_is_wrong(cli: Cli, bpe_files: Files, own_home: Path) -> None:
    folder = own_home / "data" / "models" / "family"
    folder.mkdir(parents=True)
    (folder / "good.gguf").write_bytes(bpe_files[0].read_bytes())
    (folder / "bad.gguf").write_bytes(b"nothing")
    rows = {Path(row["path"]).name: row for row in json.loads(cli("models", "list", "--json").out)["models"]}
    assert rows["good.gguf"]["architecture"] == "llama"
    assert "expected the magic bytes" in rows["bad.gguf"]["error"]
    assert "bad.gguf" in cli("models", "list", str(folder)).out
    assert cli("models", "list", str(folder / "no")).code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="making links needs rights there")
def test_list_goes_on_past_a_link_to_nowhere(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "gone.gguf").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.gguf").mkdir()
    done = cli("models", "list", str(tmp_path))
    assert (done.code, done.err) == (0, "")
    folder, gone = done.out.splitlines()[-2:]
    assert "not a regular file" in folder
    assert gone.startswith("      0 B  ")
    assert gone.endswith("gone.gguf  (cannot read the model file: No such file or directory)")


def test_attributes_list(cli: Cli, tmp_path: Path) -> None:
    data = json.loads(cli("attributes", "list", "--json").out)
    assert data["base"] == Attributes.builtin().base
    assert len(data["attributes"]) == 41
    path = tmp_path / "mine.toml"
    path.write_text("[attributes]\npirate = 'You are a pirate.'\n")
    lines = cli("attributes", "list", "--attributes", str(path)).out.splitlines()
    assert [line.split()[0] for line in lines] == ["(base)", "pirate"]


def test_doctor_names_what_matters(cli: Cli, own_home: Path) -> None:
    result = cli("doctor", "--json")
    facts = json.loads(result.out)
    assert (result.code, result.err) == (0, "")
    assert facts["kernel"]["name"] in ("c", "numpy")
    assert facts["kernel"]["reason"]
    assert set(facts["versions"]) == {"drift-edge", "Python", "llama-cpp-python", "numpy"}
    assert facts["folders"]["data"] == str(own_home / "data")
    assert facts["faster"]
    text = cli("doctor").out
    assert text.count("\n") > 10
    assert facts["faster"] in text


def test_doctor_speaks_of_what_is_broken(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from drift_edge.llama import library

    def fail() -> bool:
        raise OSError("libggml.so: cannot be loaded")

    monkeypatch.setattr(library, "supports_gpu", fail)
    monkeypatch.setattr("drift_edge.models.builtin_pair", lambda: (Path("/nowhere.gguf"), Path("/nowhere.gguf")))
    facts = json.loads(cli("doctor", "--json").out)
    assert facts["llama_cpp"] == {"error": "OSError: libggml.so: cannot be loaded"}
    assert "/nowhere.gguf" in facts["built_in_pair"]["error"]
    assert facts["faster"].startswith("llama.cpp cannot be loaded; install it again")


def test_doctor_shows_the_builtin_pairs_checksums(cli: Cli, builtin_files: Files) -> None:
    import hashlib

    facts = json.loads(cli("doctor", "--json").out)["built_in_pair"]
    for name, path in zip(("llm", "slm"), builtin_files, strict=True):
        assert facts[name]["state"] == "ok"
        assert facts[name]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    good = {"kernel": {"name": "c"}, "llama_cpp": {"gpu_offload": False, "system": "CPU : AVX2 = 1"}}
    monkeypatch.setattr("drift_edge.cli.doctor._gpu_backend", lambda: None)
    assert advice(good).startswith("nothing to mend")
    monkeypatch.setattr("drift_edge.cli.doctor._gpu_backend", lambda: "CUDA")
    monkeypatch.setattr("drift_edge.cli.doctor.os.name", "posix")
    assert 'CMAKE_ARGS="-DGGML_CUDA=on" ' in advice(good)
    assert advice(good).endswith("-m pip install --force-reinstall --no-cache-dir llama-cpp-python")
    assert advice({**good, "llama_cpp": {"gpu_offload": True, "system": ""}}).startswith("nothing to mend")
    monkeypatch.delenv("DRIFT_EDGE_KERNEL", raising=False)
    assert advice({**good, "kernel": {"name": "numpy"}}).startswith("build the C kernel")
    monkeypatch.setenv("DRIFT_EDGE_KERNEL", "numpy")
    assert advice({**good, "kernel": {"name": "numpy"}}).startswith("unset DRIFT_EDGE_KERNEL")


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ("METAL", 'CMAKE_ARGS="-DGGML_METAL=on" '),
        ("CUDA", 'CMAKE_ARGS="-DGGML_CUDA=on" '),
        ("VULKAN", 'CMAKE_ARGS="-DGGML_VULKAN=on" '),
        (None, ""),
    ],
)
def test_doctor_prints_the_line_for_this_machines_backend(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, found: str | None, line: str
) -> None:
    monkeypatch.setattr("drift_edge.cli.doctor._gpu_backend", lambda: found)
    monkeypatch.setattr("drift_edge.cli.doctor.os.name", "posix")
    pip = f"{sys.executable} -m pip install --force-reinstall --no-cache-dir llama-cpp-python"
    backend = json.loads(cli("doctor", "--json").out)["backend"]
    assert backend["best"] == (found or "CPU").lower()
    assert backend["install"] == line + pip
    assert f"install: {line}{pip}\n" in cli("doctor").out


# -- chat on real engines


def test_chat_with_models_of_ones_own(cli: Cli, bpe_files: Files) -> None:
    models = ["--llm", str(bpe_files[0]), "--slm", str(bpe_files[1])]
    weights = ["--weights", "concise=0.8,vivid=-0.3", "--beta", "0.4", "--active", "1"]
    args = ["chat", "-p", "Hi", *models, *weights, "--seed", "3", "--max-tokens", "8", "--ctx-size", "256", "--json"]
    first, second = (json.loads(cli(*args).out) for _ in range(2))
    assert first["tokens"] == second["tokens"]
    assert first["steering"]["weights"] == {"concise": 0.8}
    assert first["steering"]["kl_per_token"] > 0
    assert first["timings"]["generated_tokens"] == len(first["tokens"])
    assert cli(*args[:-1]).out.rstrip("\n") == first["text"].rstrip("\n")


def test_chat_continues_on_the_same_models(cli: Cli, bpe_files: Files) -> None:
    models = ["--llm", str(bpe_files[0]), "--slm", str(bpe_files[1])]
    assert cli("chat", "-p", "Hi", *models, "--max-tokens", "4").code == 0
    data = json.loads(cli("chat", "-c", "-p", "More", "--json", "--max-tokens", "4").out)
    assert data["models"] == {"llm": bpe_files[0].stem, "slm": bpe_files[1].stem}


def test_prompt_longer_than_the_context_exits_2(cli: Cli, bpe_files: Files) -> None:
    models = ["--llm", str(bpe_files[0]), "--slm", str(bpe_files[1])]
    result = cli("chat", *models, "--ctx-size", "64", stdin=b"tea " * 200)
    assert (result.code, result.out) == (2, "")
    assert "the context holds 64" in result.err or "but the context" in result.err


def test_verbose_shows_llama_cpps_log_on_stderr(
    process: Callable[..., subprocess.CompletedProcess[bytes]], bpe_files: Files
) -> None:
    args = ["chat", "-p", "Hi", "--llm", str(bpe_files[0]), "--slm", str(bpe_files[1]), "--max-tokens", "2"]
    quiet, loud = process(*args, real=True), process(*args, "--verbose", real=True)
    assert quiet.stderr == b""
    assert b"llama" in loud.stderr
    assert b"llama_model" not in loud.stdout


def test_builtin_pair_answers_on_topic_on_stdout_alone(cli: Cli, builtin_files: Files) -> None:  # noqa: ARG001
    result = cli("chat", stdin=b"How do I make tea?\n")
    assert (result.code, result.err) == (0, "")
    assert "tea" in result.out.lower()


def test_builtin_pair_owns_up_and_the_note_follows(cli: Cli, builtin_files: Files) -> None:  # noqa: ARG001
    result = cli("chat", "-p", "What is a quasar?", "--seed", "1")
    assert builtin_does_not_know(result.out)
    assert result.err.startswith("note: this is the small built-in pair")


@pytest.mark.parametrize(
    ("text", "knows"),
    [
        ("Boil the water, then pour it over the leaves.", True),
        ("I know a good trick: warm the pot first.", True),
        ("If you do not know the tap, turn it slowly.", True),
        ("I do not know much about quasars.", False),
        ("Well, I know very little about quasars.", False),
        ("I have never learned how to fix a quasar.", False),
        ("I cannot name the next step of fixing a quasar.", False),
        ("As a small model, I cannot book a flight.", False),
        ("I'm a small model, so I can't say what a quasar is.", False),
    ],
)
def test_owning_up_is_recognised(text: str, knows: bool) -> None:
    assert builtin_does_not_know(text) is not knows


def test_owning_up_is_recognised_in_every_style() -> None:
    seed, known, unknown, wrong = 11, 0, 0, []
    for document in islice(documents("test", seed=seed), 700):
        for turn in document.turns:
            admits = any(clause.role == "admit" for clause in turn.clauses)
            known, unknown = known + (not admits), unknown + admits
            if builtin_does_not_know(turn.answer) is not admits:
                wrong.append(turn.answer)
    assert known > 400
    assert unknown > 40
    assert len(wrong) <= 3, f"seed {seed}: {wrong}"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--cache-type", "q5"], "Error: --cache-type: expected one of f32, f16"),
        (["--cache-type", "q8_0", "--flash-attn", "off"], "Error: --cache-type: q8_0 needs flash attention"),
        (["--ctx-size", "99999999999"], "Error: --ctx-size: expected 1 to "),
        (["--threads", "9999"], "Error: --threads: expected 1 to "),
    ],
)
def test_what_the_engine_refuses_is_told_by_the_flag(cli: Cli, args: list[str], says: str) -> None:
    result = cli("chat", "-p", "Hi", *args)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(says)
