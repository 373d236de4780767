"""`drift-edge attributes list`: the prompts that weights can be given to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The attributes that answers can be steered by.")


@app.callback()
def _attributes() -> None:
    pass


@app.command("list")
def show(
    attributes: Annotated[Path | None, typer.Option(help="TOML file of a pool of your own.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the base prompt and all attributes."""
    from drift_edge.attributes import Attributes

    from .render import Screen, visible

    pool = Attributes.from_toml(attributes) if attributes else Attributes.builtin()
    if as_json:
        prompts = {attribute.name: attribute.prompt for attribute in pool.values()}
        Screen().json({"base": pool.base, "attributes": prompts})
        return
    width = max(map(len, pool))
    typer.echo(f"{'(base)':<{width}}  {visible(pool.base)}")
    for attribute in pool.values():
        typer.echo(f"{attribute.name:<{width}}  {visible(attribute.prompt)}")
