"""A scripted engine, and `drift-edge` with that engine in place of the real one.

`python fake.py chat ...` runs the command line in a process of its own. `FAKE_DELAY` is the number of seconds between
two tokens, `FAKE_TTY=1` makes stdin the controlling terminal, so that Ctrl-C reaches the process.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from drift_edge.attributes import Attributes
from drift_edge.errors import DriftError
from drift_edge.events import Answer, CancelToken, Event, Finish, Notice, Timings, Token
from drift_edge.explanation import Explanation
from drift_edge.kernel import AbortFlag
from drift_edge.llama.context import Aborted
from drift_edge.preferences import PreferencePair
from drift_edge.profile import SLM
from drift_edge.rewards import PairScores
from drift_edge.scoring import ScoringCounters
from drift_edge.weights import select_active

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class Result:
    """How a run of the command line ended, and what it wrote."""

    code: int
    out: str
    err: str


def run_here(monkeypatch: pytest.MonkeyPatch, args: Sequence[str], stdin: bytes = b"") -> Result:
    """Run the command line in this process."""
    from drift_edge.cli import main

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["drift-edge", *args])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        try:
            main()
            code = 0
        except SystemExit as leave:
            code = int(leave.code or 0)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return Result(code, *texts)


Reply = Callable[[str, Mapping[str, Any]], str]


def plain_reply(question: str, call: Mapping[str, Any]) -> str:
    """What the fake says: the question back, with how it was steered and drawn."""
    how = ",".join(f"{name}={weight:g}" for name, weight in call["weights"].items()) or "plain"
    how = how if call["steer"] != "off" else "plain"
    return f"You said: {question} [{how}, seed {call['seed']}, attempt {call['attempt']}]"


class FakeScorer:
    """Every token costs one nat, and under s_i one less for each time that a response names attribute i."""

    def __init__(self, pool: Attributes, text_length: int = 500, delay: float = 0.0) -> None:
        self.pool, self.text_length, self.delay = pool, text_length, delay
        self.counters = ScoringCounters()
        self.closed = False

    def score(self, pair: PreferencePair, *, cancel: AbortFlag | None = None) -> PairScores:
        """As `Scorer.score`."""
        deadline = time.monotonic() + self.delay
        while time.monotonic() < deadline and not (cancel and cancel.is_set()):
            time.sleep(0.005)
        if cancel and cancel.is_set():
            raise Aborted
        self.counters.scored += len(self.pool) + 1
        logs, counts = [], []
        for text in (pair.chosen, pair.rejected):
            n = len(text.split())
            logs.append(np.array([-n, *(text.count(name) - n for name in self.pool)], np.float64))
            counts.append(n)
        return PairScores(logs[0], logs[1], counts[0], counts[1])

    def close(self) -> None:
        """As `Scorer.close`."""
        self.closed = True


class FakeEngine:
    """Answers word by word, looks at the cancel token before each, and remembers its calls."""

    slm = SLM("fake-slm", "0123456789abcdef")

    def __init__(self, pool: Attributes | None = None, reply: Reply = plain_reply, delay: float = 0.0) -> None:
        self.attributes = pool or Attributes.builtin()
        self.reply, self.delay = reply, delay
        self.scorers: list[FakeScorer] = []
        self.calls: list[dict[str, Any]] = []
        self.notices: list[Notice] = []
        self.error: DriftError | None = None
        self.closed = False

    def chat(self, messages: Sequence[Mapping[str, str]], **call: Any) -> Iterator[Event]:
        """As `Drift.chat`."""
        allowed = {name: p for name, p in call["weights"].items() if name not in call["blocked"]}
        active = select_active(allowed, call["active"])
        self.calls.append({**call, "messages": [dict(m) for m in messages]})
        return self._events(messages[-1]["content"], {**call, "weights": active})

    def _events(self, question: str, call: Mapping[str, Any]) -> Iterator[Event]:
        if self.error:
            raise self.error
        yield from self.notices
        seed = 7 if call["seed"] is None else call["seed"]
        words = self.reply(question, {**call, "seed": seed}).split(" ")
        shown, reason = "", "stop"
        for i, word in enumerate(words[: call["max_tokens"]]):
            deadline = time.monotonic() + self.delay
            while time.monotonic() < deadline and not call["cancel"].cancelled:
                time.sleep(0.005)
            if call["cancel"].cancelled:
                reason = "cancelled"
                break
            text = word if i == 0 else f" {word}"
            shown += text
            yield Token(i, text, -0.5, 1.0)
        else:
            reason = "stop" if len(words) <= call["max_tokens"] else "length"
        n, measured = len(shown.split()), 1.5 if call["measure"] else None
        timings = Timings(0.1, 10, 40, 0.012, n, 50.0, n, n)
        steered = call["steer"] != "off" and bool(call["weights"])
        yield Finish(
            "",
            Answer(
                shown,
                reason,  # type: ignore[arg-type]
                tuple(range(n)),
                seed,
                {"llm": "fake-llm", "slm": "fake-slm"},
                call["steer"] if steered else "off",
                call["beta"] if steered else None,
                dict(call["weights"]),
                measured,
                measured,
                measured,
                timings,
                strength=call["strength"] if steered else None,
            ),
        )

    def scorer(self, *, text_length: int) -> FakeScorer:
        """As `Drift.scorer`."""
        self.scorers.append(FakeScorer(self.attributes, text_length, self.delay))
        return self.scorers[-1]

    def explain(self, _messages: object, answer: Answer, _cancel: CancelToken | None = None) -> Explanation:
        """As `Drift.explain`: every word is a token, and the attribute that it names pushed it by its weight."""
        words = [*(f"{word} " for word in answer.text.split()), ""]
        pushes = np.array([[w * (name in word) for name, w in answer.weights.items()] for word in words])
        return Explanation(tuple(words), tuple(answer.weights), pushes, pushes, pushes.sum(axis=1))

    def close(self) -> None:
        """As `Drift.close`."""
        self.closed = True


def command(args: Sequence[str], *, real: bool = False) -> list[str]:
    """The command line for a process of its own: with the fake engine, or the real one."""
    start = ["-c", "from drift_edge.cli import main; main()"] if real else [__file__]
    return [sys.executable, *start, *args]


def main() -> None:
    """The command line with the fake engine."""
    if os.environ.get("FAKE_TTY"):
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    from drift_edge.cli import chat
    from drift_edge.cli import main as real_main

    delay = float(os.environ.get("FAKE_DELAY", "0"))
    chat.load_engine = lambda _settings, pool: FakeEngine(pool, delay=delay)  # type: ignore[assignment]
    real_main()


if __name__ == "__main__":
    main()
