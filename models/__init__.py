"""The catalogue of pairs; for now the built-in one, `nano`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from drift_edge.errors import ModelFileError


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
