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
    from drift_edge.errors import ChatTemplateError as ChatTemplateError
    from drift_edge.errors import ClosedError as ClosedError
    from drift_edge.errors import ContextOverflowError as ContextOverflowError
    from drift_edge.errors import DecodeError as DecodeError
    from drift_edge.errors import DriftError as DriftError
    from drift_edge.errors import HubError as HubError
    from drift_edge.errors import KernelUnavailableError as KernelUnavailableError
    from drift_edge.errors import ModelError as ModelError
    from drift_edge.errors import ModelFileError as ModelFileError
    from drift_edge.errors import PreferencesError as PreferencesError
    from drift_edge.errors import ProfileBusyError as ProfileBusyError
    from drift_edge.errors import ProfileCorruptError as ProfileCorruptError
    from drift_edge.errors import ProfileError as ProfileError
    from drift_edge.errors import ProfileMismatchError as ProfileMismatchError
    from drift_edge.errors import ProfileVersionError as ProfileVersionError
    from drift_edge.errors import RefusedError as RefusedError
    from drift_edge.errors import TokenizerMismatchError as TokenizerMismatchError
    from drift_edge.errors import UsageError as UsageError
    from drift_edge.errors import WeightsError as WeightsError
    from drift_edge.events import Answer as Answer
    from drift_edge.events import CancelToken as CancelToken
    from drift_edge.events import Event as Event
    from drift_edge.events import Finish as Finish
    from drift_edge.events import Notice as Notice
    from drift_edge.events import Speculated as Speculated
    from drift_edge.events import Timings as Timings
    from drift_edge.events import Token as Token
    from drift_edge.events import TokenLogprob as TokenLogprob
    from drift_edge.explanation import Explanation as Explanation
    from drift_edge.learner import Learner as Learner
    from drift_edge.learner import Lesson as Lesson
    from drift_edge.learning import Scored as Scored
    from drift_edge.learning import learn as learn
    from drift_edge.learning import score_pairs as score_pairs
    from drift_edge.logits_processor import DriftLogitsProcessor as DriftLogitsProcessor
    from drift_edge.preferences import PairFile as PairFile
    from drift_edge.preferences import PreferencePair as PreferencePair
    from drift_edge.preferences import read_pairs as read_pairs
    from drift_edge.profile import Change as Change
    from drift_edge.profile import Choice as Choice
    from drift_edge.profile import Profile as Profile
    from drift_edge.rewards import PairScores as PairScores
    from drift_edge.sampling import SamplerSettings as SamplerSettings
    from drift_edge.scoring import Scorer as Scorer

__version__ = "0.1.0"

_NAMES = {
    "aio": ("AsyncDrift",),
    "attributes": ("Attribute", "Attributes"),
    "engine": ("Drift",),
    "errors": (
        "ChatTemplateError",
        "ClosedError",
        "ContextOverflowError",
        "DecodeError",
        "DriftError",
        "HubError",
        "KernelUnavailableError",
        "ModelError",
        "ModelFileError",
        "PreferencesError",
        "ProfileBusyError",
        "ProfileCorruptError",
        "ProfileError",
        "ProfileMismatchError",
        "ProfileVersionError",
        "RefusedError",
        "TokenizerMismatchError",
        "UsageError",
        "WeightsError",
    ),
    "events": ("Answer", "CancelToken", "Event", "Finish", "Notice", "Speculated", "Timings", "Token", "TokenLogprob"),
    "explanation": ("Explanation",),
    "learner": ("Learner", "Lesson"),
    "learning": ("Scored", "learn", "score_pairs"),
    "logits_processor": ("DriftLogitsProcessor",),
    "preferences": ("PairFile", "PreferencePair", "read_pairs"),
    "profile": ("Change", "Choice", "Profile"),
    "rewards": ("PairScores",),
    "sampling": ("SamplerSettings",),
    "scoring": ("Scorer",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'drift_edge' has no attribute {name!r}")
    return getattr(import_module(f"drift_edge.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
