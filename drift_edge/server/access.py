"""Who may ask, and how much: checked for every request, before anything of it is read.

A page in the person's own browser can send requests to 127.0.0.1 as well: from another site, or, after its name was
made to resolve there (DNS rebinding), as if from this one. The first is told by Origin and Sec-Fetch-Site, the second
by Host, which then is the site's name. So reading is refused as well as posting.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from drift_edge.errors import UsageError
from drift_edge.server.errors import RequestError

_PEERS = 1_024  # addresses whose requests are counted
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Rules for requests.

    Attributes:
        host: the address that the server is bound to.
        api_key: what `Authorization: Bearer` must say on every route under /v1; None asks for none.
        names: host names, besides localhost, by which the server may be asked.
        origins: other origins whose pages may ask, such as `http://localhost:3000`.
        max_body: most bytes of a request's body.
        body_seconds: in which it must have arrived.
        per_second: requests that one address may make in the long run.
        burst: and at once.

    Raises:
        UsageError: the address is not loopback and there is no key, or a number is out of range.
    """

    host: str = "127.0.0.1"
    api_key: str | None = field(default=None, repr=False)
    names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body: int = 4 << 20
    body_seconds: float = 30.0
    per_second: float = 50.0
    burst: int = 500

    def __post_init__(self) -> None:
        if self.api_key is not None and not self.api_key.strip():
            raise UsageError("api_key: expected text that is not empty")
        if not self.is_local and self.api_key is None:
            raise UsageError(
                f"host {self.host!r}: others can reach this address, so it needs a key: --api-key KEY or "
                "DRIFT_EDGE_API_KEY; 127.0.0.1 needs none"
            )
        for name in ("max_body", "body_seconds", "per_second", "burst"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name}: expected a number over 0, got {getattr(self, name)!r}")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the address."""
        return is_loopback(self.host)

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server; the port plays no part, as it may be forwarded."""
        name = _host_name(host)
        if name in ("localhost", self.host.lower(), *(known.lower() for known in self.names)):
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self.is_local  # who comes by an address was not led here by a name


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own, unreachable for others."""
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Gate:
    """ASGI middleware that applies the rules and bounds the body.

    Args:
        app: what is guarded.
        access: the rules.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access
        self._rate = _Rate(access.per_second, access.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store" if _is_private(scope) else "no-cache")
            await send(message)

        try:
            headers = Headers(scope=scope)
            self._check(scope, headers)
            replay = await self._body(scope, headers, receive)
        except RequestError as error:
            error.headers.setdefault("Connection", "close")  # whatever else the client sends, nobody reads it
            await error.response()(scope, receive, send_guarded)
            return
        if replay is not None:
            # A request's task is cancelled only where a server that shuts down has waited long enough; raised, it would
            # be logged as a failure of the app.
            with suppress(asyncio.CancelledError):
                await self._app(scope, replay, send_guarded)

    def _check(self, scope: Scope, headers: Headers) -> None:
        access = self._access
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not access.knows(hosts[0]):
            shown = ", ".join(hosts) or "none"
            raise RequestError(403, f"Host {shown!r:.80} is not this server's: ask for {access.host}", "foreign_host")
        self._check_site(scope, headers, hosts[0])
        peer = scope["client"][0] if scope.get("client") else ""
        if (wait := self._rate.take(peer)) > 0:
            seconds = str(int(wait) + 1)
            raise RequestError(
                429,
                f"too many requests; try again in {seconds} s",
                "rate_limit_exceeded",
                headers={"Retry-After": seconds},
            )
        if access.api_key is not None and _is_private(scope):
            scheme, _, key = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not secrets.compare_digest(
                key.strip().encode("latin-1", "replace"), access.api_key.strip().encode()
            ):
                raise RequestError(
                    401,
                    "the key is missing or wrong: send Authorization: Bearer KEY",
                    "invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )

    def _check_site(self, scope: Scope, headers: Headers, host: str) -> None:
        origin = headers.get("origin")
        if origin in self._access.origins:
            return
        if origin is not None and _netloc(origin) != host.strip().lower():
            raise RequestError(403, f"Origin {origin!r:.80} may not ask: --allow-origin lets it", "foreign_origin")
        site = headers.get("sec-fetch-site", "none")
        visit = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate" and not _is_private(scope)
        if site not in ("none", "same-origin") and not visit:
            raise RequestError(403, "a page of another site may not ask: --allow-origin lets it", "foreign_origin")

    async def _body(self, scope: Scope, headers: Headers, receive: Receive) -> Receive | None:
        """What gives the whole body and then what follows; None where the client has gone."""
        length = headers.get("content-length", "0")
        if length == "0" and "transfer-encoding" not in headers:
            return receive
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] not in ("GET", "HEAD") and kind != "application/json":
            raise RequestError(415, "expected a body of Content-Type: application/json", "unsupported_media_type")
        most = self._access.max_body
        too_large = RequestError(413, f"a body may have {most:,} bytes at most", "too_large")
        if length.isdecimal() and int(length) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._access.body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise RequestError(
                408, f"the body did not arrive in {self._access.body_seconds:g} s", "request_timeout"
            ) from None
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise RequestError(
                400, f"the body is not valid UTF-8: byte {error.start} is {body[error.start]:#04x}"
            ) from None
        whole: Message | None = {"type": "http.request", "body": bytes(body), "more_body": False}

        async def replay() -> Message:
            nonlocal whole
            if whole is None:
                return await receive()
            message, whole = whole, None
            return message

        return replay


class _Rate:
    """A bucket of tokens for each address, filled by `per_second` up to `burst`."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second, self._burst = per_second, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, peer: str) -> float:
        """Take a token; seconds until there is one, where there is none."""
        now = time.monotonic()
        tokens, since = self._buckets.pop(peer, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + (now - since) * self._per_second)
        enough = tokens >= 1
        self._buckets[peer] = (tokens - enough, now)
        if len(self._buckets) > _PEERS:
            self._buckets.popitem(last=False)
        return 0.0 if enough else (1 - tokens) / self._per_second


def _is_private(scope: Scope) -> bool:
    return str(scope["path"]).startswith("/v1/")


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _host_name(host: str) -> str:
    """The name of a Host header, without its port."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].removesuffix(".")
