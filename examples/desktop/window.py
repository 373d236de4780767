"""The window: a conversation, two answers to choose between, and the profile as bars."""

from __future__ import annotations

import random
import tkinter as tk
from collections.abc import Mapping
from tkinter import ttk

from drift_edge import PreferencePair
from drift_edge.profile import Weight

from .worker import Done, Ready, Said, Told, Weights, Worker

LOOK = 30  # milliseconds between two looks into the worker's inbox
BARS = 12  # attributes shown
ROW, LABEL = 24, 118  # pixels of a bar's line, and of its name
TOWARDS, AWAY, IDLE = "#2f7d6b", "#b4552d", "#b9b9b4"


class Window:
    """Everything that is seen. The engine is only ever spoken to through the worker.

    Args:
        root: Tk's window.
        worker: is closed with it.
    """

    def __init__(self, root: tk.Tk, worker: Worker) -> None:
        self.root, self.worker = root, worker
        self.messages: list[dict[str, str]] = []
        self.sides: list[str] = []  # the two answers, as shown
        self.order: tuple[int, ...] = (0, 1)  # which of the worker's answers stands on which side
        self.busy = True  # until the models are loaded
        root.title("drift-edge")
        root.geometry("1000x620")
        root.protocol("WM_DELETE_WINDOW", self.close)
        self._build()
        self._enable()
        self._next = root.after(LOOK, self._look)

    def _build(self) -> None:
        root = self.root
        if "clam" in (style := ttk.Style()).theme_names() and root.tk.call("tk", "windowingsystem") == "x11":
            style.theme_use("clam")  # Tk's own look on Linux is of 1995
            root.configure(background=style.lookup("TFrame", "background"))
        root.columnconfigure(0, weight=1)
        root.rowconfigure(0, weight=1)
        left = ttk.Frame(root, padding=12)
        left.grid(row=0, column=0, sticky="nsew")
        left.columnconfigure((0, 1), weight=1, uniform="sides")
        left.rowconfigure(0, weight=1)
        self.transcript = self._text(left, 16)
        self.transcript.grid(row=0, column=0, columnspan=2, sticky="nsew")
        self.transcript.tag_configure("user", font="TkHeadingFont", spacing1=10)
        self.transcript.tag_configure("note", foreground="#777777", spacing1=6)
        self.panes = [self._text(left, 8), self._text(left, 8)]
        self.choose = [
            ttk.Button(left, text="A is better", command=lambda: self.chose(0)),
            ttk.Button(left, text="B is better", command=lambda: self.chose(1)),
        ]
        below = ttk.Frame(left, padding=(0, 12, 0, 0))
        below.grid(row=3, column=0, columnspan=2, sticky="ew")
        below.columnconfigure(0, weight=1)
        self.question = ttk.Entry(below)
        self.question.grid(row=0, column=0, sticky="ew", ipady=4)
        self.question.bind("<Return>", lambda _: self.ask())
        self.send = ttk.Button(below, text="Ask", command=self.ask)
        self.compare = ttk.Button(below, text="Two answers", command=lambda: self.ask(twice=True))
        self.halt = ttk.Button(below, text="Stop", command=self.worker.stop)
        for column, button in enumerate((self.send, self.compare, self.halt), 1):
            button.grid(row=0, column=column, padx=(6, 0))
        root.bind("<Escape>", lambda _: self.worker.stop())

        right = ttk.Frame(root, padding=(0, 12, 12, 12))
        right.grid(row=0, column=1, sticky="ns")
        self.heading = ttk.Label(right, text="Loading the models …")
        self.heading.pack(anchor="w")
        self.bars = tk.Canvas(right, width=320, height=BARS * ROW + 8, highlightthickness=0, background="white")
        self.bars.pack(pady=8)
        ttk.Label(right, text="Strength").pack(anchor="w")
        self.strength = ttk.Scale(right, from_=0.0, to=1.0, value=0.5)
        self.strength.pack(fill="x")
        self.status = ttk.Label(right, foreground="#777777", wraplength=320)
        self.status.pack(anchor="w", pady=(12, 0))
        self.question.focus_set()

    def _text(self, parent: tk.Misc, height: int) -> tk.Text:
        font = ("TkDefaultFont", 11)
        text = tk.Text(parent, wrap="word", height=height, width=20, font=font, padx=10, pady=8, state="disabled")
        text.configure(relief="solid", borderwidth=1)
        return text

    def close(self) -> None:
        """Free the engine and close the window."""
        self.root.after_cancel(self._next)
        self.worker.close()
        self.root.destroy()

    # -- what the person does

    def ask(self, *, twice: bool = False) -> None:
        """Send what was typed; with `twice`, for two answers."""
        text = self.question.get().strip()
        if not text or self.busy:
            return
        self._settle()
        self.question.delete(0, "end")
        self._write(self.transcript, f"{text}\n", "user")
        self.messages.append({"role": "user", "content": text})
        self.busy = True
        self.sides = ["", ""] if twice else [""]
        self.order = random.choice([(0, 1), (1, 0)]) if twice else (0,)  # so that no side is always the own one
        strength = self.strength.get()
        if twice:
            self._show_panes()
            self.worker.ask_twice(list(self.messages), strength)
        else:
            self.worker.ask(list(self.messages), strength)
        self._enable()

    def chose(self, side: int) -> None:
        """Go on with one of two answers, and learn from the choice."""
        chosen, rejected = self.sides[side], self.sides[1 - side]
        if chosen.strip() != rejected.strip():
            self.worker.learn(PreferencePair(tuple(self.messages), chosen, rejected, source="desktop"))
        self._keep(chosen)

    def _settle(self) -> None:
        """Whoever asks on without choosing goes on with the own answer, and nothing is learned."""
        if len(self.sides) == 2:
            self._keep(self.sides[self.order.index(0)])

    def _keep(self, text: str) -> None:
        self.sides = []
        self._hide_panes()
        self._write(self.transcript, f"{text}\n")
        self.messages.append({"role": "assistant", "content": text})
        self._enable()

    # -- what the worker says

    def _look(self) -> None:
        while not self.worker.inbox.empty():
            self._take(self.worker.inbox.get())
        self._next = self.root.after(LOOK, self._look)

    def _take(self, message: object) -> None:
        match message:
            case Ready(name):
                self.busy = False
                self.status.configure(text=f"{name}, on this machine alone")
                self._enable()
            case Said(side, text):
                shown = self.order.index(side)
                self.sides[shown] += text
                self._write(self.transcript if len(self.sides) == 1 else self.panes[shown], text)
            case Done(texts, whole, speed):
                self._done(texts, whole, speed)
            case Weights(n, table):
                self._draw(n, table)
            case Told(text):
                self._write(self.transcript, f"{text}\n", "note")

    def _done(self, texts: tuple[str, ...], whole: bool, speed: float) -> None:
        self.busy = False
        if speed:
            self.status.configure(text=f"{speed:,.0f} tokens a second")
        if not texts:  # an error, which was told: as if it had not been asked
            self.messages.pop()
            self.sides = []
            self._hide_panes()
        elif len(self.sides) == 2 and (not whole or len(texts) < 2):
            self._settle()  # there is nothing to choose between
        elif len(self.sides) == 1:
            self.messages.append({"role": "assistant", "content": self.sides.pop()})
            self._write(self.transcript, "\n")
        self._enable()

    # -- how it looks

    def _enable(self) -> None:
        """Only what can be done now can be clicked."""
        choosing = len(self.sides) == 2 and not self.busy
        states = {self.send: not self.busy, self.compare: not self.busy, self.halt: self.busy}
        states |= dict.fromkeys(self.choose, choosing)
        for button, on in states.items():
            button.state(["!disabled" if on else "disabled"])

    def _show_panes(self) -> None:
        for column, (pane, button) in enumerate(zip(self.panes, self.choose, strict=True)):
            pane.configure(state="normal")
            pane.delete("1.0", "end")
            pane.configure(state="disabled")
            pane.grid(row=1, column=column, sticky="nsew", padx=(0, 6) if column == 0 else (6, 0), pady=(12, 6))
            button.grid(row=2, column=column)

    def _hide_panes(self) -> None:
        for widget in (*self.panes, *self.choose):
            widget.grid_remove()

    @staticmethod
    def _write(text: tk.Text, more: str, *tags: str) -> None:
        text.configure(state="normal")
        text.insert("end", more, tags)
        text.configure(state="disabled")
        text.see("end")

    def _draw(self, n: int, table: Mapping[str, Weight]) -> None:
        """The largest weights as bars from a middle line, each with its standard error."""
        self.heading.configure(text=f"What {n} choice{'s' * (n != 1)} taught" if n else "Nothing learned yet")
        self.bars.delete("all")
        largest = sorted(table, key=lambda name: -abs(table[name].weight))[:BARS]
        middle, half = LABEL + 101, 95
        scale = half / max([1e-9, *(abs(w.weight) + (w.se or 0) for w in table.values())])
        for row, name in enumerate(largest):
            weight, y = table[name], row * ROW + ROW / 2
            color = IDLE if not weight.active else TOWARDS if weight.weight > 0 else AWAY
            end = middle + weight.weight * scale
            self.bars.create_text(LABEL, y, text=name, anchor="e", fill="#222222" if weight.active else "#999999")
            self.bars.create_rectangle(middle, y - 7, end, y + 7, fill=color, width=0, tags="bar")
            if weight.se:
                self.bars.create_line(end - weight.se * scale, y, end + weight.se * scale, y, fill="#333333")
        self.bars.create_line(middle, 0, middle, BARS * ROW, fill="#888888")
