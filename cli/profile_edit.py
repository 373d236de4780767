"""`drift-edge profile set|pin|unpin|block|allow|forget|undo|reset|export|import|restore|delete`: changing a profile."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drift_edge.errors import DriftError, ProfileCorruptError, ProfileVersionError, UsageError

from .which import AsJson, Name, ProfileFlag, existing, fresh, profile_name

if TYPE_CHECKING:
    from drift_edge.profile import Change, Profile
    from drift_edge.profile.store import Store

_MOVES = 5
_Attributes = Annotated[list[str], typer.Argument(metavar="ATTRIBUTE...")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def set_weights(
    weights: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=NUMBER...", help="Weights by hand; NAME= goes back to what is learned."),
    ] = None,
    profile: ProfileFlag = None,
    estimator: Annotated[str | None, typer.Option(help="How weights are made of the choices.")] = None,
    reduction: Annotated[str | None, typer.Option(help="Log-probabilities of a response: sum, mean or sqrt.")] = None,
    beta: Annotated[float | None, typer.Option(help="The paper's beta; smaller steers more.")] = None,
    strength: Annotated[float | None, typer.Option(help="Instead of a beta: 0 to 1, how far to steer.")] = None,
    active: Annotated[int | None, typer.Option(help="Most attributes that take part at once.")] = None,
    sure: Annotated[
        float | None, typer.Option(help="Standard errors that a weight has to be of to take part; 0 takes all.")
    ] = None,
    renormalise: Annotated[
        bool | None, typer.Option("--renormalise/--no-renormalise", help="Scale the active weights to length 1.")
    ] = None,
    half_life: Annotated[
        float | None, typer.Option(help="Choices after which one counts half; 0 counts all alike.")
    ] = None,
    journal: Annotated[
        bool | None, typer.Option("--journal/--no-journal", help="Keep the choices, or their numbers alone.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set weights by hand, over what is learned, or how weights are learned."""
    options: dict[str, Any] = {
        "estimator": estimator,
        "reduction": reduction,
        "beta": beta,
        "strength": strength,
        "active": active,
        "sure": sure,
        "renormalise": renormalise,
        "journal": journal,
    }
    options = {name: value for name, value in options.items() if value is not None}
    if half_life is not None:
        options["half_life"] = half_life
    if not weights and not options:
        raise UsageError("nothing to set; as in: drift-edge profile set concise=0.8 --beta 0.4")
    values = dict(_pairs(weights or ()))
    found = fresh(profile)
    for name in values:
        found.attributes.require(name)
    changes = [found.configure(**options)] if options else []
    changes += [found.set(name, value) for name, value in values.items()]
    told(found, changes, as_json, ", ".join(f"{name} {value}" for name, value in options.items()))


def pin(attributes: _Attributes, profile: ProfileFlag = None, as_json: AsJson = False) -> None:
    """Keep attributes among the active, however small their weight."""
    found = fresh(profile)
    change = found.pin(*attributes)
    told(found, [change], as_json, _listed("pinned", found.settings.pinned))


def unpin(attributes: _Attributes, profile: ProfileFlag = None, as_json: AsJson = False) -> None:
    """Let pinned attributes be active by their weight again."""
    found = fresh(profile)
    change = found.unpin(*attributes)
    told(found, [change], as_json, _listed("pinned", found.settings.pinned))


def block(attributes: _Attributes, profile: ProfileFlag = None, as_json: AsJson = False) -> None:
    """Keep attributes out of answers, whatever is learned of them."""
    found = fresh(profile)
    change = found.block(*attributes)
    told(found, [change], as_json, _listed("blocked", found.settings.blocked))


def allow(attributes: _Attributes, profile: ProfileFlag = None, as_json: AsJson = False) -> None:
    """Let blocked attributes take part in answers again."""
    found = fresh(profile)
    change = found.allow(*attributes)
    told(found, [change], as_json, _listed("blocked", found.settings.blocked))


def forget(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As `choices` shows them, or how they begin.")],
    profile: ProfileFlag = None,
    as_json: AsJson = False,
) -> None:
    """Forget choices, as if they had never been made."""
    found = existing(profile)
    known = [choice.id for choice in found.choices()]
    told(found, [found.forget(*dict.fromkeys(_whole_id(given, known) for given in ids))], as_json, forgot=True)


def undo(name: Name = None, profile: ProfileFlag = None, as_json: AsJson = False) -> None:
    """Forget the choice that was made last."""
    found = existing(name, profile)
    told(found, [found.undo()], as_json, forgot=True)


def reset(name: Name = None, profile: ProfileFlag = None, yes: _Yes = False, as_json: AsJson = False) -> None:
    """Forget all choices and weights; pins, blocks, strength and the like stay."""
    from .charts import counted

    found = existing(name, profile)
    _confirm(f"Forget {counted(found.n + found.ties + found.pending, 'choice')} of {found.path}?", yes)
    told(found, [found.reset()], as_json)


def export(
    file: Annotated[Path, typer.Argument(help="Where to write; it must not be there yet.")],
    profile: ProfileFlag = None,
    choices: Annotated[bool, typer.Option("--choices/--no-choices", help="With the choices, or numbers alone.")] = True,
    as_json: AsJson = False,
) -> None:
    """Write the whole profile into one file, to be carried elsewhere."""
    from .render import Screen

    found = existing(profile)
    if file.exists():
        raise UsageError(f"{file}: exists already; name another file")
    found.export(file, choices=choices)
    if as_json:
        Screen().json({"path": str(file), "choices": choices})
    else:
        typer.echo(f"{found.path} is in {file}, {'with' if choices else 'without'} its choices")


def load(
    file: Annotated[Path, typer.Argument(help="What `export` wrote.")],
    profile: ProfileFlag = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of a profile that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring in a profile that `export` wrote."""
    from drift_edge.profile import Profile

    found = Profile.import_from(file, profile_name(profile), replace=replace)
    told(found, [], as_json)


def restore(name: Name = None, profile: ProfileFlag = None, as_json: AsJson = False) -> None:
    """Bring back the backup of a damaged profile; the damaged file is kept beside it."""
    from drift_edge.profile import Profile

    from .render import Screen

    given = profile_name(name, profile)
    damaged = Profile.restore(given)
    found = Profile.open(given)
    if as_json:
        Screen().json({"path": str(found.path), "damaged": damaged and str(damaged), "pairs": found.n})
        return
    told(found, [], as_json)
    if damaged:
        typer.echo(f"the damaged file is kept as {damaged}")


def delete(name: Name = None, profile: ProfileFlag = None, yes: _Yes = False, as_json: AsJson = False) -> None:
    """Erase a profile: its file, backup and journal, and what the cache of scores knows of its choices."""
    from drift_edge.profile import profile_path
    from drift_edge.profile.store import Store
    from drift_edge.storage import folders

    from .charts import counted
    from .render import Screen

    try:
        found = existing(name, profile)
        held = f"with {counted(found.n + found.ties + found.pending, 'choice')}"
    except (ProfileCorruptError, ProfileVersionError):
        held = "which cannot be read"
    store = Store(profile_path(profile_name(name, profile)))
    _confirm(f"Erase {store.path}, {held}?", yes)
    texts = _kept_texts(store)
    erased = [str(path) for path in store.erase()]
    scores = _erase_scores(texts) if folders().rewards.exists() else 0
    if as_json:
        Screen().json({"erased": erased, "cached_scores": scores})
        return
    for path in erased:
        typer.echo(f"erased {path}")
    if scores:
        typer.echo(f"erased {counted(scores, 'score')} in {folders().rewards}")
    elif not texts and folders().rewards.exists():
        typer.echo(f"{folders().rewards} may have scores of choices that were not kept; it can be deleted at any time")


def _kept_texts(store: Store) -> list[str]:
    """What the cache of scores knows the answers in a journal by; of a damaged one, those before the damage."""
    from drift_edge.reward_cache import text_key

    texts = []
    with suppress(ProfileCorruptError, OSError):
        for record in store.journal.read():
            if record.kind == "choice":
                pair = record.pair()
                texts += [text_key(pair.messages, response) for response in (pair.chosen, pair.rejected)]
    return texts


def _erase_scores(texts: list[str]) -> int:
    from drift_edge.reward_cache import RewardCache
    from drift_edge.storage import folders

    with RewardCache(folders().rewards) as cache:
        return cache.forget(texts)


def moves(changes: list[Change], most: int = _MOVES) -> list[str]:
    """The weights that changed most over some changes, as `concise +0.410 -> +0.470`."""
    from .charts import glyphs, signed

    if not changes:
        return []
    before, after = changes[0].before, changes[-1].after
    names = sorted(after, key=lambda name: -abs(after[name] - before.get(name, 0.0)))
    texts = [(name, signed(before.get(name, 0.0)), signed(after[name])) for name in names]
    moved = [f"{name} {old} {glyphs().arrow} {new}" for name, old, new in texts if old != new]
    return moved[:most] + ([f"and {len(moved) - most} more"] if len(moved) > most else [])


def told(profile: Profile, changes: list[Change], as_json: bool, first: str = "", *, forgot: bool = False) -> None:
    """Say what changed: `first`, the choices if they are forgotten and the largest moves on one line each, or all as a
    JSON object."""
    from .profile_show import summary
    from .render import Screen

    ids = [one for change in changes for one in change.ids]
    if as_json:
        Screen().json(
            {
                "path": str(profile.path),
                "ids": ids,
                "before": dict(changes[0].before) if changes else {},
                "after": {name: weight.weight for name, weight in profile.table().items()},
                "active": list(profile.weights()),
            }
        )
        return
    lines = [first, *(f"forgot {one}" for one in ids if forgot), ", ".join(moves(changes))]
    lines = [line for line in lines if line]
    typer.echo("\n".join(lines or ["no weight changed" if changes else summary(profile)]))


def _listed(what: str, names: Sequence[str]) -> str:
    return f"{what}: {', '.join(names) or 'none'}"


def _pairs(texts: Sequence[str]) -> list[tuple[str, float | None]]:
    found: list[tuple[str, float | None]] = []
    for text in texts:
        name, equals, number = (piece.strip() for piece in text.partition("="))
        if not equals:
            raise UsageError(f"expected NAME=NUMBER, or NAME= to go back to what is learned; got {text!r}")
        try:
            found.append((name, float(number) if number else None))
        except ValueError:
            raise UsageError(f"weight of {name!r}: expected a number, got {number!r}") from None
    return found


def _whole_id(given: str, known: list[str]) -> str:
    """The one id that begins so."""
    found = [one for one in known if one.startswith(given.lower())] if given else []
    if len(found) == 1:
        return found[0]
    why = f"{len(found)} choices begin so" if found else "no choice begins so"
    raise UsageError(f"id {given!r}: {why}; `drift-edge profile choices` shows them")


def _confirm(question: str, yes: bool) -> None:
    """Ask on a terminal.

    Raises:
        UsageError: there is no terminal to ask on.
        typer.Exit: the answer was no.
    """
    from .render import is_terminal

    if yes:
        return
    if not is_terminal(sys.stdin):
        raise UsageError("this cannot be undone: say --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise DriftError("nothing was changed")
