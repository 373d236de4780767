"""The one place where an error becomes a line on stderr and an exit code.

0 fine, 1 failed, 2 usage, 3 model or weights unusable, 130 interrupted. `DRIFT_EDGE_DEBUG=1` shows the traceback too.
"""

from __future__ import annotations

import os
import sys
import traceback

import typer
from typer.core import TyperGroup

from drift_edge.errors import DriftError

INTERRUPTED = 130
# typer brings a click of its own since 0.20 or so; either way this is the root of what it shows by itself.
_ClickError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


class SessionError(DriftError):
    """A saved session is missing or cannot be read."""


class GuardedGroup(TyperGroup):
    """Runs a command; whatever it raises becomes one line and an exit code."""

    def invoke(self, ctx: object) -> object:
        """Run the command named on the line.

        Raises:
            typer.Exit: the command failed.
        """
        prepare_output()
        try:
            result = super().invoke(ctx)  # type: ignore[arg-type]
            flush_stdout()
        except (typer.Exit, typer.Abort):
            silence_stdout()
            raise
        except _ClickError as error:
            silence_stdout()
            message: str = error.message  # type: ignore[attr-defined]
            error.message = message.removeprefix("Value error, ")  # type: ignore[attr-defined]
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(report(error)) from None
        return result


def report(error: BaseException) -> int:
    """Say on stderr what went wrong, in one line, and return the exit code."""
    silence_stdout()
    if os.environ.get("DRIFT_EDGE_DEBUG") and sys.stderr:
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, BrokenPipeError):  # `| head -1`: the reader has seen enough
        return 0
    if isinstance(error, KeyboardInterrupt):
        say("")
        return INTERRUPTED
    say(f"Error: {describe(error)}")
    return error.exit_code if isinstance(error, DriftError) else 1


def describe(error: BaseException) -> str:
    """One line for people."""
    from .render import visible

    if isinstance(error, DriftError):
        text = str(error)
    elif isinstance(error, OSError):
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    elif isinstance(error, MemoryError):
        text = "not enough memory"
    else:
        text = f"internal error: {type(error).__name__}: {error} (DRIFT_EDGE_DEBUG=1 shows where)"
    return visible(" ".join(text.split()))


def say(line: str) -> None:
    """Print a line on stderr, if it is still there."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        return


def prepare_output() -> None:
    """A character that the terminal's encoding lacks becomes '?', not an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace")


def flush_stdout() -> None:
    """Write out what is left, so that an error shows here and not at the interpreter's end."""
    if sys.stdout:
        sys.stdout.flush()


def silence_stdout() -> None:
    """Flush stdout; where it cannot be written any more, point it to nowhere: Python flushes again at its end."""
    try:
        flush_stdout()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
