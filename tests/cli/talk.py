"""A conversation typed line by line, without a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from drift_edge.cli import repl
from drift_edge.cli.config import Settings
from drift_edge.cli.dialogue import Dialogue
from drift_edge.cli.learner import Learner
from drift_edge.cli.render import Screen
from drift_edge.cli.session import Autosave
from drift_edge.profile import Profile
from tests.cli.fake import FakeEngine

INTERRUPT = "\x03"


class Talk:
    """Types lines into a conversation and keeps what was shown.

    Args:
        folder: of sessions and profile.
        capsys, patch: pytest's.
        learns: whether there is a profile.
    """

    def __init__(
        self, folder: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, *, learns: bool = False
    ) -> None:
        self.engine = FakeEngine()
        self.folder, self.capsys, self.patch = folder, capsys, patch
        self.settings = Settings(seed=1)
        self.greeting = ""
        screen = Screen("never")
        learner = Learner(self.profile, self.engine, screen, small=True) if learns else None
        saver = Autosave(folder / "sessions", screen.note)
        self.dialogue = Dialogue(self.engine, self.settings, screen, saver, learner)

    def __call__(self, *lines: str) -> tuple[str, str]:
        """Type `lines`, then Ctrl-D; returns stdout, and stderr without the greeting."""
        typed = iter(lines)

        def read_line(_prompt: str) -> str:
            line = next(typed, None)
            if line is None:
                raise EOFError
            if line == INTERRUPT:
                raise KeyboardInterrupt
            return line

        def read_key(prompt: str, _keys: Sequence[str]) -> str:
            return read_line(prompt)

        def listen(dialogue: Dialogue) -> None:
            greet(dialogue)
            self.greeting = self.capsys.readouterr().err

        greet = repl.greet
        with self.patch.context() as patch:
            patch.setattr(repl, "open_reader", lambda _screen, _history: repl.Reader(read_line, read_key))
            patch.setattr(repl, "greet", listen)
            repl.converse(self.dialogue, self.folder / "history")
        out, err = self.capsys.readouterr()
        return out, err

    @property
    def profile(self) -> Profile:
        """The profile, as it is on the disk now."""
        return Profile.open(self.folder / "me.json", slm=FakeEngine.slm)

    @property
    def asked(self) -> list[str]:
        """The questions that reached the engine."""
        return [call["messages"][-1]["content"] for call in self.engine.calls]
