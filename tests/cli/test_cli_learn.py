"""`drift-edge learn`: files of choices to a profile, on a tiny real sLM."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from drift_edge.attributes import Attributes
from drift_edge.cli.learn import PAPER
from drift_edge.cli.progress import Progress, duration
from drift_edge.cli.render import Screen
from drift_edge.cli.report import accuracy
from drift_edge.errors import UsageError
from drift_edge.events import CancelToken
from drift_edge.learning import learn, score_pairs
from drift_edge.llama.chat import ChatFormat
from drift_edge.llama.model import Model
from drift_edge.preferences import PreferencePair, read_pairs
from drift_edge.profile import SLM, Profile
from drift_edge.rewards import PairScores
from drift_edge.scoring import Scorer
from tests import tiny
from tests.cli.fake import Result, command

Cli = Callable[..., Result]
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

POOL = """
[attributes]
concise = "You are an AI assistant that is concise."
formal = "You are an AI assistant with a formal tone."
conspiracy = "You are an AI assistant that enjoys conspiracies."
"""


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A small pool, so that a pair is scored in no time."""
    path = tmp_path / "pool.toml"
    path.write_text(POOL)
    return path


@pytest.fixture
def slm(bpe_files: tuple[Path, Path]) -> Path:
    """A tiny random sLM."""
    return bpe_files[1]


@pytest.fixture
def scorer(slm: Path, pool: Path) -> Iterator[Scorer]:
    """A scorer of its own, without a cache."""
    with Model(slm) as model, Scorer(model, ChatFormat(model), Attributes.from_toml(pool)) as scorer:
        yield scorer


def rows(n: int, tie: bool = False) -> list[dict[str, object]]:
    """Choices that all differ."""
    return [
        {"prompt": f"Question {i}?", "chosen": f"Yes {i}.", "rejected": f"No, never {i}!", "tie": tie} for i in range(n)
    ]


def write(path: Path, records: list[dict[str, object]]) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def args(slm: Path, pool: Path) -> list[str]:
    """The flags that all runs share."""
    return ["--slm", str(slm), "--attributes", str(pool), "--threads", "1"]


def profile_of(slm: Path) -> Profile:
    """The default profile, as the next program would open it."""
    with Model(slm, vocab_only=True) as model:
        return Profile.open("default", slm=SLM(model.name, model.fingerprint))


# -- what is learned


def test_weights_are_those_of_algorithm_1(cli: Cli, args: list[str], tmp_path: Path, scorer: Scorer) -> None:
    path = write(tmp_path / "a.jsonl", rows(6))
    report = json.loads(cli("learn", str(path), *args, "--preset", "paper", "--json").out)
    d = np.zeros(3)
    for pair in read_pairs(path).pairs:
        W, L = scorer.score(pair).rewards("sum")
        d += W - L
    expected = d / np.linalg.norm(d)
    assert [report["weights"][name]["weight"] for name in scorer.names] == pytest.approx(expected, abs=1e-12)
    assert (report["pairs"], report["new"], report["computed"], report["skipped"]) == (6, 6, 6, 0)
    assert not report["weights"]["conspiracy"]["active"]  # blocked from the beginning
    assert report["weights"]["concise"]["active"]
    profile = profile_of(Path(args[1]))
    assert profile.n == 6
    assert profile.table()["concise"].weight == pytest.approx(expected[0], abs=1e-12)


def test_the_same_file_twice_counts_once_and_computes_nothing(cli: Cli, args: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", rows(5))
    first = json.loads(cli("learn", str(path), *args, "--json").out)
    (Path(os.environ["DRIFT_EDGE_HOME"]) / "cache" / "rewards.sqlite3").unlink()  # the profile alone knows enough
    again = json.loads(cli("learn", str(path), str(path), *args, "--json").out)
    assert (again["new"], again["computed"], again["pairs"]) == (0, 0, 5)
    assert again["weights"] == first["weights"]
    text = cli("learn", str(path), *args).out
    assert text.startswith("learned from 0 pairs, 5 known before; ")


def test_dry_run_reports_the_same_and_changes_nothing(
    cli: Cli, args: list[str], tmp_path: Path, own_home: Path
) -> None:
    path = write(tmp_path / "a.jsonl", rows(6))
    dry = json.loads(cli("learn", str(path), *args, "--json", "--dry-run", "--estimator", "whitened").out)
    assert dry["dry_run"] is True
    assert not (own_home / "data").exists()
    real = json.loads(cli("learn", str(path), *args, "--json", "--estimator", "whitened").out)
    assert real["computed"] == 0  # the dry run's scores are kept
    assert real["leave_one_out"] == dry["leave_one_out"]
    for name, weight in real["weights"].items():
        assert dry["weights"][name]["weight"] == pytest.approx(weight["weight"], abs=1e-12)
        assert dry["weights"][name]["se"] == pytest.approx(weight["se"], abs=1e-12)
        assert dry["weights"][name]["active"] == weight["active"]
    assert "no profile is changed" in cli("learn", str(path), *args, "--dry-run").out


def test_limit_counts_over_all_files(cli: Cli, args: list[str], tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.jsonl", rows(3)), write(tmp_path / "2.jsonl", rows(9)[4:])
    assert json.loads(cli("learn", str(one), str(two), *args, "--json", "--limit", "5").out)["new"] == 5
    assert profile_of(Path(args[1])).n == 5


def test_preset_paper_and_what_is_said_beside_it(cli: Cli, args: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", rows(3))
    cli("profile", "set", "--beta", "0.9", "--estimator", "shrunken")
    assert cli("learn", str(path), *args, "--preset", "paper", "--reduction", "mean").code == 0
    settings = profile_of(Path(args[1])).settings
    assert {name: getattr(settings, name) for name in PAPER} == {**PAPER, "reduction": "mean"}


def test_without_a_journal_numbers_alone_are_kept(cli: Cli, args: list[str], tmp_path: Path, own_home: Path) -> None:
    path = write(tmp_path / "a.jsonl", rows(4))
    assert cli("learn", str(path), *args, "--no-journal").code == 0
    assert profile_of(Path(args[1])).n == 4
    assert not any(b"Question" in file.read_bytes() for file in (own_home / "data").rglob("*") if file.is_file())


def test_report_in_words(cli: Cli, args: list[str], tmp_path: Path) -> None:
    result = cli("learn", str(write(tmp_path / "a.jsonl", rows(6))), *args)
    lines = result.out.splitlines()
    assert result.code == 0
    assert lines[0].startswith("learned from 6 pairs; ")
    assert "Strongest weights (whitened, sum over tokens):" in lines
    assert any(line.startswith("whitened ") and line.endswith("this profile's") for line in lines)
    assert lines[-1].startswith("length alone ")
    assert lines[-1].endswith("the chosen answer is the longer one in 0%")
    assert result.err.splitlines() == [f"{tmp_path / 'a.jsonl'}: 6 pairs (jsonl)"]


def test_accuracy_by_hand() -> None:
    # d = +2, +1, -1 in one attribute: the others' sum is 0, 1, 3, so half, right and wrong. Longer, shorter, shorter:
    # the others' majority is shorter, none, none, so wrong, half, half.
    def pair(d: float, n_chosen: int, n_rejected: int) -> PairScores:
        return PairScores(np.array([-5.0, d - 5.0]), np.array([-7.0, -7.0]), n_chosen, n_rejected)

    found = accuracy([pair(2, 4, 3), pair(1, 2, 4), pair(-1, 1, 3)], "sum")
    assert found["pairs"] == 3
    assert found["estimators"]["closed-form"] == pytest.approx(0.5)
    assert found["length"] == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert found["longer"] == pytest.approx(1 / 3)


# -- rows and pairs that cannot be used


def test_bad_rows_are_told_and_good_ones_used(cli: Cli, args: list[str], tmp_path: Path) -> None:
    bad = [{"prompt": "P", "chosen": "same", "rejected": "same"}, {"prompt": "P", "chosen": 7, "rejected": "x"}]
    path = write(tmp_path / "a.jsonl", [*bad, *rows(2)])
    result = cli("learn", str(path), *args, "--json")
    report = json.loads(result.out)
    assert (result.code, report["new"], report["skipped"]) == (0, 2, 2)
    assert "note: a.jsonl: line 1 skipped: at $.rejected: the same text as chosen" in result.err
    assert "note: a.jsonl: line 2 skipped: at $.chosen: expected text, got a number" in result.err
    strict = cli("learn", str(path), *args, "--strict")
    assert (strict.code, strict.out) == (3, "")
    assert "line 1: at $.rejected" in strict.err


def test_many_bad_rows_are_counted(cli: Cli, args: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "P", "chosen": i, "rejected": "x"} for i in range(9)] + rows(1))
    notes = cli("learn", str(path), *args).err.splitlines()[1:]
    assert len(notes) == 4
    assert notes[-1] == "note: a.jsonl: 9 rows skipped in all; --strict stops at the first"


def test_ties_are_counted_and_teach_nothing(cli: Cli, args: list[str], tmp_path: Path) -> None:
    result = cli("learn", str(write(tmp_path / "a.jsonl", rows(3, tie=True))), *args)
    assert result.code == 0
    assert "3 ties: counted, but nothing can be learned from them" in result.out
    assert result.out.splitlines()[-1] == "no weights: there is no choice that prefers one answer"
    profile = profile_of(Path(args[1]))
    assert (profile.n, profile.ties, profile.weights()) == (0, 3, {})


def test_rewards_of_zero_give_weights_of_zero(cli: Cli, tmp_path: Path) -> None:
    vocab = tiny.byte_bpe()
    follow = {vocab.id("<|assistant|>"): vocab.id("<|end|>")}  # the next token depends on the last alone, never on s
    slm = tiny.write_script(tmp_path / "script.gguf", vocab, follow)
    result = cli("learn", str(write(tmp_path / "a.jsonl", rows(3))), "--slm", str(slm))
    assert result.code == 0
    assert (
        "all weights are 0: all rewards of the chosen and the rejected answers are equal" in cli("profile", "show").out
    )


def test_pair_too_long_for_the_context_is_left_out(cli: Cli, args: list[str], tmp_path: Path) -> None:
    long = {"prompt": "tea " * 600, "chosen": "a", "rejected": "b"}
    path = write(tmp_path / "a.jsonl", [long, *rows(2)])
    result = cli("learn", str(path), *args, "--json")
    report = json.loads(result.out)
    assert (result.code, report["new"], report["unscored"]) == (0, 2, 1)
    assert "note: a.jsonl, line 1: cannot be scored: the longest prompt and response" in result.err
    assert cli("learn", str(path), *args, "--strict").code == 3
    alone = cli("learn", str(write(tmp_path / "b.jsonl", [long])), *args, "--profile", "other")
    assert (alone.code, alone.out) == (3, "")
    assert "none of the 1 pairs can be scored" in alone.err


def test_several_people_need_one_picked(cli: Cli, args: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{**row, "user": f"user{i % 2}"} for i, row in enumerate(rows(6))])
    asked = cli("learn", str(path), *args)
    assert asked.code == 2
    assert "'user0', 'user1'" in asked.err
    assert json.loads(cli("learn", str(path), *args, "--user", "user1", "--json").out)["new"] == 3


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ([], 2, "give files of choices, or --ask N"),
        (["{file}", "--ask", "3"], 2, "give files of choices, or --ask N"),
        (["{file}", "--estimator", "best"], 2, "estimator: expected one of closed-form,"),
        (["{file}", "--reduction", "max"], 2, "reduction: expected one of sum, mean, sqrt"),
        (["{file}", "--format", "xml"], 2, "format: expected one of jsonl,"),
        (["{file}", "--llm", "big.gguf"], 2, "--llm needs --slm too"),
        (["{file}", "--profile", "../x\0"], 2, "profile "),
        (["missing.jsonl"], 3, "missing.jsonl"),
        (["{empty}"], 3, "it is empty"),
        (["{file}", "--slm", "missing.gguf"], 3, "missing.gguf"),
    ],
)
def test_bad_use_is_one_line(cli: Cli, tmp_path: Path, given: list[str], code: int, message: str) -> None:
    file, empty = write(tmp_path / "a.jsonl", rows(2)), write(tmp_path / "empty.jsonl", [])
    result = cli("learn", *(text.format(file=file, empty=empty) for text in given))
    assert (result.code, result.out) == (code, "")
    assert message in result.err.splitlines()[-1]
    assert result.err.splitlines()[-1].startswith("Error: ")


def test_profile_of_another_slm_is_refused_and_rebuilt(
    cli: Cli, args: list[str], tmp_path: Path, bpe_files: tuple[Path, Path]
) -> None:
    path = write(tmp_path / "a.jsonl", rows(4))
    first = json.loads(cli("learn", str(path), *args, "--json").out)["weights"]
    other = [*args[2:], "--slm", str(bpe_files[0])]
    refused = cli("learn", str(path), *other)
    assert (refused.code, refused.out) == (3, "")
    assert "rebuild" in refused.err
    rebuilt = json.loads(cli("profile", "rebuild", "--slm", str(bpe_files[0]), "--json").out)
    assert rebuilt["before"]["concise"] == first["concise"]["weight"]
    assert rebuilt["after"]["concise"] != first["concise"]["weight"]
    again = json.loads(cli("learn", str(path), *other, "--json").out)
    assert again["new"] == again["computed"] == 0
    fresh = json.loads(cli("learn", str(path), *other, "--json", "--profile", "fresh").out)
    for name, weight in fresh["weights"].items():
        assert rebuilt["after"][name] == pytest.approx(weight["weight"], abs=1e-12)


def test_profile_scored_by_other_lengths_is_refused_and_rebuilt(cli: Cli, args: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{**row, "chosen": f"{row['chosen']} {'tea ' * 20}"} for row in rows(4)])
    cli("learn", str(path), *args)
    refused = cli("learn", str(path), *args, "--text-length", "6")
    assert (refused.code, refused.out) == (3, "")
    assert "profile rebuild --text-length 6`" in refused.err
    rebuilt = json.loads(cli("profile", "rebuild", "--text-length", "6", *args[:2], "--json").out)
    assert rebuilt["before"] != rebuilt["after"]
    assert cli("profile", "rebuild", *args[:2]).out == "scored anew: 4 choices\n"  # as they were
    fresh = json.loads(cli("learn", str(path), *args, "--json", "--text-length", "6", "--profile", "fresh").out)
    for name, weight in fresh["weights"].items():
        assert rebuilt["after"][name] == pytest.approx(weight["weight"], abs=1e-12)
    again = json.loads(cli("learn", str(path), *args, "--json").out)  # by what the profile has
    assert again["new"] == again["computed"] == 0
    assert cli("learn", str(path), *args, "--preset", "paper").code == 3  # 500


# -- stopped and gone on with


@pytest.fixture
def running(
    args: list[str], tmp_path: Path, own_home: Path
) -> Iterator[tuple[subprocess.Popen[bytes], list[str], Path]]:
    """A run with much to do, some pairs into it; its arguments, and the cache's file."""
    path = write(tmp_path / "many.jsonl", [{**row, "chosen": f"{row['chosen']} {'tea ' * 150}"} for row in rows(150)])
    line = ["learn", str(path), *args]
    cache = own_home / "cache" / "rewards.sqlite3"
    run = subprocess.Popen(command(line, real=True), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.setpriority(os.PRIO_PROCESS, run.pid, 19)  # on a busy machine it would else be through before we look
    end = time.monotonic() + 60
    while _cached(cache) < 3:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    yield run, line, cache
    if run.poll() is None:
        run.kill()
        run.communicate()


def _cached(cache: Path) -> int:
    """How many pairs the cache knows."""
    try:
        with closing(sqlite3.connect(f"file:{cache}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(DISTINCT text) / 2 FROM responses").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@POSIX
def test_killed_it_goes_on_with_what_was_scored(
    cli: Cli, running: tuple[subprocess.Popen[bytes], list[str], Path]
) -> None:
    run, line, cache = running
    run.kill()
    run.communicate()
    known = _cached(cache)
    assert 3 <= known < 150
    report = json.loads(cli(*line, "--json").out)
    assert (report["pairs"], report["new"]) == (150, 150)
    assert 150 - known <= report["computed"] <= 150 - known + 1  # the last one may be half there


@POSIX
def test_ctrl_c_keeps_what_was_learned(cli: Cli, running: tuple[subprocess.Popen[bytes], list[str], Path]) -> None:
    run, line, _ = running
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out) == (130, b"")
    last = err.decode().splitlines()[-1]
    assert last.endswith("of 150 pairs are learned; the same command goes on from there")
    learned = int(last.split()[1])
    assert 3 <= learned < 150
    assert profile_of(Path(line[3])).n == learned
    report = json.loads(cli(*line, "--json").out)
    assert report["new"] == 150 - learned
    assert report["computed"] <= 150 - learned
    assert profile_of(Path(line[3])).n == 150


def test_library_learns_in_order_and_stops_when_told(scorer: Scorer, tmp_path: Path) -> None:
    pairs = [PreferencePair(({"role": "user", "content": f"Q{i}"},), f"a{i}", f"b{i}") for i in range(4)]
    profile = Profile.open(tmp_path / "p.json", slm=SLM("x", "0" * 16), attributes=scorer.attributes)
    cancel = CancelToken()
    done = []
    for scored in learn(scorer, profile, pairs, cancel):
        done.append(scored.pair)
        if len(done) == 2:
            cancel.cancel()
    assert done == pairs[:2]
    assert [choice.pair for choice in profile.choices()] == pairs[:2]
    numbers = Profile.open(tmp_path / "n.json", slm=SLM("x", "0" * 16), attributes=scorer.attributes, journal=False)
    stopped = learn(scorer, numbers, pairs)
    next(stopped)
    stopped.close()
    assert numbers.n == 0  # else the first would count twice when the same is done again
    assert len(list(learn(scorer, numbers, pairs))) == numbers.n == 4
    assert [scored.computed for scored in learn(scorer, profile, pairs)] == [False, False, True, True]
    assert [choice.pair for choice in profile.choices()] == pairs
    short = Profile.open(tmp_path / "s.json", slm=SLM("x", "0" * 16), attributes=scorer.attributes, text_length=5)
    with pytest.raises(UsageError, match=r"scores up to 500 tokens .* scored by up to 5: make the scorer"):
        next(learn(scorer, short, pairs))
    unsure = PreferencePair(pairs[0].messages, "x", "y", tie=True)
    assert [scored.scores for scored in score_pairs(scorer, [unsure])] == [None]


# -- progress


def test_progress_says_speed_and_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    monkeypatch.setattr("drift_edge.cli.progress.time.monotonic", lambda: now[0])
    with Progress(1_200, Screen("never")) as progress:
        progress.step(worked=False)
        for _ in range(4):
            now[0] += 5.0
            progress.step()
    # Four computed in 20 s are 0.2 a second; 1,195 are left. A line is due every ten seconds.
    assert capsys.readouterr().err.splitlines() == [
        "3 of 1,200 pairs, 0.2 pairs/s, 1 h 39 min left, 1 known before",
        "5 of 1,200 pairs, 0.2 pairs/s, 1 h 39 min left, 1 known before",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (3_900, "1 h 5 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_exact_completes_what_a_race_has_left_out(
    cli: Cli, args: list[str], tmp_path: Path, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drift_edge.racing.DEFAULT_CONFIDENCE", 0.5)  # so that somebody is dropped, by hardly a lead
    Profile.open("default", attributes=scorer.attributes).configure(
        active=1, estimator="closed-form", renormalise=False
    )
    path = write(tmp_path / "a.jsonl", rows(14))
    line = ["learn", str(path), *args]
    raced = cli(*line)
    assert "that could no longer become active dropped on the way" in raced.out
    table = profile_of(Path(args[1])).table()
    assert 8 <= min(weight.n for weight in table.values()) < 14
    exact = json.loads(cli(*line, "--exact", "--json").out)
    assert (exact["new"], exact["dropped"]) == (0, 0)
    with closing(sqlite3.connect(tmp_path / "home" / "cache" / "rewards.sqlite3")) as connection:
        assert connection.execute("SELECT count(*) FROM responses").fetchone()[0] == 14 * 2 * 4
    d = sum(np.subtract(*scorer.score(pair).rewards()) for pair in read_pairs(path).pairs)
    weights = [exact["weights"][name]["weight"] for name in scorer.names]
    assert weights == pytest.approx(d / np.linalg.norm(d), abs=1e-12)
    assert {weight["n"] for weight in exact["weights"].values()} == {14}
