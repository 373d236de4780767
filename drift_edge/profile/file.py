"""The profile's file: what is in it, how it is checked, and how older ones are read (docs/profile.md)."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from drift_edge.attributes import Attribute, Attributes
from drift_edge.errors import ProfileError, ProfileVersionError, UsageError
from drift_edge.profile.settings import Settings
from drift_edge.rewards import DEFAULT_TEXT_LENGTH, check_text_length
from drift_edge.statistics import Statistics
from drift_edge.weights import MAX_WEIGHT

SCHEMA = 3
MAX_FILE = 16 << 20
#: What makes of a file of one schema one of the next: `MIGRATIONS[1]` takes schema 1 to schema 2.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: lambda data: {"text_length": DEFAULT_TEXT_LENGTH, **data},
    2: lambda data: {"strength": None, "sure": 0.0, **data},
}


@dataclass(frozen=True, slots=True)
class SLM:
    """Which sLM the numbers of a profile were computed with.

    Attributes:
        name: for people.
        fingerprint: 16 hex digits (`Model.fingerprint`); this is what must agree.
    """

    name: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Weight:
    """One attribute of a profile.

    Attributes:
        weight: p_i as decoding takes it, if it is active.
        se: standard error of what was learned; None where there is none.
        n: choices that it was learned from; with a half-life, the sum of what they still weigh.
        active: whether it takes part in decoding.
        learned: where the weight was set by hand, what was learned; else None.
    """

    weight: float
    se: float | None
    n: float
    active: bool
    learned: float | None = None

    def to_dict(self) -> dict[str, object]:
        """As in the file."""
        data: dict[str, object] = {"weight": self.weight, "se": self.se, "n": self.n, "active": self.active}
        return data if self.learned is None else {**data, "learned": self.learned}


@dataclass(frozen=True)
class Snapshot:
    """The weights at one moment.

    Attributes:
        time: ISO 8601.
        n: choices that they were learned from.
        weights: those that are not 0, to 4 decimals.
    """

    time: str
    n: float
    weights: Mapping[str, float]

    @cached_property
    def json(self) -> str:
        """As in the file; kept, since most of a history is written again and again."""
        return _dump({"time": self.time, "n": self.n, "weights": dict(self.weights)})


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that a profile's file holds.

    Attributes:
        id: what its journal knows it by.
        created, updated: ISO 8601.
        slm: None as long as nothing was scored.
        attributes: s_0 and s_1..s_K, as the choices were scored with them.
        text_length: tokens of a response that were scored at most.
        settings: what a person sets.
        seq: number of the last record of the journal that is counted here.
        pending: choices in the journal that have no scores yet.
        statistics: of all choices that are counted.
        weights: by attribute, made from the statistics and the settings.
        history: oldest first.
    """

    id: str
    created: str
    updated: str
    slm: SLM | None
    attributes: Attributes
    text_length: int = DEFAULT_TEXT_LENGTH
    settings: Settings
    seq: int = 0
    pending: int = 0
    statistics: Statistics
    weights: Mapping[str, Weight] = field(default_factory=dict)
    history: tuple[Snapshot, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON value of the file."""
        value: dict[str, Any] = json.loads(self.to_json())
        return value

    def to_json(self, choices: Iterable[bytes] = ()) -> bytes:
        """The file: a line for each field, and one for each thing that a person may look for.

        Args:
            choices: the lines of a journal that are to go along, as `choices`.
        """
        weights = (f"{_dump(name)}: {_dump(weight.to_dict())}" for name, weight in self.weights.items())
        prompts = (f"{_dump(name)}: {_dump(attribute.prompt)}" for name, attribute in self.attributes.items())
        made = made_with(self)
        texts = {
            "schema": _dump(SCHEMA),
            "id": _dump(self.id),
            "created": _dump(self.created),
            "updated": _dump(self.updated),
            "weights": _block("{", weights, "}"),
            **{f.name: _dump(getattr(self.settings, f.name)) for f in fields(self.settings)},
            "slm": _dump(made["slm"]),
            "text_length": _dump(made["text_length"]),
            "base": _dump(made["base"]),
            "attributes": _block("{", prompts, "}"),
            "seq": _dump(self.seq),
            "pending": _dump(self.pending),
            "history": _block("[", (snapshot.json for snapshot in self.history), "]"),
            "statistics": _dump(self.statistics.to_dict()),
        }
        if kept := [line.decode() for line in choices]:
            texts["choices"] = _block("[", kept, "]")
        return ("{\n" + ",\n".join(f'  "{key}": {text}' for key, text in texts.items()) + "\n}\n").encode()


def made_with(state: State) -> dict[str, object]:
    """What scores depend on, as JSON."""
    slm, attributes = state.slm, state.attributes
    return {
        "slm": None if slm is None else {"name": slm.name, "fingerprint": slm.fingerprint},
        "text_length": state.text_length,
        "base": attributes.base,
        "attributes": {name: attribute.prompt for name, attribute in attributes.items()},
    }


def read_made_with(data: Mapping[str, Any], at: str) -> tuple[SLM | None, Attributes, int]:
    """The way back from `made_with`.

    Raises:
        UsageError: a field is missing or wrong; names its place.
    """
    slm = None
    if data.get("slm") is not None:
        told = _take(data, "slm", dict, at)
        slm = SLM(_take(told, "name", str, f"{at}.slm"), _take(told, "fingerprint", str, f"{at}.slm"))
    prompts = _take(data, "attributes", dict, at)
    if not prompts:
        raise UsageError(f"at {at}.attributes: expected 1 or more attributes, got none")
    try:
        pool = [Attribute(name, prompt) for name, prompt in prompts.items()]
        attributes = Attributes(_take(data, "base", str, at), pool)
    except UsageError as error:
        text = str(error)
        raise UsageError(text if text.startswith("at ") else f"at {at}: {text}") from None
    try:
        return slm, attributes, check_text_length(data.get("text_length"))
    except UsageError as error:
        raise UsageError(f"at {at}.{error}") from None


def read_file(path: Path, most: int = MAX_FILE) -> bytes | None:
    """The bytes of a file that a profile may be in; None where there is no file.

    Raises:
        ProfileError: it cannot be read, or is not a file.
        UsageError: it has more than `most` bytes.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise ProfileError(f"{path}: expected a file, found {'a folder' if path.is_dir() else 'a device or pipe'}")
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ProfileError(f"{path}: cannot read the profile: {error.strerror}") from error
    if len(raw) > most:
        raise UsageError(f"a profile may have at most {most:,} bytes")
    return raw


def parse(raw: bytes) -> State:
    """The state in the bytes of a file.

    Raises:
        ProfileVersionError: written by a newer version; says so without the file's name.
        UsageError: damaged, or no profile; names the place.
    """
    return parse_export(raw)[0]


def parse_export(raw: bytes) -> tuple[State, list[bytes]]:
    """The state in the bytes of a file, and the lines of a journal that went along with it. Raises as `parse`."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not valid JSON: {error}" if raw.strip() else "the file is empty") from None
    if not isinstance(data, dict):
        raise UsageError(f"at $: expected an object, got {_kind(data)}")
    schema = _take(data, "schema", int, "$")
    check_schema(schema)
    if schema < 1:
        raise UsageError(f"at $.schema: expected 1 to {SCHEMA}, got {schema}")
    for version in range(schema, SCHEMA):
        data = MIGRATIONS[version](data)
    slm, attributes, text_length = read_made_with(data, "$")
    choices = _take(data, "choices", list, "$") if "choices" in data else []
    state = State(
        id=_take(data, "id", str, "$"),
        created=_time(data, "created", "$"),
        updated=_time(data, "updated", "$"),
        slm=slm,
        attributes=attributes,
        text_length=text_length,
        settings=_settings(data, attributes),
        seq=_whole(data, "seq", "$"),
        pending=_whole(data, "pending", "$"),
        statistics=read_statistics(data, attributes, "$"),
        weights=_weights(data, attributes),
        history=_history(data),
    )
    return state, [_dump(choice).encode() + b"\n" for choice in choices]


def read_statistics(data: Mapping[str, Any], attributes: Attributes, at: str) -> Statistics:
    """The field `statistics`.

    Raises:
        UsageError: it is missing or wrong, or of other attributes; names its place.
    """
    try:
        statistics = Statistics.from_dict(_take(data, "statistics", dict, at), f"{at}.statistics")
    except OverflowError:
        raise UsageError(f"at {at}.statistics: expected numbers that fit a double") from None
    if list(statistics.names) != list(attributes):
        raise UsageError(f"at {at}.statistics.names: expected the names of {at}.attributes, in their order")
    return statistics


def check_schema(schema: int) -> None:
    """Raises ProfileVersionError where `schema` is newer than this version writes."""
    if schema > SCHEMA:
        raise ProfileVersionError(
            f"at $.schema: found {schema}, this drift-edge writes {SCHEMA}: the file is of a newer version; "
            "update drift-edge, or take another profile. The file is left as it is"
        )


def _settings(data: dict[str, Any], attributes: Attributes) -> Settings:
    known = {f.name: data[f.name] for f in fields(Settings) if f.name in data}
    if lacking := [f.name for f in fields(Settings) if f.name not in data]:
        raise UsageError(f"at $.{lacking[0]}: expected a value, got nothing")
    try:
        settings = Settings(**known)
    except UsageError as error:
        raise UsageError(f"at $.{error}") from error
    for key in ("pinned", "fixed"):
        if unknown := [name for name in known[key] if name not in attributes]:
            raise UsageError(f"at $.{key}: unknown attribute {unknown[0]!r}")
    pinned, blocked = tuple(settings.pinned), tuple(settings.blocked)
    return replace(settings, pinned=pinned, blocked=blocked, beta=float(settings.beta))


def _weights(data: dict[str, Any], attributes: Attributes) -> dict[str, Weight]:
    found = _take(data, "weights", dict, "$")
    weights = {}
    for name, told in found.items():
        at = f"$.weights.{name}"
        if name not in attributes:
            raise UsageError(f"at {at}: unknown attribute {name!r}")
        if not isinstance(told, dict):
            raise UsageError(f"at {at}: expected an object, got {_kind(told)}")
        weights[name] = Weight(
            _weight(told, "weight", at),
            None if told.get("se") is None else _number(told, "se", at),
            _number(told, "n", at),
            _take(told, "active", bool, at),
            None if told.get("learned") is None else _weight(told, "learned", at),
        )
    if lacking := [name for name in attributes if name not in weights]:
        raise UsageError(f"at $.weights: expected every attribute, but {lacking[0]!r} is missing")
    return weights


def _history(data: dict[str, Any]) -> tuple[Snapshot, ...]:
    snapshots = []
    for i, told in enumerate(_take(data, "history", list, "$")):
        at = f"$.history[{i}]"
        weights = _take(told, "weights", dict, at)
        values = {name: _weight(weights, name, f"{at}.weights") for name in weights}
        snapshots.append(Snapshot(_time(told, "time", at), _number(told, "n", at), values))
    return tuple(snapshots)


# -- fields


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


def _take(data: Any, name: str, kind: type, at: str) -> Any:
    value = data.get(name) if isinstance(data, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UsageError(f"at {at}.{name}: expected {kind.__name__}, got {_kind(value)}")
    return value


def _number(data: dict[str, Any], name: str, at: str, most: float = math.inf) -> float:
    value = data.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        # Written so that NaN fails the comparison too.
        if math.isfinite(number) and abs(number) <= most:
            return number
    expected = "a finite number" if most == math.inf else f"a number within ±{most:g}"
    raise UsageError(f"at {at}.{name}: expected {expected}, got {value!r:.60}")


def _weight(data: dict[str, Any], name: str, at: str) -> float:
    return _number(data, name, at, MAX_WEIGHT)


def _whole(data: dict[str, Any], name: str, at: str) -> int:
    value: int = _take(data, name, int, at)
    if value < 0:
        raise UsageError(f"at {at}.{name}: expected a whole number, 0 or more, got {value}")
    return value


def _time(data: dict[str, Any], name: str, at: str) -> str:
    value: str = _take(data, name, str, at)
    try:
        datetime.fromisoformat(value)
    except ValueError:
        raise UsageError(f"at {at}.{name}: expected ISO 8601, got {value!r:.60}") from None
    return value


_dump = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _block(opens: str, items: Iterable[str], closes: str) -> str:
    lines = ",\n    ".join(items)
    return f"{opens}\n    {lines}\n  {closes}" if lines else f"{opens}{closes}"
