"""Which model or profile a command is about: the words of the command line for it, and the profile itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from drift_edge.errors import ProfileError, UsageError

if TYPE_CHECKING:
    from drift_edge.profile import Profile

MODEL = "FILE|USER/REPO[:QUANT]"
Name = Annotated[str | None, typer.Argument(metavar="NAME|PATH", help="The profile.  [default: the settings']")]
ProfileFlag = Annotated[
    str | None, typer.Option("--profile", metavar="NAME|PATH", help="The profile.  [default: the settings']")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def profile_name(*given: str | None) -> str:
    """The name or path that was given, in one of the ways; else that of the settings.

    Raises:
        UsageError: given twice, differently; or a setting is wrong.
    """
    from drift_edge.storage import folders

    from .config import DEFAULT_PROFILE, Settings, read_config, read_environment

    said = list(dict.fromkeys(name for name in given if name is not None))
    if len(said) > 1:
        raise UsageError(f"two profiles are named: {' and '.join(map(repr, said))}; name one")
    settings = Settings()
    found = {**read_config(folders().config_file), **read_environment()}
    if said:
        found["profile"] = (said[0], "--profile")
    if "profile" in found:
        settings.put("profile", *found["profile"])
    return settings.profile or DEFAULT_PROFILE


def existing(*given: str | None, default_may_lack: bool = False) -> Profile:
    """The profile; it must be there.

    Args:
        given: a name or path, in one or more ways.
        default_may_lack: where nothing was ever learned, the default profile is an empty one.

    Raises:
        ProfileError: it is not there or cannot be used.
        UsageError: as `profile_name`.
    """
    from drift_edge.profile import Profile

    from .config import DEFAULT_PROFILE

    name = profile_name(*given)
    profile = Profile.open(name)
    if profile.exists or (default_may_lack and name == DEFAULT_PROFILE):
        return profile
    known = ", ".join(Profile.names())
    hint = f"there are {known}" if known else "begin one by `drift-edge learn` or by /ab in `drift-edge chat`"
    raise ProfileError(f"no profile {name!r}: {profile.path} is not there; {hint}")


def fresh(*given: str | None) -> Profile:
    """The profile, which need not be there yet.

    Raises:
        ProfileError: it cannot be used.
        UsageError: as `profile_name`.
    """
    from drift_edge.profile import Profile

    return Profile.open(profile_name(*given))
