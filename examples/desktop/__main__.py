"""A desktop app that embeds drift-edge: `python -m examples.desktop` from the repository's root."""

from __future__ import annotations

import argparse
import tkinter as tk

from drift_edge import Drift

from .window import Window
from .worker import Worker


def main() -> None:
    """Open the window and stay until it is closed."""
    parser = argparse.ArgumentParser(prog="examples.desktop", description=__doc__)
    parser.add_argument("--llm", help="GGUF file; with --slm, in place of the built-in pair")
    parser.add_argument("--slm", help="GGUF file of the small LM")
    parser.add_argument("--profile", default="default", help="name or path of your profile")
    options = parser.parse_args()
    if (options.llm is None) != (options.slm is None):
        parser.error("--llm and --slm go together")

    def load() -> Drift:
        return Drift.load(options.llm, options.slm) if options.llm else Drift.builtin()

    root = tk.Tk()
    Window(root, Worker(load, options.profile))
    root.mainloop()


if __name__ == "__main__":
    main()
