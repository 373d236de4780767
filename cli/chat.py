"""`drift-edge chat`: one question by -p or stdin, or a conversation on the terminal."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from drift_edge.errors import UsageError

from . import options

if TYPE_CHECKING:
    from drift_edge.attributes import Attributes
    from drift_edge.engine import Drift
    from drift_edge.guard import Judge
    from drift_edge.profile import Profile

    from .config import Found, Raw, Settings
    from .dialogue import Dialogue, Engine
    from .learner import Learner
    from .render import Screen

_MAX_STDIN = 16 << 20


class Draft(StrEnum):
    """What drafts tokens that the LLM then verifies."""

    auto = "auto"
    steered = "steered"
    base = "base"


class Color(StrEnum):
    """When to colour."""

    auto = "auto"
    always = "always"
    never = "never"


def chat(
    pair: options.Pair = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Ask this and leave. What is piped in goes below it.")
    ] = None,
    resume: Annotated[bool, typer.Option("--continue", "-c", help="Go on with the last conversation.")] = False,
    llm: options.Llm = None,
    slm: options.Slm = None,
    profile: options.ProfileName = None,
    no_profile: options.NoProfile = False,
    weights: options.Weights = None,
    allow: options.Allow = None,
    beta: options.Beta = None,
    strength: options.Strength = None,
    active: options.Active = None,
    steer: options.Steer = None,
    attributes: options.Pool = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest token.  [default: 0.8]")] = None,
    top_k: Annotated[int | None, typer.Option(help="Keep the k likeliest tokens; 0 is off.  [default: 40]")] = None,
    top_p: Annotated[float | None, typer.Option(help="Keep this much probability; 1 is off.  [default: 0.95]")] = None,
    min_p: Annotated[float | None, typer.Option(help="Least share of the best token's.  [default: 0.05]")] = None,
    plausibility: Annotated[
        float | None, typer.Option(help="Least share of the LLM's own best, unsteered; 0 is off.  [default: 0.001]")
    ] = None,
    repeat_penalty: Annotated[float | None, typer.Option(help="1 is off.  [default: 1]")] = None,
    speculate: Annotated[
        str | None,
        typer.Option(
            metavar="auto|off|G", help="Tokens that the small LM drafts ahead; the text stays.  [default: auto]"
        ),
    ] = None,
    draft: Annotated[
        Draft | None, typer.Option(help="Draft with the attributes, or by the base prompt.  [default: auto]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Makes the answer reproducible.")] = None,
    max_tokens: options.MaxTokens = None,
    system: Annotated[str | None, typer.Option(help="System prompt of your own.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the answer; may be repeated.")] = None,
    guard: options.Guard = None,
    guard_form: options.GuardForm = None,
    guard_tries: options.GuardTries = None,
    ctx_size: options.CtxSize = None,
    threads: options.Threads = None,
    gpu_layers: options.GpuLayers = None,
    slm_gpu_layers: options.SlmGpuLayers = None,
    cache_type: options.CacheType = None,
    flash_attn: options.FlashAttn = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
    stats: Annotated[bool | None, typer.Option("--stats/--no-stats", help="Say on stderr what it cost.")] = None,
    color: Annotated[Color | None, typer.Option(help="Colour on stderr.  [default: auto]")] = None,
    save: Annotated[bool | None, typer.Option("--save/--no-save", help="Keep the conversation on disk.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="llama.cpp's log on stderr.")] = False,
) -> None:
    """Talk to a personalised LLM.

    With -p, or with something piped in, one question is answered and the program ends; else it is a conversation,
    where /help lists the commands. Every flag can also stand in config.toml (top-p = 0.9) or in the environment
    (DRIFT_EDGE_TOP_P=0.9); flags win over the resumed conversation, that over the environment, that over the file.
    """
    from .config import read_flags

    flags: dict[str, object] = {
        "llm": llm,
        "slm": slm,
        "profile": profile,
        "weights": weights,
        "allow": allow or None,
        "beta": beta,
        "strength": strength,
        "active": active,
        "steer": steer and steer.value,
        "attributes": attributes,
        "temperature": temperature,
        "top-k": top_k,
        "top-p": top_p,
        "min-p": min_p,
        "plausibility": plausibility,
        "repeat-penalty": repeat_penalty,
        "speculate": speculate,
        "draft": draft and draft.value,
        "seed": seed,
        "max-tokens": max_tokens,
        "system": system,
        "stop": stop or None,
        "guard": guard,
        "guard-form": guard_form and guard_form.value,
        "guard-tries": guard_tries,
        "ctx-size": ctx_size,
        "threads": threads,
        "gpu-layers": gpu_layers,
        "slm-gpu-layers": slm_gpu_layers,
        "cache-type": cache_type,
        "flash-attn": flash_attn and flash_attn.value,
        "stats": stats,
        "color": color and color.value,
        "save": save,
    }
    given = options.without_profile(read_flags(flags), no_profile)
    run(pair, prompt, given, resume=resume, as_json=as_json, verbose=verbose)


def run(pair: str | None, prompt: str | None, flags: Raw, *, resume: bool, as_json: bool, verbose: bool) -> None:
    """The command itself.

    Args:
        pair: the positional argument.
        prompt: of -p.
        flags: settings given as flags.
        resume: go on with the last conversation.
        as_json: print the answer as one JSON object.
        verbose: show llama.cpp's log.

    Raises:
        DriftError: something is wrong with the input, or the engine fails.
        typer.Exit: 130, after Ctrl-C.
    """
    from drift_edge.storage import folders

    from .config import DEFAULT_PROFILE, SAVED, check_pair, read_config, read_environment, read_saved, resolve
    from .dialogue import Dialogue
    from .render import Screen, is_terminal, show_log
    from .session import Autosave, latest, read_session

    flags = with_pair(pair, flags)
    places = folders()
    path = latest(places.sessions) if resume else None
    session = read_session(path) if path else None
    saved: Raw = {}
    if session:
        # Models given now are a pair; one of the session's would not go with them.
        names = [name for name in SAVED if name not in ("llm", "slm") or not {"llm", "slm"} & set(flags)]
        saved = read_saved(session.settings, str(path), names)
    settings, weights = resolve(read_config(places.config_file), read_environment(), saved, flags)
    one_shot = prompt is not None or not is_terminal(sys.stdin)
    if as_json and not one_shot:
        raise UsageError("--json is for one question: give it by -p or pipe it in")
    question = read_question(prompt) if one_shot else None
    check_pair(settings)
    # One question with weights of its own asks nothing of the profile, which may be of other models or prompts.
    wanted = not (one_shot and weights and weights[0])
    profile, pool = open_profile(settings, weights, wanted=wanted)
    show_log(verbose)
    screen = Screen(settings.color, quiet=as_json)
    if one_shot and profile and not profile.exists and settings.profile != DEFAULT_PROFILE:
        screen.note(f"profile {settings.profile}: nothing is learned yet, so nothing is steered ({profile.path})")
    saver = Autosave(places.sessions if settings.save else None, screen.note)
    with (
        loaded(settings, pool, screen) as engine,
        learning(profile, engine, settings, screen) as learner,
        guarding(settings) as judge,
    ):
        dialogue = Dialogue(engine, settings, screen, saver, learner, measure=as_json, judge=judge)
        if session and path:
            dialogue.session = session
            saver.go_on(path)
        if question is not None:
            ask_once(dialogue, question, as_json)
        else:
            from .repl import converse

            converse(dialogue, places.history)


def open_profile(settings: Settings, weights: Found | None, *, wanted: bool) -> tuple[Profile | None, Attributes]:
    """The profile that `settings` name, and the pool; sets the person's own weights, which are of that pool.

    Args:
        settings: their weights are set.
        weights: as `resolve` found them.
        wanted: without, no profile is opened.

    Raises:
        ProfileError: the profile cannot be used, or was made with other attributes than named.
        UsageError: the pool's file or a weight cannot be used.
        WeightsError: a weights file cannot be used.
    """
    from drift_edge.attributes import Attributes
    from drift_edge.profile import Profile

    own = Attributes.from_toml(settings.attributes) if settings.attributes else None
    profile = Profile.open(settings.profile, attributes=own) if wanted and settings.profile else None
    pool = profile.attributes if profile else own or Attributes.builtin()
    if weights is not None:
        settings.put("weights", *weights, pool)
    return profile, pool


@contextmanager
def loaded(settings: Settings, pool: Attributes, screen: Screen) -> Iterator[Engine]:
    """The engine, told of on a terminal where it may take long, and closed at the end."""
    from .render import is_terminal

    if settings.llm is not None and is_terminal(sys.stderr):
        screen.say(f"loading {settings.llm.name} and {settings.slm and settings.slm.name} ...", "dim")
    engine = load_engine(settings, pool)
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def learning(profile: Profile | None, engine: Engine, settings: Settings, screen: Screen) -> Iterator[Learner | None]:
    """What learns into the profile, which must have been made with this sLM; None without a profile.

    Raises:
        ProfileMismatchError: it was made with another.
    """
    from .learner import Learner

    if profile is None:
        yield None
        return
    same = type(profile).open(profile.path, slm=engine.slm, attributes=engine.attributes)
    learner = Learner(same, engine, screen, small=settings.llm is None)
    try:
        yield learner
    finally:
        learner.close()


@contextmanager
def guarding(settings: Settings) -> Iterator[Judge | None]:
    """The guard that the settings name; None where they name none.

    Raises:
        ModelError: it cannot be used.
        UsageError: it cannot judge in the form that is asked for.
    """
    if settings.guard is None:
        yield None
        return
    from drift_edge.guard import GuardModel

    with GuardModel(settings.guard, settings.guard_form) as judge:
        yield judge


def ask_once(dialogue: Dialogue, question: str, as_json: bool) -> None:
    """Answer one question.

    Raises:
        DriftError: the engine cannot answer.
        typer.Exit: 130, after Ctrl-C.
    """
    from .errors import INTERRUPTED

    waiting = dialogue.learner.profile.pending if dialogue.learner else 0
    if waiting:
        dialogue.screen.note(f"{waiting} of your choices are not learned from yet: `drift-edge chat` catches up")
    answer = dialogue.ask(question)
    if as_json:
        dialogue.screen.json(answer.to_dict())
    if answer.finish_reason == "cancelled":
        raise typer.Exit(INTERRUPTED)


def load_engine(settings: Settings, pool: Attributes) -> Drift:
    """The engine with the pair that `settings` name.

    Raises:
        ModelError: a model or the pair cannot be used.
        UsageError: a setting is out of range.
    """
    from drift_edge.engine import Drift
    from drift_edge.storage import folders

    from ..models import builtin_pair
    from .config import DEFAULT_ACTIVE, flags_named

    llm, slm = (settings.llm, settings.slm) if settings.llm and settings.slm else builtin_pair()
    with flags_named():
        return Drift.load(
            llm,
            slm,
            ctx_size=settings.ctx_size,
            threads=settings.threads,
            gpu_layers=settings.gpu_layers,
            slm_gpu_layers=settings.slm_gpu_layers,
            flash_attn=settings.flash_attn,
            cache_type=settings.cache_type,
            attributes=pool,
            active=settings.active or DEFAULT_ACTIVE,
            cache=folders().cache,
        )


def with_pair(pair: str | None, flags: Raw) -> Raw:
    """The flags, with what the positional argument says of the models.

    Raises:
        UsageError: the pair is unknown, or --llm or --slm says otherwise.
        ModelFileError: the pair is known but was not pulled, or is damaged.
    """
    if pair is None:
        return flags
    from ..models.catalogue import BUILTIN, is_pair

    if pair != BUILTIN and not is_pair(pair):
        hint = f"; a question goes with -p: drift-edge chat -p {pair!r}" if " " in pair else ""
        raise UsageError(
            f"unknown pair {pair!r}: '{BUILTIN}' is built in, `drift-edge models list` shows those that can be pulled, "
            f"other models are given by --llm and --slm{hint}"
        )
    if "llm" in flags or "slm" in flags:
        raise UsageError(f"'{pair}' and --llm or --slm exclude each other")
    if pair == BUILTIN:
        return {**flags, "llm": (None, pair), "slm": (None, pair)}
    from ..models.installed import cached_pair

    llm, slm = cached_pair(pair)
    return {**flags, "llm": (str(llm), pair), "slm": (str(slm), pair)}


def read_question(prompt: str | None) -> str:
    """What is asked: -p, then what is piped in, a blank line between.

    Raises:
        UsageError: nothing, too much, or not UTF-8; names the byte.
    """
    if prompt is not None:
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            at = len(prompt[: error.start].encode("utf-8", "surrogateescape"))
            raise UsageError(f"-p: not valid UTF-8 at byte {at}") from None
    parts = [prompt or "", _read_stdin() if prompt is None or _is_piped() else ""]
    question = "\n\n".join(part for part in parts if part.strip())
    if not question:
        raise UsageError("the prompt is empty: give a question by -p or pipe it in")
    return question


def _is_piped() -> bool:
    # With -p, only a pipe or a file is read: a script's idle socket or device would block for ever.
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _read_stdin() -> str:
    if sys.stdin is None:
        return ""
    raw = sys.stdin.buffer.read(_MAX_STDIN + 1)
    if len(raw) > _MAX_STDIN:
        raise UsageError(f"stdin: over {_MAX_STDIN >> 20} MiB, more than any context holds")
    try:
        return raw.decode("utf-8").removeprefix("\ufeff").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"stdin: not valid UTF-8 at byte {error.start} ({raw[error.start]:#04x})") from None
