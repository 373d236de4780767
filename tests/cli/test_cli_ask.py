"""`drift-edge learn --ask`: questions with two answers, for a person or a program, stopped and taken up again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import pytest

from drift_edge.active_learning import Duels
from drift_edge.attributes import Attributes
from drift_edge.cli import ask, judging
from drift_edge.models.onboarding import questions
from drift_edge.profile import Profile
from tests.cli.fake import FakeEngine, Result, command

Cli = Callable[..., Result]
POSIX = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


def shows(call: Mapping[str, Any]) -> list[str]:
    """The attributes that steer an answer at half weight or more, and last the one that a duel shows."""
    *others, last = call["weights"] or ["plain"]
    return [*(name for name in others if call["weights"][name] >= 0.5), last]


@pytest.fixture(autouse=True)
def first_is_a(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer by the attribute that was drawn first is A."""
    # Names what steers: this is what the fake scorer rewards.
    engine.reply = lambda question, _: " ".join([question, *shows(engine.calls[-1])])
    monkeypatch.setattr(judging, "noise_seed", lambda *_: 1)


def asked(result: Result) -> list[dict[str, Any]]:
    """The JSON lines that ask."""
    return [line for line in map(json.loads, result.out.splitlines()) if "question" in line]


def by(text: str) -> str:
    """The attribute that steered an answer."""
    return text.split()[-1]


def end(result: Result) -> dict[str, Any]:
    """The last JSON line."""
    last: dict[str, Any] = json.loads(result.out.splitlines()[-1])
    return last


def test_a_program_reads_questions_and_writes_choices(cli: Cli, engine: FakeEngine) -> None:
    result = cli("learn", "--ask", "3", "--json", stdin=b"b\n=\na\n")
    assert result.code == 0
    lines = asked(result)
    assert [set(line) for line in lines] == [{"question", "a", "b", "n", "of"}] * 3
    assert [(line["n"], line["of"]) for line in lines] == [(1, 3), (2, 3), (3, 3)]
    assert [line["question"] for line in lines] == questions(builtin=True)[:3]
    duels = [(by(line["a"]), by(line["b"])) for line in lines]
    assert all(a != b and {a, b} <= set(Attributes.builtin()) for a, b in duels)
    profile = Profile.open()
    assert end(result) == {"done": 3, "of": 3, "profile": str(profile.path), "weights": profile.weights()}
    assert [(c.pair.chosen, c.pair.rejected, c.pair.tie) for c in profile.choices()] == [
        (lines[0]["b"], lines[0]["a"], False),
        (lines[1]["a"], lines[1]["b"], True),
        (lines[2]["a"], lines[2]["b"], False),
    ]
    (a, b), (c, d), (e, f) = duels
    sources = [c.pair.source for c in profile.choices()]
    assert sources == [f"learn --ask: {b} over {a}", f"learn --ask: {c} like {d}", f"learn --ask: {e} over {f}"]
    assert (profile.n, profile.ties, profile.pending) == (2, 1, 0)
    # The first choice, 1 / sqrt(2) each way, stands under both answers of the next questions.
    assert engine.calls[0]["weights"] == {a: 1.0}
    assert engine.calls[2]["weights"] == pytest.approx({b: 0.5**0.5, a: -(0.5**0.5), c: 1.0})
    assert engine.calls[3]["weights"] == pytest.approx({b: 0.5**0.5, a: -(0.5**0.5), d: 1.0})
    assert engine.closed
    assert [scorer.closed for scorer in engine.scorers] == [True]
    assert all(len(call["messages"]) == 1 for call in engine.calls)


@pytest.mark.parametrize("stop", [b"q\n", b""])
def test_it_stops_and_goes_on_without_asking_anything_twice(cli: Cli, stop: bytes) -> None:
    first = cli("learn", "--ask", "4", "--json", stdin=b"b\nn\na\n" + stop)
    assert (first.code, end(first)["done"]) == (0, 2)
    second = cli("learn", "--ask", "4", "--json", stdin=b"a\nb\n")
    lines = asked(second)
    assert [(line["n"], line["of"]) for line in lines] == [(3, 4), (4, 4)]
    before = {line["question"] for line in asked(first)[:3]}
    assert not before & {line["question"] for line in lines}
    assert end(second)["done"] == 4
    third = cli("learn", "--ask", "4", "--json")
    assert (asked(third), end(third)["done"], third.code) == ([], 4, 0)


def test_a_person_sees_headings_progress_and_what_was_learned(cli: Cli) -> None:
    result = cli("learn", "--ask", "2", stdin=b"b\nx\nn\nq\n")
    question = questions(builtin=True)[0]
    a, b = map(by, result.out.splitlines()[:2])
    assert result.out.splitlines()[:2] == [f"{question} {a}", f"{question} {b}"]
    err = result.err.splitlines()
    assert err[1:4] == [f"1/2  {question}", "A:", "B:"]
    # One attribute over another: 1 / sqrt(2) each.
    moved = sorted(err[4].removeprefix("learned: ").split(", "))
    assert moved == sorted((f"{b} 0.00 -> 0.71", f"{a} 0.00 -> -0.71"))
    assert "expected one of a, b, =, n, q, got 'x'" in err
    assert err[-1].startswith("1 of 2 answered; the same command goes on")
    assert cli("learn", "--ask", "2", stdin=b"a\n").err.startswith("1 answered before\n")


def test_what_a_guard_rejects_is_never_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    class Guard:
        def risk(self, messages: Sequence[Mapping[str, str]], answer: str) -> float:
            seen.append(answer)
            return float(messages[-1]["content"] == first)  # every answer to the first question

    seen: list[str] = []
    first, second = questions(builtin=True)[:2]
    monkeypatch.setattr("drift_edge.cli.chat.guarding", lambda settings: nullcontext(settings.guard and Guard()))
    result = cli("learn", "--ask", "1", "--json", "--guard", "guard.gguf", "--guard-tries", "2", stdin=b"a\n")
    (line,) = asked(result)
    assert (line["question"], end(result)["done"], result.code) == (second, 1, 0)
    assert [text.startswith(first) for text in seen] == [True, True, False, False]
    assert seen[2:] == [line["a"], line["b"]]
    assert "on to the next question" in result.err


def test_other_models_are_asked_other_questions(cli: Cli) -> None:
    result = cli("learn", "--ask", "1", "--json", "--llm", "a.gguf", "--slm", "b.gguf", stdin=b"a\n")
    assert asked(result)[0]["question"] == questions(builtin=False)[0]


def test_questions_run_out(cli: Cli) -> None:
    n = len(questions(builtin=False))
    given = ("learn", "--ask", "99", "--json", "--llm", "a.gguf", "--slm", "b.gguf")
    result = cli(*given, stdin=b"n\n" * (n - 1) + b"a\n")
    assert (len(asked(result)), end(result)["done"], result.code) == (n, 1, 0)


def test_own_weights_and_steering_are_left_out(cli: Cli, engine: FakeEngine, config: Callable[[str], object]) -> None:
    config("steer = 'off'\n[weights]\nvivid = 1.0\n")
    cli("learn", "--ask", "1", "--json", "--profile", "me", stdin=b"a\n")
    assert [call["steer"] for call in engine.calls] == ["logits", "logits"]
    assert [list(call["weights"].values()) for call in engine.calls] == [[1.0], [1.0]]
    assert Profile.names() == ["me"]


@pytest.mark.parametrize(
    ("args", "environment", "says"),
    [
        (["--ask", "0"], {}, "Error: --ask: expected 1 question or more, got 0"),
        (["--ask", "2", "pairs.jsonl"], {}, "give files of choices, or --ask N"),
        (["--ask", "2", "--text-length", "9", "--no-journal"], {}, "--no-journal, --text-length: for files alone"),
        (["--ask", "2"], {"DRIFT_EDGE_PROFILE": "none"}, "there is no profile to learn into"),
        (["--ask", "2", "--llm", "a.gguf"], {}, "--llm needs --slm too"),
    ],
)
def test_bad_arguments(
    cli: Cli,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    environment: dict[str, str],
    says: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = cli("learn", *args)
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert not engine.calls


def test_the_lists_hold_no_question_twice() -> None:
    for builtin, least in ((True, 100), (False, 50)):
        found = questions(builtin=builtin)
        assert len(set(found)) == len(found) >= least


@POSIX
def test_ctrl_c_keeps_what_was_answered() -> None:
    run = subprocess.Popen(
        command(["learn", "--ask", "5", "--json"]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "FAKE_DELAY": "0.02"},
        text=True,
    )
    assert run.stdin
    assert run.stdout
    run.stdout.readline()
    run.stdin.write("b\n")
    run.stdin.flush()
    run.stdout.readline()
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert json.loads(out.splitlines()[-1])["done"] == 1
    assert "Traceback" not in err
    assert Profile.open().n == 1


def choose(cli: Cli, engine: FakeEngine, n: int, keys: str, *args: str) -> tuple[Result, list[tuple[str, str]]]:
    """Answer with the given keys, over and over; also the attributes that were shown."""
    engine.calls.clear()
    result = cli("learn", "--ask", str(n), "--json", *args, stdin="".join(f"{key}\n" for key in keys).encode())
    return result, [(by(line["a"]), by(line["b"])) for line in asked(result)]


def test_who_won_is_known_in_a_later_run(cli: Cli, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[tuple[str, str, bool]] = []
    monkeypatch.setattr(Duels, "note", lambda _, winner, loser, tie=False: noted.append((winner, loser, tie)))
    _, duels = choose(cli, engine, 3, "b=a")
    (a, b), (c, d), (e, f) = duels
    expected = [(b, a, False), (c, d, True), (e, f, False)]
    assert noted == expected
    noted.clear()
    assert end(choose(cli, engine, 3, "")[0])["done"] == 3
    assert noted == expected


def test_the_order_on_the_screen_does_not_change_who_won(
    cli: Cli, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "noise_seed", lambda *_: 2)
    _, duels = choose(cli, engine, 2, "ab")
    (a, b), (c, d) = duels
    sources = [choice.pair.source for choice in Profile.open().choices()]
    assert sources == [f"learn --ask: {a} over {b}", f"learn --ask: {d} over {c}"]
    assert [set(call["weights"]) for call in engine.calls[:2]] == [{a}, {b}]


def test_what_is_blocked_is_not_shown_and_one_alone_stands_against_the_own_answer(cli: Cli, engine: FakeEngine) -> None:
    profile, (last, *others) = Profile.open(), Attributes.builtin()
    profile.block(*others)
    _, duels = choose(cli, engine, 2, "bb")
    assert duels[0] == ("plain", last)
    assert {choice.pair.source for choice in Profile.open().choices()} == {"learn --ask"}


def test_what_is_set_by_hand_stands_under_every_duel(cli: Cli, engine: FakeEngine) -> None:
    profile = Profile.open()
    profile.set("energy", 0.02)
    profile.configure(active=2)
    choose(cli, engine, 4, "abab")
    assert all(call["weights"]["energy"] in (0.02, 1.02) for call in engine.calls)


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_what_a_person_likes_is_found(cli: Cli, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, seed: str) -> None:
    """The rule: 'concise' makes an answer twice as much better as 'vivid' does, and nothing else matters."""
    liked = {"concise": 2, "vivid": 1}

    def choice(*_: object) -> str:
        a, b = (sum(liked.get(name, 0) for name in shows(call)) for call in engine.calls[-2:])
        return "=" if a == b else "a" if a > b else "b"

    monkeypatch.setattr(ask, "read_choice", choice)
    cli("learn", "--ask", "40", "--json", "--seed", seed)
    table = Profile.open().table()
    weights = {name: found.weight for name, found in table.items()}
    print(f"seed {seed}:", dict(sorted(weights.items(), key=lambda item: -abs(item[1]))[:5]))
    # Once 'concise' is sure, both answers show it: it no longer wins the duels that tell of 'vivid'.
    assert weights["vivid"] > 0.5 * weights["concise"]
    assert weights["vivid"] > 3 * max(p for name, p in weights.items() if name not in liked)
