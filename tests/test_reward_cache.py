"""The cache of scores: several processes, killed ones, damaged files and full disks."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drift_edge.errors import DriftError
from drift_edge.reward_cache import CachedScore, RewardCache, text_key

SCORE = CachedScore(-0.1 - 0.2, 500)

WRITER = """
import sys
from drift_edge.reward_cache import CachedScore, RewardCache

path, name, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
with RewardCache(path) as cache:
    for i in range(n):
        cache.put("scorer", f"{name}-{i}", {f"prompt {j}": CachedScore(-i - j / 8, 1) for j in range(8)})
        print(i, flush=True)
"""
FULL = """
import resource, signal, sys
from drift_edge.errors import DriftError
from drift_edge.reward_cache import CachedScore, RewardCache

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with RewardCache(sys.argv[1]) as cache:
    cache.put("scorer", "before", {"prompt": CachedScore(-1.0, 3)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        for i in range(10_000):
            cache.put("scorer", str(i), {f"prompt {j}": CachedScore(-1.0, 3) for j in range(40)})
    except DriftError as error:
        print(error)
"""


def writer(path: Path, name: str, n: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, path, name, str(n)], stdout=subprocess.PIPE, text=True)


def is_sound(path: Path) -> bool:
    connection = sqlite3.connect(path)
    try:
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    finally:
        connection.close()


def test_a_score_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "rewards"
    with RewardCache(path) as cache:
        assert cache.get("s", "p", ["a", "b"]) == {}
        cache.put("s", "p", {"a": SCORE, "b": SCORE._replace(logprob=-1.0)})
    with RewardCache(path) as cache:
        assert cache.get("s", "p", ["b", "a", "c"]) == {"b": SCORE._replace(logprob=-1.0), "a": SCORE}
        assert cache.get("other", "p", ["a"]) == {}
        assert cache.get("s", "other", ["a"]) == {}
        cache.put("s", "p", {"a": SCORE._replace(logprob=-7.0)})
        assert cache.get("s", "p", ["a"])["a"].logprob == -7.0
        assert cache.moved_aside is None


def test_forgetting_texts_forgets_all_of_them_and_no_others(tmp_path: Path) -> None:
    with RewardCache(tmp_path / "rewards") as cache:
        for scorer in ("s", "t"):
            for text in ("p", "q"):
                cache.put(scorer, text, {"a": SCORE, "b": SCORE})
        assert cache.forget(["p", "unknown"]) == 4
        assert cache.forget([]) == 0
        assert cache.get("s", "p", ["a"]) == cache.get("t", "p", ["a"]) == {}
        assert cache.get("t", "q", ["a", "b"]) == {"a": SCORE, "b": SCORE}


def test_a_text_is_named_by_all_that_it_says() -> None:
    asked = {"role": "user", "content": "a"}
    known = [
        ([asked], "b"),
        ([asked], "c"),
        ([{"role": "user", "content": "b"}], "a"),
        ([{"role": "system", "content": "a"}, asked], "b"),
        ([{"role": "assistant", "content": "a"}, asked], "b"),
        ([asked, {"role": "assistant", "content": "b"}, asked], "b"),
    ]
    assert len({text_key(*one) for one in known}) == len(known)
    assert text_key([{"content": "a", "role": "user"}], "b") == text_key(*known[0])


def test_what_was_kept_by_pairs_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "rewards"
    with sqlite3.connect(path) as former:
        former.execute("CREATE TABLE scores (scorer TEXT, pair TEXT, prompt TEXT, chosen REAL)")
        former.execute("INSERT INTO scores VALUES ('s', 'p', 'a', -1.0)")
    former.close()
    with RewardCache(path) as cache:
        assert cache.get("s", "p", ["a"]) == {}
        cache.put("s", "p", {"a": SCORE})
        assert cache.moved_aside is None
    with sqlite3.connect(path) as now:
        assert now.execute("SELECT name FROM sqlite_master").fetchall() == [("responses",)]
    now.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
def test_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "rewards"
    before = os.umask(0)
    try:
        with RewardCache(path) as cache:
            cache.put("s", "p", {"a": SCORE})
            for file in path.parent.iterdir():
                assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_several_processes_write_and_one_reads(tmp_path: Path) -> None:
    path = tmp_path / "rewards"
    writers = [writer(path, name, 40) for name in "abc"]
    with RewardCache(path) as cache:
        while any(process.poll() is None for process in writers):
            seen = cache.get("scorer", "a-39", [f"prompt {j}" for j in range(8)])
            assert len(seen) in (0, 8)  # a transaction is there whole, or not at all
        for process in writers:
            process.communicate()
            assert process.returncode == 0
        prompts = [f"prompt {j}" for j in range(8)]
        assert all(len(cache.get("scorer", f"{name}-{i}", prompts)) == 8 for name in "abc" for i in range(40))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no such signal")
def test_killed_anywhere_it_loses_nothing_that_was_put(tmp_path: Path) -> None:
    path = tmp_path / "rewards"
    for round_ in range(4):
        least = 20 + 7 * round_
        with writer(path, str(round_), 100_000) as process:
            assert process.stdout is not None
            for _ in range(least):
                process.stdout.readline()
            time.sleep(0.0007 * round_)
            process.kill()
            said = least + process.stdout.read().count("\n")
        with RewardCache(path) as cache:
            assert cache.moved_aside is None
            prompts = [f"prompt {j}" for j in range(8)]
            assert all(len(cache.get("scorer", f"{round_}-{i}", prompts)) == 8 for i in range(said))
            assert len(cache.get("scorer", f"{round_}-{said + 1}", prompts)) == 0
        assert is_sound(path)


@pytest.mark.parametrize("damage", ["text", "zeros", "empty", "middle", "short"])
def test_a_damaged_file_is_moved_aside_and_begun_anew(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "rewards"
    prompts = [f"prompt {j}" for j in range(40)]
    with RewardCache(path) as cache:
        for i in range(40):
            cache.put("s", str(i), dict.fromkeys(prompts, SCORE))
    whole = path.read_bytes()
    broken = {
        "text": b"This is no database.\n" * 500,
        "zeros": bytes(len(whole)),
        "empty": b"",
        "middle": whole[:4096] + b"\xff" * (len(whole) - 4096),
        "short": whole[:5000],
    }[damage]
    path.write_bytes(broken)
    with RewardCache(path) as cache:
        found = [len(cache.get("s", str(i), prompts)) for i in range(40)]
        assert found == [0] * 40
        cache.put("s", "0", {"a": SCORE})
        assert cache.get("s", "0", ["a"]) == {"a": SCORE}
        if damage == "empty":  # nothing to keep
            assert cache.moved_aside is None
        else:
            assert cache.moved_aside == tmp_path / "rewards.damaged"
            assert cache.moved_aside.read_bytes() == broken
    assert is_sound(path)


def test_damaged_under_the_hands_of_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "rewards"
    with RewardCache(path) as cache:
        cache.put("s", "p", {"a": SCORE})
    with RewardCache(path) as cache:
        path.write_bytes(b"\xff" * 20_000)
        cache.put("s", "q", {"a": SCORE})
        assert cache.moved_aside == tmp_path / "rewards.damaged"
        assert cache.get("s", "q", ["a"]) == {"a": SCORE}


@pytest.mark.parametrize("log", ["whole", "cut"])
def test_a_damaged_file_with_the_log_of_a_killed_process(log: str, tmp_path: Path) -> None:
    path = tmp_path / "copied" / "rewards"
    path.parent.mkdir()
    with RewardCache(tmp_path / "rewards") as cache:
        cache.put("s", "p", {"a": SCORE})
        written = (tmp_path / "rewards-wal").read_bytes()
    path.write_bytes(b"\xff" * 20_000)
    path.with_name("rewards-wal").write_bytes(written if log == "whole" else written[:-5_000])
    with RewardCache(path) as cache:
        # What the log has whole mends the file; else both are given up.
        assert cache.get("s", "p", ["a"]) == ({"a": SCORE} if log == "whole" else {})
        assert (cache.moved_aside is None) == (log == "whole")
        cache.put("s", "q", {"a": SCORE})
    assert is_sound(path)


@pytest.mark.skipif(os.name == "nt", reason="Windows limits no file")
def test_a_full_disk_is_an_error_and_what_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "rewards"
    said = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True, check=True).stdout
    assert f"{path}: the cache of scores cannot be used" in said
    assert "free space" in said
    with RewardCache(path) as cache:
        assert cache.get("scorer", "before", ["prompt"]) == {"prompt": CachedScore(-1.0, 3)}
        assert len(cache.get("scorer", "0", [f"prompt {j}" for j in range(40)])) == 40
        cache.put("scorer", "after", {"prompt": SCORE})
        assert cache.moved_aside is None
    assert is_sound(path)


def test_a_path_that_cannot_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(DriftError, match="the cache of scores cannot be used"):
        RewardCache(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DriftError, match="the cache of scores cannot be used"):
        RewardCache(tmp_path / "file" / "rewards")


def test_another_process_that_holds_on_is_waited_for_and_then_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rewards"
    monkeypatch.setattr("drift_edge.reward_cache._WAIT", 0.05)
    with RewardCache(path) as cache:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        assert cache.get("s", "p", ["a"]) == {}  # to read, nobody waits
        with pytest.raises(DriftError, match="locked"):
            cache.put("s", "p", {"a": SCORE})
        other.execute("ROLLBACK")
        other.close()
        cache.put("s", "p", {"a": SCORE})
        assert cache.moved_aside is None
