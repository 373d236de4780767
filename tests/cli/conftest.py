"""Fixtures of the command line's tests: a home of its own, and three ways to run it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.fake import FakeEngine, Result, command, run_here
from tests.cli.talk import Talk


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of this test alone, and no settings from the environment."""
    for name in list(os.environ):
        if name.startswith("DRIFT_EDGE_") and name != "DRIFT_EDGE_KERNEL":
            monkeypatch.delenv(name)
    for name in ("NO_COLOR", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    monkeypatch.setenv("DRIFT_EDGE_HOME", str(folder))
    return folder


@pytest.fixture
def config(own_home: Path) -> Callable[[str], Path]:
    """Write config.toml."""

    def write(text: str) -> Path:
        path = own_home / "config" / "config.toml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The scripted engine, in place of the real one."""
    from drift_edge.cli import chat

    fake = FakeEngine()
    monkeypatch.setattr(chat, "load_engine", lambda _settings, pool: _with_pool(fake, pool))
    return fake


def _with_pool(fake: FakeEngine, pool: object) -> FakeEngine:
    fake.attributes = pool  # type: ignore[assignment]
    return fake


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command line in this process: `cli("chat", "-p", "Hi", stdin=b"...")`."""
    return lambda *args, stdin=b"": run_here(monkeypatch, args, stdin)


@pytest.fixture
def process() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run the command line with the fake engine as a process of its own, or the real one."""

    def run(*args: str, stdin: bytes = b"", real: bool = False, **more: object) -> subprocess.CompletedProcess[bytes]:
        options: dict[str, object] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60, **more}
        options["input"] = stdin
        return subprocess.run(command(args, real=real), **options)  # type: ignore[call-overload, no-any-return]

    return run


@pytest.fixture
def talk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Talk:
    """A conversation without a profile."""
    return Talk(tmp_path, capsys, monkeypatch)


@pytest.fixture
def lesson(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Talk:
    """A conversation that a profile learns from."""
    return Talk(tmp_path, capsys, monkeypatch, learns=True)
