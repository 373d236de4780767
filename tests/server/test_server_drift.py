"""From a question to a changed profile over HTTP: candidates, choices, settings, shares."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drift_edge import Attributes, Drift, Profile
from drift_edge.preferences import PreferencePair
from drift_edge.server import Defaults
from tests.cli.fake import FakeEngine
from tests.server.scripted import QUESTION, Running, StepEngine, hang_up, lines, running, until

CHOICE = {"messages": QUESTION, "chosen": "concise concise yes", "rejected": "a long formal answer"}


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiles of this test alone."""
    monkeypatch.setenv("DRIFT_EDGE_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[StepEngine, Running]]:
    """An engine, and a server on it with the default profile."""
    engine = StepEngine()
    with running(engine, waiting=1) as started:
        yield engine, started


@pytest.fixture
def step(shared: tuple[StepEngine, Running]) -> StepEngine:
    """Its scorer prefers what names an attribute; its tokens come when the test says so."""
    shared[0].reset()
    return shared[0]


@pytest.fixture
def server(shared: tuple[StepEngine, Running], step: StepEngine) -> Iterator[Running]:
    """The server, which has nothing to do before and after a test."""
    assert not step.calls
    yield shared[1]
    until(lambda: not shared[1].health()["busy"])


def test_a_profile_that_never_changed(server: Running) -> None:
    status, told, _ = server.ask("GET", "/v1/drift/profile")
    assert status == 200
    assert (told["name"], told["exists"], told["n"], told["pending"]) == ("default", False, 0, 0)
    assert list(told["weights"]) == list(told["attributes"]) == list(Attributes.builtin())
    assert told["settings"]["blocked"] == ["conspiracy", "sycophant"]
    assert server.ask("GET", "/v1/drift/profiles")[1] == {"current": "default", "profiles": []}


def test_a_choice_is_learned_and_forgotten(server: Running) -> None:
    status, told, _ = server.ask("POST", "/v1/drift/choices", CHOICE)
    assert status == 200, told
    assert (told["learned"], told["known"], told["why"]) == (True, False, "")
    # Two words "concise" chosen and one word "formal" rejected: d is 2 and -1 there, and 0 elsewhere.
    assert told["after"]["concise"] == pytest.approx(2 / 5**0.5)
    assert told["after"]["formal"] == pytest.approx(-1 / 5**0.5)
    assert told["profile"]["n"] == 1
    assert Profile.open().weights() == {name: told["after"][name] for name in ("concise", "formal")}

    again = server.ask("POST", "/v1/drift/choices", CHOICE)[1]
    assert (again["known"], again["learned"], again["profile"]["n"]) == (True, False, 1)

    kept = server.ask("GET", "/v1/drift/choices")[1]["choices"]
    assert [(c["id"], c["question"], c["scored"]) for c in kept] == [(told["id"], QUESTION[0]["content"], True)]
    assert server.ask("POST", "/v1/drift/undo")[1]["profile"]["n"] == 0
    status, error, _ = server.ask("POST", "/v1/drift/undo")
    assert (status, error["error"]["type"]) == (400, "invalid_request_error")


def test_a_choice_is_forgotten_by_its_id(server: Running) -> None:
    first = server.ask("POST", "/v1/drift/choices", CHOICE)[1]["id"]
    server.ask("POST", "/v1/drift/choices", {**CHOICE, "chosen": "vivid"})
    left = server.ask("DELETE", f"/v1/drift/choices/{first}")[1]["profile"]
    assert (left["n"], left["weights"]["concise"]["weight"]) == (1, 0)
    assert server.ask("DELETE", f"/v1/drift/choices/{first}")[0] == 400


def test_a_tie_moves_nothing(server: Running) -> None:
    told = server.ask("POST", "/v1/drift/choices", {**CHOICE, "tie": True})[1]
    assert (told["learned"], told["profile"]["n"], told["profile"]["ties"]) == (False, 0, 1)
    assert told["before"] == told["after"]


def test_a_choice_keeps_only_so_much_of_the_conversation(server: Running) -> None:
    turn = [{"role": "user", "content": "x" * 900}, {"role": "assistant", "content": "y" * 100}]
    server.ask("POST", "/v1/drift/choices", {**CHOICE, "messages": [*turn * 5, *QUESTION]})
    (choice,) = Profile.open().choices()
    assert [message["content"][0] for message in choice.pair.messages] == ["x", "y", "x", "y", "H"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"chosen": ""},
        {"chosen": "a long formal answer"},
        {"messages": []},
        {"tie": "yes"},
        {"more": 1},
        {"chosen": None},
    ],
)
def test_choices_that_teach_nothing_are_refused(server: Running, wrong: dict[str, Any]) -> None:
    status, told, _ = server.ask("POST", "/v1/drift/choices", {**CHOICE, **wrong})
    assert (status, told["error"]["type"]) == (400, "invalid_request_error")
    assert not Profile.open().exists


def test_a_choice_made_while_the_queue_is_full_is_kept_and_learned_with_the_next(
    step: StepEngine, server: Running
) -> None:
    answering = server.begin(max_tokens=1)
    until(lambda: server.health()["busy"])
    waiting = server.begin(max_tokens=1)
    until(lambda: server.health()["waiting"] == 1)
    status, told, _ = server.ask("POST", "/v1/drift/choices", CHOICE)
    assert (status, told["learned"], told["profile"]["pending"]) == (200, False, 1)
    assert "wait" in told["why"]
    step.let(2)
    for connection in (answering, waiting):
        assert connection.getresponse().status == 200
        connection.close()
    until(lambda: not server.health()["busy"])
    told = server.ask("POST", "/v1/drift/choices", {**CHOICE, "chosen": "vivid"})[1]
    assert (told["profile"]["n"], told["profile"]["pending"]) == (2, 0)


def test_who_hangs_up_while_a_choice_is_scored_loses_nothing(step: StepEngine, server: Running) -> None:
    step.delay = 30.0
    connection = server.connect()
    connection.request("POST", "/v1/drift/choices", json.dumps(CHOICE), {"Content-Type": "application/json"})
    until(lambda: bool(step.scorers))
    hang_up(connection)
    until(lambda: not server.health()["busy"])
    assert Profile.open().pending == 1
    step.scorers[0].delay = 0.0
    assert server.ask("POST", "/v1/drift/choices", CHOICE)[1]["profile"]["n"] == 1


def test_settings_by_hand(server: Running) -> None:
    def patch(**body: Any) -> Any:
        status, told, _ = server.ask("PATCH", "/v1/drift/profile", body)
        return told if status == 200 else (status, told["error"]["param"])

    told = patch(weights={"concise": 0.5, "formal": -0.25}, pin=["vivid"], block=["empathetic"], settings={"beta": 0.3})
    assert told["weights"]["concise"] == {"weight": 0.5, "se": None, "n": 0, "active": True, "learned": 0.0}
    assert told["settings"]["fixed"] == {"concise": 0.5, "formal": -0.25}
    assert told["settings"]["pinned"] == ["vivid"]
    assert "empathetic" in told["settings"]["blocked"]
    assert told["settings"]["beta"] == 0.3
    told = patch(weights={"concise": None}, unpin=["vivid"], allow=["empathetic"])
    assert (told["settings"]["fixed"], told["settings"]["pinned"]) == ({"formal": -0.25}, [])
    assert "empathetic" not in told["settings"]["blocked"]

    assert patch(weights={"unheard-of": 1})[0] == 400
    assert patch(weights={"concise": 1e9})[0] == 400
    assert patch(settings={"beta": 0}) == (400, "beta")
    assert patch(settings={"journal": False}) == (400, "settings.journal")  # erases choices: not over HTTP
    assert patch(pins=["vivid"]) == (400, "pins")


def test_the_profile_steers_until_a_request_says_otherwise(step: StepEngine, server: Running) -> None:
    server.ask("PATCH", "/v1/drift/profile", {"weights": {"concise": 0.5}, "settings": {"beta": 0.3}})
    Profile.open("work", slm=step.slm).set("formal", 1.0)
    step.let(10)

    def steered_by(**drift: Any) -> tuple[Any, Any, Any]:
        told = server.ask("POST", "/v1/chat/completions", {"messages": QUESTION, "max_tokens": 1, "drift": drift})[1]
        return told["drift"]["profile"], dict(step.calls[-1]["weights"]), step.calls[-1]["beta"]

    assert steered_by() == ("default", {"concise": 0.5}, 0.3)
    assert steered_by(beta=2.0) == ("default", {"concise": 0.5}, 2.0)
    assert steered_by(strength=0.25) == ("default", {"concise": 0.5}, None)
    assert step.calls[-1]["strength"] == 0.25
    server.ask("PATCH", "/v1/drift/profile", {"settings": {"strength": 0.75}})
    assert steered_by() == ("default", {"concise": 0.5}, None)
    assert step.calls[-1]["strength"] == 0.75
    assert steered_by(beta=2.0) == ("default", {"concise": 0.5}, 2.0)
    assert step.calls[-1]["strength"] is None
    assert steered_by(profile="work") == ("work", {"formal": 1.0}, 0.5)
    assert steered_by(profile=None) == (None, {}, 0.5)
    assert steered_by(weights={"vivid": 1.0}) == (None, {"vivid": 1.0}, 0.5)
    assert server.ask("GET", "/v1/drift/profile?profile=work")[1]["weights"]["formal"]["weight"] == 1.0
    assert server.ask("GET", "/v1/drift/profile?profile=nobody")[0] == 404
    assert server.ask("GET", "/v1/drift/profile?profile=..%2Fwork")[0] == 404
    assert server.ask("GET", "/v1/drift/profiles")[1]["profiles"] == ["default", "work"]


def test_changes_of_other_processes_are_seen(step: StepEngine, server: Running) -> None:
    assert server.ask("GET", "/v1/drift/profile")[1]["n"] == 0
    Profile.open(slm=step.slm).set("vivid", 0.7)
    assert server.ask("GET", "/v1/drift/profile")[1]["weights"]["vivid"]["weight"] == 0.7


def test_a_damaged_profile_is_told_of(server: Running) -> None:
    Profile.open().pin("vivid")
    Profile.open().path.write_text("{")
    status, told, _ = server.ask("GET", "/v1/drift/profile")
    assert status == 500
    assert "damaged" in told["error"]["message"]
    assert "Traceback" not in json.dumps(told)


def test_a_profile_of_another_slm_is_a_conflict(step: StepEngine, server: Running) -> None:
    server.ask("POST", "/v1/drift/choices", CHOICE)
    step.slm = FakeEngine.slm.__class__("another", "f" * 16)
    status, told, _ = server.ask("POST", "/v1/chat/completions", {"messages": QUESTION})
    assert (status, told["error"]["code"]) == (409, "profile_mismatch")


def test_without_a_profile_nothing_can_be_taught(step: StepEngine) -> None:
    with running(step, Defaults(profile=None)) as server:
        for path, body in (("/v1/drift/choices", CHOICE), ("/v1/drift/candidates", {"messages": QUESTION})):
            assert server.ask("POST", path, body)[0] == 404
        assert server.ask("GET", "/v1/drift/profiles")[1]["current"] is None


def test_concurrent_choices_are_all_learned(server: Running) -> None:
    def choose(i: int) -> None:
        server.ask("POST", "/v1/drift/choices", {**CHOICE, "chosen": f"concise {i}"})

    threads = [threading.Thread(target=choose, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = server.ask("POST", "/v1/drift/choices", {**CHOICE, "chosen": "concise last"})[1]  # and what was left over
    assert (told["profile"]["n"], told["profile"]["pending"]) == (13, 0)


def test_a_choice_that_waits_is_learned_with_one_before_it(step: StepEngine) -> None:
    told: dict[str, Any] = {}

    def choose(name: str) -> None:
        told[name] = server.ask("POST", "/v1/drift/choices", {**CHOICE, "chosen": name})[1]

    with running(step) as server:
        answering = server.begin(max_tokens=1)
        until(lambda: server.health()["busy"])
        threads = [threading.Thread(target=choose, args=(name,)) for name in ("concise", "vivid")]
        for waiting, thread in enumerate(threads, 1):
            thread.start()
            until(lambda waiting=waiting: server.health()["waiting"] == waiting)  # type: ignore[misc]
        step.let(1)
        for thread in threads:
            thread.join()
        answering.close()
    assert [(told[name]["learned"], told[name]["profile"]["n"]) for name in ("concise", "vivid")] == [(True, 2)] * 2


# -- on the built-in pair


@pytest.fixture
def nano(builtin_files: tuple[Path, Path]) -> Iterator[Running]:
    """The built-in pair, with the default profile."""
    with running(Drift.load(*builtin_files), Defaults(seed=3, speculate="off"), model="nano") as started:
        yield started


def test_a_person_s_whole_path(nano: Running) -> None:
    question = {"messages": QUESTION, "max_tokens": 60}
    two = nano.ask("POST", "/v1/drift/candidates", question)[1]
    assert [choice["index"] for choice in two["choices"]] == [0, 1]
    assert sorted(choice["drift"]["own"] for choice in two["choices"]) == [False, True]
    texts = [choice["message"]["content"] for choice in two["choices"]]
    probe = next(choice["drift"] for choice in two["choices"] if not choice["drift"]["own"])
    assert len(probe["steering"]["weights"]) == 1
    assert two["same"] == (texts[0].strip() == texts[1].strip())
    assert not two["same"]
    told = nano.ask("POST", "/v1/drift/choices", {"messages": QUESTION, "chosen": texts[0], "rejected": texts[1]})[1]
    assert told["learned"]
    assert told["profile"]["n"] == 1
    weights = {name: w for name, w in told["after"].items() if told["profile"]["weights"][name]["active"]}

    answer = nano.ask("POST", "/v1/chat/completions", question)[1]
    assert answer["drift"]["steering"]["weights"] == pytest.approx(weights)
    why = nano.ask("POST", "/v1/drift/explain", {"id": answer["id"]})[1]
    assert set(why["attributes"]) == set(weights)
    assert "".join(token["text"] for token in why["tokens"]) == answer["choices"][0]["message"]["content"]
    assert all(len(token["pushes"]) == len(token["shares"]) == len(weights) for token in why["tokens"])


def test_a_streamed_pair_is_the_same_pair(nano: Running) -> None:
    body = {"messages": QUESTION, "max_tokens": 40, "drift": {"profile": "default"}}
    Profile.open().pin("vivid")
    whole = nano.ask("POST", "/v1/drift/candidates", body)[1]
    connection = nano.connect()
    data = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}})
    connection.request("POST", "/v1/drift/candidates", data, {"Content-Type": "application/json"})
    values = list(lines(connection.getresponse()))
    connection.close()
    assert values[-1] == "[DONE]"
    texts, ends, order = ["", ""], {}, []
    for value in values[:-1]:
        for choice in value["choices"]:
            order.append(choice["index"])
            texts[choice["index"]] += choice["delta"].get("content", "")
            if choice["finish_reason"]:
                ends[choice["index"]] = choice["drift"]["own"]
    assert order == sorted(order)
    own = next(choice for choice in whole["choices"] if choice["drift"]["own"])
    assert texts[0 if ends[0] else 1] == own["message"]["content"]
    assert sorted(ends.values()) == [False, True]
    assert "same" in values[-2]
    assert values[-2]["usage"]["completion_tokens"] > 0


def test_explaining_what_is_not_there(nano: Running) -> None:
    assert nano.ask("POST", "/v1/drift/explain", {"id": "chatcmpl-none"})[0] == 404
    plain = nano.ask("POST", "/v1/chat/completions", {"messages": QUESTION, "max_tokens": 2, "drift": {"mode": "off"}})[
        1
    ]
    status, told, _ = nano.ask("POST", "/v1/drift/explain", {"id": plain["id"]})
    assert (status, told["error"]["type"]) == (400, "invalid_request_error")
    assert nano.ask("POST", "/v1/drift/explain", {"id": plain["id"], "index": 1})[0] == 404


def test_pairs_have_the_same_id_as_everywhere(server: Running) -> None:
    told = server.ask("POST", "/v1/drift/choices", CHOICE)[1]
    assert told["id"] == PreferencePair(tuple(QUESTION), CHOICE["chosen"], CHOICE["rejected"]).id  # type: ignore[arg-type]
