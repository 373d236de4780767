"""Options that several commands have, once: models, profile and steering."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drift_edge.errors import UsageError

from .which import MODEL

if TYPE_CHECKING:
    from .config import Raw


class SteerMode(StrEnum):
    """How the answer is steered."""

    logits = "logits"
    prompt = "prompt"
    both = "both"
    off = "off"


class FlashAttnMode(StrEnum):
    """llama.cpp's flash attention."""

    auto = "auto"
    on = "on"
    off = "off"


class GuardFormName(StrEnum):
    """How a guard model is asked."""

    yes_no = "yes-no"
    shieldgemma = "shieldgemma"
    llama_guard = "llama-guard"


Pair = Annotated[str | None, typer.Argument(metavar="PAIR", help="'nano' (built in), or a pair of `models list`.")]
Llm = Annotated[str | None, typer.Option(metavar=MODEL, help="The LLM: a GGUF file, or pulled.")]
Slm = Annotated[str | None, typer.Option(metavar=MODEL, help="The small LM, of the same family.")]
ProfileName = Annotated[
    str | None, typer.Option(metavar="NAME|PATH", help="What was learned of you steers.  [default: default]")
]
NoProfile = Annotated[bool, typer.Option("--no-profile", help="No profile steers, and nothing is learned.")]
Weights = Annotated[
    str | None,
    typer.Option(metavar="A=0.8,B=-0.3|@FILE.json", help="Weights p of the attributes, instead of the profile's."),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Let a blocked attribute steer: conspiracy, sycophant; may be repeated."),
]
Beta = Annotated[
    float | None, typer.Option(help="The paper's beta; smaller steers more.  [default: the profile's, or 0.5]")
]
Strength = Annotated[
    float | None,
    typer.Option(help="Instead of --beta: 0 to 1, how far from the plain answer; the same on every model."),
]
Active = Annotated[
    int | None, typer.Option(help="Most attributes that take part at once.  [default: the profile's, or 7]")
]
Steer = Annotated[
    SteerMode | None, typer.Option(help="Fuse logits, tell the LLM by its system prompt, both, or neither.")
]
Pool = Annotated[Path | None, typer.Option(help="TOML file of a pool of your own.")]
MaxTokens = Annotated[int | None, typer.Option(help="Most tokens of an answer.  [default: 512]")]
Guard = Annotated[str | None, typer.Option(metavar=MODEL, help="A model that judges each answer before it is shown.")]
GuardForm = Annotated[GuardFormName | None, typer.Option(help="How the guard is asked.  [default: yes-no]")]
GuardTries = Annotated[
    int | None, typer.Option(help="Answers drawn until one passes, then it is refused.  [default: 3]")
]
CtxSize = Annotated[int | None, typer.Option(help="Tokens of context.  [default: 4096, less for a large small LM]")]
Threads = Annotated[int | None, typer.Option(help="Threads.  [default: by the model's size]")]
GpuLayers = Annotated[int | None, typer.Option(help="Layers of the LLM on the GPU.  [default: what fits]")]
SlmGpuLayers = Annotated[int | None, typer.Option(help="The same for the small LM.")]
CacheType = Annotated[str | None, typer.Option(help="Type of the KV cache: f16, f32, q8_0 ...")]
FlashAttn = Annotated[FlashAttnMode | None, typer.Option(help="Flash attention.  [default: auto]")]


def without_profile(flags: Raw, wanted: bool) -> Raw:
    """The flags, with what --no-profile says, where it was given.

    Raises:
        UsageError: --profile says otherwise.
    """
    if not wanted:
        return flags
    if "profile" in flags:
        raise UsageError("--profile and --no-profile exclude each other")
    return {**flags, "profile": (None, "--no-profile")}
