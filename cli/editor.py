"""A text in the person's own editor."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from drift_edge.errors import UsageError
from drift_edge.events import CancelToken

from .interrupt import cancel_on_interrupt

_USUAL = ("notepad",) if sys.platform == "win32" else ("sensible-editor", "nano", "vi")


def edit_text(text: str) -> str:
    """Open `text` in $VISUAL or $EDITOR, else in one that is usually there, and return what was saved.

    Raises:
        UsageError: there is no editor, it ends with an error, or what it saved is not UTF-8.
    """
    command = _editor()
    with tempfile.TemporaryDirectory(prefix="drift-edge-") as folder:  # readable by its owner alone
        path = Path(folder) / "answer.md"
        path.write_text(text + "\n", encoding="utf-8")
        try:
            with cancel_on_interrupt(CancelToken()):  # Ctrl-C is the editor's
                code = subprocess.run([*command, str(path)], check=False).returncode
        except OSError as error:
            raise UsageError(f"the editor {command[0]!r} cannot be started: {error.strerror}; set $EDITOR") from error
        if code:
            raise UsageError(f"the editor {command[0]!r} ended with {code}: nothing is changed")
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"what the editor {command[0]!r} saved cannot be read: {error}") from error


def _editor() -> list[str]:
    wanted = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if wanted:
        try:
            return shlex.split(wanted, posix=sys.platform != "win32") or [wanted]
        except ValueError as error:
            raise UsageError(f"$EDITOR {wanted!r} cannot be understood: {error}") from None
    found = next((name for name in _USUAL if shutil.which(name)), None)
    if found is None:
        raise UsageError("there is no editor: set $EDITOR")
    return [found]
