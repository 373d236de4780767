"""The `drift-edge` command and its subcommands, one module each."""

from __future__ import annotations

from typing import Annotated

import typer

from drift_edge import __version__

from . import attributes, bench, chat, doctor, evaluate, learn, models, profile, serve
from .errors import GuardedGroup

app = typer.Typer(
    cls=GuardedGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"drift-edge {__version__}")
        raise typer.Exit


@app.callback()
def drift_edge(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Personalise a local LLM while it decodes, offline."""


app.command("chat")(chat.chat)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.command("learn")(learn.learn)
app.command("serve")(serve.serve)
app.add_typer(evaluate.app, name="eval")
app.add_typer(profile.app, name="profile")
app.add_typer(models.app, name="models")
app.add_typer(attributes.app, name="attributes")
