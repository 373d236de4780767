"""The desktop app, run as in `desktop_session.py`. `DRIFT_EDGE_SCREENSHOT=FILE.png` keeps a picture of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.screen import xvfb

SESSION = Path(__file__).with_name("desktop_session.py")


@pytest.mark.usefixtures("builtin_files")
@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="Xvfb is not there")
def test_the_desktop_app(tmp_path: Path) -> None:
    pytest.importorskip("tkinter", reason="this Python has no Tk")
    with xvfb(tmp_path) as (display, screen):
        command = [sys.executable, "-m", "pytest", str(SESSION), "-q", "-x", "-p", "no:cacheprovider", "--timeout=50"]
        environment = {**os.environ, "DISPLAY": display, "DRIFT_EDGE_FRAME_BUFFER": str(screen.path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-2_000:]
    assert " passed" in done.stdout
