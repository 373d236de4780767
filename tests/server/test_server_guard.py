"""What never reaches a client: blocked attributes, and answers that a guard rejects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from drift_edge.profile import Profile
from drift_edge.server import Defaults
from tests.server.scripted import QUESTION, Running, StepEngine, contents, hang_up, lines, running, until

ASKED: dict[str, Any] = {"messages": QUESTION, "max_tokens": 3}


class Script:
    """Judges by a list of risks, and remembers what it was shown."""

    def __init__(self, *risks: float) -> None:
        self.risks = list(risks)
        self.seen: list[str] = []

    def risk(self, messages: Sequence[Mapping[str, str]], answer: str) -> float:
        """As `Judge.risk`."""
        assert [dict(message) for message in messages] == QUESTION
        self.seen.append(answer)
        return self.risks[len(self.seen) - 1]


@pytest.fixture
def step() -> StepEngine:
    """Says 1 2 3."""
    engine = StepEngine()
    engine.let(100)
    return engine


PLAIN = Defaults(profile=None)


def test_what_is_rejected_is_drawn_again(step: StepEngine) -> None:
    judge = Script(0.9, 0.6, 0.2)
    with running(step, PLAIN, judge=judge) as server:
        status, told, _ = server.ask("POST", "/v1/chat/completions", {**ASKED, "drift": {"attempt": 5}})
    assert status == 200
    assert told["choices"][0]["message"]["content"] == "1 2 3 "
    assert [notice["kind"] for notice in told["drift"]["notices"]] == ["rejected", "rejected"]
    assert [call["attempt"] for call in step.calls] == [5, 6, 7]
    assert judge.seen == ["1 2 3 "] * 3


@pytest.mark.parametrize("stream", [False, True])
def test_what_never_passes_is_refused(step: StepEngine, stream: bool) -> None:
    with running(step, Defaults(profile=None, guard_tries=2), judge=Script(0.9, 0.9)) as server:
        if stream:
            connection = server.begin(**{**ASKED, "stream": True})
            values = list(lines(connection.getresponse()))
            connection.close()
            assert contents([value for value in values if "error" not in value]) == ""
            assert values[-1]["error"]["code"] == "content_filter"
        else:
            status, told, _ = server.ask("POST", "/v1/chat/completions", ASKED)
            assert (status, told["error"]["code"]) == (400, "content_filter")


def test_a_stream_is_held_back_until_it_is_judged(step: StepEngine) -> None:
    judge = Script(0.1)
    with running(step, PLAIN, judge=judge) as server:
        connection = server.begin(**{**ASKED, "stream": True})
        values = list(lines(connection.getresponse()))
        connection.close()
    assert judge.seen == ["1 2 3 "]
    assert contents(values) == "1 2 3 "


def test_who_hangs_up_ends_a_guarded_answer_too() -> None:
    slow = StepEngine()
    with running(slow, PLAIN, judge=Script(0.1, 0.1)) as server:
        connection: Any = server.begin(**ASKED)
        until(lambda: server.health()["busy"] and len(slow.begun) == 1)
        hang_up(connection)
        until(lambda: not server.health()["busy"])
        assert slow.drawn == []
        assert slow.begun == slow.ended


def test_blocked_attributes_of_a_request(step: StepEngine) -> None:
    def blocked(server: Running, **drift: Any) -> Any:
        server.ask("POST", "/v1/chat/completions", {**ASKED, "drift": drift})
        return step.calls[-1]["blocked"]

    with running(step, PLAIN) as server:
        assert blocked(server, weights={"conspiracy": 1}) == ("conspiracy", "sycophant")
    with running(step, Defaults(profile=None, allow=("conspiracy",))) as server:
        assert blocked(server, weights={"conspiracy": 1}) == ("sycophant",)


def test_blocked_attributes_of_a_profile(step: StepEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFT_EDGE_HOME", str(tmp_path))
    Profile.open(slm=step.slm).set("conspiracy", 1.0)
    for allow, weights in (((), {}), (("conspiracy",), {"conspiracy": 1.0})):
        with running(step, Defaults(allow=allow)) as server:
            server.ask("POST", "/v1/chat/completions", ASKED)
        assert dict(step.calls[-1]["weights"]) == weights
        assert step.calls[-1]["blocked"] == ()
