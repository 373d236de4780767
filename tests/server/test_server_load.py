"""A server under load for long: nothing leaks. `pytest -m long -s` shows the figures."""

from __future__ import annotations

import gc
import random
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from drift_edge import Drift
from drift_edge.server import Defaults
from tests.server.scripted import Running, hang_up, running, until

SEED = 20
CLIENTS = 200
TOKENS = 20_000
WARM = 4_000  # tokens after which every buffer has its size
QUESTIONS = ("How do you make tea?", "What is a map?", "Tell me about the sea.", "Why do people sing?")


def resident() -> float:
    """MiB of memory that this process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4_096 / (1 << 20)


def open_files() -> int:
    """Files and sockets that this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def body(rng: random.Random) -> dict[str, Any]:
    """A request of a client."""
    return {
        "messages": [{"role": "user", "content": rng.choice(QUESTIONS)}],
        "max_tokens": rng.randint(1, 300),
        "temperature": 1.2,
        "stream": rng.random() < 0.5,
    }


def crowd(server: Running, rng: random.Random) -> Counter[object]:
    """All clients at once, a third of whom hang up at some moment."""
    codes: Counter[object] = Counter()
    guard = threading.Lock()

    def client(asked: dict[str, Any], patience: float | None) -> None:
        connection = server.begin(**asked)
        code: object = "left"
        if patience is None:
            reply = connection.getresponse()
            reply.read()
            code = reply.status
            connection.close()
        else:
            threading.Event().wait(patience)
            hang_up(connection)
        with guard:
            codes[code] += 1

    plans = [(body(rng), rng.random() * 2 if i % 3 == 0 else None) for i in range(CLIENTS)]
    threads = [threading.Thread(target=client, args=plan) for plan in plans]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        most = max(most, server.health()["waiting"])
    for thread in threads:
        thread.join()
    until(lambda: not server.health()["busy"])
    codes["most waiting"] = most
    return codes


@pytest.mark.long
@pytest.mark.timeout(1_200)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_memory_stays_flat(builtin_files: tuple[Path, Path]) -> None:
    rng = random.Random(SEED)
    defaults = Defaults(profile=None, weights={"concise": 0.7, "vivid": 0.5, "formal": -0.5})
    threads = threading.active_count()
    with running(Drift.load(*builtin_files), defaults, waiting=16, model="nano") as server:
        codes = crowd(server, rng)
        print(f"\n{CLIENTS} at once: {dict(codes)}")
        files, held = open_files(), threading.active_count()
        tokens, warm = 0, 0.0
        while tokens < TOKENS:
            asked = {**body(rng), "stream": False}
            status, told, _ = server.ask("POST", "/v1/chat/completions", asked)
            assert status == 200, told
            before, tokens = tokens, tokens + told["usage"]["completion_tokens"]
            if tokens // WARM > before // WARM:
                now = resident()
                warm = warm or now
                print(f"{tokens:,} tokens: {now:.1f} MiB, {open_files()} files, {threading.active_count()} threads")
        codes = crowd(server, rng)
        print(f"{CLIENTS} at once: {dict(codes)}; {resident():.1f} MiB")
        assert codes["most waiting"] <= 16
        assert set(codes) <= {200, 503, "left", "most waiting"}
        assert resident() - warm < 8
        assert open_files() <= files
        assert threading.active_count() <= held
    until(lambda: threading.active_count() <= threads)
