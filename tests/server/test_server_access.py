"""Who may ask: keys, foreign hosts and pages, bodies that are too large or too slow, too many requests."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from drift_edge.errors import UsageError
from drift_edge.server import Access, access
from drift_edge.server.access import is_loopback
from drift_edge.server.connection import Connection
from tests.server.scripted import QUESTION, Running, StepEngine, running

PRIVATE = [
    ("GET", "/v1/models"),
    ("GET", "/v1/drift/profile"),
    ("GET", "/v1/drift/choices"),
    ("POST", "/v1/drift/undo"),
]
NO_REQUESTS = [b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b""]
NO_REQUESTS += [b'{"messages": "\xe9"}', '{"messages": []}'.encode("utf-16")]
NO_REQUESTS += [b'{"messages": NaN}', b'{"seed": ' + b"9" * 5_000 + b"}"]


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    """Start a server with rules of one's own."""
    with ExitStack() as stack:
        yield lambda **rules: stack.enter_context(running(StepEngine(), access=Access(**rules)))


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server with the usual rules."""
    with running(StepEngine()) as started:
        yield started


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "", "localhost.evil"]
)
@pytest.mark.parametrize(("method", "path"), [*PRIVATE, ("GET", "/"), ("GET", "/health")])
def test_foreign_host_is_refused(server: Running, method: str, path: str, host: str) -> None:
    status, told, _ = server.ask(method, path, headers={"Host": host})
    assert status == 403
    assert told["error"]["code"] == "foreign_host"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:99", "[::1]:8765", "127.8.8.8"])
def test_own_host_is_taken(server: Running, host: str) -> None:
    assert server.ask("GET", "/v1/models", headers={"Host": host})[0] == 200


def test_two_hosts_are_refused(server: Running) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert raw.recv(64).split()[1] in (b"400", b"403")


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1.evil.example", "http://[", "file://"],
)
@pytest.mark.parametrize(("method", "path"), PRIVATE)
def test_foreign_origin_is_refused(server: Running, method: str, path: str, origin: str) -> None:
    status, told, headers = server.ask(method, path, headers={"Origin": origin})
    assert status == 403
    assert told["error"]["code"] == "foreign_origin"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(("method", "path"), PRIVATE)
def test_a_page_of_another_site_may_not_even_read(server: Running, method: str, path: str, site: str) -> None:
    # As <script src> and <img> are fetched: without an Origin.
    assert server.ask(method, path, headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"})[0] == 403
    assert server.ask(method, path, headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"})[0] == 403


def test_own_page_may_ask_and_a_link_may_lead_there(server: Running) -> None:
    own = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
    assert server.ask("GET", "/v1/models", headers=own)[0] == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    status, _, headers = server.ask("GET", "/", headers=link)
    assert status == 200
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_an_allowed_origin_gets_its_headers(serve: Callable[..., Running]) -> None:
    server = serve(origins=("http://localhost:3000",))
    friend = {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"}
    status, _, headers = server.ask("GET", "/v1/models", headers=friend)
    assert (status, headers["access-control-allow-origin"]) == (200, "http://localhost:3000")
    asked = {**friend, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    assert server.ask("OPTIONS", "/v1/chat/completions", headers=asked)[0] == 200
    assert server.ask("GET", "/v1/models", headers={"Origin": "http://localhost:3001"})[0] == 403


def test_a_key_is_asked_for_on_every_private_route(serve: Callable[..., Running]) -> None:
    server = serve(api_key="sécret")
    for method, path in PRIVATE:
        for sent in (None, "Bearer", "Bearer wrong", "Basic sécret", "Bearer secret"):
            headers = {} if sent is None else {"Authorization": sent.encode().decode("latin-1")}
            status, told, _ = server.ask(method, path, headers=headers)
            assert (status, told["error"]["code"]) == (401, "invalid_api_key"), (path, sent)
    right = {"Authorization": "Bearer sécret".encode().decode("latin-1")}
    assert server.ask("GET", "/v1/models", headers=right)[0] == 200
    assert server.ask("GET", "/health")[0] == 200
    assert server.ask("GET", "/")[0] == 200


def test_an_address_that_others_reach_needs_a_key() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "box.local", ""):
        with pytest.raises(UsageError, match="needs a key"):
            Access(host=host)
        assert Access(host=host, api_key="k")
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"))
    with pytest.raises(UsageError, match="api_key"):
        Access(api_key=" ")


def test_names_of_a_server_that_others_reach() -> None:
    access = Access(host="0.0.0.0", api_key="k", names=("box.local",))
    assert access.knows("box.local:80")
    assert access.knows("192.168.1.5:8765")
    assert not access.knows("evil.example")


def test_bodies_are_bounded(serve: Callable[..., Running]) -> None:
    server = serve(max_body=1_000, body_seconds=0.3)
    large = json.dumps({"messages": QUESTION, "user": "x" * 1_000}).encode()
    status, told, _ = server.ask("POST", "/v1/chat/completions", raw=large)
    assert (status, told["error"]["code"]) == (413, "too_large")

    with socket.create_connection(("127.0.0.1", server.port)) as raw:  # chunks, whose sum nobody tells before
        raw.settimeout(10)
        raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        raw.sendall(b"Transfer-Encoding: chunked\r\n\r\n" + b"100\r\n" + b" " * 256 + b"\r\n")
        for _ in range(3):
            raw.sendall(b"100\r\n" + b" " * 256 + b"\r\n")
        assert raw.recv(64).split()[1] == b"413"

    with socket.create_connection(("127.0.0.1", server.port)) as raw:  # one who never ends
        raw.settimeout(10)
        raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        raw.sendall(b"Content-Length: 500\r\n\r\n{")
        assert raw.recv(64).split()[1] == b"408"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Running, StepEngine]]:
    """A server that waits a fifth of a second for headers, and its engine."""
    monkeypatch.setattr(Connection, "header_seconds", 0.2)
    engine = StepEngine()
    with running(engine) as server:
        yield server, engine


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"], ids=["first", "second"])
def test_headers_that_never_end(impatient: tuple[Running, StepEngine], before: bytes) -> None:
    with socket.create_connection(("127.0.0.1", impatient[0].port)) as raw:
        raw.settimeout(10)
        if before:
            raw.sendall(before)
            assert raw.recv(4_096).startswith(b"HTTP/1.1 200")
        raw.settimeout(0.02)
        raw.sendall(b"GET /health HTTP/1.1\r\n")
        for _ in range(500):  # a line at a time, as long as anybody listens
            try:
                raw.sendall(b"X: y\r\n")
                if raw.recv(4_096) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("the connection is still open")


def test_whoever_says_nothing_is_hung_up_on(impatient: tuple[Running, StepEngine]) -> None:
    with socket.create_connection(("127.0.0.1", impatient[0].port)) as raw:
        raw.settimeout(10)
        assert raw.recv(64) == b""


def test_an_answer_may_take_longer_than_headers(impatient: tuple[Running, StepEngine]) -> None:
    server, engine = impatient
    connection = server.begin(max_tokens=2)
    time.sleep(2 * Connection.header_seconds)
    engine.let(2)
    assert connection.getresponse().status == 200
    connection.close()


def test_only_json_is_read(server: Running) -> None:
    # A form of another site's page can send these kinds without asking first.
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        body = json.dumps({"messages": QUESTION}).encode()
        assert server.ask("POST", "/v1/chat/completions", raw=body, headers={"Content-Type": kind})[0] == 415


@pytest.mark.parametrize("raw", NO_REQUESTS)
def test_a_body_that_is_no_request_is_told_so(server: Running, raw: bytes) -> None:
    status, told, _ = server.ask("POST", "/v1/chat/completions", raw=raw)
    assert status == 400
    assert told["error"]["type"] == "invalid_request_error"


def test_requests_are_rated(serve: Callable[..., Running]) -> None:
    server = serve(per_second=0.001, burst=3)
    *taken, refused = [server.ask("GET", "/v1/models") for _ in range(4)]
    assert [status for status, _, _ in taken] == [200, 200, 200]
    assert (refused[0], refused[1]["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 900 < int(refused[2]["retry-after"]) <= 1_000


def test_a_rate_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(access, "time", SimpleNamespace(monotonic=lambda: now))
    rate = access._Rate(per_second=4.0, burst=2)
    assert [rate.take("a") for _ in range(3)] == [0, 0, 0.25]
    now += 0.25
    assert [rate.take("a"), rate.take("a"), rate.take("b")] == [0, 0.25, 0]  # another address has its own
    now += 60
    assert [rate.take("a") for _ in range(3)] == [0, 0, 0.25]  # never more than the burst


def test_paths_that_are_none(server: Running) -> None:
    for path in ("/v1/nothing", "/..%2f..%2fetc/passwd", "/../app.py", "/docs", "/openapi.json", "/v1"):
        status, told, _ = server.ask("GET", path)
        assert (status, set(told["error"])) == (404, {"message", "type", "param", "code"}), path
    status, told, headers = server.ask("PUT", "/v1/models")
    assert (status, told["error"]["type"]) == (405, "invalid_request_error")
    assert "GET" in headers["allow"]


def test_a_websocket_is_refused(server: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "eA==",
        "Sec-WebSocket-Version": "13",
    }
    connection.request("GET", "/v1/models", headers={**upgrade, "Host": "evil.example"})
    assert connection.getresponse().status in (400, 403, 404)
    connection.close()
