"""The desktop app as a person uses it: ask, stop, choose, and the profile's bars move. `test_desktop.py` runs this file
in a process of its own, on a screen that nobody sees: Tk ends the whole process when its screen goes.
"""

from __future__ import annotations

import gc
import os
import threading
import time
import tkinter as tk
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drift_edge import Drift, DriftError, Learner, Profile
from examples.desktop.window import Window
from examples.desktop.worker import Worker
from tests.screen import Screen

WIDTH, HEIGHT = 1000, 620
BARS = slice(60, 340), slice(800, 990)


@pytest.fixture
def screen() -> Screen:
    return Screen(Path(os.environ["DRIFT_EDGE_FRAME_BUFFER"]))


@pytest.fixture(autouse=True)
def no_garbage() -> Iterator[None]:
    """Tk's objects must be freed in the thread that made them, and the engine's thread collects garbage, too."""
    yield
    gc.collect()


@pytest.fixture
def app(builtin_files: tuple[Path, Path], tmp_path: Path) -> Iterator[Window]:
    root = tk.Tk()
    app = Window(root, Worker(lambda: Drift.load(*builtin_files), str(tmp_path / "me.json")))
    root.geometry(f"{WIDTH}x{HEIGHT}+0+0")
    yield app
    if app.worker._thread.is_alive():
        app.close()


def wait(app: Window, condition: Callable[[], object]) -> None:
    """Let the window live until something holds."""
    latest = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < latest, app.transcript.get("1.0", "end")
        app.root.update()
        time.sleep(0.002)
    app.root.update()


def ask(app: Window, text: str, *, twice: bool = False) -> None:
    wait(app, lambda: not app.busy)
    app.question.insert(0, text)
    (app.compare if twice else app.send).invoke()
    assert app.busy


def test_from_the_first_question_to_a_changed_profile(app: Window, screen: Screen, tmp_path: Path) -> None:
    before = screen.pixels(WIDTH, HEIGHT).copy()
    ask(app, "How do I make tea?")
    wait(app, lambda: not app.busy)
    assert [message["role"] for message in app.messages] == ["user", "assistant"]
    assert app.messages[1]["content"] in app.transcript.get("1.0", "end")
    assert "tokens a second" in app.status.cget("text")
    assert not app.bars.find_withtag("bar") or all(_length(app, bar) == 0 for bar in app.bars.find_withtag("bar"))

    for question in ("How do I dust a shelf?", "How do I cook rice?"):
        ask(app, question, twice=True)
        assert app.compare.instate(["disabled"])
        wait(app, lambda: not app.busy)
        assert len(app.sides) == 2, app.transcript.get("1.0", "end")
        assert app.choose[1].instate(["!disabled"])
        shorter = min((0, 1), key=lambda side: len(app.sides[side]))
        texts = list(app.sides)
        learned = app.heading.cget("text")
        app.choose[shorter].invoke()
        assert app.messages[-1] == {"role": "assistant", "content": texts[shorter]}
        wait(app, lambda learned=learned: app.heading.cget("text") != learned)
    assert app.heading.cget("text") == "What 2 choices taught"
    assert any(abs(_length(app, bar)) > 10 for bar in app.bars.find_withtag("bar"))
    profile = Profile.open(tmp_path / "me.json")
    assert profile.n == 2
    assert [choice.pair.chosen for choice in profile.choices()][-1] == texts[shorter]

    ask(app, "How do I make pancakes?", twice=True)
    wait(app, lambda: not app.busy)
    app.root.update()
    after = screen.pixels(WIDTH, HEIGHT)
    assert (after[BARS] != before[BARS]).any(), "the bars must be on the screen"
    if path := os.environ.get("DRIFT_EDGE_SCREENSHOT"):
        screen.save(Path(path), WIDTH, HEIGHT)


def _length(app: Window, bar: int) -> float:
    left, _, right, _ = app.bars.coords(bar)
    return right - left


def test_asking_on_without_choosing_teaches_nothing(app: Window, tmp_path: Path) -> None:
    ask(app, "What is a bicycle?", twice=True)
    wait(app, lambda: not app.busy)
    own = app.sides[app.order.index(0)]
    ask(app, "What is a map?")
    wait(app, lambda: not app.busy)
    assert [message["content"] for message in app.messages[:3]] == ["What is a bicycle?", own, "What is a map?"]
    assert not Profile.open(tmp_path / "me.json").exists


@pytest.mark.parametrize("twice", [False, True])
def test_stop_keeps_what_was_said(twice: bool, app: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wait(app, lambda: not app.busy)
    slow = Drift.chat

    def chat(*arguments: object, **settings: object) -> Iterator[object]:
        for event in slow(*arguments, **settings):  # type: ignore[arg-type]
            yield event
            time.sleep(0.05)

    monkeypatch.setattr(Drift, "chat", chat)
    ask(app, "How do I make tea?", twice=twice)
    wait(app, lambda: app.sides and app.sides[app.order.index(0)])
    app.halt.invoke()
    wait(app, lambda: not app.busy)
    assert app.sides == []
    assert app.messages[-1]["role"] == "assistant"
    assert 0 < len(app.messages[-1]["content"].split()) < 12
    assert not Profile.open(tmp_path / "me.json").exists


@pytest.mark.parametrize("twice", [False, True])
def test_what_fails_is_told_and_leaves_no_trace(twice: bool, app: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_settings: object) -> None:
        raise DriftError("it cannot be done")

    with monkeypatch.context() as patch:
        patch.setattr(Drift, "chat", fail)
        ask(app, "How do I make tea?", twice=twice)
        wait(app, lambda: not app.busy)
    assert "it cannot be done" in app.transcript.get("1.0", "end")
    assert (app.messages, app.sides) == ([], [])
    ask(app, "What is a map?")
    wait(app, lambda: not app.busy)
    assert [message["role"] for message in app.messages] == ["user", "assistant"]


def test_a_choice_that_cannot_be_learned_ends_no_answer(app: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise DriftError("the disk is full")

    monkeypatch.setattr(Learner, "learn", fail)
    wait(app, lambda: not app.busy)
    app.messages, app.sides = [{"role": "user", "content": "Tea?"}], ["One.", "Two."]
    app.chose(0)
    ask(app, "What is a map?")
    wait(app, lambda: not app.busy)
    assert "the disk is full" in app.transcript.get("1.0", "end")
    assert [message["role"] for message in app.messages] == ["user", "assistant"] * 2
    assert app.messages[-1]["content"]


def test_closing_in_the_middle_of_an_answer_frees_the_engine(app: Window) -> None:
    ask(app, "How do I make tea?")
    app.close()
    assert "engine" not in [thread.name for thread in threading.enumerate()]


def test_an_engine_that_cannot_load_is_told(tmp_path: Path) -> None:
    app = Window(tk.Tk(), Worker(lambda: Drift.load(tmp_path / "no.gguf", tmp_path / "no.gguf"), "me"))
    wait(app, lambda: "no.gguf" in app.transcript.get("1.0", "end"))
    assert app.send.instate(["disabled"])
    app.close()
