"""Make the built-in pair: corpus, tokenizer, both models, GGUF files, report.

`python -m drift_edge.models.nano.make` makes the pair that is shipped; `--quick` a rough one in a few minutes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import torch

from .. import builtin_pair
from .corpus import documents
from .export import export, file_name, read_weights
from .model import LLM, SHAPES, SLM
from .tokenizer import gguf_tokenizer, load_tokenizer, save_tokenizer, train_tokenizer
from .train import Recipe, train

FULL = {
    SLM: Recipe(tokens=60_000_000, minutes=20, base_share=0.35, made_up_share=0.35),
    LLM: Recipe(tokens=42_000_000, minutes=44, base_share=0.55, batch_tokens=4_096),
}
QUICK = {
    SLM: Recipe(tokens=3_000_000, minutes=1.5, base_share=0.35, made_up_share=0.35),
    LLM: Recipe(tokens=3_500_000, minutes=4, base_share=0.55),
}
TOKENIZER_DOCUMENTS = {"full": 60_000, "quick": 15_000}
HERE = Path(__file__).parent


def make_tokenizer(path: Path, sample: int, seed: int) -> None:
    """Train the tokenizer on the messages of `sample` documents and write it to `path`."""
    source = documents(split="train", seed=seed, base_share=0.5)

    def texts() -> Iterator[str]:
        for document in islice(source, sample):
            yield from (message["content"] for message in document.messages)

    save_tokenizer(train_tokenizer(texts()), path)


def write_gguf(name: str, folder: Path, path: Path, kind: str = "Q8_0") -> None:
    """Export the checkpoint of model `llm` or `slm` in `folder`, with the tokenizer that lies there."""
    kept = torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True)
    weights = {key: value.numpy() for key, value in kept["weights"].items()}
    export(SHAPES[name], weights, load_tokenizer(folder / "tokenizer.json"), path, kind)


def take_over(llm: Path, slm: Path, folder: Path) -> None:
    """Put the weights and the tokenizer of a pair into `folder`, as something for training to begin from."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(gguf_tokenizer(llm), folder / "tokenizer.json")
    for shape, path in ((LLM, llm), (SLM, slm)):
        weights = {name: torch.from_numpy(array.copy()) for name, array in read_weights(path).items()}
        torch.save({"weights": weights, "optimizers": [], "state": None, "done": False}, folder / f"{shape.name}.pt")


def make(
    folder: Path, quick: bool, resume: bool, minutes: dict[str, float | None], seed: int, rate: float = 1.0
) -> list[Path]:
    """Make the pair in `folder`.

    Args:
        folder: for the tokenizer, the checkpoints and the GGUF files.
        quick: train a few minutes only.
        resume: keep the tokenizer and go on from checkpoints that are there.
        minutes: the most to train `llm` and `slm`; None for the recipe's own.
        seed: of the corpus, the weights and the order.
        rate: share of the recipe's learning rates.

    Returns:
        The two GGUF files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = folder / "tokenizer.json"
    if not (resume and tokenizer.is_file()):
        _say("tokenizer")
        make_tokenizer(tokenizer, TOKENIZER_DOCUMENTS["quick" if quick else "full"], seed)
    paths = []
    for shape, recipe in (QUICK if quick else FULL).items():
        recipe = replace(
            recipe,
            minutes=minutes[shape.name] or recipe.minutes,
            seed=seed,
            matrix_rate=recipe.matrix_rate * rate,
            other_rate=recipe.other_rate * rate,
        )
        _say(f"{shape.name}: up to {recipe.tokens / 1e6:.1f} M tokens or {recipe.minutes:g} minutes, seed {seed}")
        train(shape, recipe, folder, resume)
        paths.append(folder / file_name(shape.name))
        write_gguf(shape.name, folder, paths[-1])
    return paths


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="drift_edge.models.nano.make", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a rough pair, made in under 8 minutes")
    parser.add_argument("--out", type=Path, default=Path("build/nano"), help="folder to work in")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints in that folder")
    parser.add_argument("--from-builtin", action="store_true", help="begin from the built-in pair, with its tokenizer")
    parser.add_argument("--install", action="store_true", help="put the pair in the place of the built-in one")
    parser.add_argument("--minutes-llm", type=float, help="the most to train the LLM")
    parser.add_argument("--minutes-slm", type=float, help="the most to train the sLM")
    parser.add_argument("--rate", type=float, default=1.0, help="share of the recipe's learning rates")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)

    began = time.monotonic()
    minutes = {"llm": options.minutes_llm, "slm": options.minutes_slm}
    if options.from_builtin:
        take_over(*builtin_pair(), options.out)
    resume = options.resume or options.from_builtin
    paths = make(options.out, options.quick, resume, minutes, options.seed, options.rate)
    if options.install:
        paths = [Path(shutil.copy(path, HERE / path.name)) for path in paths]
    for path in paths:
        _say(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
    _say(f"made in {(time.monotonic() - began) / 60:.1f} minutes")
    if find_spec(f"{__package__}.report"):
        import_module(f"{__package__}.report").main([*paths, *(["--quick"] if options.quick else [])])


if __name__ == "__main__":
    main()
