"""The files of a profile: damaged, of another version, locked, on a full disk, half written by a killed program."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drift_edge import storage
from drift_edge.errors import (
    DriftError,
    ProfileBusyError,
    ProfileCorruptError,
    ProfileError,
    ProfileMismatchError,
    ProfileVersionError,
    UsageError,
)
from drift_edge.preferences import PreferencePair
from drift_edge.profile import Profile
from drift_edge.profile import file as profile_file
from drift_edge.profile.journal import Journal
from tests.choices import NANO, POOL, fresh, pair, scores

pytestmark = pytest.mark.usefixtures("no_waiting_for_disks")
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "me.json"


@pytest.fixture
def profile(path: Path) -> Profile:
    """Two choices, then a pin: d = (3, -4) + (2, -4)."""
    profile = fresh(path)
    profile.add(pair(1), scores([3, 0], [0, 4]))
    profile.add(pair(2), scores([2, 0], [0, 4]))
    profile.pin("warm")
    return profile


def files(folder: Path) -> dict[str, bytes]:
    """What is on the disk, but for the lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if ".lock" not in path.name}


def run(code: str, *arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, **more)


# -- written


@posix
def test_only_the_owner_can_read(profile: Profile, path: Path) -> None:
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()} == dict.fromkeys(
        ("me.json", "me.json.bak", "me.json.lock", "me.json.lock.turn", "me.jsonl"), "0o600"
    )
    assert profile.path == path


def test_the_journal_is_on_the_disk_before_the_profile_is_replaced(
    profile: Profile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def sync(fd: int) -> None:
        done.append(f"sync {sizes[os.fstat(fd).st_ino]}" if os.fstat(fd).st_ino in sizes else "sync new")

    def replace(old: Path, new: Path) -> None:
        done.append(f"replace {Path(new).name}")
        real(old, new)

    real = os.replace
    sizes = {file.stat().st_ino: file.name for file in path.parent.iterdir()}
    monkeypatch.setattr(storage, "_sync", sync)
    monkeypatch.setattr(storage, "_sync_folder", lambda _: done.append("sync folder"))
    monkeypatch.setattr(os, "replace", replace)
    profile.add(pair(3), scores([1, 1], [0, 0]))
    assert done == ["sync new", "sync me.jsonl", "replace me.json.bak", "replace me.json", "sync folder"]


def test_the_backup_is_the_version_before(profile: Profile, path: Path) -> None:
    before = path.read_bytes()
    profile.unpin("warm")
    assert path.with_name("me.json.bak").read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "link"), reason="needs hard links")
def test_a_backup_without_hard_links(profile: Profile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Path) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    test_the_backup_is_the_version_before(profile, path)


@posix
def test_a_link_is_kept_and_its_target_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.mkdir()
    (link / "me.json").symlink_to(real / "person.json")  # to nothing yet
    profile = fresh(link / "me.json")
    profile.add(pair(1), scores([3, 0], [0, 4]))
    profile.pin("warm")
    assert (link / "me.json").is_symlink()
    assert [file.name for file in link.iterdir()] == ["me.json"]
    assert sorted(file.name for file in real.iterdir()) == [
        "person.json",
        "person.json.bak",
        "person.json.lock",
        "person.json.lock.turn",
        "person.jsonl",
    ]
    assert Profile.open(real / "person.json").to_dict() == profile.to_dict()
    assert len(profile.delete()) == 6
    assert list(link.iterdir()) == list(real.iterdir()) == []


@posix
def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").write_text("")
    for name, expected in (
        ("loop.json", "cannot be resolved|cannot read|levels of symbolic links"),
        ("pipe.json", "expected a file, found a device or pipe"),
        ("folder.json", "expected a file, found a folder"),
    ):
        with pytest.raises(ProfileError, match=expected):
            Profile.open(tmp_path / name)
    for name, expected in (("none/me.json", "there is no folder"), ("file/me.json", "Not a directory")):
        missing = Profile.open(tmp_path / name)
        assert not missing.exists
        with pytest.raises(ProfileError, match=expected):
            missing.set("concise", 1)


# -- damaged


def corrupt(path: Path, raw: bytes) -> str:
    """What is said of a profile of these bytes; it must be left as it is."""
    path.write_bytes(raw)
    before = files(path.parent)
    for attempt in (lambda: Profile.open(path), lambda: fresh(path).pin("warm")):
        with pytest.raises(ProfileCorruptError) as caught:
            attempt()
    assert files(path.parent) == before
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 3
    return str(caught.value)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "the file is empty"),
        (b"  \n", "the file is empty"),
        (b"\0" * 500, "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b'{"schema": ' + b"1" * 5000 + b"}", "not valid JSON"),
        (b"[1]", "at $: expected an object, got list"),
        (b"null", "at $: expected an object, got nothing"),
        (b"{}", "at $.schema: expected int, got nothing"),
        (b'{"schema": "1"}', "at $.schema: expected int, got str"),
        (b'{"schema": true}', "at $.schema: expected int, got bool"),
        (b'{"schema": 0}', "at $.schema: expected 1 to 3, got 0"),
        (b'{"schema": 1}', "at $.attributes: expected dict, got nothing"),
        (b" " * ((16 << 20) + 1), "at most 16,777,216 bytes"),
    ],
    ids=lambda value: f"{value[:12]!r}" if isinstance(value, bytes) else None,
)
def test_what_is_no_profile(raw: bytes, expected: str, path: Path) -> None:
    told = corrupt(path, raw)
    assert expected in told
    assert "there is no backup; move the file away to begin anew" in told


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("id", 5, "$.id: expected str, got int"),
        ("created", "yesterday", "$.created: expected ISO 8601, got 'yesterday'"),
        ("weights.warm.weight", float("nan"), "$.weights.warm.weight: expected a number within ±1000, got nan"),
        ("weights.warm.weight", float("inf"), "$.weights.warm.weight: expected a number within ±1000, got inf"),
        ("weights.warm.weight", 1001, "$.weights.warm.weight: expected a number within ±1000, got 1001"),
        ("weights.warm.weight", 10**400, "$.weights.warm.weight: expected a number within ±1000, got 1000"),
        ("weights.warm.weight", "0.5", "$.weights.warm.weight: expected a number within ±1000, got '0.5'"),
        ("weights.warm.n", None, "$.weights.warm.n: expected a finite number, got None"),
        ("weights.warm.se", float("-inf"), "$.weights.warm.se: expected a finite number, got -inf"),
        ("weights.warm.active", 1, "$.weights.warm.active: expected bool, got int"),
        ("weights.warm", 0.5, "$.weights.warm: expected an object, got float"),
        ("weights.nice", {"weight": 1}, "$.weights.nice: unknown attribute 'nice'"),
        ("weights", {}, "$.weights: expected every attribute, but 'warm' is missing"),
        ("weights", [], "$.weights: expected dict, got list"),
        ("reduction", "max", "$.reduction: expected one of sum, mean, sqrt, got 'max'"),
        ("estimator", ["best"], "$.estimator: expected"),
        ("strength", 2, "$.strength: expected a number from 0"),
        ("strength", "much", "$.strength: expected a number from 0"),
        ("beta", 0, "$.beta: expected a number over 0"),
        ("beta", 10**400, "$.beta: expected"),
        ("active", 2.5, "$.active: expected a whole number"),
        ("half_life", -1, "$.half_life: expected a number of choices, 1 or more"),
        ("renormalise", None, "$.renormalise: expected true or false, got None"),
        ("pinned", ["nice"], "$.pinned: unknown attribute 'nice'"),
        ("pinned", [5], "$.pinned[0]: expected the name of an attribute, got 5"),
        ("blocked", "warm", "$.blocked: expected names of attributes, got str"),
        ("fixed", {"warm": float("nan")}, "$.fixed.warm: expected a number within ±1000, got nan"),
        ("fixed", {"nice": 1}, "$.fixed: unknown attribute 'nice'"),
        ("journal", "yes", "$.journal: expected true or false"),
        ("slm.fingerprint", None, "$.slm.fingerprint: expected str, got nothing"),
        ("base", "", "$: base prompt: expected text that is not empty"),
        ("attributes.warm", 5, "$: attribute 'warm': expected a prompt"),
        ("attributes", {}, "$.attributes: expected 1 or more attributes, got none"),
        ("seq", -1, "$.seq: expected a whole number, 0 or more, got -1"),
        ("seq", 1.5, "$.seq: expected int, got float"),
        ("pending", None, "$.pending: expected int, got nothing"),
        ("history", [5], "$.history[0].weights: expected dict, got nothing"),
        ("history", [{"time": "2026-01-01", "n": 1, "weights": {"warm": "x"}}], "$.history[0].weights.warm: expected"),
        ("statistics", None, "$.statistics: expected dict, got nothing"),
        ("statistics.names", ["brief", "warm"], "$.statistics.names: expected the names of $.attributes"),
        ("statistics.pairs", -1, "$.statistics.pairs: expected a whole number, 0 or more, got -1"),
        ("statistics.n", 10**400, "$.statistics"),
        ("statistics.sum_d.high", [1, float("inf")], "$.statistics.sum_d.high[1]: expected"),
        ("statistics.sum_dd.high", [1], "$.statistics.sum_dd.high: expected a list of 3 numbers, got 1"),
    ],
)
def test_a_field_that_is_wrong(field: str, value: object, expected: str, profile: Profile, path: Path) -> None:
    data = profile.to_dict()
    *parents, last = field.split(".")
    inner: Any = data
    for name in parents:
        inner = inner[name]
    inner[last] = value
    told = corrupt(path, json.dumps(data).encode())
    assert f"at {expected}" in told
    assert f"{path}.bak is the version before: `drift-edge profile restore`" in told
    if field not in ("weights.warm.se", "weights.nice"):
        del inner[last]
        assert "at $" in corrupt(path, json.dumps(data).encode())


def test_a_profile_cut_anywhere_is_corrupt(profile: Profile, path: Path) -> None:
    raw = path.read_bytes()
    for end in range(0, len(raw) - 2, 97):
        path.write_bytes(raw[:end])
        with pytest.raises(ProfileCorruptError):
            Profile.open(path)
    assert profile.n == 2


def test_changed_bytes_never_break_out(profile: Profile, path: Path) -> None:
    """Whatever bytes change in profile and journal: it loads, or a DriftError says why."""
    rng = random.Random(20)
    journal = path.with_suffix(".jsonl")
    good = {file: file.read_bytes() for file in (path, journal)}
    outcomes = set()
    for _ in range(120):
        for file, raw in good.items():
            changed = bytearray(raw)
            for _ in range(rng.choice([0, 1, 1, 5])):
                at = rng.randrange(len(changed))
                changed[at : at + rng.choice([1, 1, 20])] = rng.choice(
                    [b"", b"9", b'"', b"\xff", b"}", b"\n", b"-", b"e"]
                )
            file.write_bytes(changed)
        try:
            found = Profile.open(path)
            list(found.choices())
            found.add(pair(3), scores([1, 1], [0, 0]))
            outcomes.add("fine")
        except DriftError as error:
            outcomes.add(type(error).__name__)
    assert {"fine", "ProfileCorruptError"} <= outcomes
    assert profile.n == 2


# -- restored


def test_restore_loses_no_choice(profile: Profile, path: Path) -> None:
    profile.unpin("warm")
    profile.add(pair(3), scores([1, 1], [0, 0]))  # the backup knows nothing of it, the journal does
    expected = profile.to_dict()
    damaged = path.read_bytes()[:200]
    path.write_bytes(damaged)
    assert Profile.restore(path) == path.with_name("me.json.damaged")
    assert path.with_name("me.json.damaged").read_bytes() == damaged
    found = Profile.open(path, slm=NANO)
    assert {**found.to_dict(), "updated": "", "history": []} == {**expected, "updated": "", "history": []}
    found.add(pair(4), scores([1, 1], [0, 0]))
    assert Profile.open(path).n == 4


def test_restore_of_a_lost_profile(profile: Profile, path: Path) -> None:
    path.unlink()
    assert Profile.restore(path) is None
    assert Profile.open(path).n == profile.n == 2


def test_restore_refuses(profile: Profile, path: Path) -> None:
    backup = path.with_name("me.json.bak")
    with pytest.raises(UsageError, match="is not damaged"):
        Profile.restore(path)
    path.write_bytes(b'{"schema": 4}')
    with pytest.raises(ProfileVersionError):
        Profile.restore(path)
    path.write_bytes(b"")
    backup.write_bytes(b"{")
    with pytest.raises(ProfileCorruptError, match="no profile either: not valid JSON"):
        Profile.restore(path)
    backup.unlink()
    with pytest.raises(ProfileError, match="there is no backup"):
        Profile.restore(path)
    assert path.read_bytes() == b""
    assert profile.n == 2


# -- versions


def test_a_newer_profile_is_left_as_it_is(profile: Profile, path: Path) -> None:
    data = json.dumps({**profile.to_dict(), "schema": 4, "new": [1]}).encode()
    path.write_bytes(data)
    before = files(path.parent)
    for attempt in (lambda: Profile.open(path), lambda: profile.pin("brief"), lambda: Profile.restore(path)):
        with pytest.raises(ProfileVersionError, match=r"at \$.schema: found 4, this drift-edge writes 3") as caught:
            attempt()
        assert str(path) in str(caught.value)
    assert files(path.parent) == before


def test_a_journal_of_a_newer_version(profile: Profile, path: Path) -> None:
    journal = path.with_suffix(".jsonl")
    journal.write_bytes(journal.read_bytes().replace(b'"schema":3', b'"schema":4'))
    path.unlink()
    with pytest.raises(ProfileVersionError, match=r"me.jsonl: line 1: at \$.schema: found 4"):
        Profile.open(path)
    assert profile.n == 2


def test_migrations_are_taken_one_by_one(profile: Profile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if schema 4 had renamed `active`, and schema 5 doubled beta."""
    data: dict[str, Any] = profile.to_dict()
    data["most"], data["beta"] = data.pop("active"), 0.25
    path.write_text(json.dumps(data))
    monkeypatch.setattr(profile_file, "SCHEMA", 5)
    steps: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
        3: lambda old: {**old, "active": old["most"]},
        4: lambda old: {**old, "beta": 2 * old["beta"]},
    }
    monkeypatch.setattr(profile_file, "MIGRATIONS", steps)
    found = Profile.open(path)
    assert (found.settings.active, found.settings.beta, found.n) == (7, 0.5, 2)
    found.pin("brief")
    assert json.loads(path.read_text())["schema"] == 5


@pytest.mark.parametrize("lost", ["nothing", "profile", "journal"])
def test_a_file_that_names_no_text_length_was_scored_by_500_tokens(lost: str, profile: Profile, path: Path) -> None:
    """Schema 1, in the profile and in its journal's beginning."""
    expected = profile.to_dict()
    data: dict[str, Any] = {**expected, "schema": 1}
    assert data.pop("text_length") == 500
    path.write_text(json.dumps(data))
    journal = path.with_suffix(".jsonl")
    start, *lines = journal.read_text().splitlines(keepends=True)
    assert '"schema":3' in start
    assert '"text_length":500,' in start
    journal.write_text("".join([start.replace('"schema":3', '"schema":1').replace('"text_length":500,', ""), *lines]))
    if lost != "nothing":
        {"profile": path, "journal": journal}[lost].unlink()
    found = Profile.open(path, slm=NANO, attributes=POOL, text_length=500)
    assert (found.n, found.text_length) == (2, 500)
    assert found.table() == profile.table()
    found.add(pair(9), scores([1, 1], [0, 0]))
    written = json.loads(path.read_text())
    assert (written["schema"], written["text_length"], found.n) == (3, 500, 3)
    with pytest.raises(ProfileMismatchError):
        Profile.open(path, text_length=300)


def test_a_file_that_names_no_strength_steers_by_its_beta(profile: Profile, path: Path) -> None:
    """Schema 2."""
    data: dict[str, Any] = {**profile.to_dict(), "schema": 2, "beta": 0.25}
    del data["strength"]
    path.write_text(json.dumps(data))
    profile.refresh()
    assert (profile.settings.steering, profile.n) == ((0.25, None), 2)
    profile.configure(strength=0.4)
    written = json.loads(path.read_text())
    assert (written["schema"], written["beta"], written["strength"]) == (3, 0.25, 0.4)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "500", None])
def test_a_text_length_that_is_none(value: object, profile: Profile, path: Path) -> None:
    path.write_text(json.dumps({**profile.to_dict(), "text_length": value}))
    with pytest.raises(ProfileCorruptError, match=r"at \$.text_length: expected 1 token or more, got"):
        Profile.open(path)


# -- locked


def test_a_lock_is_not_waited_for_for_ever(profile: Profile, path: Path) -> None:
    before = files(path.parent)
    with storage.locked(path.with_name("me.json.lock"), 1):
        with pytest.raises(
            ProfileBusyError, match=r"another process keeps the profile locked for over 0\.1 s"
        ) as caught:
            Profile.open(path, wait=0.1).unpin("warm")
        assert Profile.open(path).n == 2  # reading waits for nobody
    assert caught.value.exit_code == 1
    assert files(path.parent) == before
    profile.unpin("warm")


@posix
def test_a_lock_whose_file_is_erased_is_no_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever held it may erase it between another's opening and locking: a lock on that file keeps nobody out."""
    import fcntl

    lock = path.with_name("lock")
    real, calls = fcntl.flock, []

    def flock(fd: int, how: int) -> None:
        if not calls:
            lock.unlink()
        calls.append(fd)
        real(fd, how)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        held = storage._lock(lock, time.monotonic() + 5)
    with pytest.raises(TimeoutError), storage.locked(lock, 0):
        pass
    storage._unlock(held)
    with storage.locked(lock, 0):
        pass


@posix
def test_a_folder_that_cannot_be_written(profile: Profile, path: Path) -> None:
    """Reading works, changing says why not; in a process that is not root, whom no folder refuses."""
    path.parent.chmod(0o555)
    for file in path.parent.iterdir():
        file.chmod(0o444)
    before = files(path.parent)
    code = """
        import os, sys
        sys.path[:0] = sys.argv[2:]
        from pathlib import Path
        from drift_edge.profile import Profile
        from drift_edge.errors import ProfileError
        path = Path(sys.argv[1])
        os.chdir("/")
        if os.getuid() == 0:
            for folder in path.parents[:-1][:-1]:
                folder.chmod(folder.stat().st_mode | 0o055)
            os.setgroups([]), os.setgid(65534), os.setuid(65534)
        profile = Profile.open(path)
        print(profile.n)
        for change in (lambda: profile.unpin("warm"), lambda: profile.reset(), lambda: profile.delete()):
            try:
                change()
            except ProfileError as error:
                print(error)
        """
    done = run(code, path, *sys.path)
    path.parent.chmod(0o755)
    assert done.stderr == ""
    n, *told = done.stdout.splitlines()
    assert n == "2"
    assert len(told) == 3
    assert all(re.search("me.json.lock.*: Permission denied; the profile is as it was", line) for line in told)
    assert files(path.parent) == before
    assert profile.n == 2


@posix
@pytest.mark.parametrize("full", ["at once", "in the profile", "in the journal"])
def test_a_full_disk(full: str, profile: Profile, path: Path) -> None:
    """No file may grow over a limit, so that a write fails in its middle."""
    profile.extend((pair(i), scores([1, 1], [0, 0])) for i in range(3, 20))
    before = files(path.parent)
    profile_bytes, journal_bytes = len(before["me.json"]), len(before["me.jsonl"])
    assert profile_bytes + 300 < journal_bytes
    room = {"at once": 0, "in the profile": profile_bytes // 2, "in the journal": journal_bytes + 100}[full]
    code = """
        import resource, sys
        from drift_edge.errors import ProfileError
        from drift_edge.profile import Profile
        from tests.choices import NANO, pair, scores
        profile, room = Profile.open(sys.argv[1], slm=NANO), int(sys.argv[2])
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        told = []
        for _ in range(2):
            try:
                profile.add(pair(99), scores([5, 5], [0, 0]))
            except ProfileError as error:
                told.append(str(error))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(profile.n, *told, sep="\\n")
        """
    done = run(code, path, room, cwd=Path(__file__).parents[1])
    assert done.stderr == ""
    n, *told = done.stdout.splitlines()
    assert n == "19"
    assert len(told) == 2
    assert all("File too large; the profile is as it was" in line for line in told)
    assert files(path.parent) == before
    profile.add(pair(99), scores([5, 5], [0, 0]))
    assert Profile.open(path).n == 20


# -- killed


def crash_points(change: Callable[[Profile], object], path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Let `change` stop before its 1st, 2nd, … step on the disk; what the profile is after each."""

    class Killed(BaseException):
        pass

    steps = 0
    limit = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > limit:
                raise Killed
            return real(*arguments, **more)

        return call

    def no_cleaning(self: Path, missing_ok: bool = False) -> None:
        if steps > limit:  # the dead do not clean up
            return
        counted(real_unlink)(self, missing_ok)

    real_unlink = Path.unlink
    start = files(path.parent)
    seen = []
    while True:
        for file in path.parent.iterdir():
            real_unlink(file)
        for name, raw in start.items():
            (path.parent / name).write_bytes(raw)
        profile = fresh(path)
        steps = 0
        with monkeypatch.context() as patch:
            for name in ("replace", "link"):
                patch.setattr(os, name, counted(getattr(os, name)))
            for name in ("_sync", "_sync_folder", "_create"):
                patch.setattr(storage, name, counted(getattr(storage, name)))
            patch.setattr(Path, "unlink", no_cleaning)
            try:
                change(profile)
            except Killed:
                pass
            else:
                return seen
        found = fresh(path)
        seen.append(json.dumps({**found.to_dict(), "updated": "", "history": []}).encode())
        # And whoever comes next can go on.
        n = found.n
        found.add(pair(50), scores([1, 0], [0, 0]))
        assert Profile.open(path).n == n + 1
        limit += 1


CHANGES: dict[str, Callable[[Profile], object]] = {
    "first": lambda p: p.add(pair(7), scores([1, 1], [0, 0])),
    "add": lambda p: p.add(pair(7), scores([1, 1], [0, 0])),
    "pending": lambda p: p.add(pair(7)),
    "forget": lambda p: p.forget(pair(1).id),
    "undo": lambda p: p.undo(),
    "reset": lambda p: p.reset(),
    "pin": lambda p: p.pin("brief"),
    "mean": lambda p: p.configure(reduction="mean"),
    "rebuild": lambda p: p.rebuild({pair(1).id: scores([1, 2], [3, 5])}),
    "no journal": lambda p: p.configure(journal=False),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_cut_anywhere_is_made_or_not(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drift_edge.profile.changes.now", lambda: "2026-01-01T00:00:00+00:00")
    if name != "first":
        profile = fresh(path)
        profile.add(pair(1), scores([3, 0], [0, 4]))
        profile.add(pair(2), scores([0, 0], [0, 4]))
        profile.set("warm", 0.5)
    start = files(path.parent)
    seen = crash_points(CHANGES[name], path, monkeypatch)
    for file, raw in start.items():
        (path.parent / file).write_bytes(raw)
    states = []
    for file in path.parent.iterdir():
        if file.name not in start:
            file.unlink()
    found = fresh(path)
    for change in (lambda _: None, CHANGES[name]):
        change(found)
        data = {**found.to_dict(), "updated": "", "history": []}
        states.append(json.dumps(data))
    strip = re.compile(r'"(id|created)": "[^"]*"')  # of a new profile they are new each time
    before, after = (strip.sub("", state) for state in states)
    told = [strip.sub("", raw.decode()) for raw in seen]
    assert len(told) >= 4
    assert before != after
    assert told[0] == before
    assert told[-1] == after
    made = [state == after for state in told]
    assert made == sorted(made)  # once it is made, it stays made
    assert all(state in (before, after) for state in told)


def test_a_profile_that_cannot_be_replaced_is_caught_up_with(
    profile: Profile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows while somebody reads it: the choice is kept, and is said to be."""

    def refuse(_: Path, new: Path) -> None:
        raise PermissionError(13, "Permission denied", str(new))

    old = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        assert profile.add(pair(3), scores([1, 1], [0, 0])).ids == (pair(3).id,)
        with pytest.raises(ProfileError, match="Permission denied; the profile is as it was"):
            profile.unpin("warm")
    assert path.read_bytes() == old
    assert profile.n == Profile.open(path).n == 3
    profile.unpin("warm")
    assert json.loads(path.read_text())["statistics"]["pairs"] == 3


# -- the journal


def test_a_torn_line_is_healed(profile: Profile, path: Path) -> None:
    journal = path.with_suffix(".jsonl")
    whole = journal.read_bytes()
    expected = profile.to_dict()
    line = whole.splitlines(keepends=True)[-1].replace(b'"seq":3', b'"seq":4')
    for torn in (line[:1], line[: len(line) // 2], line[:-1], b"\0" * 300, b"\0" * 299 + b"\n", b"{}\n", b"\xff\n"):
        journal.write_bytes(whole + torn)
        path.write_text(json.dumps(expected))
        found = Profile.open(path, slm=NANO)
        assert found.to_dict() == expected
        assert len(list(found.choices())) == 2
        found.add(pair(3), scores([1, 1], [0, 0]))
        assert journal.read_bytes().startswith(whole + b'{"seq":4,')
        assert Profile.open(path).n == 3
    journal.write_bytes(b'{"seq":1,"ti')
    path.unlink()
    assert fresh(path).n == 0
    fresh(path).add(pair(1), scores([1, 1], [0, 0]))
    assert fresh(path).n == 1


@pytest.mark.parametrize("size", [1 << 16, 200_000])
def test_lines_longer_than_a_block(size: int, profile: Profile, path: Path) -> None:
    long = pair(3)
    object.__setattr__(long, "chosen", "x" * size)
    profile.add(long, scores([1, 1], [0, 0]))
    profile.add(pair(4), scores([1, 1], [0, 0]))
    with path.with_suffix(".jsonl").open("ab") as file:
        file.write(b"torn" * size)
    profile = Profile.open(path, slm=NANO)
    profile.add(pair(5), scores([1, 1], [0, 0]))
    assert [choice.id for choice in Profile.open(path).choices()][2:] == [long.id, pair(4).id, pair(5).id]
    too_long = pair(6)
    object.__setattr__(too_long, "rejected", "x" * (16 << 20))
    with pytest.raises(UsageError, match="at most 16,777,216 bytes"):
        profile.add(too_long, scores([1, 1], [0, 0]))
    assert Profile.open(path).n == 5


def damage(path: Path, line: int, change: Callable[[bytes], bytes]) -> None:
    """Change one line of the journal, from 1 on."""
    journal = path.with_suffix(".jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[line - 1] = change(lines[line - 1])
    journal.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("line", "change", "expected"),
    [
        (2, lambda _: b"{\n", "me.jsonl: line 2: not valid JSON"),
        (2, lambda raw: raw.replace(b'"seq":2', b'"seq":1'), r"line 2: at \$.seq: expected more than 1, got 1"),
        (2, lambda raw: raw.replace(b'"seq":2', b'"seq":-2'), r"line 2: at \$.seq: expected a whole number"),
        (2, lambda raw: raw.replace(b'"choice"', b'"guess"'), r"line 2: at \$: expected an object with one of start"),
        (1, lambda _: b"", "line 1: expected the journal's beginning, a 'start', found a 'choice'"),
        (1, lambda raw: raw.replace(b'"profile":"', b'"profile":"x'), "line 1: the journal is not of the profile"),
        (3, lambda _: b"", "the last whole line is of change 2, but .*me.json has counted 3"),
        (3, lambda raw: raw[:-1], "the last whole line is of change 2, but .*me.json has counted 3"),
    ],
)
def test_a_damaged_journal_stops_changes_but_not_answers(
    line: int, change: Callable[[bytes], bytes], expected: str, profile: Profile, path: Path
) -> None:
    damage(path, line, change)
    before = files(path.parent)
    found = Profile.open(path, slm=NANO)
    assert found.weights() == profile.weights()
    with pytest.raises(ProfileCorruptError, match=expected):
        found.add(pair(3), scores([1, 1], [0, 0]))
    assert files(path.parent) == before
    # The way out that is told: without the file, the weights go on.
    path.with_suffix(".jsonl").rename(path.with_name("away"))
    found.add(pair(3), scores([1, 1], [0, 0]))
    found = Profile.open(path)
    assert (found.n, len(list(found.choices()))) == (3, 1)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"-97.0", b"NaN", r"line 2: at \$.scores.chosen: expected finite log-probabilities, got nan"),
        (b'"chosen":[', b'"chosen":[NaN,', r"line 2: at \$.scores.rejected: expected 4 log-probabilities as"),
        (b'"rejected":[', b'"rejected":[1,', r"line 2: at \$.scores.rejected: expected 3 log-prob"),
        (b'"n_chosen":1', b'"n_chosen":0', r"line 2: at \$.scores.n_chosen: expected a whole number"),
        (b'"chosen":"The', b'"chosen":5,"was":"The', r"line 2: at \$.pair.chosen: expected text, got a number"),
    ],
)
def test_a_damaged_choice_is_named(old: bytes, new: bytes, expected: str, profile: Profile, path: Path) -> None:
    damage(path, 2, lambda raw: raw.replace(old, new))
    with pytest.raises(ProfileCorruptError, match=expected):
        list(Profile.open(path).choices())
    assert profile.n == 2


def test_scores_of_another_pool_in_the_journal(profile: Profile, path: Path) -> None:
    journal = path.with_suffix(".jsonl")
    more = (
        journal.read_bytes().splitlines()[2].replace(b'"seq":3', b'"seq":4').replace(b'rejected":[', b'rejected":[1,')
    )
    journal.write_bytes(journal.read_bytes() + more.replace(b'"chosen":[', b'"chosen":[1,') + b"\n")
    with pytest.raises(ProfileCorruptError, match=r"line 4: at \$.scores"):
        Profile.open(path)
    assert profile.n == 2


@posix
def test_what_is_known_does_not_go_by_the_file_alone(profile: Profile, path: Path, tmp_path: Path) -> None:
    """A journal written anew twice can be the same file again, by its number, and no smaller."""
    profile.add(pair(3), scores([1, 1], [0, 0]))
    journal, spare = path.with_suffix(".jsonl"), tmp_path / "spare"
    os.link(journal, spare)
    other = Profile.open(path, slm=NANO)
    other.forget(pair(1).id)
    other.extend((pair(i), scores([1, 1], [0, 0])) for i in (4, 5, 6))
    spare.write_bytes(journal.read_bytes())
    spare.replace(journal)
    again = [(pair(i), scores([3, 0], [0, 4])) for i in range(1, 7)]
    assert profile.extend(again).ids == (pair(1).id,)
    assert Profile.open(path).n == 6


def test_what_is_known_by_the_ends_of_lines_is_what_the_lines_say(profile: Profile, path: Path) -> None:
    """Texts that look like the end of a line, lines that a person wrote otherwise, ties, and scores that came later."""
    ends = ['"tie":true}}', '"n_rejected":7}}', '","scores":{"n_rejected":7}}\n', "\\", '"scored":"' + "0" * 16]
    asked = ({"role": "user", "content": ends[1]},)
    odd = [PreferencePair(asked, text, ends[1], source=ends[0]) for text in ends[:1] + ends[2:]]
    profile.extend([(one, scores([1, 0], [0, 0])) for one in odd[:2]])
    profile.extend([(odd[2], None), (odd[3], None), (pair(5, tie=True), None), (pair(6), None)])
    profile.add(pair(6), scores([1, 1], [0, 0]))
    profile.forget(pair(2).id)
    journal = path.with_suffix(".jsonl")
    start, first, *rest = journal.read_bytes().splitlines(keepends=True)
    spaced = [json.dumps(json.loads(line)).encode() + b"\n" for line in (first, rest[2])]
    journal.write_bytes(b"".join([start, spaced[0], *rest[:2], spaced[1], *rest[3:]]))
    profile.add(pair(7))  # a line behind what the journal knew
    expected = {pair(1).id: True, odd[0].id: True, odd[1].id: True, odd[2].id: False, odd[3].id: False}
    expected |= {pair(5, tie=True).id: True, pair(6).id: True, pair(7).id: False}
    assert profile._store.journal.known() == expected
    fresh_one = Journal(journal)
    assert fresh_one.known() == expected
    assert fresh_one.known() == expected  # from where it stopped
    damage(path, 4, lambda raw: raw.replace(b'"seq":', b'"seq":0'))
    with pytest.raises(ProfileCorruptError, match=r"me.jsonl: line 4: not valid JSON"):
        Journal(journal).known()


def test_a_journal_that_somebody_erased(profile: Profile, path: Path) -> None:
    profile.add(pair(5))
    path.with_suffix(".jsonl").unlink()
    found = Profile.open(path, slm=NANO)
    assert (found.n, found.pending, list(found.choices())) == (2, 0, [])
    found.add(pair(3), scores([1, 1], [0, 0]))
    assert [choice.id for choice in found.choices()] == [pair(3).id]
    found.undo()
    assert found.weights() == pytest.approx(profile.weights())


def test_a_profile_that_somebody_erased_comes_back_from_its_journal(profile: Profile, path: Path) -> None:
    path.unlink()
    found = Profile.open(path)
    assert (found.exists, found.n, found.slm) == (False, 2, NANO)
    assert found.weights() == pytest.approx(profile.weights())
    with pytest.raises(UsageError, match="keeps a journal"):
        Profile.open(path, journal=False)


# -- many, and killed


def torture(*arguments: object) -> dict[str, Any]:
    environment = {**os.environ, "TORTURE_FSYNC": "0", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=3000,
        cwd=Path(__file__).parents[1],
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    print(found)
    return found


@posix
@pytest.mark.parametrize(
    ("processes", "updates"),
    [(4, 15), pytest.param(8, 200, marks=[pytest.mark.long, pytest.mark.timeout(3000)])],
)
def test_many_processes_count_exactly(processes: int, updates: int) -> None:
    found = torture("writers", processes, updates)
    assert found["n"] == found["expected"] == processes * updates
    assert set(found["statuses"]) == {0}
    assert found["complete"]
    assert found["distinct"]
    assert found["exact"]
    assert found["seq_rises"]


@posix
@pytest.mark.parametrize("times", [25, pytest.param(500, marks=[pytest.mark.long, pytest.mark.timeout(3000)])])
def test_killed_writers_lose_nothing(times: int) -> None:
    found = torture("kills", times)
    assert found["problems"] == []
    assert found["said"]["kept"] > 0
