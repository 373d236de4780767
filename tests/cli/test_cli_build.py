"""`drift-edge eval build` on the built-in pair, whose judgements mean nothing but are the same each time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drift_edge import building

Cli = Callable[..., Any]
SHORT = ("--max-tokens", "24", "--answers", "2")


@pytest.mark.usefixtures("builtin_files")
def test_what_is_built_is_learned_from(cli: Cli, tmp_path: Path) -> None:
    out, people = tmp_path / "p.jsonl", tmp_path / "people.txt"
    people.write_text("\ufeffYou are a nurse.\n\n  You are a poet. \nYou are a nurse.\n", encoding="utf-8")
    built = cli("eval", "build", str(out), "--personas", str(people), "--limit", "4", "--json", *SHORT)
    assert built.code == 0, built.err
    assert "the built-in model cannot judge" in built.err
    told = json.loads(built.out)
    assert (told["personas"], told["questions"], told["known"], told["pairs"], told["none"]) == (2, 4, 0, 8, 0)
    record = json.loads(out.read_text("utf-8").splitlines()[0])
    assert set(record) == {"gold_persona", "prompt", "win", "lose", "win_score", "lose_score", "made"}
    assert 1 <= record["lose_score"] <= record["win_score"] <= 5
    learned = cli("learn", str(out), "--user", "You are a poet", "--json", "--exact")
    assert learned.code == 0, learned.err
    assert json.loads(learned.out)["pairs"] == 4
    assert cli("eval", "run", str(out), "--user", "You are a nurse", "--json").code == 0


@pytest.mark.usefixtures("builtin_files")
def test_stopped_it_goes_on(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    command = ("--persona", "You are a nurse.", "--limit", "3", "--seed", "7", *SHORT)
    assert cli("eval", "build", str(whole), *command).code == 0
    score, asked = building.PersonaJudge.score, []

    def stop(judge: building.PersonaJudge, persona: str, question: str, answer: str) -> float:
        asked.append(question)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return score(judge, persona, question, answer)

    with monkeypatch.context() as patch:
        patch.setattr(building.PersonaJudge, "score", stop)
        assert cli("eval", "build", str(parts), *command).code == 130
    assert len(parts.read_text("utf-8").splitlines()) == 1
    result = cli("eval", "build", str(parts), *command)
    assert (result.code, result.out.splitlines()[0]) == (0, f"2 new pairs in {parts}, 1 there before, 0 gave none")
    assert parts.read_bytes() == whole.read_bytes()
    again = cli("eval", "build", str(parts), *command)
    assert again.out.startswith(f"0 new pairs in {parts}, 3 there before")


@pytest.mark.usefixtures("builtin_files")
def test_what_is_refused(cli: Cli, tmp_path: Path) -> None:
    out, empty, binary, mine = (tmp_path / name for name in ("out.jsonl", "empty.txt", "binary.txt", "mine.jsonl"))
    empty.write_text("\n \n")
    binary.write_bytes(b"You are\xff\xfe")
    mine.write_text("my notes\n")
    nurse = ("--persona", "You are a nurse.")
    for where, flags, code, told in (
        (out, (), 2, "nobody is there to judge: give --persona TEXT"),
        (out, ("--persona", " "), 2, "nobody is there to judge"),
        (out, ("--personas", str(empty)), 1, "no personas: expected one a line"),
        (out, ("--personas", str(binary)), 1, "not UTF-8: byte 8"),
        (out, (*nurse, "--questions", str(tmp_path / "none.txt")), 1, "cannot read the questions: No such file"),
        (out, (*nurse, "--answers", "1"), 2, "--answers"),
        (out, (*nurse, "--max-tokens", "0"), 2, "--max-tokens: expected a whole number, 1 or more"),
        (out, (*nurse, "--judge", str(empty)), 3, "empty.txt"),
        (out, (*nurse, "--llm", str(tmp_path / "none.gguf")), 3, "none.gguf"),
        (tmp_path, nurse, 1, "cannot be written: Is a directory"),
        (tmp_path / "no" / "out.jsonl", nurse, 1, "cannot be written: No such file"),
        (mine, nurse, 3, "mine.jsonl: line 1: no record of this command: name another file"),
    ):
        result = cli("eval", "build", str(where), *flags)
        assert result.code == code, (flags, result.err)
        assert told in result.err
        assert "Traceback" not in result.err
    assert not out.exists()
    assert mine.read_text() == "my notes\n"
