"""`drift-edge profile`: what was learned, and what to make of it. One module for looking, one for changing, one for
what needs the models, one for pictures."""

from __future__ import annotations

import typer

from . import plot, profile_edit, profile_show, rebuild

app = typer.Typer(
    no_args_is_help=True,
    help="What was learned from a person's choices. --profile NAME|PATH says whose, on every command; where nothing "
    "else is expected, the name alone does. Without either it is the profile of the settings, else 'default'.",
)


@app.callback()
def _profile() -> None:
    pass


app.command("list")(profile_show.list_all)
app.command("show")(profile_show.show)
app.command("explain")(profile_show.explain)
app.command("choices")(profile_show.choices)
app.command("history")(profile_show.history)
app.command("plot")(plot.plot)
app.command("set")(profile_edit.set_weights)
app.command("pin")(profile_edit.pin)
app.command("unpin")(profile_edit.unpin)
app.command("block")(profile_edit.block)
app.command("allow")(profile_edit.allow)
app.command("forget")(profile_edit.forget)
app.command("undo")(profile_edit.undo)
app.command("reset")(profile_edit.reset)
app.command("export")(profile_edit.export)
app.command("import")(profile_edit.load)
app.command("rebuild")(rebuild.rebuild)
app.command("restore")(profile_edit.restore)
app.command("path")(profile_show.path)
app.command("delete")(profile_edit.delete)
