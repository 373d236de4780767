"""Every block of README.md that can be run here is run, so that none of them rots.

Commands must end well and say something; what a transcript shows is not compared, since a rebuilt pair words its
answers anew.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers import without_amx

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What needs a network, installs, or is the very thing that runs the tests.
ELSEWHERE = re.compile(
    r"make |python3? -m (venv|pip) |pip install |\. \.venv/|CMAKE_ARGS=|git clone |cd "
    r"|drift-edge models pull |drift-edge chat (llama-|--llm user/)"
)
QUESTION = "How do I make tea?\n"


def blocks(*languages: str) -> list[str]:
    return [code for language, code in BLOCK.findall(README.read_text("utf-8")) if language in languages]


def lines_to_run() -> Iterator[str]:
    """Commands of `sh` blocks, and those behind a `$` in `console` blocks."""
    for code in blocks("sh", "bash"):
        yield from (line.partition("  #")[0].rstrip() for line in code.replace("\\\n", "").splitlines() if line.strip())
    for code in blocks("console"):
        yield from (line[2:] for line in code.replace("\\\n", "").splitlines() if line.startswith("$ "))


HERE = [line for line in dict.fromkeys(lines_to_run()) if not ELSEWHERE.match(line)]


@pytest.fixture
def folder(tmp_path: Path, bpe_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples speak of, and a conversation to go on with."""
    for name, source in zip(("llm", "slm", "big", "small"), (*bpe_files, *bpe_files), strict=True):
        shutil.copy(source, tmp_path / f"{name}.gguf")
    (tmp_path / "me.json").write_text('{"concise": 0.8}')
    (tmp_path / "notes.txt").write_text("Tea is made of leaves.\n")
    choices = [
        {"prompt": "What is tea?", "chosen": "A warm drink.", "rejected": "Oh my, tea is a warm drink! Goodness me!"},
        {"prompt": "What is a map?", "chosen": "A picture of a place.", "rejected": "Wow, a map! It shows a place!"},
    ]
    (tmp_path / "choices.jsonl").write_text("".join(json.dumps(choice) + "\n" for choice in choices))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIFT_EDGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    return tmp_path


def run(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", line], input=QUESTION, capture_output=True, text=True, timeout=100)


@pytest.mark.usefixtures("builtin_files", "folder")
@pytest.mark.skipif(shutil.which("sh") is None, reason="the examples are for a POSIX shell")
@pytest.mark.parametrize("line", HERE)
def test_command(line: str) -> None:
    assert line.startswith(("drift-edge ", "cat notes.txt | drift-edge ")), "README: say in this test how to run it"
    if re.search(r" (-c|--continue)\b", line):
        run("drift-edge chat")
    if "profile explain" in line:
        run("drift-edge learn choices.jsonl")
    done = run(line)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert done.stdout.strip()


@pytest.mark.usefixtures("builtin_files", "folder")
def test_python(capfd: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    with without_amx():
        for code in blocks("python"):
            exec(compile(code, str(README), "exec"), names)
    assert capfd.readouterr().out.strip()


def test_there_is_something_to_run() -> None:
    assert len(HERE) >= 10
    assert len(blocks("python")) >= 2
