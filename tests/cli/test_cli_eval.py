"""`drift-edge eval run` on the built-in pair."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
PLOTS = importlib.util.find_spec("matplotlib") is not None


def write(path: Path, n: int) -> Path:
    """Choices of somebody who dislikes exclamations."""
    rows = [
        {
            "prompt": f"What is a {thing}?",
            "chosen": f"A {thing} is a useful thing.",
            "rejected": f"Oh my, a {thing} is a useful thing! Goodness me!",
        }
        for thing in ("map", "cup", "pen", "hat", "bell", "lamp", "book", "boat")[:n]
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_on_a_file_and_then_on_the_journal(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", 8)
    result = cli("eval", "run", str(path), "--k", "2,6,8", "--estimator", "closed-form", "--json")
    assert result.code == 0, result.err
    told = json.loads(result.out)
    assert (told["pairs"], told["estimator"], told["reduction"], told["longer"]) == (8, "closed-form", "sum", 0.0)
    assert told["leave_one_out"]["right"] == 1.0
    assert 0.6 < told["leave_one_out"]["low"] < 1
    assert told["length"]["right"] == 1.0  # the shorter one always: that explains it as well, and is told
    assert len(told["table"]) == 18
    assert [point["k"] for point in told["curve"]] == [2, 6]
    missing = cli("eval", "run")
    assert missing.code == 3
    assert "no profile 'default'" in missing.err
    assert cli("learn", str(path), "--exact").code == 0
    journal = cli("eval", "run", "--estimator", "closed-form", "--k", "2,6,8", "--json")
    assert json.loads(journal.out) == told
    lines = cli("eval", "run", str(path)).out.splitlines()
    assert lines[0] == "8 choices, each predicted by the others; 95 % intervals"
    assert "length alone" in lines[2]
    assert "the preferred answer is the longer one in 0%" in lines[2]


@pytest.mark.skipif(not PLOTS, reason="needs matplotlib")
def test_drawn(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", 8)
    png, page = tmp_path / "a.png", tmp_path / "a.html"
    assert cli("eval", "run", str(path), "--png", str(png), "--html", str(page)).code == 0
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "Learning curve" in page.read_text("utf-8")


def test_what_is_refused(cli: Cli, tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", 1)
    result = cli("eval", "run", str(one))
    assert result.code == 3
    assert "1 choice with a preference, and it takes 2" in result.err
    for flags, code, told in (
        (["--k", "5,many"], 2, "--k: expected whole numbers, as in 5,10,50"),
        (["--k", "0"], 2, "ks: expected whole numbers, 1 or more, got 0"),
        (["--estimator", "magic"], 2, "estimator: expected one of"),
        (["--png", str(tmp_path / "not-there" / "a.png")], 1, "cannot be written" if PLOTS else "needs matplotlib"),
    ):
        result = cli("eval", "run", str(write(tmp_path / "two.jsonl", 2)), *flags)
        assert result.code == code, result.err
        assert told in result.err
