"""`drift-edge models pull|rm|verify`: models fetched from the hub, deleted, and held against their hashes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drift_edge.errors import DriftError, HubError, ModelFileError, UsageError

from .which import AsJson

if TYPE_CHECKING:
    from ..models.hub.cache import CachedFile, HubCache
    from ..models.hub.pull import Pull
    from ..models.hub.reference import Reference
    from .render import Screen

Target = Annotated[str, typer.Argument(metavar="PAIR|USER/REPO[:QUANT]", help="A pair of the catalogue, or one model.")]


def pull(
    target: Target,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask nothing of the network; only see what is here.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch models from the Hugging Face hub, into the cache that other programs share.

    What was broken off goes on where it stopped. HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE count.
    """
    from ..models.hub.pull import Pull, check_space
    from ..models.hub.settings import HubSettings
    from ..models.installed import cached
    from .render import Screen

    screen = Screen()
    wanted = _references(target)
    settings = HubSettings.from_environment(offline=offline)
    if settings.offline:
        paths = [cached(reference) for reference in wanted]
    else:
        pulls = [Pull(reference, settings) for reference in wanted]
        check_space(pulls, settings)
        for job in pulls:
            _fetch(job, screen)
        paths = [job.path for job in pulls]
    if as_json:
        screen.json({"target": target, "files": [str(path) for path in paths]})
        return
    for path in paths:
        typer.echo(path)
    if len(paths) == 2:
        screen.say(f"`drift-edge chat {target}` talks to them", "dim")


def _references(target: str) -> list[Reference]:
    from ..models.catalogue import BUILTIN, catalogue, is_pair
    from ..models.hub.reference import Reference
    from ..models.installed import references

    if target == BUILTIN:
        raise UsageError(f"{BUILTIN!r} is built in: it is here already")
    if "/" not in target and not is_pair(target):
        raise UsageError(f"{target!r}: expected user/repo[:quant], or a pair: {', '.join(catalogue())}")
    return list(references(target)) if is_pair(target) else [Reference.parse(target)]


def _fetch(job: Pull, screen: Screen) -> None:
    from .progress import ByteProgress, size

    listing = job.listing
    parts = f" in {len(job.files)} files" if len(job.files) > 1 else ""
    facts = (
        f"{size(job.total)}{parts}, licence {(listing.license or 'unknown')[:40]}{', gated' if listing.gated else ''}"
    )
    screen.say(f"{listing.repo}: {job.files[0].path} ({facts})")
    if job.total > job.missing > 0:
        screen.say(f"going on: {size(job.total - job.missing)} are here already", "dim")
    done, received = dict.fromkeys(job.files, 0), dict.fromkeys(job.files, 0)
    try:
        with ByteProgress(job.total, screen) as progress:
            for transfer in job.run():
                done[transfer.file], received[transfer.file] = transfer.done, transfer.received
                progress.reach(transfer.file.path, sum(done.values()), sum(received.values()))
    except KeyboardInterrupt:
        screen.say("stopped; what has come is kept, the same command goes on with it")
        raise


def remove(
    target: Target,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete models from the cache, which other programs share."""
    from ..models.hub.cache import HubCache
    from ..models.hub.settings import HubSettings
    from .progress import size
    from .render import Screen, is_terminal

    screen = Screen()
    cache = HubCache(HubSettings.from_environment().cache)
    wanted = _references(target)
    if len(wanted) == 2 and (other := _other_user(wanted[1], target)):
        screen.note(f"{wanted[1]} stays: {other} needs it too")
        wanted.pop()
    files = [file for reference in wanted for file in _found(cache, reference)]
    if not files:
        raise ModelFileError(f"{target}: not in {cache.folder}, so there is nothing to delete")
    names = ", ".join(f"{file.repo}/{file.name}" for file in files)
    if not yes:
        if not is_terminal(sys.stdin):
            raise UsageError(f"this deletes {names} for all programs that share the cache: say --yes")
        screen.say(f"{names}: {size(sum(file.bytes for file in files))}, shared with other programs")
        if not typer.confirm("Delete?", err=True):
            raise typer.Exit(1)
    try:
        freed = cache.remove(files)
    except OSError as error:
        raise DriftError(f"{error.filename}: cannot be deleted: {error.strerror}") from error
    screen.say(f"deleted {names}: {size(freed)} are free again")


def _other_user(slm: Reference, target: str) -> str | None:
    """Another pulled pair with the same small LM."""
    from ..models.installed import pulled_pairs, references

    mine = references(target)[0]
    return next((name for name in pulled_pairs() if references(name)[1] == slm and references(name)[0] != mine), None)


def _found(cache: HubCache, reference: Reference) -> list[CachedFile]:
    try:
        return cache.find(reference)
    except HubError as error:
        raise ModelFileError(str(error)) from None


def verify(
    target: Annotated[
        str | None, typer.Argument(metavar="[PAIR|USER/REPO[:QUANT]]", help="Else all that was pulled.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hash pulled models, remembered or not, and compare; exit code 3 if one is damaged."""
    from ..models.hub.cache import HubCache
    from ..models.hub.hashes import Verified
    from ..models.hub.settings import HubSettings
    from ..models.installed import check
    from .render import Screen, visible

    screen, verified = Screen(), Verified()
    cache = HubCache(HubSettings.from_environment().cache)
    files = [file for r in _references(target) for file in _found(cache, r)] if target else list(cache.files())
    if target and not files:
        raise ModelFileError(f"{target}: not in {cache.folder}; `drift-edge models pull {target}` fetches it")
    rows: list[dict[str, Any]] = []
    for file in files:
        right = check(file, verified) if file.bytes else False
        state = {True: "ok", False: "DAMAGED", None: "unknown"}[right]
        rows.append({"path": str(file.path), "hash": file.etag, "state": state.lower()})
        if not as_json:
            typer.echo(visible(f"{state:<8} {file.repo}/{file.name}"))
    if as_json:
        screen.json({"files": rows})
    damaged = [row["path"] for row in rows if row["state"] == "damaged"]
    if damaged:
        raise ModelFileError(f"{', '.join(damaged)}: damaged; `drift-edge models pull` fetches it again")
    if not rows:
        screen.say(f"nothing was pulled to {cache.folder}")
