"""What a profile holds, as read: its weights, its choices, its settings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex

from drift_edge import storage
from drift_edge.approximation import Estimate
from drift_edge.attributes import Attributes
from drift_edge.errors import ProfileMismatchError, UsageError
from drift_edge.preferences import PreferencePair
from drift_edge.profile import tally
from drift_edge.profile.changes import now
from drift_edge.profile.file import SLM, Snapshot, State, Weight
from drift_edge.profile.settings import Settings
from drift_edge.profile.store import Store
from drift_edge.rewards import FloatArray, PairScores, check_text_length
from drift_edge.statistics import Statistics

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,63}")


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice in the journal.

    Attributes:
        id: `PreferencePair.id`.
        time: when it was recorded, ISO 8601.
        pair: the choice itself.
        scores: None as long as it is not scored, and of a tie.
    """

    id: str
    time: str
    pair: PreferencePair
    scores: PairScores | None


def profile_path(name: str | Path) -> Path:
    """Where a profile lies: NAME is a file in the data folder; with a slash or ending in .json it is a path.

    Raises:
        UsageError: neither a name nor a path.
    """
    text = os.fspath(name)
    if "\0" in text or not text:
        raise UsageError(f"profile {text!r}: expected a name or a path")
    if isinstance(name, Path) or "/" in text or os.sep in text or text.endswith(".json"):
        return Path(text).expanduser()
    if not _NAME.fullmatch(text):
        raise UsageError(
            f"profile {text!r}: expected a name of 1-64 letters, digits, '.', '_', '-' and blanks that begins with a "
            "letter or digit, or a path"
        )
    return storage.folders().profiles / f"{text}.json"


class ProfileView:
    """A profile as it was read last.

    Args:
        store: its files.
        slm, attributes, text_length: what it must go with; None takes any.
        journal: whether it must keep one; None takes either.

    Attributes:
        path: of the file.
        exists: whether there is a file; a profile that never changed has none.

    Raises:
        ProfileError, UsageError: as `Profile.open`.
    """

    def __init__(
        self,
        store: Store,
        slm: SLM | None,
        attributes: Attributes | None,
        text_length: int | None,
        journal: bool | None,
    ) -> None:
        self.path = store.path
        self._store = store
        self._slm, self._attributes, self._keeps_journal = slm, attributes, journal
        self._text_length = None if text_length is None else check_text_length(text_length)
        self.refresh()
        if journal not in (None, self.settings.journal):
            keeps = "keeps" if self.settings.journal else "does not keep"
            raise UsageError(
                f"{self.path}: the profile {keeps} a journal; `configure(journal=…)` changes that, where one is kept "
                "by erasing it"
            )

    @staticmethod
    def names() -> list[str]:
        """Names of the profiles in the data folder."""
        return sorted(path.stem for path in storage.folders().profiles.glob("*.json") if not path.name.startswith("."))

    def refresh(self) -> None:
        """Read again what other processes may have changed.

        Raises:
            ProfileError: as `open`.
        """
        self._state, self.exists = self._read()

    # -- what it holds

    @property
    def slm(self) -> SLM | None:
        """The sLM that the choices were scored with; None before the first."""
        return self._state.slm

    @property
    def attributes(self) -> Attributes:
        """The pool with its prompts, as the choices were scored with them."""
        return self._state.attributes

    @property
    def text_length(self) -> int:
        """Tokens of a response that were scored at most; what a scorer for this profile must be made with."""
        return self._state.text_length

    @property
    def settings(self) -> Settings:
        """What a person has set: reduction, estimator, beta, active, pins, blocks and the rest."""
        return self._state.settings

    @property
    def statistics(self) -> Statistics:
        """The sums of all choices that are counted: a copy."""
        return tally.count(self._state, ()).statistics

    @property
    def n(self) -> int:
        """Choices that the weights are learned from."""
        return self._state.statistics.pairs

    @property
    def ties(self) -> int:
        """Choices that said neither; nothing is learned from them."""
        return self._state.statistics.ties

    @property
    def pending(self) -> int:
        """Choices that are recorded, but not scored yet."""
        return self._state.pending

    @property
    def history(self) -> tuple[Snapshot, ...]:
        """The weights over time, oldest first; of a long history every second is left out, again and again."""
        return self._state.history

    def table(self) -> dict[str, Weight]:
        """Every attribute with its weight."""
        return dict(self._state.weights)

    def weights(self) -> dict[str, float]:
        """The active weights, for decoding, the largest |p_i| first; none where nothing was learned or set."""
        active = {name: weight.weight for name, weight in self._state.weights.items() if weight.active}
        return dict(sorted(active.items(), key=lambda item: -abs(item[1])))

    def estimate(self) -> Estimate:
        """What was learned, without what was set by hand; `why_zero` says why there is nothing.

        Raises:
            ProfileError: the journal cannot be read.
        """
        with self._store.guarded():
            return tally.estimate_of(self._state, self._store.journal.read())

    def to_dict(self) -> dict[str, object]:
        """The JSON value of the file; its `weights` are {attribute: {weight, se, n, active}}."""
        return self._state.to_dict()

    def choices(self) -> Iterator[Choice]:
        """The choices in the journal, oldest first.

        Raises:
            ProfileError: the journal cannot be read.
        """
        with self._store.guarded():
            records = list(self._store.journal.read()) if self.settings.journal else []
        later = {record.value: record for record in records if record.kind == "scored"}
        for record in records:
            if record.kind == "choice":
                scores = later.get(record.value, record).scores()
                yield Choice(str(record.value), str(record.data.get("time", "")), record.pair(), scores)

    def rewards(self) -> tuple[list[Choice], FloatArray, FloatArray]:
        """The choices that are scored, with W and L (Eq. 12), each float64 (n, K), in the profile's reduction.

        Raises:
            ProfileError: the journal cannot be read.
        """
        scored = [(choice, choice.scores) for choice in self.choices() if choice.scores is not None]
        W, L = tally.rewards_of((scores for _, scores in scored), self.settings.reduction, len(self.attributes))
        return [choice for choice, _ in scored], W, L

    def _read(self, fit: bool = True) -> tuple[State, bool]:
        state, exists = self._store.read(self._fresh)
        return self._fit(state) if fit else state, exists

    def _fresh(self) -> State:
        pool, time = self._attributes or Attributes.builtin(), now()
        settings = Settings(journal=self._keeps_journal is not False)
        empty = Statistics(tuple(pool))
        state = State(
            id=token_hex(8), created=time, updated=time, slm=None, attributes=pool, settings=settings, statistics=empty
        )
        return tally.settle(state, (), time)

    def _fit(self, state: State) -> State:
        """The state, if it goes with the sLM, the attributes and the text length that were asked for."""
        slm, pool = self._slm, self._attributes
        other_slm = slm is not None and (state.slm is None or state.slm.fingerprint != slm.fingerprint)
        length = self._text_length or state.text_length
        difference = "" if pool is None else _difference(state.attributes, pool)
        if not other_slm and not difference and length == state.text_length:
            return state
        if not (state.statistics.pairs or state.statistics.ties or state.pending):  # no number depends on them
            state = replace(state, slm=slm or state.slm, attributes=pool or state.attributes, text_length=length)
            if difference:
                state = replace(state, statistics=Statistics(tuple(state.attributes)))
                state = tally.settle(tally.count(state, ()), (), now())
            return state
        if other_slm and state.slm is not None and slm is not None:
            difference = f"the sLM {state.slm.name!r} ({state.slm.fingerprint}), not {slm.name!r} ({slm.fingerprint})"
        elif not other_slm and not difference:
            difference = f"up to {state.text_length:,} tokens of each response, not {length:,}"
        option = f" --text-length {length}" if length != state.text_length else ""
        raise ProfileMismatchError(
            f"{self.path}: the profile was made with {difference or 'no sLM'}: its numbers hold for no other. "
            f"`drift-edge profile rebuild{option}` computes them anew from its choices; another profile leaves it as "
            "it is"
        )


def _difference(made_with: Attributes, wanted: Attributes) -> str:
    if made_with.base != wanted.base:
        return "another base prompt"
    for name in (*made_with, *wanted):
        if name not in wanted or name not in made_with:
            return f"an attribute {name!r}" if name in made_with else f"no attribute {name!r}"
        if made_with[name].prompt != wanted[name].prompt:
            return f"another prompt of {name!r}"
    return ""
