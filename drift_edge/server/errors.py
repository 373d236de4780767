"""Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}` and the fitting status."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fastapi.responses import JSONResponse

from drift_edge.errors import (
    ClosedError,
    ContextOverflowError,
    DriftError,
    PreferencesError,
    ProfileBusyError,
    ProfileMismatchError,
    RefusedError,
    UsageError,
    WeightsError,
)

_PARAM = re.compile(r"([a-z][a-z0-9_.\[\]]*): ")
_STATUS: tuple[tuple[type[DriftError], int, str | None], ...] = (
    (ContextOverflowError, 400, "context_length_exceeded"),
    (RefusedError, 400, "content_filter"),
    (UsageError, 400, None),
    (WeightsError, 400, None),
    (PreferencesError, 400, None),
    (ProfileMismatchError, 409, "profile_mismatch"),
    (ProfileBusyError, 503, "profile_busy"),
    (ClosedError, 503, "shutting_down"),
)


class RequestError(DriftError):
    """A request that is refused.

    Args:
        status: of HTTP.
        message: what was found and what was expected.
        code: a word that programs can rely on.
        param: the field that is at fault.
        headers: sent with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, dict(headers or {})

    @property
    def body(self) -> dict[str, object]:
        """The JSON value that tells of it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole reply."""
        return JSONResponse(self.body, self.status, self.headers)


def request_error(error: Exception) -> RequestError:
    """Any error as one that a client can be told of; of what nobody foresaw, nothing but its kind."""
    if isinstance(error, RequestError):
        return error
    if not isinstance(error, DriftError):
        return RequestError(500, f"internal error: {type(error).__name__}; the server's log has the rest")
    message = str(error)
    found = _PARAM.match(message)
    param = found[1] if found else None
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            headers = {"Retry-After": "1"} if status == 503 else None
            return RequestError(status, message, code, param=param, headers=headers)
    return RequestError(500, message)
