"""`drift-edge chat` for one question: what goes where, sessions, settings, errors."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from drift_edge.cli.render import stats_line
from drift_edge.cli.session import latest, read_session
from drift_edge.errors import ContextOverflowError
from drift_edge.events import Answer, Notice, Speculated, Timings
from tests.cli.fake import FakeEngine, Result

Cli = Callable[..., Result]
pytestmark = pytest.mark.usefixtures("engine")


def test_answer_alone_on_stdout(cli: Cli, engine: FakeEngine) -> None:
    assert cli("chat", "-p", "Hi", "--seed", "3") == Result(0, "You said: Hi [plain, seed 3, attempt 0]\n", "")
    assert engine.closed
    assert engine.calls[0]["messages"] == [{"role": "user", "content": "Hi"}]


def test_stdin_is_the_question_where_there_is_no_p(cli: Cli, engine: FakeEngine) -> None:
    result = cli("chat", stdin="\ufeffHow do I\nmake tea?\n".encode())
    assert result.code == 0
    assert result.err == ""
    assert engine.calls[0]["messages"][-1]["content"] == "How do I\nmake tea?"


def test_notices_and_stats_on_stderr(cli: Cli, engine: FakeEngine) -> None:
    engine.notices = [Notice("dropped-turns", "two turns were left out")]
    result = cli("chat", "-p", "Hi", "--stats", "--seed", "3")
    assert result.out == "You said: Hi [plain, seed 3, attempt 0]\n"
    assert result.err == (
        "note: two turns were left out\n"
        "[first token 0.012 s; 8 tokens at 50.0/s; prefilled 40; decodes 8 LLM + 8 sLM; "
        "entropy 1.50 -> 1.50 bits; KL 1.500 nats/token; seed 3]\n"
    )


def test_json_is_one_object(cli: Cli, engine: FakeEngine) -> None:
    result = cli("chat", "-p", "Grüße", "--json", "--weights", "concise=0.8", "--seed", "3")
    data = json.loads(result.out)
    assert result.out.count("\n") == 1
    assert data["text"] == "You said: Grüße [concise=0.8, seed 3, attempt 0]"
    assert data["steering"] == {
        "mode": "logits",
        "beta": 0.5,
        "strength": None,
        "weights": {"concise": 0.8},
        "kl_per_token": 1.5,
    }
    assert set(data) == {
        *("text", "finish_reason", "tokens", "seed", "models"),
        *("steering", "entropy_bits", "speculation", "timings"),
    }
    assert engine.calls[0]["measure"]


def test_flags_reach_the_engine(cli: Cli, engine: FakeEngine) -> None:
    flags = "--weights formal=1,vivid=-0.3 --beta 0.3 --active 2 --steer prompt --temperature 0.1 --top-k 5 --top-p 0.5"
    more = "--min-p 0.1 --repeat-penalty 1.2 --seed 9 --max-tokens 3 --stop END --stop STOP"
    result = cli("chat", "nano", "-p", "Hi", "--system", "Be kind.", *flags.split(), *more.split())
    assert result == Result(0, "You said: Hi\n", "")
    call = engine.calls[0]
    sampler = call["sampler"]
    assert call["messages"][0] == {"role": "system", "content": "Be kind."}
    assert call["weights"] == {"formal": 1.0, "vivid": -0.3}
    assert (call["beta"], call["active"], call["steer"]) == (0.3, 2, "prompt")
    assert (sampler.temperature, sampler.top_k, sampler.top_p) == (0.1, 5, 0.5)
    assert (sampler.min_p, sampler.repeat_penalty) == (0.1, 1.2)
    assert (call["seed"], call["max_tokens"], call["stop"]) == (9, 3, ("END", "STOP"))


@pytest.mark.parametrize(("given", "wanted"), [("auto", "auto"), ("off", "off"), ("3", 3)])
def test_speculation_reaches_the_engine(given: str, wanted: object, cli: Cli, engine: FakeEngine) -> None:
    cli("chat", "-p", "Hi")
    cli("chat", "-p", "Hi", "--speculate", given, "--draft", "base")
    cli("chat", "-c", "-p", "And?")
    assert [(call["speculate"], call["draft"]) for call in engine.calls] == [
        *[("auto", "auto"), (wanted, "base"), (wanted, "base")],
    ]


@pytest.mark.parametrize("given", ["0", "8", "-1", "3.5", "on", "\u0663"])
def test_speculation_that_cannot_be(given: str, cli: Cli, engine: FakeEngine) -> None:
    result = cli("chat", "-p", "Hi", "--speculate", given)
    assert result.code == 2
    assert "--speculate: expected auto, off, or 1 to 7 tokens" in result.err
    assert not engine.calls


@pytest.mark.parametrize(
    ("speculated", "said"),
    [
        (Speculated(), ""),
        (Speculated(auto=True), "; auto speculates not"),
        (Speculated("off", 0, 9, 2, True), "; auto speculates not"),
        (Speculated("steered", 3, 12, 5), "; steered drafts of 3, 5 of 12 drafted tokens kept, 2.0 a decode"),
        (Speculated("base", 7, 12, 5, True), "; auto: base drafts of 7, 5 of 12 drafted tokens kept, 2.0 a decode"),
        (
            Speculated("base", 7, 12, 5, same_text=False),
            "; base drafts of 7, 5 of 12 drafted tokens kept, 2.0 a decode "
            "(of the same distribution as without, but not the same text)",
        ),
    ],
)
def test_stats_say_what_speculation_won(speculated: Speculated, said: str) -> None:
    timings = Timings(generated_tokens=10, llm_decodes=5, slm_decodes=12)
    answer = Answer("a", "stop", (), 3, {}, "off", None, {}, timings=timings, speculation=speculated)
    assert stats_line(answer) == (
        f"[first token 0.000 s; 10 tokens at 0.0/s; prefilled 0; decodes 5 LLM + 12 sLM{said}; seed 3]"
    )


def test_builtin_says_once_that_it_knows_little(cli: Cli, engine: FakeEngine) -> None:
    engine.reply = lambda *_: "I do not know much about quasars."
    result = cli("chat", "-p", "Explain quasars")
    assert result.out == "I do not know much about quasars.\n"
    assert result.err.startswith("note: this is the small built-in pair")
    assert "--llm" in result.err
    engine.reply = lambda *_: "Boil the water first."
    assert cli("chat", "-p", "Tea?").err == ""


def test_real_models_are_not_told_to_be_small(cli: Cli, engine: FakeEngine) -> None:
    engine.reply = lambda *_: "I do not know much about quasars."
    assert cli("chat", "-p", "Explain quasars", "--llm", "a.gguf", "--slm", "b.gguf").err == ""


# -- sessions


def test_continue_takes_up_turns_and_settings(cli: Cli, engine: FakeEngine, own_home: Path) -> None:
    cli("chat", "-p", "One", "--weights", "concise=0.8", "--beta", "0.3", "--seed", "5", "--stop", "END")
    result = cli("chat", "-c", "-p", "Two", "--beta", "0.4")
    assert result == Result(0, "You said: Two [concise=0.8, seed 5, attempt 0]\n", "")
    call = engine.calls[-1]
    assert [m["content"] for m in call["messages"]] == [
        *("One", "You said: One [concise=0.8, seed 5, attempt 0]", "Two"),
    ]
    assert (call["weights"], call["beta"], call["stop"]) == ({"concise": 0.8}, 0.4, ("END",))
    (path,) = (own_home / "data" / "sessions").iterdir()
    assert len(read_session(path).turns) == 2


def test_continue_leaves_the_length_of_one_answer_behind(cli: Cli, engine: FakeEngine, own_home: Path) -> None:
    cli("chat", "-p", "One", "--max-tokens", "3")
    cli("chat", "-c", "-p", "Two")
    path = latest(own_home / "data" / "sessions")
    saved = json.loads(path.read_text())
    assert "max-tokens" not in saved["settings"]
    saved["settings"]["max-tokens"] = 3  # as earlier versions wrote it
    path.write_text(json.dumps(saved))
    cli("chat", "-c", "-p", "Three")
    assert [call["max_tokens"] for call in engine.calls] == [3, 512, 512]


def test_continue_takes_the_session_saved_last(cli: Cli, own_home: Path) -> None:
    cli("chat", "-p", "One")
    first = latest(own_home / "data" / "sessions")
    cli("chat", "-p", "Two")
    second = latest(own_home / "data" / "sessions")
    assert first != second
    os.utime(second, (1, 1))
    cli("chat", "-c", "-p", "Three")
    assert [turn.question for turn in read_session(first).turns] == ["One", "Three"]


def test_saved_settings_win_over_config_and_lose_to_flags(
    cli: Cli, engine: FakeEngine, config: Callable[[str], Path]
) -> None:
    cli("chat", "-p", "One", "--top-k", "11", "--seed", "4")
    config("top-k = 22\nmin-p = 0.2\n")
    cli("chat", "-c", "-p", "Two", "--seed", "6")
    call = engine.calls[-1]
    assert (call["sampler"].top_k, call["sampler"].min_p, call["seed"]) == (11, 0.05, 6)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_sessions_are_private(cli: Cli, own_home: Path) -> None:
    cli("chat", "-p", "One")
    folder = own_home / "data" / "sessions"
    (path,) = folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_no_save_leaves_nothing(cli: Cli, own_home: Path) -> None:
    assert cli("chat", "-p", "One", "--no-save").code == 0
    assert not own_home.exists()


def test_nothing_to_continue(cli: Cli) -> None:
    result = cli("chat", "-c", "-p", "Two")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("Error: no saved session to go on with in ")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not valid JSON"),
        ("[]", "at $.format: expected int, got NoneType"),
        ('{"format": 2}', "at $.format: expected 1, got 2"),
        ('{"format": 1, "turns": [{"question": 3}]}', "at $.turns[0].question: expected str, got int"),
        (
            '{"format": 1, "created": "", "settings": {"top_p": 1}, "turns": []}',
            "unknown setting 'top_p'; did you mean top-p?",
        ),
        ('{"format": 1, "created": "", "settings": {"top-p": 7}, "turns": []}', "top-p: expected a number"),
    ],
)
def test_damaged_session_is_refused_and_kept(cli: Cli, own_home: Path, content: str, says: str) -> None:
    path = own_home / "data" / "sessions" / "a.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    result = cli("chat", "-c", "-p", "Two")
    assert result.code in (1, 2)
    assert str(path) in result.err
    assert says in result.err
    assert result.err.count("\n") == 1
    assert path.read_text() == content


def test_unusable_data_folder_is_one_warning(cli: Cli, own_home: Path) -> None:
    own_home.write_text("a file where the folder should be")
    result = cli("chat", "-p", "Hi", "--seed", "3")
    assert (result.code, result.out) == (0, "You said: Hi [plain, seed 3, attempt 0]\n")
    assert result.err.startswith("note: the conversation is not saved: ")
    assert result.err.count("\n") == 1


# -- bad input

BAD = [
    (["--weights", "concise=much"], "--weights: weight of 'concise': expected a number, got 'much'"),
    (["--weights", "concise=nan"], "weight of 'concise': expected a number"),
    (["--weights", "concise"], "expected NAME=NUMBER, found 'concise'"),
    (["--weights", "consise=1"], "unknown attribute 'consise'; did you mean concise?"),
    (["--beta", "0"], "--beta: expected a number over 0"),
    (["--beta", "-1"], "--beta: expected a number over 0"),
    (["--beta", "nan"], "--beta: expected a number over 0"),
    (["--beta", "inf"], "--beta: expected a number over 0"),
    (["--top-p", "0"], "--top-p: expected a number, over 0 and at most 1, got 0"),
    (["--temperature", "-1"], "--temperature: expected a number, 0 to 100, got -1"),
    (["--temperature", "hot"], "--temperature"),
    (["--min-p", "2"], "--min-p: expected a number, 0 to 1, got 2"),
    (["--top-k", "-1"], "--top-k: expected a whole number, 0 or more, got -1"),
    (["--top-k", "99999999999"], "--top-k: expected a whole number"),
    (["--max-tokens", "0"], "--max-tokens: expected a whole number, 1 or more, got 0"),
    (["--active", "0"], "--active: expected a whole number, 1 or more, got 0"),
    (["--seed", "-1"], "--seed: expected a whole number, 0 or more, got -1"),
    (["--threads", "0"], "--threads: expected a whole number, 1 or more, got 0"),
    (["--seed", "9" * 23], f"--seed: expected a whole number, 0 to {2**63 - 1} (2^63 - 1), got {'9' * 23}"),
    (
        ["--steer", "sideways"],
        "Invalid value for '--steer': 'sideways' is not one of 'logits', 'prompt', 'both', 'off'",
    ),
    (["--stop", ""], "--stop: expected text that is not empty"),
    (["--llm", "a.gguf"], "--llm needs --slm too"),
    (["--slm", "a.gguf"], "--slm needs --llm too"),
    (["nano", "--llm", "a.gguf", "--slm", "b.gguf"], "'nano' and --llm or --slm exclude each other"),
    (["llama"], "unknown pair 'llama': 'nano' is built in, `drift-edge models list` shows those that can be pulled"),
    (["What is tea?"], "a question goes with -p"),
    (["--attributes", "nowhere.toml"], "nowhere.toml: cannot read the attributes file"),
    (["--bogus"], "--bogus"),
]


@pytest.mark.parametrize(("args", "says"), BAD, ids=[" ".join(args) for args, _ in BAD])
def test_bad_arguments_exit_2_in_one_message(cli: Cli, engine: FakeEngine, args: list[str], says: str) -> None:
    result = cli("chat", "-p", "Hi", *args)
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert "Traceback" not in result.err
    assert not engine.calls


@pytest.mark.parametrize("args", [["-p", ""], ["-p", " \n"], []])
def test_empty_question_exits_2(cli: Cli, args: list[str]) -> None:
    result = cli("chat", *args, stdin=b" \n")
    assert (result.code, result.out) == (2, "")
    assert result.err == "Error: the prompt is empty: give a question by -p or pipe it in\n"


def test_invalid_utf8_on_stdin_names_the_byte(cli: Cli) -> None:
    result = cli("chat", stdin=b"abc\xe4def")
    assert result == Result(2, "", "Error: stdin: not valid UTF-8 at byte 3 (0xe4)\n")


def test_unusable_weights_file_exits_3(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_text('{"concise": "much"}')
    result = cli("chat", "-p", "Hi", "--weights", f"@{path}")
    assert result.code == 3
    assert str(path) in result.err


def test_engine_error_is_one_line(cli: Cli, engine: FakeEngine) -> None:
    engine.error = ContextOverflowError("the prompt\x1b[31m has\n9 tokens")
    assert cli("chat", "-p", "Hi") == Result(2, "", "Error: the prompt[31m has 9 tokens\n")
    assert engine.closed


def test_a_bug_shows_no_traceback_unless_asked(cli: Cli, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.reply = lambda *_: 1 / 0  # type: ignore[assignment, return-value]
    result = cli("chat", "-p", "Hi")
    assert result.code == 1
    assert result.err.startswith("Error: internal error: ZeroDivisionError")
    assert "Traceback" not in result.err
    monkeypatch.setenv("DRIFT_EDGE_DEBUG", "1")
    assert "Traceback" in cli("chat", "-p", "Hi").err


def test_blocked_attributes_steer_once_they_are_allowed(cli: Cli, engine: FakeEngine) -> None:
    args = ["chat", "-p", "Hi", "--weights", "conspiracy=1,concise=0.5", "--json"]
    assert json.loads(cli(*args).out)["steering"]["weights"] == {"concise": 0.5}
    assert engine.calls[-1]["blocked"] == ("conspiracy", "sycophant")
    allowed = json.loads(cli(*args, "--allow", "conspiracy").out)
    assert allowed["steering"]["weights"] == {"conspiracy": 1.0, "concise": 0.5}
    assert engine.calls[-1]["blocked"] == ("sycophant",)


class Guard:
    """Rejects the first answers."""

    def __init__(self, rejects: int) -> None:
        self.rejects, self.seen = rejects, list[str]()

    def risk(self, _messages: object, answer: str) -> float:
        self.seen.append(answer)
        return 1.0 if len(self.seen) <= self.rejects else 0.0


@pytest.mark.parametrize(("rejects", "code"), [(0, 0), (2, 0), (3, 1)])
def test_a_guard_judges_before_anything_is_shown(
    cli: Cli, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, rejects: int, code: int
) -> None:
    guard = Guard(rejects)
    monkeypatch.setattr("drift_edge.cli.chat.guarding", lambda settings: nullcontext(settings.guard and guard))
    done = cli("chat", "-p", "Hi", "--guard", "guard.gguf")
    assert done.code == code
    assert [call["attempt"] for call in engine.calls] == list(range(min(rejects + 1, 3)))
    assert done.err.count("note: the guard rejected an answer (risk 1.00") == rejects
    assert done.out.strip() == (guard.seen[-1] if code == 0 else "")
    assert ("Error: no answer: the guard rejected 3 of 3" in done.err) == (code == 1)


def test_the_builtin_llm_as_a_guard(cli: Cli, builtin_files: tuple[Path, Path], tmp_path: Path) -> None:
    args = ["chat", "-p", "How do I make tea?", "--no-profile", "--max-tokens", "5", "--seed", "1"]
    done = cli(*args, "--guard", str(builtin_files[0]), "--guard-tries", "1")
    assert done.code in (0, 1)
    assert bool(done.out) == (done.code == 0)
    assert cli(*args, "--guard", str(tmp_path / "no.gguf")).code == 3
    assert cli(*args, "--guard", str(builtin_files[0]), "--guard-tries", "0").code == 2


def test_forms_of_a_guard_are_the_librarys() -> None:
    from drift_edge.cli.options import GuardFormName as GuardForm
    from drift_edge.guard import FORMS

    assert [form.value for form in GuardForm] == list(FORMS)


def test_a_profile_that_was_named_and_is_not_there_is_told_of(cli: Cli) -> None:
    named = cli("chat", "-p", "Hi", "--profile", "nobody")
    assert (named.code, named.err.count("\n")) == (0, 1)
    assert named.err.startswith("note: profile nobody: nothing is learned yet, so nothing is steered (")
    assert cli("chat", "-p", "Hi").err == ""
    assert cli("chat", "-p", "Hi", "--profile", "nobody", "--weights", "concise=1").err == ""
