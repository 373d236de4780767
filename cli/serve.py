"""`drift-edge serve`: the engine behind OpenAI's API, and a page to talk to it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated

import typer

from drift_edge.errors import DriftError, UsageError

from . import options

if TYPE_CHECKING:
    from fastapi import FastAPI

    from drift_edge.aio import AsyncDrift
    from drift_edge.server import Access, Defaults

    from .config import Raw, Settings

PORT = 8765
_CONNECTIONS = 1_000  # at once, idle ones among them
_SHUTDOWN = 2  # seconds for replies under way, once their answers have been stopped


def serve(
    pair: options.Pair = None,
    host: Annotated[str, typer.Option(help="Address; any but this machine's own needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = PORT,
    api_key: Annotated[
        str | None, typer.Option(envvar="DRIFT_EDGE_API_KEY", help="What clients must send as their key.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another name of this server, as clients ask for it; may be repeated.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Another site whose pages may ask, http://localhost:3000; may be repeated.")
    ] = None,
    waiting: Annotated[int, typer.Option(min=0, help="Requests that may wait; more get 503.")] = 32,
    llm: options.Llm = None,
    slm: options.Slm = None,
    profile: options.ProfileName = None,
    no_profile: options.NoProfile = False,
    weights: options.Weights = None,
    beta: options.Beta = None,
    strength: options.Strength = None,
    active: options.Active = None,
    allow: options.Allow = None,
    steer: options.Steer = None,
    attributes: options.Pool = None,
    max_tokens: options.MaxTokens = None,
    system: Annotated[str | None, typer.Option(help="System prompt of conversations that have none.")] = None,
    guard: options.Guard = None,
    guard_form: options.GuardForm = None,
    guard_tries: options.GuardTries = None,
    ctx_size: options.CtxSize = None,
    threads: options.Threads = None,
    gpu_layers: options.GpuLayers = None,
    slm_gpu_layers: options.SlmGpuLayers = None,
    cache_type: options.CacheType = None,
    flash_attn: options.FlashAttn = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Requests and llama.cpp's log on stderr.")] = False,
) -> None:
    """Serve OpenAI's chat API and a page, steered by the profile and teaching it.

    Only this machine can reach it, unless --host says otherwise. All other settings of `drift-edge chat`, such as
    top-p, count too where config.toml or the environment (DRIFT_EDGE_TOP_P=0.9) has them.
    """
    from .config import read_flags

    flags: dict[str, object] = {
        "llm": llm,
        "slm": slm,
        "profile": profile,
        "weights": weights,
        "beta": beta,
        "strength": strength,
        "active": active,
        "allow": allow or None,
        "steer": steer and steer.value,
        "attributes": attributes,
        "max-tokens": max_tokens,
        "system": system,
        "guard": guard,
        "guard-form": guard_form and guard_form.value,
        "guard-tries": guard_tries,
        "ctx-size": ctx_size,
        "threads": threads,
        "gpu-layers": gpu_layers,
        "slm-gpu-layers": slm_gpu_layers,
        "cache-type": cache_type,
        "flash-attn": flash_attn and flash_attn.value,
    }
    given = options.without_profile(read_flags(flags), no_profile)
    try:
        from drift_edge.server import Access
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is missing: pip install 'drift-edge[server]' brings what serving needs"
        ) from None
    access = Access(host=host, api_key=api_key, names=tuple(allow_host or ()), origins=tuple(allow_origin or ()))
    run(pair, given, access, port, waiting=waiting, verbose=verbose)


def run(pair: str | None, flags: Raw, access: Access, port: int, *, waiting: int, verbose: bool) -> None:
    """The command itself; returns when the server is stopped.

    Args:
        pair: the positional argument.
        flags: settings given as flags.
        access: who may ask, and the address.
        port: 0 takes a free one.
        waiting: how many requests may wait.
        verbose: show requests and llama.cpp's log.

    Raises:
        DriftError: the port is taken, or a setting, model or profile cannot be used.
    """
    import asyncio

    from drift_edge.aio import AsyncDrift
    from drift_edge.server import create_app
    from drift_edge.storage import folders

    from ..models.catalogue import BUILTIN
    from .chat import guarding, load_engine, open_profile, with_pair
    from .config import check_pair, read_config, read_environment, resolve
    from .render import Screen, show_log

    settings, found = resolve(read_config(folders().config_file), read_environment(), with_pair(pair, flags))
    check_pair(settings)
    show_log(verbose)
    screen = Screen(settings.color)
    profile, pool = open_profile(settings, found, wanted=True)
    with _listen(access.host, port) as listener, guarding(settings) as judge:
        if settings.llm is not None:
            screen.say(f"loading {settings.llm.name} and {settings.slm and settings.slm.name} ...", "dim")
        engine = load_engine(settings, pool)
        try:
            if profile is not None:  # of another sLM it would fail every request
                type(profile).open(profile.path, slm=engine.slm, attributes=engine.attributes)
        except BaseException:
            engine.close()
            raise
        shared = AsyncDrift(engine)
        model = BUILTIN if settings.llm is None else pair  # by the LLM's file where none is named
        app = create_app(shared, _defaults(settings), access, waiting=waiting, model=model, judge=judge)
        host = f"[{access.host}]" if ":" in access.host else access.host
        screen.say(f"http://{host}:{listener.getsockname()[1]}  (OpenAI's API under /v1; Ctrl-C stops)")
        try:
            asyncio.run(_serve(shared, app, listener, verbose))
        except KeyboardInterrupt:  # the way to stop it
            screen.say("stopped", "dim")


def _listen(host: str, port: int) -> socket.socket:
    """A socket at the address.

    Raises:
        DriftError: it is taken, or not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise DriftError(f"cannot listen at {host} port {port}: {why}; --port 0 takes a free one") from error


def _defaults(settings: Settings) -> Defaults:
    from drift_edge.server import Defaults

    return Defaults(
        profile=settings.profile,
        weights=settings.weights,
        beta=settings.beta,
        strength=settings.strength,
        active=settings.active,
        steer=settings.steer,
        speculate=settings.speculate,
        draft=settings.draft,
        sampler=settings.sampler(),
        seed=settings.seed,
        max_tokens=settings.max_tokens,
        stop=settings.stop,
        allow=settings.allow,
        guard_tries=settings.guard_tries,
        system=settings.system,
    )


async def _serve(engine: AsyncDrift, app: FastAPI, listener: socket.socket, verbose: bool) -> None:
    import uvicorn

    from drift_edge.server.connection import Connection

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await engine.aclose()  # ends the answers, which would be waited for
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        http=Connection,
        log_level="info" if verbose else "warning",
        server_header=False,
        proxy_headers=False,  # anybody could send them
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_SHUTDOWN,
    )
    async with engine:
        await Server(config).serve(sockets=[listener])
