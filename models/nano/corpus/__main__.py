"""Print samples of the corpus: `python -m drift_edge.models.nano.corpus --n 20 --style formal`."""

from __future__ import annotations

import argparse
from itertools import islice

from .conversations import SPLITS, Document, documents


def main() -> None:
    """Print documents, all of them or those whose system prompt asks for one attribute."""
    parser = argparse.ArgumentParser(description="Print samples of the corpus.")
    parser.add_argument("--n", type=int, default=10, help="how many documents")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--base-share", type=float, default=0.5)
    parser.add_argument("--style", help="only documents that ask for this attribute; 'base' for the base prompt")
    parser.add_argument("--kind", help="only documents with this kind of question")
    args = parser.parse_args()

    def wanted(document: Document) -> bool:
        names = document.system.attributes
        style = args.style is None or args.style in names or (args.style == "base" and not names)
        return style and (args.kind is None or any(turn.kind == args.kind for turn in document.turns))

    stream = documents(args.split, seed=args.seed, base_share=args.base_share)
    for document in islice(filter(wanted, stream), args.n):
        for message in document.messages:
            print(f"{message['role']:>9}: {message['content']}")
        print()


if __name__ == "__main__":
    main()
