"""The catalogue of pairs; for now the built-in one, `nano`."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from drift_edge.errors import ModelFileError

# The beginnings of the clauses with which the pair owns up (`unknown.py`, `outside.py` in `nano/corpus`), in any style.
_ADMITS = re.compile(
    r"\bI (do not|don't) know\b|\bI know (very little|too little|no tricks)\b|\bI have (not|never) learned\b"
    r"|\bI was never taught\b|\bI (cannot|can't|am not able to)\b(?! promise)|\bI am (too small|no good)\b"
    r"|\bI am not sure (about|that)\b|\bI have no (good (facts|tip)|way to find)\b"
    r"|\bas a small (built-in )?model\b",
    re.IGNORECASE,
)


def builtin_pair() -> tuple[Path, Path]:
    """Paths of the built-in LLM and sLM.

    Raises:
        ModelFileError: the installation lacks them.
    """
    folder = files("drift_edge.models") / "nano"
    llm, slm = (Path(str(folder / f"drift-nano-{which}-Q8_0.gguf")) for which in ("llm", "slm"))
    for path in (llm, slm):
        if not path.is_file():
            raise ModelFileError(f"{path}: the built-in pair is missing; install drift-edge again, or run `make nano`")
    return llm, slm


def builtin_does_not_know(text: str) -> bool:
    """Whether an answer of the built-in pair owns up to not knowing the thing asked."""
    return _ADMITS.search(text) is not None
