"""The app: routes, errors, access and page, put together."""

from __future__ import annotations

import time
from importlib.resources import files

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

from drift_edge import __version__
from drift_edge.aio import AsyncDrift
from drift_edge.errors import DriftError, UsageError
from drift_edge.guard import Judge
from drift_edge.server import chat, drift
from drift_edge.server.access import Access, Gate
from drift_edge.server.defaults import Defaults
from drift_edge.server.errors import RequestError, request_error
from drift_edge.server.service import Service
from drift_edge.server.streams import ClientGoneError
from drift_edge.server.wire import Json

WAITING = 32
_NO_FIELDS = ("body", "query", "str", "list[Part]", "list[str]")  # where an error is, beside the names of fields
_GONE = 499  # what nginx notes for a client that hung up; nobody reads it


def create_app(
    engine: AsyncDrift,
    defaults: Defaults | None = None,
    access: Access | None = None,
    *,
    waiting: int = WAITING,
    model: str | None = None,
    judge: Judge | None = None,
) -> FastAPI:
    """An ASGI app around an engine.

    Args:
        engine: stays the caller's to close, once the app has shut down.
        defaults: what requests that say nothing get; None is the default profile and the usual samplers.
        access: who may ask; None is for the address 127.0.0.1.
        waiting: how many requests may wait for their turn; more are refused with 503.
        model: the name that clients ask for; None is that of the LLM's file.
        judge: sees every answer, and an answer of a stream is held back until it has (`drift_edge.guard`); it stays the
            caller's to close.

    Raises:
        UsageError: `waiting` is negative.
    """
    if waiting < 0:
        raise UsageError(f"waiting: expected a number, 0 or more, got {waiting!r}")
    access = access or Access()
    service = Service(engine, defaults or Defaults(), waiting, model or engine.drift.pair.llm.path.stem, judge)

    app = FastAPI(
        title="drift-edge",
        version=__version__,
        docs_url=None,  # its page fetches scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
    )

    @app.get("/health")
    async def health() -> Json:
        return {"status": "ok", "busy": service.turns.busy, "waiting": service.turns.waiting}

    app.include_router(chat.routes(service, int(time.time())))
    app.include_router(drift.routes(service))
    page = str(files("drift_edge.server") / "page")
    app.mount("/", StaticFiles(directory=page, html=True, check_dir=False))
    for kind in (DriftError, RequestValidationError, HTTPException, ClientGoneError, Exception):
        app.add_exception_handler(kind, _tell)
    app.add_middleware(Gate, access=access)
    if access.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=access.origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return app


async def _tell(_request: Request, error: Exception) -> Response:
    if isinstance(error, ClientGoneError):
        return Response(status_code=_GONE)
    if isinstance(error, RequestValidationError):
        return _invalid(error).response()
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        return RequestError(error.status_code, str(error.detail), headers=headers).response()
    return request_error(error).response()


def _invalid(error: RequestValidationError) -> RequestError:
    """The first thing that is wrong with a body."""
    errors = [([part for part in told["loc"] if part not in _NO_FIELDS], told) for told in error.errors()]
    at, first = errors[0]
    if first["type"] == "json_invalid":
        return RequestError(400, f"the body is not valid JSON: {first.get('ctx', {}).get('error', '')}")
    # Of a value that may be text or a list, both are told: the one that was understood further was meant.
    same = [each for each in errors if each[0][: len(at)] == at]
    at, first = max(same, key=lambda each: len(each[0]))
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")
    message = str(first["msg"]).removeprefix("Value error, ")
    if message == first["msg"] and isinstance(value := first["input"], str | int | float | None):
        message += f", got {value!r:.40}"
    return RequestError(400, f"{param}: {message}" if param else message, param=param or None)
