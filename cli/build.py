"""`drift-edge eval build`: choices of made-up people, by any model that can judge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drift_edge.errors import DriftError, UsageError

from .scorer import ContextSize, Threads, Verbose, settings_by
from .which import MODEL, AsJson

if TYPE_CHECKING:
    from drift_edge.llama.model import Model

_MOST = 16 << 20  # bytes of a file of lines


def build(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File of the records, .jsonl; goes on where it ends.")],
    persona: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Who judges: 'You are a busy nurse.'; may be repeated."),
    ] = None,
    personas: Annotated[Path | None, typer.Option(metavar="FILE", help="The same, a line each.")] = None,
    questions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Questions, a line each.  [default: 60 everyday ones]")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most questions.")] = None,
    judge: Annotated[
        str | None, typer.Option(metavar=MODEL, help="The model that judges.  [default: the one that answers]")
    ] = None,
    llm: Annotated[
        str | None, typer.Option(metavar=MODEL, help="The model that answers.  [default: the settings']")
    ] = None,
    answers: Annotated[int, typer.Option(min=2, help="To each question; the best and the worst make a pair.")] = 3,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer.  [default: 512]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the answers.")] = 0,
    ctx_size: ContextSize = None,
    threads: Threads = None,
    gpu_layers: Annotated[
        int | None, typer.Option(help="Layers of each model on the GPU.  [default: what fits]")
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Make choices of people whom a text describes, as Perspective's records, which `learn` and `eval run` read.

    One model answers each question in several manners, another one scores the answers as each persona. Stopped by
    Ctrl-C, the same command goes on. The built-in model cannot judge: by it, this is a trial run.
    """
    from drift_edge.building import DEFAULT_CONTEXT, PersonaJudge, Records
    from drift_edge.building import build as build_pairs
    from drift_edge.engine import Drift
    from drift_edge.events import CancelToken

    from ..models import builtin_pair
    from ..models.onboarding import questions as everyday
    from .charts import counted
    from .config import flags_named, pulled
    from .errors import INTERRUPTED
    from .interrupt import cancel_on_interrupt
    from .progress import Progress
    from .render import Screen, show_log

    flags = {"llm": llm, "ctx-size": ctx_size, "threads": threads, "gpu-layers": gpu_layers, "max-tokens": max_tokens}
    settings = settings_by({**flags, "seed": seed})
    show_log(verbose)
    screen = Screen(settings.color, quiet=as_json)
    people = [*filter(str.strip, persona or ()), *(_lines(personas, "personas") if personas else ())]
    if not people:
        raise UsageError("nobody is there to judge: give --persona TEXT, or --personas FILE with one a line")
    own = builtin_pair()[0]
    writer = settings.llm or own
    other = (pulled(judge) or Path(judge).expanduser()) if judge else writer
    asked = (_lines(questions, "questions") if questions else everyday(builtin=writer == own))[:limit]
    people, asked = list(dict.fromkeys(people)), list(dict.fromkeys(asked))
    total, counts, cancel = len(people) * len(asked), {"pairs": 0, "none": 0}, CancelToken()
    with (
        flags_named(),
        Drift.load(
            writer,
            writer,
            ctx_size=settings.ctx_size,
            threads=settings.threads,
            gpu_layers=settings.gpu_layers,
            active=1,
        ) as drift,
        _model(other, drift.pair.llm, settings.gpu_layers) as model,
        PersonaJudge(model, n_ctx=settings.ctx_size or min(DEFAULT_CONTEXT, model.n_ctx_train)) as scores,
    ):
        if other == own:
            screen.note(
                "the built-in model cannot judge: what it says of these answers means nothing; give --judge MODEL"
            )
        made = {"judge": model.fingerprint, "llm": drift.pair.llm.fingerprint, "seed": seed}
        records = Records(out, made | {"answers": answers, "max_tokens": settings.max_tokens})
        known = sum((who, question) in records.known for who in people for question in asked)
        work = build_pairs(
            drift,
            scores,
            people,
            asked,
            answers=answers,
            seed=seed,
            max_tokens=settings.max_tokens,
            known=records.known,
            cancel=cancel,
        )
        with cancel_on_interrupt(cancel), closing(work), Progress(total, screen) as progress:
            for _ in range(known):
                progress.step(worked=False)
            for built in work:
                records.add(built)
                counts["none" if built.why else "pairs"] += 1
                if built.why:
                    progress.note(f"{built.prompt[:60]!r}: {built.why}")
                progress.step()
    if cancel.cancelled:
        left = total - known - sum(counts.values())
        screen.say(f"stopped: {counted(left, 'pair')} of {total:,} left; the same command goes on from there")
        raise typer.Exit(INTERRUPTED)
    if as_json:
        told = {"file": str(out), "personas": len(people), "questions": len(asked), "known": known}
        screen.json({**told, **counts, "made": made, "seed": seed})
        return
    typer.echo(f"{counted(counts['pairs'], 'new pair')} in {out}, {known:,} there before, {counts['none']:,} gave none")
    typer.echo(f"learn from them: drift-edge learn {out} --user {people[0][:20]!r}")


@contextmanager
def _model(path: Path, loaded: Model, gpu_layers: int | None) -> Iterator[Model]:
    """The model that judges: the one that answers, where both are one file."""
    from drift_edge.llama.model import Model as Loaded
    from drift_edge.pair import same_file

    if same_file(path, loaded.path):
        yield loaded
        return
    with Loaded(path, gpu_layers=gpu_layers) as model:
        yield model


def _lines(path: Path, what: str) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        DriftError: it cannot be read, is too large, not UTF-8, or empty.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise DriftError(f"{path}: cannot read the {what}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DriftError(f"{path}: the {what} are not UTF-8: byte {error.start + 1} is not") from error
    if len(data) > _MOST:
        raise DriftError(f"{path}: more than {_MOST >> 20} MiB of {what}")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DriftError(f"{path}: no {what}: expected one a line")
    return lines
