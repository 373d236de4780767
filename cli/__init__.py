"""The command line, `drift-edge`: the only room that prints."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit."""
    try:
        from .app import app  # typer is loaded here and nowhere else

        app(prog_name="drift-edge")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
