"""`bench` on a tiny made pair: every table has its rows, and the figures in it fit together."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise

import pytest

from benchmarks.pairs import Shape, write_model
from drift_edge.cli.bench import TABLES
from tests.cli.fake import Result

Cli = Callable[..., Result]
N = 2_048


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("made")
    for name, noise in (("llm", None), ("slm", 1.0)):
        write_model(folder / f"{name}.gguf", Shape(256, 2, 256, 4, 2, n_vocab=N), "Q8_0", noise)
    return ["--llm", str(folder / "llm.gguf"), "--slm", str(folder / "slm.gguf")]


def test_speed_step_and_turns(cli: Cli, files: list[str]) -> None:
    result = cli(
        "bench",
        "speed",
        "step",
        "turns",
        *files,
        "--rounds",
        "1",
        "--tokens",
        "12",
        "--quick",
        "--json",
        "--processor-time",
    )
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert set(found) == {"machine", "llm", "slm", "speed", "step", "turns"}
    speed = found["speed"]
    rows = {row["name"]: row for row in speed["rows"]}
    plain, off = rows["plain llama_cpp.Llama"], rows["steered, --speculate off"]
    assert plain["times_plain"] == 1
    assert off["times_plain"] == pytest.approx(off["tokens_per_second"] / plain["tokens_per_second"])
    assert {"1", "8"} <= set(speed["costs_ms"]["llm"])
    assert {"1", "8", "14", "56"} <= set(speed["costs_ms"]["slm"])
    costs = {which: {int(n): ms for n, ms in prices.items()} for which, prices in speed["costs_ms"].items()}
    without = 1e3 / (costs["llm"][1] + costs["slm"][8])
    assert speed["ceiling"]["tokens_per_second"] >= without * 0.999  # not to draft is one of the choices
    assert off["of_ceiling"] == pytest.approx(off["tokens_per_second"] / speed["ceiling"]["tokens_per_second"])
    us = found["step"]["us"]
    assert sum(us.values()) == pytest.approx(2 * us["the whole step"])
    turns = found["turns"]
    assert turns["turns"] == 10
    assert all(len(row["first_s"]) == len(row["prompt_tokens"]) == 10 for row in turns["rows"])
    steered = turns["rows"][1]
    assert steered["prefilled"][0] >= 8 * steered["prompt_tokens"][0]  # k + 1 prompts on the sLM, one on the LLM
    grown = [b - a for a, b in pairwise(steered["prompt_tokens"])]
    assert all(n <= 9 * new for n, new in zip(steered["prefilled"][1:], grown, strict=True))


def test_attributes(cli: Cli, files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from drift_edge.benchmarks import sweep

    monkeypatch.setattr(sweep.run, "__defaults__", ((0, 3, 40),))
    result = cli("bench", "attributes", *files, "--quick", "--tokens", "8")
    assert result.code == 0, result.err
    assert [line.split()[0] for line in result.out.splitlines()[-3:]] == ["0", "3", "40"]


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["spead"], f"expected one of {', '.join(TABLES)}, got 'spead'"),
        (["--llm", "a.gguf"], "go together"),
        (["--made", "8b+1b", "--llm", "a", "--slm", "b"], "leave out"),
        (["--made", "9b"], "expected one of 8b+1b"),
        (["--made", "8b+1b", "--quant", "Q5"], "expected one of Q4_0, Q8_0"),
        (["--made", "8b+1b", "--acceptance", "2"], "acceptance: expected a number between 0 and 1"),
    ],
)
def test_wrong_usage(cli: Cli, args: list[str], word: str) -> None:
    result = cli("bench", *args)
    assert (result.code, result.out) == (2, "")
    assert word in result.err
