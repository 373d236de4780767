"""`drift-edge models list|info|check`: the model files on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drift_edge.errors import ModelError, ModelFileError, UsageError

if TYPE_CHECKING:
    from drift_edge.llama.chat import ChatFormat
    from drift_edge.llama.model import Model

app = typer.Typer(no_args_is_help=True, help="Model files on this machine.")
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("list")
def show_all(
    folder: Annotated[Path | None, typer.Argument(help="Where to look; else the data folder's models/.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the built-in pair and the GGUF files under a folder."""
    from drift_edge.storage import folders

    from ..models import builtin_pair
    from .render import Screen, visible

    if folder is not None and not folder.is_dir():
        raise UsageError(f"{folder}: not a folder")
    try:
        found = list(builtin_pair())
    except ModelFileError as error:
        Screen().note(str(error))
        found = []
    found += sorted((folder or folders().models).rglob("*.gguf"))
    rows = [_row(path) for path in found]
    if as_json:
        Screen().json({"models": rows})
        return
    for row in rows:
        facts = row["error"] or f"{row['architecture']}, {row['name']}"
        typer.echo(visible(f"{_size(row['bytes']):>9}  {row['path']}  ({facts})"))


@app.command("info")
def info(
    file: Annotated[Path, typer.Argument(help="A GGUF file.")],
    as_json: AsJson = False,
) -> None:
    """Show what a model file says of itself."""
    from drift_edge.llama.model import Model

    from .render import Screen, show_log, visible

    show_log(False)
    with Model(file, vocab_only=True) as model:
        facts = _facts(model)
    if as_json:
        Screen().json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        typer.echo(visible(f"{name.replace('_', ' '):<{width}}  {_text(value)}"))


@app.command("check")
def check(
    llm: Annotated[Path, typer.Argument(help="GGUF file of the LLM.")],
    slm: Annotated[Path | None, typer.Argument(help="GGUF file of the small LM.")] = None,
) -> None:
    """Prove that two models make a pair, or say what differs first; exit code 3 then."""
    from drift_edge.llama.model import Model
    from drift_edge.pair import ModelPair

    from .render import show_log, visible

    show_log(False)
    with Model(llm, vocab_only=True) as large, Model(slm or llm, vocab_only=True) as small:
        pair = ModelPair(large, small if slm else large)
        whose = f"{llm.name} and {slm.name} share" if slm else f"{llm.name} has"
        lines = [f"ok: {whose} a tokenizer of {pair.n_vocab:,} tokens", _template_line(pair.llm_format)]
        if slm:
            lines.append(_template_line(pair.slm_format))
    for line in lines:
        typer.echo(visible(line))


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


def _facts(model: Model) -> dict[str, Any]:
    header = model.header
    template = model.template_source
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
        "chat_template": template is not None,
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
    return f"{value:,}" if isinstance(value, int) else str(value)


def _size(n: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} GiB"
