"""Every example runs, with the built-in pair, and says something."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from benchmarks.peers import without_amx
from drift_edge import Profile

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("[a-z]*.py"))


@pytest.mark.usefixtures("builtin_files")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(
    path: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFT_EDGE_HOME", str(tmp_path))
    with without_amx():
        runpy.run_path(str(path), run_name="__main__")
    said = capfd.readouterr().out
    assert len(said.split()) > 20
    if path.stem == "minimal":
        assert Profile.open("example").n == 1
        assert "->" in said
    if path.stem == "logits":
        plain, steered = (text.split("\n")[1] for text in said.split("\n\n")[:2])
        assert plain != steered
        assert steered.count("!") > plain.count("!")


def test_there_are_examples() -> None:
    assert {path.stem for path in EXAMPLES} >= {"minimal", "asynchronous", "logits"}
