"""Pulling models: against a real HTTP server that drops, lies, redirects and refuses."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from drift_edge.errors import HubError, UsageError
from drift_edge.models.hub import pull as pull_module
from drift_edge.models.hub.cache import HubCache
from drift_edge.models.hub.hashes import Verified
from drift_edge.models.hub.pull import Pull, check_space
from drift_edge.models.hub.reference import Reference, choose, is_reference, quants
from drift_edge.models.hub.settings import HubSettings
from tests import hub as loopback
from tests.hub import COMMIT, Fault, Hub

REPO = "ann/tea-GGUF"
NAME = "tea-Q4_K_M.gguf"
DATA = random.Random(1).randbytes(3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with loopback.running() as server:
        server.files[REPO] = {"README.md": b"tea", NAME: DATA, "tea-Q8_0.gguf": b"eight bits"}
        yield server


@pytest.fixture
def settings(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubSettings:
    monkeypatch.setenv("DRIFT_EDGE_HOME", str(tmp_path / "home"))
    return HubSettings(hub.endpoint, tmp_path / "cache", timeout=5.0, backoff=0.001)


def pull(settings: HubSettings, reference: str = REPO) -> Path:
    job = Pull(Reference.parse(reference), settings)
    for _ in job.run():
        pass
    return job.path


def received(job: Pull) -> int:
    """Bytes that came over the network."""
    return max((transfer.received for transfer in job.run()), default=0)


def parts(settings: HubSettings) -> list[Path]:
    return list(settings.cache.rglob("*.incomplete"))


# -- the straight way


def test_pulled_file_lies_in_the_layout_that_others_share(hub: Hub, settings: HubSettings) -> None:
    path = pull(settings)
    folder = settings.cache / "models--ann--tea-GGUF"
    assert path == folder / "snapshots" / COMMIT / NAME
    assert path.read_bytes() == DATA
    assert (folder / "refs" / "main").read_text() == COMMIT
    assert (folder / "blobs" / SHA256).read_bytes() == DATA
    if sys.platform != "win32":
        assert os.readlink(path) == f"../../blobs/{SHA256}"
    assert not parts(settings)
    asked = len(hub.asked("/bytes/"))
    assert received(Pull(Reference(REPO), settings)) == 0
    assert len(hub.asked("/bytes/")) == asked == 1


def test_small_files_in_git_are_checked_by_gits_own_hash(hub: Hub, settings: HubSettings) -> None:
    hub.changes[NAME] = {"lfs": None}
    assert pull(settings).read_bytes() == DATA
    hub.faults.append(Fault(body=b"8 bits ???"))
    hub.changes["tea-Q8_0.gguf"] = {"lfs": None}
    with pytest.raises(HubError, match="its hash is"):
        pull(settings, f"{REPO}:Q8_0")


def test_shards_are_fetched_together(hub: Hub, settings: HubSettings) -> None:
    names = [f"big-Q4_K_M-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    hub.files["ann/big"] = {name: name.encode() for name in names}
    path = pull(settings, "ann/big")
    assert path.name == names[0]
    assert [(path.parent / name).read_text() for name in names] == names
    found = HubCache(settings.cache).find(Reference("ann/big"))
    assert [file.name for file in found] == names
    found[1].path.resolve().unlink()
    with pytest.raises(HubError, match="3 parts, of which 1 are missing"):
        HubCache(settings.cache).find(Reference("ann/big"))


# -- broken connections


@pytest.mark.parametrize("at", [0, 1, 1 << 16, len(DATA) - 1])
def test_dropped_connection_goes_on_where_it_broke(hub: Hub, settings: HubSettings, at: int) -> None:
    hub.faults += [Fault(drop_at=at), Fault(drop_at=0), Fault(drop_at=0)]
    assert pull(settings).read_bytes() == DATA
    ranges = [headers.get("Range") for headers in hub.asked("/bytes/")]
    assert ranges == [None, *[f"bytes={at}-" if at else None] * 3]


def test_server_without_ranges_sends_all_again(hub: Hub, settings: HubSettings) -> None:
    hub.faults += [Fault(drop_at=1_000_000), Fault(whole=True)]
    assert pull(settings).read_bytes() == DATA


def test_silence_counts_as_a_broken_connection(hub: Hub, settings: HubSettings) -> None:
    hub.faults.append(Fault(drop_at=70_000, stall=1.0))
    assert pull(replace(settings, timeout=0.2)).read_bytes() == DATA


def test_gives_up_in_words_and_goes_on_next_time(hub: Hub, settings: HubSettings) -> None:
    hub.faults += [Fault(drop_at=500_000)] + [Fault(drop_at=0)] * 9
    with pytest.raises(HubError, match=r"ended at byte 500,000 of 3,000,000.*the same command goes on"):
        pull(settings)
    hub.faults.clear()
    job = Pull(Reference(REPO), settings)
    assert job.missing == 2_500_000
    assert received(job) == 2_500_000
    assert job.path.read_bytes() == DATA


PULL = """
import sys
from pathlib import Path
from drift_edge.models.hub.pull import Pull
from drift_edge.models.hub.reference import Reference
from drift_edge.models.hub.settings import HubSettings
for _ in Pull(Reference(sys.argv[1]), HubSettings(sys.argv[2], Path(sys.argv[3]))).run():
    pass
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_killed_process_loses_nothing_that_is_on_the_disk(hub: Hub, settings: HubSettings) -> None:
    hub.pace = 0.02
    program = [sys.executable, "-c", PULL, REPO, hub.endpoint, str(settings.cache)]
    with subprocess.Popen(program) as process:
        while not any(path.stat().st_size >= 200_000 for path in parts(settings)):
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    hub.pace = 0.0
    (part,) = parts(settings)
    kept = part.stat().st_size
    assert 200_000 <= kept < len(DATA)
    assert not (settings.cache / "models--ann--tea-GGUF" / "snapshots").exists()
    job = Pull(Reference(REPO), settings)
    assert received(job) == len(DATA) - kept
    assert job.path.read_bytes() == DATA


# -- lies


def test_wrong_bytes_are_deleted_and_never_named(hub: Hub, settings: HubSettings) -> None:
    wrong = bytes([DATA[0] ^ 1]) + DATA[1:]
    hub.faults.append(Fault(body=wrong))
    with pytest.raises(HubError, match=f"its hash is {hashlib.sha256(wrong).hexdigest()}, expected {SHA256}; it was"):
        pull(settings)
    assert not parts(settings)
    assert not list(settings.cache.rglob("snapshots"))
    assert pull(settings).read_bytes() == DATA


def test_wrong_beginning_of_an_earlier_try_is_fetched_anew(hub: Hub, settings: HubSettings) -> None:
    part = settings.cache / "models--ann--tea-GGUF" / "blobs" / f"{SHA256}.incomplete"
    part.parent.mkdir(parents=True)
    for left in (b"x" * 1_000, b"x" * len(DATA), b"x" * (len(DATA) + 1)):
        part.write_bytes(left)
        path = pull(settings)
        assert path.read_bytes() == DATA
        HubCache(settings.cache).remove(HubCache(settings.cache).find(Reference(REPO)))
        part.parent.mkdir(parents=True)
    assert len(hub.asked("/bytes/")) == 4  # what was left took two, one and one


@pytest.mark.parametrize(
    "fault",
    [
        Fault(length=len(DATA) - 1),
        Fault(length=len(DATA) + 1),
        Fault(headers={"Content-Length": "9" * 5_000}),
        Fault(headers={"Content-Length": "many"}),
        Fault(body=b"<html>please log in</html>"),
        Fault(headers={"Content-Encoding": "gzip"}),
    ],
    ids=["shorter", "longer", "huge", "no number", "another page", "compressed"],
)
def test_lies_about_the_length_are_found_before_a_byte_is_kept(hub: Hub, settings: HubSettings, fault: Fault) -> None:
    hub.faults.append(fault)
    with pytest.raises(HubError, match=r"the server (offers other bytes|compresses)"):
        pull(settings)
    assert all(not part.stat().st_size for part in parts(settings))
    assert pull(settings).read_bytes() == DATA


@pytest.mark.parametrize(
    "said",
    [
        "bytes 5-2999999/3000000",
        "bytes 1000000-2999999/9",
        "items 1",
        "bytes 999999999999-1/3000000",
        f"bytes {'9' * 5_000}-1/3000000",
    ],
)
def test_other_ranges_than_asked_for_are_refused(hub: Hub, settings: HubSettings, said: str) -> None:
    hub.faults += [Fault(drop_at=1_000_000), Fault(headers={"Content-Range": said})]
    with pytest.raises(HubError, match="the server offers other bytes"):
        pull(settings)
    assert pull(settings).read_bytes() == DATA


@pytest.mark.parametrize(
    "name",
    [
        "../../../evil-Q4_K_M.gguf",
        "/evil-Q4_K_M.gguf",
        "a/../../e.gguf",
        "c:\\e.gguf",
        "a\nb.gguf",
        "a\x9b31m.gguf",
        "a\ud800.gguf",
    ],
)
def test_names_that_lead_elsewhere_are_not_seen(hub: Hub, settings: HubSettings, name: str) -> None:
    hub.files["ann/evil"] = {name: b"evil"}
    with pytest.raises(HubError, match="no GGUF model there"):
        Pull(Reference("ann/evil"), settings)


@pytest.mark.parametrize("change", [{"lfs": {"sha256": "../x", "size": 3}}, {"lfs": {"sha256": SHA256, "size": -1}}])
def test_hashes_and_sizes_that_are_none_are_not_used(
    hub: Hub, settings: HubSettings, change: dict[str, object]
) -> None:
    hub.changes[NAME] = change
    assert pull(settings).name == "tea-Q8_0.gguf"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"sha": "../..", "siblings": []}', b"[" * 100_000])
def test_api_that_is_none_is_named(hub: Hub, settings: HubSettings, body: bytes) -> None:
    hub.api_faults.append(Fault(body=body))
    with pytest.raises(HubError, match="is HF_ENDPOINT the address of a hub"):
        Pull(Reference(REPO), settings)


# -- refusals and tokens


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (401, {}, "no such repository, or a private one: check its name, then set HF_TOKEN"),
        (401, {"X-Error-Code": "GatedRepo"}, "ann/tea-GGUF is gated or private. Accept its terms on http"),
        (403, {}, "ann/tea-GGUF is gated or private"),
        (404, {}, "not there; check the name"),
        (418, {}, "the server answers with status 418"),
        (429, {"Retry-After": "3600"}, r"asked too often \(it asks to wait 3600 s\)"),
    ],
)
def test_refusals_are_told_in_words(
    hub: Hub, settings: HubSettings, status: int, headers: dict[str, str], words: str
) -> None:
    hub.api_faults.append(Fault(status=status, headers=headers))
    with pytest.raises(HubError, match=words):
        Pull(Reference(REPO), settings)
    assert len(hub.seen) == 1


def test_busy_server_is_asked_again(hub: Hub, settings: HubSettings) -> None:
    hub.api_faults += [Fault(status=429, headers={"Retry-After": "0"}), Fault(status=503)]
    hub.faults += [Fault(status=429, headers={"Retry-After": "0"}), Fault(status=502), Fault(drop_at=10)]
    assert pull(settings).read_bytes() == DATA


def test_token_goes_to_the_hub_alone_and_is_in_no_message(hub: Hub, settings: HubSettings) -> None:
    hub.token = "hf_secret"
    with_token = replace(settings, token=hub.token)
    hub.faults.append(Fault(status=404))
    with pytest.raises(HubError) as caught:
        pull(with_token)
    assert "hf_secret" not in f"{caught.value} {with_token!r}"
    assert "Signature" not in str(caught.value)
    pull(with_token)
    assert {headers.get("Authorization") for headers in hub.asked("/api/")} == {"Bearer hf_secret"}
    assert {headers.get("Authorization") for headers in hub.asked("/bytes/")} == {None}
    assert all("hf_secret" not in path for _, path, _ in hub.seen)
    for url in ("http://mirror.example", "https://127.0.0.1", "http://127.0.0.1:1", f"{hub.endpoint}.example/"):
        assert with_token.authorization(url) == {}
    assert replace(with_token, endpoint="http://mirror.example").authorization("http://mirror.example/x") == {}
    assert replace(with_token, endpoint="https://m.example").authorization("https://m.example/x") != {}


UNUSABLE = ["http://localhost:999999/x", "http://localhost:x/", "http://localhost/\xe9", "http://localhost/a b\x1b[31m"]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "", "http://[::1", *UNUSABLE])
def test_redirects_to_anything_but_http_are_refused(hub: Hub, settings: HubSettings, target: str) -> None:
    hub.api_faults.append(Fault(status=302, headers={"Location": target}))
    with pytest.raises(HubError, match="redirected to something that is no https address"):
        Pull(Reference(REPO), settings)


def test_redirects_in_a_circle_end(hub: Hub, settings: HubSettings) -> None:
    here = f"{hub.endpoint}/api/models/{REPO}/revision/main"
    hub.api_faults += [Fault(status=307, headers={"Location": here})] * 20
    with pytest.raises(HubError, match="8 redirects"):
        Pull(Reference(REPO), settings)


def test_nobody_there(settings: HubSettings) -> None:
    with pytest.raises(HubError, match="localhost:1/api/models/ann/tea-GGUF/revision/main: Connection refused"):
        Pull(Reference(REPO), replace(settings, endpoint="http://localhost:1"))


# -- disks and neighbours


def test_space_is_looked_at_first(hub: Hub, settings: HubSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Pull(Reference(REPO), settings)
    monkeypatch.setattr(pull_module.shutil, "disk_usage", lambda _: os.stat_result)
    monkeypatch.setattr(pull_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 64 << 20})())
    with pytest.raises(HubError, match=r"0\.0 GiB have to be fetched, and 0\.1 GiB are free; make room, or name"):
        check_space([job], settings)
    assert not hub.asked("/bytes/")
    pull(settings)
    check_space([job], settings)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a folder that refuses")
def test_folder_that_cannot_be_written(settings: HubSettings) -> None:
    settings.cache.mkdir(mode=0o500)
    with pytest.raises(HubError, match="cannot be written: Permission denied"):
        pull(settings)


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are POSIX")
def test_disk_that_takes_no_more_keeps_what_has_come(hub: Hub, settings: HubSettings) -> None:
    program = [sys.executable, "-c", FULL + PULL, REPO, hub.endpoint, str(settings.cache)]
    done = subprocess.run(program, stderr=subprocess.PIPE, text=True, check=False)
    assert "HubError: " in done.stderr
    assert "the disk takes no more (File too large); what has come is kept" in done.stderr
    job = Pull(Reference(REPO), settings)
    assert received(job) == 2_000_000
    assert job.path.read_bytes() == DATA


def test_file_of_another_program_is_hashed_before_it_counts(settings: HubSettings) -> None:
    blob = settings.cache / "models--ann--tea-GGUF" / "blobs" / SHA256
    blob.parent.mkdir(parents=True)
    blob.write_bytes(DATA)
    assert received(Pull(Reference(REPO), settings)) == 0
    blob.write_bytes(b"x" + DATA[1:])  # the right size, and wrong
    assert received(Pull(Reference(REPO), settings)) == len(DATA)
    assert blob.read_bytes() == DATA


@pytest.mark.skipif(sys.platform == "win32", reason="fcntl")
def test_two_programs_do_not_fetch_one_file_at_once(
    hub: Hub, settings: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    lock = HubCache(settings.cache).lock(REPO, SHA256)
    lock.parent.mkdir(parents=True)
    monkeypatch.setattr("drift_edge.models.hub.download.LOCK_WAIT", 0.05)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as the filelock package does it
        with pytest.raises(HubError, match="another program is fetching it"):
            pull(settings)
    assert not hub.asked("/bytes/")
    pull(settings)


def test_without_links_the_file_itself_lies_under_its_name(
    settings: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no right to make links")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    path = pull(settings)
    assert not path.is_symlink()
    assert path.read_bytes() == DATA
    assert received(Pull(Reference(REPO), settings)) == 0
    assert Verified().knows(path, SHA256)
    assert HubCache(settings.cache).remove(HubCache(settings.cache).find(Reference(REPO))) == len(DATA)
    assert not path.exists()


def test_removing_takes_what_nobody_else_needs(settings: HubSettings) -> None:
    pull(settings)
    pull(settings, f"{REPO}:Q8_0")
    cache = HubCache(settings.cache)
    assert cache.remove(cache.find(Reference(REPO))) == len(DATA)
    assert [file.name for file in cache.files()] == ["tea-Q8_0.gguf"]
    assert cache.find(Reference(REPO, "Q8_0"))
    cache.remove(cache.find(Reference(REPO, "Q8_0")))
    assert not cache.repo(REPO).exists()


# -- what is remembered


def test_remembered_hash_is_forgotten_when_the_file_changes(tmp_path: Path) -> None:
    path, memory = tmp_path / "a.gguf", Verified(tmp_path / "deep" / "verified.json")
    path.write_bytes(b"one")
    assert not memory.knows(path)
    memory.remember(path, "a" * 64)
    assert memory.knows(path)
    assert memory.knows(path, "a" * 64)
    assert not memory.knows(path, "b" * 64)
    os.utime(path, ns=(1, 1))
    assert not memory.knows(path)
    (tmp_path / "deep" / "verified.json").write_text("{[")
    assert not memory.knows(path)
    memory.remember(path, "a" * 64)
    assert memory.knows(path)
    path.unlink()
    assert not memory.knows(path)


# -- names


@pytest.mark.parametrize(
    ("text", "repo", "quant"),
    [
        ("ann/tea-GGUF", "ann/tea-GGUF", None),
        ("ann/tea-GGUF:Q8_0", "ann/tea-GGUF", "Q8_0"),
        ("hf:ann/tea-GGUF:q8_0", "ann/tea-GGUF", "q8_0"),
        ("hf.co/ann/tea-GGUF:tea-Q8_0.gguf", "ann/tea-GGUF", "tea-Q8_0.gguf"),
        ("https://huggingface.co/ann/tea.v2-GGUF/", "ann/tea.v2-GGUF", None),
    ],
)
def test_references(text: str, repo: str, quant: str | None) -> None:
    assert Reference.parse(text) == Reference(repo, quant)
    assert is_reference(text)


@pytest.mark.parametrize("text", ["tea", "a/b/c", "../tea", "ann/..", "ann/te a", "ann/tea:", "/ann/tea", "ann/-x", ""])
def test_no_references(text: str) -> None:
    assert not is_reference(text)
    with pytest.raises(UsageError, match="expected user/repo"):
        Reference.parse(text)


def test_a_path_of_a_gguf_file_is_no_reference() -> None:
    assert not is_reference("models/tea.gguf")


FILES = ["README.md", "tea-F16.gguf", "tea-Q4_K_S.gguf", "tea-Q4_K_M.gguf", "tea-Q8_0.gguf", "mmproj-tea-Q8_0.gguf"]


@pytest.mark.parametrize(
    ("files", "quant", "chosen"),
    [
        (FILES, None, "tea-Q4_K_M.gguf"),
        (FILES, "q4_k_s", "tea-Q4_K_S.gguf"),
        (FILES, "f16", "tea-F16.gguf"),
        (FILES, "tea-Q8_0.gguf", "tea-Q8_0.gguf"),
        ([name for name in FILES if "Q4_K_M" not in name], None, "tea-Q8_0.gguf"),
        (["b.gguf", "a.gguf"], None, "a.gguf"),
        (["x-UD-Q4_K_XL.gguf", "x-Q4_K_M.gguf"], "UD-Q4_K_XL", "x-UD-Q4_K_XL.gguf"),
        (["qwen2.5-7b-instruct-q4_k_m.gguf"], "Q4_K_M", "qwen2.5-7b-instruct-q4_k_m.gguf"),
        (["Q8_0/big.gguf", "Q4_K_M/big.gguf"], None, "Q4_K_M/big.gguf"),
        (["imatrix-Q4_K_M.gguf", "z.gguf"], None, "z.gguf"),
    ],
)
def test_choice_of_a_file(files: list[str], quant: str | None, chosen: str) -> None:
    assert choose(files, quant, "here") == [chosen]


def test_a_model_of_no_parts_is_none() -> None:
    with pytest.raises(HubError, match="has 0 parts"):
        choose(["tea-00001-of-00000.gguf"], None, "here")


def test_unknown_quantisation_names_those_there_are() -> None:
    with pytest.raises(HubError, match="no file with the quantisation 'Q4_K'; there are F16, Q4_K_M, Q4_K_S, Q8_0"):
        choose(FILES, "Q4_K", "here")
    assert quants(["x-UD-Q4_K_XL.gguf", "x.IQ2_M.gguf", "x.gguf"]) == ["IQ2_M", "UD-Q4_K_XL"]


# -- the environment


def test_settings_of_hugging_face(tmp_path: Path) -> None:
    home = tmp_path / "hf"
    home.mkdir()
    (home / "token").write_text("hf_file\n")
    found = HubSettings.from_environment({"HF_HOME": str(home)})
    assert (found.endpoint, found.cache, found.token) == ("https://huggingface.co", home / "hub", "hf_file")
    assert not found.offline
    found = HubSettings.from_environment(
        {"HF_HOME": str(home), "HF_TOKEN": "hf_env", "HF_HUB_CACHE": str(tmp_path), "HF_ENDPOINT": "https://m.example/"}
    )
    assert (found.endpoint, found.cache, found.token) == ("https://m.example", tmp_path, "hf_env")
    assert HubSettings.from_environment({"XDG_CACHE_HOME": "/x"}).cache == Path("/x/huggingface/hub").absolute()
    assert HubSettings.from_environment({"HF_HOME": str(home), "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}).token is None
    for env in ({"HF_HUB_OFFLINE": "1"}, {"TRANSFORMERS_OFFLINE": "yes"}):
        assert HubSettings.from_environment(env).offline
    assert HubSettings.from_environment({}, offline=True).offline


@pytest.mark.parametrize(
    "env",
    [
        {"HF_ENDPOINT": "huggingface.co"},
        {"HF_ENDPOINT": "http://["},
        {"HF_ENDPOINT": "http://localhost:999999"},
        {"HF_TOKEN": "hf_secret\r\nX: y"},
        {"HF_TOKEN": "hf_sécret"},
        {"HF_HUB_DOWNLOAD_TIMEOUT": "soon"},
    ],
)
def test_settings_that_cannot_be(env: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        HubSettings.from_environment(env)
    assert "hf_s" not in str(caught.value)


def test_offline_asks_nothing(hub: Hub, settings: HubSettings) -> None:
    with pytest.raises(HubError, match="the network is switched off"):
        Pull(Reference(REPO), replace(settings, offline=True))
    assert not hub.seen
