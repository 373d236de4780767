"""drift-edge: personalise a frozen LLM while it decodes, on your own machine.

Importing this package is cheap: nothing of llama.cpp, gguf or typer is loaded until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drift_edge.aio import AsyncDrift as AsyncDrift
    from drift_edge.attributes import Attribute as Attribute
    from drift_edge.attributes import Attributes as Attributes
    from drift_edge.engine import Drift as Drift
    from drift_edge.errors import DriftError as DriftError
    from drift_edge.events import Answer as Answer
    from drift_edge.events import CancelToken as CancelToken
    from drift_edge.events import Finish as Finish
    from drift_edge.events import Notice as Notice
    from drift_edge.events import Token as Token
    from drift_edge.learner import Learner as Learner
    from drift_edge.learner import Lesson as Lesson
    from drift_edge.logits_processor import DriftLogitsProcessor as DriftLogitsProcessor
    from drift_edge.preferences import PreferencePair as PreferencePair
    from drift_edge.profile import Profile as Profile
    from drift_edge.sampling import SamplerSettings as SamplerSettings

__version__ = "0.1.0"

_HOME = {
    "Answer": "events",
    "AsyncDrift": "aio",
    "Attribute": "attributes",
    "Attributes": "attributes",
    "CancelToken": "events",
    "Drift": "engine",
    "DriftError": "errors",
    "DriftLogitsProcessor": "logits_processor",
    "Finish": "events",
    "Learner": "learner",
    "Lesson": "learner",
    "Notice": "events",
    "PreferencePair": "preferences",
    "Profile": "profile",
    "SamplerSettings": "sampling",
    "Token": "events",
}

__all__ = [
    "Answer",
    "AsyncDrift",
    "Attribute",
    "Attributes",
    "CancelToken",
    "Drift",
    "DriftError",
    "DriftLogitsProcessor",
    "Finish",
    "Learner",
    "Lesson",
    "Notice",
    "PreferencePair",
    "Profile",
    "SamplerSettings",
    "Token",
    "__version__",
]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'drift_edge' has no attribute {name!r}")
    return getattr(import_module(f"drift_edge.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
