"""Profile: what was learned of one person, in one local file (docs/profile.md).

A profile is never half written: whoever changes it holds its lock, reads it again, puts new choices into the journal
and on the disk, and only then replaces the file. A reader sees the file before or after, whole, and catches up with
the journal by itself where the journal is ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from drift_edge import storage
from drift_edge.attributes import Attributes
from drift_edge.errors import UsageError
from drift_edge.preferences import PreferencePair
from drift_edge.profile import changes, tally
from drift_edge.profile.changes import Step, now
from drift_edge.profile.file import SLM, State
from drift_edge.profile.journal import Record
from drift_edge.profile.settings import Settings
from drift_edge.profile.store import Store
from drift_edge.profile.view import ProfileView, profile_path
from drift_edge.rewards import PairScores, check_text_length
from drift_edge.weights import check_exclusive, check_weights


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


class Profile(ProfileView):
    """A person's profile; see `open`. It keeps nothing open: when a method returns, its change is on the disk, and when
    it raises, nothing has changed.
    """

    @classmethod
    def open(
        cls,
        name: str | Path = "default",
        *,
        slm: SLM | None = None,
        attributes: Attributes | None = None,
        text_length: int | None = None,
        journal: bool | None = None,
        wait: float = 10.0,
    ) -> Profile:
        """Read a profile, or begin one: where there is no file, none is made before the first change.

        Args:
            name: see `profile_path`.
            slm: which sLM the caller has; needed to add scores. None asks nothing.
            attributes: the pool that the caller wants; None takes the profile's own, or for a new one the built-in.
            text_length: tokens of a response that the caller's scorer scores; None takes the profile's own, or for a
                new one 500.
            journal: whether the choices themselves are kept; None takes the profile's own, or for a new one yes.
            wait: seconds to wait for another process that changes the profile.

        Raises:
            ProfileCorruptError: the file is damaged; says how to restore it.
            ProfileVersionError: it is of a newer version.
            ProfileMismatchError: it was made with another sLM, prompts or `text_length`; says the way out.
            ProfileError: it cannot be read.
            UsageError: `name` is none, `text_length` below 1, or `journal` is not as the profile has it.
        """
        return cls(Store(profile_path(name), wait), slm, attributes, text_length, journal)

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
            return changes.record(state, known, given)

        return self._change(step)

    def forget(self, *ids: str) -> Change:
        """Erase choices from the journal, and what was learned from them: as if they had never been made.

        Raises:
            UsageError: there is no such choice, or no journal.
            ProfileError: it cannot be written; nothing is forgotten.
        """

        return self._change(lambda state: changes.forget(state, self._records(state), ids))

    def undo(self) -> Change:
        """Forget the choice that was recorded last.

        Raises:
            UsageError: there is none, or no journal.
            ProfileError: it cannot be written; nothing is forgotten.
        """

        return self._change(lambda state: changes.undo(state, self._records(state)))

    def reset(self) -> Change:
        """Forget every choice and every weight set by hand; pins, blocks and the other settings stay.

        Raises:
            ProfileError: it cannot be written; nothing is forgotten.
        """

        return self._change(changes.reset)

    def rebuild(
        self,
        scores: Mapping[str, PairScores],
        *,
        slm: SLM | None = None,
        attributes: Attributes | None = None,
        text_length: int | None = None,
    ) -> Change:
        """Learn anew from all choices, by another sLM, with other attributes or more or less of each response. Pins and
        weights set by hand of attributes that are no more are dropped.

        Args:
            scores: by id, of the new sLM and attributes; a choice without is kept and counts once it is scored.
            slm: the new one; None keeps it.
            attributes: the new pool; None keeps it.
            text_length: tokens of a response that were scored at most; None is as before.

        Raises:
            UsageError: scores of an unknown choice or of another number of attributes, `text_length` below 1, or no
                journal.
            ProfileError: choices were counted without being kept, or it cannot be written; nothing is changed.
        """

        length = None if text_length is None else check_text_length(text_length)

        def step(state: State) -> Step:
            found = self._records(state)
            made_with = (slm or state.slm, attributes or state.attributes, length or state.text_length)
            return changes.rebuild(state, found, scores, *made_with)

        change = self._change(step, fit=False)
        self._slm, self._attributes = slm or self._slm, attributes or self._attributes
        self._text_length = length or self._text_length
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
        strength: float | None = None,
        active: int | None = None,
        sure: float | None = None,
        renormalise: bool | None = None,
        half_life: float | None = None,
        journal: bool | None = None,
    ) -> Change:
        """Change settings; None leaves one as it is. Another reduction or half-life counts all choices anew.

        Args:
            reduction, estimator, beta, strength, active, sure, renormalise: see `Settings`; beta and strength take each
                other's place.
            half_life: in choices; 0 counts all alike again.
            journal: False erases the choices and keeps their numbers; True keeps the choices from now on.

        Raises:
            UsageError: a value is wrong, or both beta and strength are given.
            ProfileError: choices would have to be counted anew that were not kept, or it cannot be written; nothing
                has changed.
        """
        given: dict[str, Any] = {
            "reduction": reduction,
            "estimator": estimator,
            "beta": beta,
            "strength": strength,
            "active": active,
            "sure": sure,
            "renormalise": renormalise,
            "journal": journal,
        }
        given = {name: value for name, value in given.items() if value is not None}
        if half_life is not None:
            given["half_life"] = half_life or None
        check_exclusive(beta, strength)
        if beta is not None:
            given["strength"] = None
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
            UsageError: `path` is the profile itself.
            ProfileError: the journal cannot be read, or the file cannot be written.
        """
        path = Path(path)
        if path.exists() and path.samefile(self._store.target):
            raise UsageError(f"{path}: the profile itself; export it to another file")
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
        return cls(store, None, None, None, None)

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

    def _change(self, step: Callable[[State], Step], fit: bool = True) -> Change:
        with self._store.locked():
            state, self.exists = self._read(fit)
            self._store.check_journal(state)
            done = step(state)
            if done.state is not state:
                journal = self._store.journal.read() if not done.rewrite else ()
                after = tally.settle(done.state, chain(journal, done.records), now())
                self._store.write(after, done.records, rewrite=done.rewrite)
                self.exists = True
            else:
                after = state
            self._state = after
        return Change(done.ids, _plain(state), _plain(after))

    def _records(self, state: State) -> list[Record]:
        if not state.settings.journal:
            raise UsageError("the profile keeps no journal, so single choices are not known; `reset` forgets them all")
        return list(self._store.journal.read())

    def _set(self, settings: Callable[[State], Settings]) -> Change:
        return self._change(lambda state: changes.configure(state, self._store.journal.read(), settings(state)))

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


def _plain(state: State) -> dict[str, float]:
    return {name: weight.weight for name, weight in state.weights.items()}
