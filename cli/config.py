"""Settings of a chat, and where they come from: flag, then resumed session, then environment, then config.toml.

Every setting has one name everywhere: `--top-p`, `DRIFT_EDGE_TOP_P`, `top-p = 0.9` in config.toml, `/set top-p 0.9`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from drift_edge.attributes import Attributes
from drift_edge.costs import DRAFTS, Draft, Speculate, check_speculate
from drift_edge.errors import UsageError
from drift_edge.sampling import SamplerSettings
from drift_edge.weights import check_beta, check_strength, check_weights, parse_weights

Steer = Literal["logits", "prompt", "both", "off"]
Found = tuple[object, str]  # a value as found, and where
Raw = Mapping[str, Found]
DEFAULT_PROFILE = "default"
DEFAULT_BETA, DEFAULT_ACTIVE = 0.5, 7  # the engine's; loading that takes longer than reading these


@dataclass(slots=True)
class Settings:
    """All settings of a chat; the defaults are the program's.

    Attributes:
        llm, slm: GGUF files, or models of the hub that were pulled (`user/repo:quant`); None is the built-in pair.
        attributes: TOML file of a custom pool; None is the 41 of Table 5.
        guard, guard_form, guard_tries: the model that judges answers, as `llm`; how it is asked, and how often an
            answer is drawn, as `drift_edge.guard`. None is no guard.
        ctx_size, threads, gpu_layers, slm_gpu_layers: as `Drift.load`; None lets the engine choose.
        profile: name or path of the profile; None is none.
        weights: as `Drift.chat`; empty leaves it to the profile.
        allow: attributes that may steer although they are blocked.
        beta, strength, active: as `Drift.chat`; None is what the profile says, or the engine's own.
        steer, speculate, draft, seed, max_tokens, stop: as `Drift.chat`.
        system: the user's own system prompt.
        stats, color, save: what is printed and kept.
    """

    llm: Path | None = None
    slm: Path | None = None
    attributes: Path | None = None
    guard: Path | None = None
    guard_form: str = "yes-no"
    guard_tries: int = 3
    ctx_size: int | None = None
    threads: int | None = None
    gpu_layers: int | None = None
    slm_gpu_layers: int | None = None
    cache_type: str = "f16"
    flash_attn: str = "auto"
    profile: str | None = DEFAULT_PROFILE
    weights: dict[str, float] = field(default_factory=dict)
    allow: tuple[str, ...] = ()
    beta: float | None = None
    strength: float | None = None
    active: int | None = None
    steer: Steer = "logits"
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    plausibility: float = 0.001
    repeat_penalty: float = 1.0
    speculate: Speculate = "auto"
    draft: Draft = "auto"
    seed: int | None = None
    max_tokens: int = 512
    system: str | None = None
    stop: tuple[str, ...] = ()
    stats: bool = False
    color: str = "auto"
    save: bool = True

    def sampler(self) -> SamplerSettings:
        """The settings of the samplers."""
        return SamplerSettings(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            plausibility=self.plausibility,
            repeat_penalty=self.repeat_penalty,
        )

    def get(self, name: str) -> Any:
        """The value of the setting `name`."""
        return getattr(self, name.replace("-", "_"))

    def put(self, name: str, value: object, where: str, pool: Attributes | None = None) -> None:
        """Check `value` and set it.

        Args:
            name: a setting's name, as the flag without its dashes.
            value: text, or a value of the right type; None or "none" empties what may be empty.
            where: for messages, where the value was found.
            pool: needed for `weights`.

        Raises:
            UsageError: of the wrong type or out of range; names `where`.
            WeightsError: a weights file cannot be used.
        """
        try:
            checked = _checked(name, value, pool)
        except UsageError as error:
            raise UsageError(f"{where}: {str(error).removeprefix(name.replace('-', '_') + ': ')}") from None
        if name in _EXCLUSIVE and checked is not None:
            setattr(self, _EXCLUSIVE[name], None)
        setattr(self, name.replace("-", "_"), checked)

    def to_dict(self, names: Iterable[str]) -> dict[str, object]:
        """The named settings as JSON values."""
        return {name: _plain(self.get(name)) for name in names}


_CHOICES = {
    "steer": get_args(Steer),
    "draft": DRAFTS,
    "flash-attn": ("auto", "on", "off"),
    "guard-form": ("yes-no", "shieldgemma", "llama-guard"),
    "color": ("auto", "always", "never"),
}
_WHOLE = {  # name: the least value
    "guard-tries": 1,
    "ctx-size": 16,
    "threads": 1,
    "gpu-layers": -1,
    "slm-gpu-layers": -1,
    "active": 1,
    "top-k": 0,
    "seed": 0,
    "max-tokens": 1,
}
_NUMBERS = ("beta", "strength", "temperature", "top-p", "min-p", "plausibility", "repeat-penalty")
_EXCLUSIVE = {"beta": "strength", "strength": "beta"}  # each takes the other's place
_FILES = ("llm", "slm", "attributes", "guard")
_MODELS = ("llm", "slm", "guard")
_MOST = (1 << 63) - 1  # of whole numbers
_SWITCHES = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}

#: All names, in the order in which they are shown.
NAMES = tuple(name.replace("_", "-") for name in Settings.__dataclass_fields__)
#: Names that a running chat can change.
LIVE = NAMES[NAMES.index("weights") : NAMES.index("color")]
#: Names that a saved session brings back; how long an answer may get is said anew each time.
SAVED = tuple(name for name in NAMES[: NAMES.index("stats")] if name != "max-tokens")
_MAY_BE_EMPTY = {
    *("llm", "slm", "attributes", "guard", "ctx-size", "threads", "gpu-layers", "slm-gpu-layers"),
    *("profile", "beta", "strength", "active", "seed", "system"),
}


def closest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the closest known one, or all."""
    known = list(known)
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


@contextmanager
def flags_named() -> Iterator[None]:
    """What the library refuses within is told by the flag's name, not by the argument's.

    Raises:
        UsageError: what was raised within.
    """
    try:
        yield
    except UsageError as error:
        argument, colon, rest = str(error).partition(": ")
        flag = "ctx-size" if argument == "n_ctx" else argument.replace("_", "-")
        if not colon or flag not in NAMES:
            raise
        raise UsageError(f"--{flag}: {rest}") from None


def is_utf8(text: str) -> bool:
    """Whether `text` can be written as UTF-8; bytes that could not be read stand in it as lone surrogates."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def read_environment(environment: Mapping[str, str] | None = None) -> Raw:
    """Settings from `DRIFT_EDGE_*`; an empty variable counts as not set."""
    environment = os.environ if environment is None else environment
    names = {name: f"DRIFT_EDGE_{name.upper().replace('-', '_')}" for name in NAMES}
    return {name: (environment[key], key) for name, key in names.items() if environment.get(key)}


def read_config(path: Path) -> Raw:
    """Settings from config.toml; a missing file has none.

    Raises:
        UsageError: unreadable, not TOML, or an unknown key; names the file and the key.
    """
    try:
        data = tomllib.loads(path.read_bytes().decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"{path}: cannot read the config file: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    found: dict[str, tuple[object, str]] = {}
    for key, value in data.items():
        if key not in NAMES:
            raise UsageError(f"{path}: unknown key {key!r}; {closest(key, NAMES)}")
        if isinstance(value, str) and _is_path(key, value):
            value = str(path.parent / Path(value).expanduser())
        found[key] = value, f"{path}: {key}"
    return found


def _is_path(key: str, value: str) -> bool:
    from ..models.hub.reference import is_reference

    if key == "profile":
        return not _is_name(value)
    return key in _FILES and (key == "attributes" or not is_reference(value))


def read_flags(flags: Mapping[str, object]) -> Raw:
    """Settings from the flags that were given: those that are not None."""
    given = {name: value for name, value in flags.items() if value is not None}
    return {name: (str(value) if isinstance(value, Path) else value, f"--{name}") for name, value in given.items()}


def read_saved(saved: Mapping[str, object], where: str, names: Iterable[str] = SAVED) -> Raw:
    """The named ones of a saved session's settings.

    Raises:
        UsageError: an unknown setting.
    """
    for name in saved:
        if name not in NAMES:
            raise UsageError(f"{where}: unknown setting {name!r}; {closest(name, SAVED)}")
    return {name: (saved[name], f"{where}: {name}") for name in names if name in saved}


def resolve(*sources: Raw) -> tuple[Settings, Found | None]:
    """Settings from several sources, the strongest last.

    A profile takes the place of weights that a weaker source gives.

    Returns:
        All settings but the weights, and the weights as found: which names are known depends on the pool, and that on
        the profile. `Settings.put` sets them.

    Raises:
        UsageError: a value is of the wrong type or out of range; names where it was found.
    """
    merged: dict[str, Found] = {}
    for source in sources:
        if source.get("profile", (None,))[0] is not None and "weights" not in source:
            merged.pop("weights", None)
        given = [name for name in _EXCLUSIVE if source.get(name, (None,))[0] is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(source[name][1] for name in given)} exclude each other: give one")
        for name in given:
            merged.pop(_EXCLUSIVE[name], None)
        merged |= source
    weights = merged.pop("weights", None)
    settings = Settings()
    for name, (value, where) in merged.items():
        settings.put(name, value, where)
    return settings, weights


def check_pair(settings: Settings) -> None:
    """Both models are named, or neither.

    Raises:
        UsageError: one is missing.
    """
    if (settings.llm is None) != (settings.slm is None):
        have, lack = ("llm", "slm") if settings.llm else ("slm", "llm")
        raise UsageError(f"--{have} needs --{lack} too: two models of one family (the same file twice works as well)")


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value.absolute())
    return list(value) if isinstance(value, tuple) else value


def _checked(name: str, value: object, pool: Attributes | None) -> object:
    if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
        if name in _MAY_BE_EMPTY:
            return None
        if name in ("weights", "stop", "allow"):
            return {} if name == "weights" else ()
    if name == "weights":
        return _weights(value, pool or Attributes.builtin())
    if name in _NUMBERS:
        return _number(name, value)
    if name in _WHOLE:
        return _whole(name, value)
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise UsageError(f"expected one of {', '.join(_CHOICES[name])}, got {value!r}")
        return value
    if name == "speculate":
        number = int(value) if isinstance(value, str) and value.isdecimal() and value.isascii() else value
        check_speculate(number)
        return number
    if name in ("stats", "save"):
        return _switch(value)
    if name == "allow" and isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if name in ("stop", "allow"):
        texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else (value,)
        return tuple(_text(text) for text in texts)
    if name in _MODELS and (file := pulled(_text(value))):
        return file
    if name in _FILES:
        return Path(_text(value)).expanduser()
    if name == "profile" and not _is_name(_text(value)):
        return str(Path(_text(value)).expanduser().absolute())
    return _text(value)


def pulled(model: str) -> Path | None:
    """The file of a model that is named as on the hub; None for a path.

    Raises:
        ModelFileError: it was not pulled, or is damaged.
    """
    from ..models.hub.reference import Reference, is_reference

    if not is_reference(model) or Path(model).is_file():
        return None
    from ..models.installed import cached

    return cached(Reference.parse(model))


def _is_name(profile: str) -> bool:
    from drift_edge.profile import profile_path

    return profile_path(profile).stem == profile


def _weights(value: object, pool: Attributes) -> dict[str, float]:
    if isinstance(value, Mapping):
        return check_weights(value, pool)
    return parse_weights(_text(value), pool)


def _number(name: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        number = value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise UsageError(f"expected a number, got {value!r}")
    if name == "beta":
        return check_beta(number)
    if name == "strength":
        return check_strength(number)
    _check_sampler(name, number)
    return float(number)


def _check_sampler(name: str, number: float) -> None:
    only: dict[str, Any] = {name.replace("-", "_"): number}
    SamplerSettings(**only)


def _whole(name: str, value: object) -> int:
    least = _WHOLE[name]
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = value
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise UsageError(f"expected a whole number, {least} or more, got {value!r}")
    if number > _MOST:
        raise UsageError(f"expected a whole number, {least} to {_MOST} (2^63 - 1), got {value!r}")
    if name == "top-k":
        _check_sampler(name, number)
    return number


def _switch(value: object) -> bool:
    found = _SWITCHES.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise UsageError(f"expected on or off, got {value!r}")
    return found


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"expected text that is not empty, got {value!r}")
    if not is_utf8(value):
        raise UsageError("expected valid UTF-8")
    return value
