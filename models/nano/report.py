"""The built-in pair's report: what it can do, measured on what its training never saw, against targets.

`python -m drift_edge.models.nano.report` prints the tables; `--write` also puts them into the model card.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from drift_edge import Drift
from drift_edge.errors import DriftError

from .. import builtin_pair
from .corpus import heldout_cells, heldout_topics, topics
from .evaluate import BETA, FULL, QUICK, evaluate
from .results import Figure, Results, StyleRow

CARD = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- figures: written by `make nano-report ARGS=--write` -->", "<!-- end of figures -->"
_REPORT_SECONDS = 10.0
_SHAPE = ("embedding_length", "block_count", "attention.head_count", "feed_forward_length")
_FILE_HEAD = ["file", "parameters", "size", "dim / layers / heads / ffn"]
_FIGURE_HEAD = ["measured", "value", "n", "target", "", "note"]
_SHARES = ["plain", "prompted", "paraphrased", "+1", "-1", "on topic +1", "garbled +1"]
_STYLE_HEAD = ["attribute", "AUC", "unseen topics", *_SHARES]


class Progress:
    """Tells on stderr how far the work is, and how long the rest will take.

    Args:
        total: the work in all, in any unit.
    """

    def __init__(self, total: float) -> None:
        self._total, self._done = total, 0.0
        self._began = self._told = time.monotonic()

    def tick(self, work: float) -> None:
        """Note work done."""
        self._done += work
        now = time.monotonic()
        if now - self._told >= _REPORT_SECONDS:
            self._told = now
            share = min(1.0, self._done / self._total)
            left = (now - self._began) * (1 - share) / share
            print(f"{share:4.0%}, {left:.0f} s to go", file=sys.stderr, flush=True)


def file_rows(drift: Drift) -> list[list[str]]:
    """Of each file: its name, parameters, size and shape."""
    rows = []
    for model in (drift.pair.llm, drift.pair.slm):
        get, size = model.header.metadata.get, model.path.stat().st_size
        shape = " / ".join(str(get(f"llama.{key}")) for key in _SHAPE)
        rows.append([f"`{model.path.name}`", f"{model.n_params / 1e6:.2f} M", f"{size / 1e6:.2f} MB", shape])
    return rows


def figure_row(figure: Figure) -> list[str]:
    """A figure as cells of `_FIGURE_HEAD`."""
    bound = "" if figure.target is None else f"{'<=' if figure.at_most else '>='} {figure.target:g}"
    verdict = {None: "", True: "ok", False: "miss"}[figure.ok]
    return [figure.name, f"{figure.value:.3f}", f"{figure.n:,}", bound, verdict, figure.note]


def style_row(row: StyleRow) -> list[str]:
    """An attribute as cells of `_STYLE_HEAD`."""
    shares = (row.plain, row.prompted, row.paraphrased, row.plus, row.minus, row.on_topic, row.garbled)
    return [row.name, f"{row.auc:.3f}", f"{row.auc_topics:.3f}", *(f"{share:.2f}" for share in shares)]


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal: the first column and notes to the left, the others to the right."""
    columns = []
    for i, column in enumerate(zip(head, *rows, strict=True)):
        width = max(map(len, column))
        columns.append([cell.ljust(width) if i == 0 or head[i] == "note" else cell.rjust(width) for cell in column])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same table in Markdown."""
    rule = ["---" if i == 0 or name == "note" else "---:" for i, name in enumerate(head)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def card_section(files: Sequence[Sequence[str]], results: Results, quick: bool) -> str:
    """What stands between the markers of the model card."""
    legend = (
        "AUC: of the sLM's reward, texts of the style against neutral ones, in held-out cells and phrasings, and on "
        "unseen topics. The other columns are shares of answers with the style's marker: plain, with the attribute's "
        "sentence as the LLM's system prompt, with a paraphrase that training never saw, and under fused steering at "
        f"beta {BETA:g} with weight +1 and -1; the last two are of the answers with +1."
    )
    sampling = "the engine's default samplers" + (", a quick run with few samples" if quick else "")
    return "\n\n".join(
        [
            markdown(_FILE_HEAD, files),
            f"Seed {results.seed}; answers are drawn with {sampling}.",
            markdown(_FIGURE_HEAD, [figure_row(figure) for figure in results.figures]),
            legend,
            markdown(_STYLE_HEAD, [style_row(row) for row in results.styles]),
        ]
    )


def write_card(section: str, path: Path = CARD) -> None:
    """Put a section between the markers of the model card.

    Raises:
        DriftError: the card lacks a marker.
    """
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DriftError(f"{path}: expected the lines {BEGIN!r} and {END!r}, between which the figures go")
    path.write_text(f"{before}{BEGIN}\n\n{section}\n\n{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str | Path] | None = None) -> None:
    """The command line; `arguments` may be just the two files."""
    parser = argparse.ArgumentParser(prog="drift_edge.models.nano.report", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="GGUF", help="both files, told apart by their sizes")
    parser.add_argument("--llm", type=Path, help="GGUF file of the LLM (default: the built-in one)")
    parser.add_argument("--slm", type=Path, help="GGUF file of the sLM (default: the built-in one)")
    parser.add_argument("--quick", action="store_true", help="few samples: a rough picture")
    parser.add_argument("--seed", type=int, default=1, help="of every draw")
    parser.add_argument("--json", type=Path, help="also write all figures and the flawed answers to this file")
    parser.add_argument("--write", action="store_true", help="put the tables into the model card")
    options = parser.parse_args(None if arguments is None else list(map(str, arguments)))
    files = options.files or [path for path in (options.llm, options.slm) if path]
    if len(files) not in (0, 2):
        parser.error("expected the files of an LLM and an sLM, or none for the built-in pair")
    for path in files:
        if not path.is_file():
            parser.error(f"{path}: no such file")

    slm, llm = sorted(files or builtin_pair(), key=lambda path: path.stat().st_size)
    sizes = QUICK if options.quick else FULL
    print(
        f"seed {options.seed}; held out of {len(topics())} topics: {len(heldout_topics())} topics, "
        f"{len(heldout_cells())} cells of a topic and a kind of question",
        file=sys.stderr,
    )
    began = time.monotonic()
    with Drift.load(llm, slm, ctx_size=1_024) as drift:
        results = evaluate(drift, sizes, options.seed, Progress(sizes.cost()).tick)
        about = file_rows(drift)
    print(f"measured in {time.monotonic() - began:.0f} s", file=sys.stderr)
    print(aligned(_FILE_HEAD, about), end="\n\n")
    print(aligned(_STYLE_HEAD, [style_row(row) for row in results.styles]), end="\n\n")
    print(aligned(_FIGURE_HEAD, [figure_row(figure) for figure in results.figures]))
    if options.json:
        options.json.write_text(json.dumps({"quick": options.quick, **asdict(results)}, indent=1), encoding="utf-8")
    if options.write:
        write_card(card_section(about, results, options.quick))


if __name__ == "__main__":
    main()
