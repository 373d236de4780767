"""`drift-edge bench`: how fast this machine is, against what people have now and against the decodes' own cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from drift_edge.errors import UsageError

TABLES = ("speed", "step", "turns", "scoring", "kernel", "memory", "attributes")
_USUAL = ("speed", "step", "turns", "scoring", "kernel")
_OF_A_LARGE_PAIR = ("speed", "turns")


def bench(
    tables: Annotated[list[str] | None, typer.Argument(help=f"What to measure: {', '.join(TABLES)}.")] = None,
    llm: Annotated[Path | None, typer.Option(help="GGUF file of the LLM; else the built-in one.")] = None,
    slm: Annotated[Path | None, typer.Option(help="GGUF file of the small LM.")] = None,
    made: Annotated[
        str | None, typer.Option(help="Make a pair of these sizes, of random weights: 8b+1b, 3b+135m or 8b+135m.")
    ] = None,
    quant: Annotated[str, typer.Option(help="Of the pair that is made: Q4_0 or Q8_0.")] = "Q4_0",
    acceptance: Annotated[
        float, typer.Option(help="Of the pair that is made: share of drafted tokens that fit.")
    ] = 0.8,
    rounds: Annotated[int | None, typer.Option(min=1, help="Answers of each program.")] = None,
    tokens: Annotated[
        int | None, typer.Option(min=8, help="Tokens of an answer, at most: 64, or 32 of a pair that is made.")
    ] = None,
    processor_time: Annotated[
        bool, typer.Option("--processor-time", help="Of speed: one thread, and its own time, for a busy machine.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure speed, and show it as ratios that were taken in one run."""
    from ..benchmarks import machine
    from .render import Screen, show_log

    show_log(False)
    screen = Screen()
    for name in tables or ():
        if name not in TABLES:
            raise UsageError(f"bench: expected one of {', '.join(TABLES)}, got {name!r}")
    if (llm is None) != (slm is None):
        raise UsageError("--llm and --slm go together: two models of one family (the same file twice works as well)")
    if made is not None and llm is not None:
        raise UsageError("--made makes a pair: leave out --llm and --slm")
    files, weights = _pair(llm, slm, made, quant, acceptance, screen.say)
    wanted = tables or (_USUAL if made is None and llm is None else _OF_A_LARGE_PAIR)
    facts = machine.describe()
    found: dict[str, Any] = {"machine": facts, "llm": str(files[0]), "slm": str(files[1])}
    if not as_json:
        typer.echo("  ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items()))
    for name in dict.fromkeys(wanted):
        most = tokens or (64 if made is None else 32)
        found[name], lines = _measure(name, files, weights, rounds, most, processor_time, quick, screen.say)
        if not as_json:
            typer.echo("")
            for line in lines:
                typer.echo(line)
    if as_json:
        screen.json(found)


def _pair(
    llm: Path | None, slm: Path | None, made: str | None, quant: str, acceptance: float, say: Callable[[str], None]
) -> tuple[tuple[Path, Path], dict[str, float]]:
    """The files, and weights to steer by: learned ones on the built-in pair, which has something to learn from."""
    from ..benchmarks.questions import WEIGHTS

    if llm is not None and slm is not None:
        return (llm, slm), dict(WEIGHTS)
    if made is not None:
        from drift_edge.storage import folders

        from ..benchmarks.pairs import make_pair

        return make_pair(folders().cache / "benchmarks", made, quant, acceptance, say), dict(WEIGHTS)
    from ..benchmarks.scoring import learned_weights
    from ..models import builtin_pair

    files = builtin_pair()
    return files, learned_weights(files[1])


def _measure(
    table: str,
    files: tuple[Path, Path],
    weights: dict[str, float],
    rounds: int | None,
    tokens: int,
    processor_time: bool,
    quick: bool,
    say: Callable[[str], None],
) -> tuple[Any, Iterable[str]]:
    """What was found, as JSON values and as lines."""
    if table == "speed":
        from ..benchmarks import speed

        result = speed.run(
            *files, weights, rounds=rounds or (2 if quick else 9), tokens=tokens, processor_time=processor_time, say=say
        )
        return result, speed.lines(result)
    if table == "step":
        from ..benchmarks import step

        result = step.run(*files, weights, rounds=rounds or (5 if quick else 30), tokens=tokens, say=say)
        return result, step.lines(result)
    if table == "turns":
        from ..benchmarks import turns

        result = turns.run(*files, weights, turns=10 if quick else 30, say=say)
        return result, turns.lines(result)
    if table == "attributes":
        from ..benchmarks import sweep

        result = sweep.run(*files, rounds=rounds or (1 if quick else 3), tokens=tokens, say=say)
        return result, sweep.lines(result)
    say(f"{table} ...")
    if table == "memory":
        from ..benchmarks import memory

        rows = memory.run(*files, files[0].stem[:12])
        return rows, memory.lines(rows)
    if table == "scoring":
        from ..benchmarks import scoring

        rows = scoring.run(files[1], quick)
        return rows, scoring.lines(rows)
    from ..benchmarks import kernel

    rows = kernel.run(quick)
    return rows, kernel.lines(rows)
