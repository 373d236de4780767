"""Profile: what was learned of one person, in one local file (docs/profile.md).

A profile is never half written: whoever changes it holds its lock, reads it again, puts new choices into the journal
and on the disk, and only then replaces the file. A reader sees the file before or after, whole, and catches up with
the journal by itself where the journal is ahead.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from drift_edge import profile_changes, storage, tally
from drift_edge.approximation import Estimate
from drift_edge.attributes import Attributes
from drift_edge.errors import ProfileMismatchError, UsageError
from drift_edge.journal import Record
from drift_edge.preferences import PreferencePair
from drift_edge.profile_changes import Step, now
from drift_edge.profile_file import SLM as SLM
from drift_edge.profile_file import Snapshot as Snapshot
from drift_edge.profile_file import State
from drift_edge.profile_file import Weight as Weight
from drift_edge.profile_settings import DEFAULT_BLOCKED as DEFAULT_BLOCKED
from drift_edge.profile_settings import Settings as Settings
from drift_edge.profile_store import Store
from drift_edge.rewards import FloatArray, PairScores
from drift_edge.statistics import Statistics
from drift_edge.weights import check_weights

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,63}")


@dataclass(frozen=True, slots=True)
class Change:
    """What a change did.

    Attributes:
        ids: of the choices that were recorded, scored or forgotten.
        before: all weights before it, by attribute.
        after: and after it.
    """

    ids: tuple[str, ...]
    before: Mapping[str, float]
    after: Mapping[str, float]


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


class Profile:
    """A person's profile. It keeps nothing open: changes are on the disk when a method returns, or an error is raised
    and nothing has changed. Use `open`.

    Attributes:
        path: of the file.
        exists: whether there is a file; a profile that never changed has none.
    """

    def __init__(self, store: Store, slm: SLM | None, attributes: Attributes | None, journal: bool | None) -> None:
        self.path = store.path
        self._store = store
        self._slm, self._attributes, self._keeps_journal = slm, attributes, journal
        self.refresh()
        if journal not in (None, self.settings.journal):
            keeps = "keeps" if self.settings.journal else "does not keep"
            raise UsageError(
                f"{self.path}: the profile {keeps} a journal; `configure(journal=…)` changes that, where one is kept "
                "by erasing it"
            )

    @classmethod
    def open(
        cls,
        name: str | Path = "default",
        *,
        slm: SLM | None = None,
        attributes: Attributes | None = None,
        journal: bool | None = None,
        wait: float = 10.0,
    ) -> Profile:
        """Read a profile, or begin one: where there is no file, none is made before the first change.

        Args:
            name: see `profile_path`.
            slm: which sLM the caller has; needed to add scores. None asks nothing.
            attributes: the pool that the caller wants; None takes the profile's own, or for a new one the built-in.
            journal: whether the choices themselves are kept; None takes the profile's own, or for a new one yes.
            wait: seconds to wait for another process that changes the profile.

        Raises:
            ProfileCorruptError: the file is damaged; says how to restore it.
            ProfileVersionError: it is of a newer version.
            ProfileMismatchError: it was made with another sLM or other prompts; says the way out.
            ProfileError: it cannot be read.
            UsageError: `name` is none, or `journal` is not as the profile has it.
        """
        return cls(Store(profile_path(name), wait), slm, attributes, journal)

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

    # -- choices

    def add(self, pair: PreferencePair, scores: PairScores | None = None) -> Change:
        """Record one choice; see `extend`."""
        return self.extend([(pair, scores)])

    def extend(self, choices: Iterable[tuple[PreferencePair, PairScores | None]]) -> Change:
        """Record choices in one step.

        A choice without scores is kept and counts once it is added again with them. One that is known already, scored
        or a tie, is left out, so that the same file learned twice counts once. Without a journal no choice is known.

        Args:
            choices: pairs and their scores by this profile's sLM and attributes; a tie needs none.

        Raises:
            UsageError: scores of another number of attributes, or none at all where there is no journal or no sLM.
            ProfileError: it cannot be written; nothing is recorded.
        """
        given = list(choices)

        def step(state: State) -> Step:
            known = self._store.journal.known() if state.settings.journal else {}
            return profile_changes.record(state, known, given)

        return self._change(step)

    def forget(self, *ids: str) -> Change:
        """Erase choices from the journal, and what was learned from them: as if they had never been made.

        Raises:
            UsageError: there is no such choice, or no journal.
            ProfileError: it cannot be written; nothing is forgotten.
        """

        return self._change(lambda state: profile_changes.forget(state, self._records(state), ids))

    def undo(self) -> Change:
        """Forget the choice that was recorded last.

        Raises:
            UsageError: there is none, or no journal.
            ProfileError: it cannot be written; nothing is forgotten.
        """

        return self._change(lambda state: profile_changes.undo(state, self._records(state)))

    def reset(self) -> Change:
        """Forget every choice and every weight set by hand; pins, blocks and the other settings stay.

        Raises:
            ProfileError: it cannot be written; nothing is forgotten.
        """

        return self._change(profile_changes.reset)

    def rebuild(
        self, scores: Mapping[str, PairScores], *, slm: SLM | None = None, attributes: Attributes | None = None
    ) -> Change:
        """Learn anew from all choices, by another sLM or with other attributes. Pins and weights set by hand of
        attributes that are no more are dropped.

        Args:
            scores: by id, of the new sLM and attributes; a choice without is kept and counts once it is scored.
            slm: the new one; None keeps it.
            attributes: the new pool; None keeps it.

        Raises:
            UsageError: scores of an unknown choice or of another number of attributes, or no journal.
            ProfileError: choices were counted without being kept, or it cannot be written; nothing is changed.
        """

        def step(state: State) -> Step:
            found = self._records(state)
            return profile_changes.rebuild(state, found, scores, slm or state.slm, attributes or state.attributes)

        change = self._change(step, fit=False)
        self._slm, self._attributes = slm or self._slm, attributes or self._attributes
        return change

    # -- settings

    def set(self, name: str, value: float | None) -> Change:
        """Set a weight by hand: it is used as it is, over what is learned. None takes it back.

        Raises:
            UsageError: unknown attribute, a number out of range, or more set or pinned than may be active.
            ProfileError: it cannot be written; nothing has changed.
        """

        def settings(state: State) -> Settings:
            fixed = {key: old for key, old in state.settings.fixed.items() if key != name}
            state.attributes.require(name)
            if value is not None:
                fixed |= check_weights({name: value}, state.attributes)
            return replace(state.settings, fixed=fixed)

        return self._set(settings)

    def pin(self, *names: str) -> Change:
        """Have attributes always among the active.

        Raises:
            UsageError: unknown or blocked attribute, or more set or pinned than may be active.
            ProfileError: it cannot be written; nothing has changed.
        """
        return self._list("pinned", names, True)

    def unpin(self, *names: str) -> Change:
        """Take back `pin`. Raises as `pin`."""
        return self._list("pinned", names, False)

    def block(self, *names: str) -> Change:
        """Keep attributes out of decoding, whatever their weight. They are still scored. Raises as `pin`."""
        return self._list("blocked", names, True)

    def allow(self, *names: str) -> Change:
        """Take back `block`. Raises as `pin`."""
        return self._list("blocked", names, False)

    def configure(
        self,
        *,
        reduction: str | None = None,
        estimator: str | None = None,
        beta: float | None = None,
        active: int | None = None,
        renormalise: bool | None = None,
        half_life: float | None = None,
        journal: bool | None = None,
    ) -> Change:
        """Change settings; None leaves one as it is. Another reduction or half-life counts all choices anew.

        Args:
            reduction, estimator, beta, active, renormalise: see `Settings`.
            half_life: in choices; infinity counts all alike again.
            journal: False erases the choices and keeps their numbers; True keeps the choices from now on.

        Raises:
            UsageError: a value is wrong.
            ProfileError: choices would have to be counted anew that were not kept, or it cannot be written; nothing
                has changed.
        """
        given: dict[str, Any] = {
            "reduction": reduction,
            "estimator": estimator,
            "beta": beta,
            "active": active,
            "renormalise": renormalise,
            "journal": journal,
        }
        given = {name: value for name, value in given.items() if value is not None}
        if half_life is not None:
            given["half_life"] = None if half_life == math.inf else half_life
        return self._set(lambda state: replace(state.settings, **given))

    def delete(self) -> tuple[Path, ...]:
        """Erase the profile, its backup, its journal and its lock.

        Returns:
            What was erased.

        Raises:
            ProfileError: a file cannot be erased.
        """
        gone = self._store.erase()
        self.refresh()
        return gone

    def export(self, path: str | Path, *, choices: bool = True) -> None:
        """Write one file that `import_from` takes on another machine; it is a profile, and a weights file, too.

        Args:
            path: of the file, replaced in one step.
            choices: whether the choices go along.

        Raises:
            ProfileError: the journal cannot be read, or the file cannot be written.
        """
        path = Path(path)
        with self._store.guarded():
            self._state, self.exists = self._read()
            records = self._store.journal.read() if choices and self.settings.journal else ()
            storage.write_private(path, self._state.to_json(record.raw for record in records))

    @classmethod
    def import_from(cls, path: str | Path, name: str | Path = "default", *, replace: bool = False) -> Profile:
        """Put an exported file in the place of a profile.

        Args:
            path: of the exported file.
            name: of the profile, see `profile_path`.
            replace: whether there may be one, which then stays as its backup, but for its journal.

        Raises:
            ProfileCorruptError, ProfileVersionError: what was exported is damaged, or of a newer version.
            ProfileError: it cannot be read or written.
            UsageError: there is a profile of that name.
        """
        store = Store(profile_path(name))
        store.load(Path(path), replace=replace)
        return cls(store, None, None, None)

    @staticmethod
    def restore(name: str | Path = "default", *, wait: float = 10.0) -> Path | None:
        """Put the backup in the place of a damaged or missing profile; choices made since come from the journal.

        Returns:
            Where the damaged file is kept; None where there was none.

        Raises:
            UsageError: the profile is not damaged.
            ProfileError: there is no backup, it is damaged too, or it cannot be written.
        """
        return Store(profile_path(name), wait).restore()

    # -- how

    def _read(self, fit: bool = True) -> tuple[State, bool]:
        state, exists = self._store.read(self._fresh)
        return self._fit(state) if fit else state, exists

    def _fresh(self) -> State:
        pool, time = self._attributes or Attributes.builtin(), now()
        settings = Settings(journal=self._keeps_journal is not False)
        empty = Statistics(tuple(pool))
        state = State(created=time, updated=time, slm=None, attributes=pool, settings=settings, statistics=empty)
        return tally.settle(state, (), time)

    def _fit(self, state: State) -> State:
        """The state, if it goes with the sLM and the attributes that were asked for."""
        slm, pool = self._slm, self._attributes
        other_slm = slm is not None and (state.slm is None or state.slm.fingerprint != slm.fingerprint)
        difference = "" if pool is None else _difference(state.attributes, pool)
        if not other_slm and not difference:
            return state
        if not (state.statistics.pairs or state.statistics.ties or state.pending):  # no number depends on them
            state = replace(state, slm=slm or state.slm, attributes=pool or state.attributes)
            if difference:
                state = replace(state, statistics=Statistics(tuple(state.attributes)))
                state = tally.settle(tally.count(state, ()), (), now())
            return state
        if other_slm and state.slm is not None and slm is not None:
            difference = f"the sLM {state.slm.name!r} ({state.slm.fingerprint}), not {slm.name!r} ({slm.fingerprint})"
        raise ProfileMismatchError(
            f"{self.path}: the profile was made with {difference or 'no sLM'}: its numbers hold for no other. "
            "`drift-edge profile rebuild` computes them anew from its choices; another profile leaves it as it is"
        )

    def _change(self, step: Callable[[State], Step], fit: bool = True) -> Change:
        with self._store.locked():
            state, self.exists = self._read(fit)
            self._store.check_journal(state)
            done = step(state)
            if done.state is not state:
                journal = self._store.journal.read() if not done.rewrite else ()
                self._state = tally.settle(done.state, chain(journal, done.records), now())
                self._store.write(self._state, done.records, rewrite=done.rewrite)
                self.exists = True
            else:
                self._state = state
        return Change(done.ids, _plain(state), _plain(self._state))

    def _records(self, state: State) -> list[Record]:
        if not state.settings.journal:
            raise UsageError("the profile keeps no journal, so single choices are not known; `reset` forgets them all")
        return list(self._store.journal.read())

    def _set(self, settings: Callable[[State], Settings]) -> Change:
        return self._change(lambda state: profile_changes.configure(state, self._store.journal.read(), settings(state)))

    def _list(self, field: str, names: tuple[str, ...], on: bool) -> Change:
        def settings(state: State) -> Settings:
            listed = getattr(state.settings, field)
            for name in names:
                if name not in listed:
                    state.attributes.require(name)
            rest = tuple(name for name in listed if name not in names)
            changed: dict[str, Any] = {field: (*rest, *dict.fromkeys(names)) if on else rest}
            return replace(state.settings, **changed)

        return self._set(settings)


def _difference(made_with: Attributes, wanted: Attributes) -> str:
    if made_with.base != wanted.base:
        return "another base prompt"
    for name in (*made_with, *wanted):
        if name not in wanted or name not in made_with:
            return f"an attribute {name!r}" if name in made_with else f"no attribute {name!r}"
        if made_with[name].prompt != wanted[name].prompt:
            return f"another prompt of {name!r}"
    return ""


def _plain(state: State) -> dict[str, float]:
    return {name: weight.weight for name, weight in state.weights.items()}
