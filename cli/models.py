"""`drift-edge models`: the model files on this machine, and those that could be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drift_edge.errors import ModelError, ModelFileError, UsageError

from . import pull
from .which import MODEL, AsJson

if TYPE_CHECKING:
    from drift_edge.llama.chat import ChatFormat

app = typer.Typer(no_args_is_help=True, help="Models: here, and on the hub.")


app.command("pull")(pull.pull)
app.command("rm")(pull.remove)
app.command("verify")(pull.verify)


@app.command("list")
def show_all(
    folder: Annotated[Path | None, typer.Argument(help="Show the GGUF files under this folder alone.")] = None,
    ctx_size: Annotated[int, typer.Option(min=16, help="Tokens of context to count memory for.")] = 4_096,
    as_json: AsJson = False,
) -> None:
    """List the models that are here, then the pairs that can be pulled and fit this machine, best first."""
    from drift_edge.storage import folders

    from ..models import builtin_pair
    from ..models.hub.settings import HubSettings
    from ..models.installed import pulled_pairs
    from .catalogue import budget, rows_of_catalogue, show_catalogue
    from .progress import size
    from .render import Screen, visible

    if folder is not None and not folder.is_dir():
        raise UsageError(f"{folder}: not a folder")
    try:
        found = list(builtin_pair())
    except ModelFileError as error:
        Screen().note(str(error))
        found = []
    places = [folder] if folder else [folders().models, HubSettings.from_environment().cache]
    for place in places:
        found += [path for path in sorted(place.rglob("*.gguf")) if "blobs" not in path.parts[-2:-1]]
    rows = [_row(path) for path in found]
    pairs, memory = [] if folder else pulled_pairs(), budget()
    catalogue = [] if folder else rows_of_catalogue(memory, ctx_size, pairs)
    if as_json:
        Screen().json({"models": rows, "pairs": pairs, "memory": memory, "catalogue": catalogue})
        return
    for row in rows:
        facts = row["error"] or f"{row['architecture']}, {row['name']}"
        typer.echo(visible(f"{size(row['bytes']):>9}  {row['path']}  ({facts})"))
    if pairs:
        typer.echo(f"\nPairs that are here: {', '.join(pairs)}")
    if catalogue:
        show_catalogue(catalogue, memory, ctx_size)


@app.command("info")
def info(
    file: Annotated[
        str, typer.Argument(metavar=f"{MODEL}|PAIR", help="A GGUF file, a model that was pulled, or a known pair.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show what a model file says of itself, or the catalogue of a pair; of 'nano', what both its files say."""
    from ..models.catalogue import BUILTIN, is_pair
    from ..models.installed import pulled_pairs
    from .catalogue import budget, rows_of_catalogue
    from .render import Screen, show_log, visible

    show_log(False)
    facts: dict[str, Any]
    if both := _builtin(file):
        llm, slm = map(_facts, both)
        facts = {"name": BUILTIN, "llm": llm, "slm": slm}
    elif is_pair(file) and not Path(file).exists():
        rows = rows_of_catalogue(budget(), 4_096, pulled_pairs())
        facts = next(row for row in rows if row["name"].partition(":")[0] == file.partition(":")[0].lower())
    else:
        facts = _facts(_model(file))
    if as_json:
        Screen().json(facts)
        return
    if both:
        facts = {f"{which} {name}": value for which in ("llm", "slm") for name, value in facts[which].items()}
    width = max(map(len, facts))
    for name, value in facts.items():
        typer.echo(visible(f"{name.replace('_', ' '):<{width}}  {_text(value)}"))


@app.command("check")
def check(
    llm: Annotated[str, typer.Argument(metavar=f"{MODEL}|PAIR", help="The LLM, or a pair that was pulled.")],
    slm: Annotated[str | None, typer.Argument(metavar=MODEL, help="The small LM; else the LLM itself.")] = None,
) -> None:
    """Prove that two models make a pair, or say what differs first; exit code 3 then."""
    from drift_edge.llama.model import Model
    from drift_edge.pair import ModelPair

    from .render import show_log, visible

    show_log(False)
    paths = _paths(llm, slm)
    with Model(paths[0], vocab_only=True) as large, Model(paths[-1], vocab_only=True) as small:
        two = len(paths) == 2
        pair = ModelPair(large, small if two else large)
        whose = f"{paths[0].name} and {paths[1].name} share" if two else f"{paths[0].name} has"
        lines = [f"ok: {whose} a tokenizer of {pair.n_vocab:,} tokens", _template_line(pair.llm_format)]
        if two:
            lines.append(_template_line(pair.slm_format))
    for line in lines:
        typer.echo(visible(line))


def _paths(llm: str, slm: str | None) -> list[Path]:
    from ..models.catalogue import is_pair
    from ..models.installed import cached_pair

    if slm is None and (both := _builtin(llm)):
        return list(both)
    if slm is None and is_pair(llm) and not Path(llm).exists():
        return list(cached_pair(llm))
    return [_model(name) for name in (llm, slm) if name is not None]


def _builtin(name: str) -> tuple[Path, Path] | None:
    """The files of the built-in pair, where `name` means it and no file."""
    from ..models import builtin_pair
    from ..models.catalogue import BUILTIN

    return builtin_pair() if name.lower() in (BUILTIN, "builtin") and not Path(name).exists() else None


def _model(name: str) -> Path:
    from .config import pulled

    return pulled(name) or Path(name)


def _template_line(how: ChatFormat) -> str:
    own = "its own chat template" if how.model.template_source else "no chat template, so a generic one is used"
    return f"{how.model.path.name}: {own}, {'with' if how.has_system_role else 'without'} a system role"


def _row(path: Path) -> dict[str, Any]:
    from drift_edge.llama.gguf_header import read_header

    size = path.stat().st_size if path.exists() else 0  # a link to nowhere
    row: dict[str, Any] = {"path": str(path), "bytes": size, "architecture": None, "name": None}
    try:
        header = read_header(path)
    except ModelError as error:
        return {**row, "error": str(error).removeprefix(f"{path}: ")}
    name = str(header.metadata.get("general.name", path.stem))
    return {**row, "architecture": header.architecture, "name": name, "error": None}


def _facts(path: Path) -> dict[str, Any]:
    from drift_edge.llama.model import Model

    with Model(path, vocab_only=True) as model:
        header = model.header
        return {
            "path": str(model.path),
            "name": model.name,
            "bytes": header.file_bytes,
            "architecture": header.architecture,
            "parameters": model.n_params,
            "tensors": _types(header.tensor_types),
            "context_length": header.metadata.get(f"{header.architecture}.context_length"),
            "tokenizer": header.metadata.get("tokenizer.ggml.model"),
            "tokens": model.n_vocab,
            "chat_template": model.template_source is not None,
            "gguf_version": header.version,
            "fingerprint": header.fingerprint,
        }


def _types(counts: dict[int, int]) -> dict[str, int]:
    """How many tensors there are of each type, by llama.cpp's names."""
    from gguf.constants import GGMLQuantizationType

    names = {int(kind): kind.name for kind in GGMLQuantizationType}
    return {names.get(kind, f"type {kind}"): n for kind, n in sorted(counts.items(), key=lambda item: -item[1])}


def _text(value: object) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{n} {name}" for name, n in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
