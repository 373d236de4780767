"""Requests to the hub: redirects followed by hand, so that the token goes to no other host; refusals told in words.

Of a URL only host and path are ever told: the rest of a redirect's is a signature that opens the file to anyone.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from drift_edge import __version__
from drift_edge.errors import HubError
from drift_edge.models.hub.settings import HubSettings

MAX_REDIRECTS = 8
MAX_JSON = 64 << 20  # bytes
MAX_TRIES = 5  # without a single byte
MAX_WAIT = 60.0  # seconds that a server may ask to wait
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 429, 500, 502, 503, 504)
_Result = TypeVar("_Result")


class Lost(Exception):  # noqa: N818 (never leaves the package)
    """A request failed in a way that may pass.

    Attributes:
        wait: seconds that the server asked to wait, or None.
    """

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def http_error_302(self, *_: object) -> None:
        return None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302  # type: ignore[assignment]


def open_url(url: str, settings: HubSettings, *, start: int = 0) -> http.client.HTTPResponse:
    """Ask for `url`, from byte `start` on.

    Raises:
        Lost: the connection failed, or the server is busy.
        HubError: the server refuses.
    """
    opener = urllib.request.build_opener(_NoRedirects)
    headers = {"User-Agent": f"drift-edge/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    for _ in range(MAX_REDIRECTS):
        request = urllib.request.Request(url, headers={**headers, **settings.authorization(url)})
        try:
            return opener.open(request, timeout=settings.timeout)  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            with error:
                if error.code not in _REDIRECTS:
                    raise refusal(error.code, error.headers, url, settings) from None
                url = _redirected(url, error.headers.get("Location"))
        except (OSError, http.client.HTTPException) as error:
            raise Lost(f"{shown(url)}: {_reason(error)}") from None
    raise HubError(f"{shown(url)}: over {MAX_REDIRECTS} redirects one after another")


def get_json(url: str, settings: HubSettings) -> Any:
    """The JSON that `url` answers with, trying again where the failure may pass.

    Raises:
        HubError: no answer, a refusal, or no JSON.
    """

    def get() -> Any:
        try:
            with open_url(url, settings) as response:
                raw = response.read(MAX_JSON + 1)
        except (OSError, http.client.HTTPException) as error:
            raise Lost(f"{shown(url)}: {_reason(error)}") from None
        if len(raw) > MAX_JSON:
            raise HubError(f"{shown(url)}: the answer is over {MAX_JSON >> 20} MiB long")
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            raise HubError(f"{shown(url)}: the answer is no JSON; is HF_ENDPOINT the address of a hub?") from None

    return persist(get, settings)


def persist(work: Callable[[], _Result], settings: HubSettings) -> _Result:
    """Do `work` again while it ends in `Lost`, `MAX_TRIES` times at most.

    Raises:
        HubError: the last time failed too.
    """
    tries = 0
    while True:
        try:
            return work()
        except Lost as lost:
            tries += 1
            pause(lost, tries, settings)


def pause(lost: Lost, tries: int, settings: HubSettings) -> None:
    """Wait before the next try.

    Raises:
        HubError: there were enough of them, or the server asks for too much patience.
    """
    wait = settings.backoff * 2 ** (tries - 1) if lost.wait is None else lost.wait
    if tries >= MAX_TRIES or wait > MAX_WAIT:
        later = f" (it asks to wait {wait:.0f} s)" if lost.wait is not None else ""
        raise HubError(f"{lost}{later}; what has come so far is kept, the same command goes on with it")
    time.sleep(wait)


def refusal(status: int, headers: Message, url: str, settings: HubSettings) -> HubError | Lost:
    """The error for a status that is not 200, 206 or a redirect."""
    where, code = shown(url), headers.get("X-Error-Code", "")
    repo = "/".join(urlsplit(url).path.removeprefix("/api/models").split("/")[1:3])
    if status in _PASSING:
        asked = headers.get("Retry-After", "")
        busy = "asked too often" if status == 429 else f"the server is busy (status {status})"
        return Lost(f"{where}: {busy}", float(asked) if asked.isascii() and asked.isdecimal() else None)
    if code == "GatedRepo" or status == 403:
        return HubError(
            f"{where}: access is refused: {repo} is gated or private. Accept its terms on {settings.endpoint}/{repo}, "
            f"{_token_hint(settings)}"
        )
    if status == 401:
        return HubError(f"{where}: no such repository, or a private one: check its name, {_token_hint(settings)}")
    if status == 404:
        return HubError(f"{where}: not there; check the name on {settings.endpoint}")
    return HubError(f"{where}: the server answers with status {status}")


def _token_hint(settings: HubSettings) -> str:
    if settings.token is None:
        return "then set HF_TOKEN to a token of your account"
    if not settings.authorization(settings.endpoint):
        return "and give HF_ENDPOINT as https: the token is not sent where it could be read on the way"
    return "and see that the token in HF_TOKEN is valid and may read it"


def _redirected(url: str, location: str | None) -> str:
    try:
        target = urljoin(url, location or "")
        old, new = urlsplit(url).scheme, urlsplit(target).scheme
        usable = target.isascii() and target.isprintable() and " " not in target and urlsplit(target).port != 0
    except ValueError:  # of a port that is none, too
        target, old, new, usable = "", "", "", False
    if not location or not usable or new not in ("http", "https") or (old, new) == ("https", "http"):
        raise HubError(f"{shown(url)}: redirected to something that is no https address")
    return target


def shown(url: str) -> str:
    """Host and path of a URL."""
    parts = urlsplit(url)
    return f"{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path[:200]}"


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", error)
    if "CERTIFICATE_VERIFY_FAILED" in str(inner):
        return f"{inner} (SSL_CERT_FILE names a file of certificates to trust)"
    if isinstance(inner, TimeoutError):
        return "no answer in time"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return str(inner) or type(inner).__name__
