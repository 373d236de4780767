"""Every block of README.md and docs/ that can be run here is run, so that none of them rots; and docs/ builds clean.

Commands must end well and say something; what a transcript shows is not compared, since a rebuilt pair words its
answers anew.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.peers import without_amx
from tests.cli.fake import Result, run_here

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What needs a network, installs, serves until it is stopped, measures for minutes (which has tests of its own), or is
# the very thing that runs the tests.
ELSEWHERE = re.compile(
    r"make |python3? -m (venv|pip) |pip install |\. \.venv/|CMAKE_ARGS=|git clone |cd "
    r"|drift-edge serve$|drift-edge bench\b|drift-edge models pull |drift-edge chat (llama-|--llm user/)"
)
QUESTION = "How do I make tea?\n"
LLM = """from drift_edge import llm_plugin
from llm.cli import cli
from llm.plugins import pm
pm.register(llm_plugin)
cli()
"""


def blocks(page: Path, *languages: str) -> list[str]:
    return [code for language, code in BLOCK.findall(page.read_text("utf-8")) if language in languages]


def lines_to_run(page: Path) -> Iterator[str]:
    """Commands of `sh` blocks, and those behind a `$` in `console` blocks."""
    for code in blocks(page, "sh", "bash"):
        yield from (line.partition("  #")[0].rstrip() for line in code.replace("\\\n", "").splitlines() if line.strip())
    for code in blocks(page, "console"):
        yield from (line[2:] for line in code.replace("\\\n", "").splitlines() if line.startswith("$ "))


HERE = dict.fromkeys(line for page in PAGES for line in lines_to_run(page) if not ELSEWHERE.match(line))
PROGRAMS = [page for page in PAGES if blocks(page, "python")]


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
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    if find_spec("llm"):  # with the plugin, which an editable install may be too old to name
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "llm").write_text(f"#!{sys.executable}\n{LLM}")
        (tmp_path / "bin" / "llm").chmod(0o755)
        monkeypatch.setenv("LLM_LOAD_PLUGINS", "")
        monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIFT_EDGE_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Result]:
    """Runs a line: in this process where it is one command of ours, else by the shell."""

    def run(line: str) -> Result:
        name, *args = shlex.split(line)
        if name == "drift-edge":
            return run_here(monkeypatch, args, QUESTION.encode())
        done = subprocess.run(["sh", "-c", line], input=QUESTION, capture_output=True, text=True, timeout=100)
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.mark.usefixtures("builtin_files", "folder")
@pytest.mark.skipif(shutil.which("sh") is None, reason="the examples are for a POSIX shell")
@pytest.mark.parametrize("line", HERE)
def test_command(line: str, run: Callable[[str], Result]) -> None:
    if line.startswith("llm "):
        pytest.importorskip("llm")
        if os.name == "nt":
            pytest.skip("the command is a script for a POSIX shell")
    assert line.startswith(("drift-edge ", "cat notes.txt | drift-edge ", "llm ")), "say in this test how to run it"
    if re.search(r" (-c|--continue)\b", line):
        run("drift-edge chat")
    if "profile explain" in line:
        run("drift-edge learn choices.jsonl")
    done = run(line)
    assert (done.code, "Traceback" in done.err) == (0, False), done.err
    assert done.out.strip()


@contextmanager
def served() -> Iterator[str]:
    """The port of a server as the docs have it started."""
    command = ["drift-edge", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        try:
            told = []
            for line in server.stderr or ():
                told.append(line)
                if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                    yield found[1]
                    return
            raise AssertionError("".join(told))
        finally:
            server.terminate()


@pytest.mark.usefixtures("builtin_files", "folder")
@pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: page.name)
def test_python(page: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The programs of one page, one after another."""
    programs = blocks(page, "python")
    if page.name == "server.md":
        pytest.importorskip("openai")
        pytest.importorskip("uvicorn")
        with served() as port:
            names = execute([code.replace("8765", port) for code in programs], page)
        assert names["reply"].choices[0].message.content  # type: ignore[attr-defined]
        return
    execute(programs, page)
    assert capfd.readouterr().out.strip()


def execute(programs: list[str], page: Path) -> dict[str, object]:
    names: dict[str, object] = {}
    with without_amx():
        for code in programs:
            exec(compile(code, str(page), "exec"), names)
    return names


def test_there_is_something_to_run() -> None:
    assert len(HERE) >= 15
    assert {page.name for page in PROGRAMS} >= {"README.md", "embedding.md", "learning.md", "server.md"}


@pytest.mark.skipif(
    find_spec("mkdocs") is None or find_spec("mkdocstrings") is None, reason="the extra `docs` is missing"
)
def test_the_docs_build_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # the theme's announcement of its successor
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("")
        assert (tmp_path / "site" / name / "index.html").is_file() or name.name == "index", f"{page}: not built"
