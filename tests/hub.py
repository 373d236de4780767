"""A hub of models on loopback: the API, the redirect to a second host where the bytes are, and faults in a row.

The second host has an address of its own (`localhost` against `127.0.0.1`), as the hub's content network has.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class Fault:
    """What goes wrong with one request for bytes, or for the API.

    Attributes:
        status: answered instead of the bytes.
        headers: more of the answer's headers, or others.
        drop_at: the connection ends after so many bytes of this answer.
        body: sent instead of the rest of the file.
        length: Content-Length, whatever is sent.
        whole: the asked range is ignored.
        stall: seconds without a byte, once `drop_at` bytes were sent.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    drop_at: int | None = None
    body: bytes | None = None
    length: int | None = None
    whole: bool = False
    stall: float = 0.0


@dataclass
class Hub:
    """The hub's content, what it was asked, and what goes wrong next.

    Attributes:
        files: bytes by path, by repository.
        faults: taken one by one by requests for bytes.
        api_faults: the same for the API.
        changes: made to the API's answer, per path of a file.
        token: needed for everything, if set.
        seen: (host, path and query, headers) of every request.
        pace: seconds that each 64 KiB take.
    """

    endpoint: str = ""
    cdn: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    api_faults: list[Fault] = field(default_factory=list)
    changes: dict[str, dict[str, object]] = field(default_factory=dict)
    gated: bool = False
    token: str | None = None
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    pace: float = 0.0

    def asked(self, part: str) -> list[dict[str, str]]:
        """Headers of the requests whose path holds `part`."""
        return [headers for _, path, headers in self.seen if part in path]


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that listens."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    servers = [ThreadingHTTPServer((host, 0), Handler) for host in ("127.0.0.1", "127.0.0.1")]
    hub.endpoint = f"http://127.0.0.1:{servers[0].server_port}"
    hub.cdn = f"http://localhost:{servers[1].server_port}"
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True) for server in servers]
    for server, thread in zip(servers, threads, strict=True):
        server.daemon_threads = True
        thread.start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        hub, url = self.hub, urlsplit(self.path)
        hub.seen.append((self.headers["Host"], self.path, dict(self.headers)))
        path = unquote(url.path)
        try:
            if path.startswith("/bytes/"):
                repo, _, name = path.removeprefix("/bytes/").partition("//")
                self.send_bytes(hub.files[repo][name])
            elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                self.answer(401, b"{}", {"X-Error-Code": "GatedRepo"} if hub.gated else {})
            elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/main", path):
                self.send_list(match[1])
            elif match := re.fullmatch(rf"/([^/]+/[^/]+)/resolve/{COMMIT}/(.+)", path):
                target = f"{hub.cdn}/bytes/{match[1]}//{match[2]}?Signature=secret"
                self.answer(302, b"", {"Location": target, "X-Repo-Commit": COMMIT})
            else:
                self.answer(404, b"{}")
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def send_list(self, repo: str) -> None:
        hub = self.hub
        fault = hub.api_faults.pop(0) if hub.api_faults else None
        if fault:
            self.answer(fault.status or 200, fault.body or b"{}", fault.headers)
            return
        if repo not in hub.files:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        siblings = []
        for name, data in hub.files[repo].items():
            sha256 = hashlib.sha256(data).hexdigest()
            row: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": _git_sha1(data)}
            if name.endswith(".gguf"):
                row["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 135}
            siblings.append({**row, **hub.changes.get(name, {})})
        body = {"sha": COMMIT, "siblings": siblings, "cardData": {"license": "mit"}, "gated": hub.gated and "manual"}
        self.answer(200, json.dumps(body).encode())

    def send_bytes(self, data: bytes) -> None:
        fault = self.hub.faults.pop(0) if self.hub.faults else Fault()
        if fault.status:
            self.answer(fault.status, b"", fault.headers)
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and not fault.whole else 0
        if start >= len(data) > 0:
            self.answer(416, b"")
            return
        rest = data[start:] if fault.body is None else fault.body
        self.send_response(206 if start else 200)
        headers = {"Content-Length": str(len(rest) if fault.length is None else fault.length)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        for name, value in {**headers, **fault.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        sent = rest if fault.drop_at is None else rest[: fault.drop_at]
        for at in range(0, len(sent), 1 << 16):
            self.wfile.write(sent[at : at + (1 << 16)])
            time.sleep(self.hub.pace)
        if fault.drop_at is not None:
            self.wfile.flush()
            time.sleep(fault.stall)
            self.close_connection = True

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
