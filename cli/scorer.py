"""What commands that score have in common: their flags, the sLM, and a scorer on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drift_edge.errors import UsageError

from .which import MODEL

if TYPE_CHECKING:
    from drift_edge.attributes import Attributes
    from drift_edge.llama.model import Model
    from drift_edge.scoring import Scorer

    from .config import Settings
    from .render import Screen


SmallLM = Annotated[
    str | None, typer.Option(metavar=MODEL, help="The small LM, which scores.  [default: the settings']")
]
TextLength = Annotated[
    int | None, typer.Option(min=1, help="Tokens of a response that are scored.  [default: the profile's, or 500]")
]
ContextSize = Annotated[int | None, typer.Option(help="Most tokens of a prompt with its response.")]
Threads = Annotated[int | None, typer.Option(help="Threads.  [default: by the model's size]")]
SmallLMLayers = Annotated[int | None, typer.Option(help="Layers of the small LM on the GPU.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="llama.cpp's log on stderr.")]


def settings_by(flags: Mapping[str, object]) -> Settings:
    """Settings of the config file, the environment and some flags, the strongest last.

    Raises:
        UsageError: a value is wrong.
    """
    from drift_edge.storage import folders

    from .config import read_config, read_environment, read_flags, resolve

    return resolve(read_config(folders().config_file), read_environment(), read_flags(flags))[0]


def own_pool(settings: Settings) -> Attributes | None:
    """The pool that the settings name; None where they name none.

    Raises:
        UsageError: the file cannot be used.
    """
    from drift_edge.attributes import Attributes

    return Attributes.from_toml(settings.attributes) if settings.attributes else None


@contextmanager
def loaded_slm(settings: Settings, screen: Screen) -> Iterator[Model]:
    """The small LM that the settings name, or the built-in pair's.

    Raises:
        UsageError: an LLM is named, but no sLM.
        ModelError: it cannot be used.
    """
    import sys

    from drift_edge.llama.model import Model

    from ..models import builtin_pair
    from .render import is_terminal

    if settings.llm and not settings.slm:
        raise UsageError("--llm needs --slm too: scoring is the small LM's work")
    path: Path = settings.slm or builtin_pair()[1]
    if settings.slm and is_terminal(sys.stderr):
        screen.say(f"loading {path.name} ...", "dim")
    with Model(path, gpu_layers=settings.slm_gpu_layers) as model:
        yield model


@contextmanager
def scorer_on(
    model: Model, attributes: Attributes, settings: Settings, text_length: int, screen: Screen
) -> Iterator[Scorer]:
    """A scorer with the cache that all runs share.

    Raises:
        UsageError: a setting is out of range.
        DriftError: the cache cannot be used.
    """
    from drift_edge.llama.chat import ChatFormat
    from drift_edge.reward_cache import RewardCache
    from drift_edge.scoring import Scorer
    from drift_edge.storage import folders

    from .config import flags_named

    with (
        flags_named(),
        RewardCache(folders().rewards) as cache,
        Scorer(
            model,
            ChatFormat(model),
            attributes,
            text_length=text_length,
            n_ctx=settings.ctx_size,
            threads=settings.threads,
            cache=cache,
        ) as scorer,
    ):
        if cache.moved_aside:
            screen.note(f"the cache of scores was damaged and is begun anew; the old file is {cache.moved_aside}")
        yield scorer
