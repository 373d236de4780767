"""`drift-edge profile`: looking, changing and erasing, on profiles whose numbers are worked out by hand."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from drift_edge.attributes import Attribute, Attributes
from drift_edge.cli.charts import ASCII, UNICODE, WeightRow, bar, curve, shorten, signed, weight_lines
from drift_edge.preferences import PreferencePair
from drift_edge.profile import SLM, Profile
from drift_edge.reward_cache import CachedScore, RewardCache, text_key
from drift_edge.rewards import PairScores
from tests.cli.fake import Result, command

Cli = Callable[..., Result]
Process = Callable[..., "subprocess.CompletedProcess[bytes]"]

POOL = Attributes("Base.", [Attribute("formal", "F."), Attribute("concise", "C."), Attribute("vivid", "V.")])
ASKED = "How do I make tea?"


def pair(i: int, *, tie: bool = False) -> PreferencePair:
    """One choice of several that differ."""
    return PreferencePair(({"role": "user", "content": f"{ASKED} ({i})"},), f"Boil water {i}.", f"No {i}.", tie=tie)


def scores(W: tuple[float, ...], L: tuple[float, ...]) -> PairScores:
    """Scores with these rewards, of four tokens and of two."""
    return PairScores(np.array([-9.0, *(w - 9.0 for w in W)]), np.array([-7.0, *(x - 7.0 for x in L)]), 4, 2)


def begin(name: str = "default") -> Profile:
    """A profile of two choices and a tie: sum d = (3, -4, 0), so the paper's p = (0.6, -0.8, 0)."""
    profile = Profile.open(name, slm=SLM("tiny slm", "f" * 16), attributes=POOL)
    profile.configure(estimator="closed-form", sure=0, renormalise=False)
    profile.add(pair(1), scores((2.0, 0.0, 0.0), (0.0, 1.0, 0.0)))
    profile.add(pair(2), scores((1.0, -1.0, 1.0), (0.0, 2.0, 1.0)))
    profile.add(pair(3, tie=True))
    return profile


def begin_raced() -> Profile:
    """As `begin`, but for `vivid`, which was not scored in the second choice."""
    profile = Profile.open("default", slm=SLM("tiny slm", "f" * 16), attributes=POOL)
    profile.add(pair(1), scores((2.0, 0.0, 0.0), (0.0, 1.0, 0.5)))
    nan = math.nan
    profile.add(pair(2), scores((1.0, -1.0, nan), (0.0, 2.0, nan)))
    return profile


def test_show_says_which_attributes_were_scored_less_often(cli: Cli) -> None:
    begin_raced()
    lines = {line.split()[0]: line for line in cli("profile", "show").out.splitlines() if line}
    assert lines["vivid"].endswith("active, scored in 1 of 2")
    assert "scored in" not in lines["formal"] + lines["concise"]
    shown = json.loads(cli("profile", "show", "--json").out)
    assert {name: weight["n"] for name, weight in shown["weights"].items()} == {"formal": 2, "concise": 2, "vivid": 1}
    explained = json.loads(cli("profile", "explain", "vivid", "--json").out)["attributes"]["vivid"]
    assert (explained["W"], explained["L"], explained["preference"]) == (0.0, 0.5, -0.5)  # of the one that was scored


# -- charts, by hand


def test_bar() -> None:
    # Ten cells a side; the bar of 0.5 fills five, of which the last two are within the standard error, and two follow.
    assert bar(0.5, 0.2, 1.0, 21, ASCII) == "          |###==--   "
    assert bar(0.0, math.nan, 1.0, 21, ASCII) == "          |          "
    assert bar(1.0, math.nan, 1.0, 11, UNICODE) == "     │█████"
    # Less than its standard error: it may be on the other side of 0, and that shows.
    assert bar(0.2, 0.3, 1.0, 21, ASCII) == "         -|==---     "
    assert bar(0.0, math.nan, 0.0, 21, ASCII).strip() == "|"


@pytest.mark.parametrize(("value", "error"), [(0.5, 0.2), (0.33, 0.5), (1.0, math.nan)])
def test_bar_to_the_left_mirrors_the_right(value: float, error: float) -> None:
    assert bar(-value, error, 1.5, 41, ASCII) == bar(value, error, 1.5, 41, ASCII)[::-1]


def test_curve_signed_shorten() -> None:
    assert curve([-1.0, 0.0, 1.0], 8, ASCII, -1.0, 1.0) == "_~#"
    assert curve([0.5] * 3, 8, ASCII, 0.5, 0.5) == "___"
    assert curve([float(i) for i in range(100)], 9, ASCII, 0.0, 99.0) == ASCII.curve
    assert [signed(x) for x in (0.4124, -0.5, -0.0001, 0.0)] == ["+0.412", "-0.500", " 0.000", " 0.000"]
    assert shorten("one\ntwo  three", 9) == "one tw..."


def test_weight_lines_fit_the_width_and_colour_only_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [WeightRow("formal", 0.6, 0.1, "active"), WeightRow("concise", -0.8, math.nan, faint=True)]
    for columns in (40, 60, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = weight_lines(rows, color=False)
        assert max(map(len, lines)) <= columns
        assert "\x1b" not in "".join(lines)
        assert lines[1].startswith("concise  -0.800")
    assert all("\x1b" in line for line in weight_lines(rows, color=True))


# -- looking


def test_show(cli: Cli) -> None:
    profile = begin()
    profile.pin("vivid")
    profile.set("formal", 0.25)
    lines = cli("profile", "show").out.splitlines()
    assert lines[0] == f"{profile.path}: 2 choices (1 tie)"
    assert lines[1] == "closed-form, sum over tokens, beta 0.5, scored by tiny slm"
    table = [line.split() for line in lines[3:]]
    assert [row[:2] for row in table] == [["concise", "-0.800"], ["formal", "+0.250"], ["vivid", "0.000"]]
    assert lines[4].endswith("active, set by hand, learned +0.600")
    assert lines[5].endswith("pinned")
    assert "█" in lines[3]


def test_show_json(cli: Cli) -> None:
    path = begin().path
    data = json.loads(cli("profile", "show", "--json").out)
    assert data["path"] == str(path)
    assert {name: weight["weight"] for name, weight in data["weights"].items()} == pytest.approx(
        {"formal": 0.6, "concise": -0.8, "vivid": 0.0}, abs=1e-12
    )
    assert all(set(weight) == {"weight", "se", "n", "active"} for weight in data["weights"].values())
    assert data["weights"]["concise"]["n"] == 2
    assert (data["pairs"], data["ties"], data["active"]) == (2, 1, 7)


def test_show_of_nothing_yet_says_how_to_begin(cli: Cli) -> None:
    result = cli("profile", "show")
    assert result.code == 0
    assert "all weights are 0: there is no pair yet" in result.out
    assert "drift-edge learn" in cli("profile", "list").out
    assert json.loads(cli("profile", "show", "--json").out)["pairs"] == 0


def test_show_the_strongest_or_all(cli: Cli) -> None:
    pool = Attributes("Base.", [Attribute(f"a{i:02}", f"{i}.") for i in range(30)])
    profile = Profile.open(slm=SLM("x", "f" * 16), attributes=pool)
    profile.add(pair(1), scores(tuple(float(i + 1) for i in range(30)), (0.0,) * 30))
    shown = cli("profile", "show").out.splitlines()[3:]
    assert [line.split()[0] for line in shown[:-1]] == [f"a{i:02}" for i in range(29, 14, -1)]
    assert shown[-1] == "... and 15 weaker ones; --all shows them"
    assert len(cli("profile", "show", "--all").out.splitlines()[3:]) == 30


def test_names_flags_and_settings_say_which(
    cli: Cli, config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin("work")
    config('profile = "work"\n')
    expected = cli("profile", "path", "work").out
    assert expected.endswith("/data/profiles/work.json\n")
    assert cli("profile", "path").out == cli("profile", "path", "--profile", "work").out == expected
    monkeypatch.setenv("DRIFT_EDGE_PROFILE", "home")
    assert json.loads(cli("profile", "path", "--json").out)["exists"] is False
    twice = cli("profile", "show", "work", "--profile", "home")
    assert (twice.code, twice.err) == (2, "Error: two profiles are named: 'work' and 'home'; name one\n")
    unknown = cli("profile", "show", "wrok")
    assert (unknown.code, unknown.out) == (3, "")
    assert "no profile 'wrok'" in unknown.err
    assert "there are work" in unknown.err


def test_explain_by_hand(cli: Cli) -> None:
    begin()
    data = json.loads(cli("profile", "explain", "--json", "--pairs", "1").out)
    formal, concise = data["attributes"]["formal"], data["attributes"]["concise"]
    assert (formal["W"], formal["L"], formal["preference"]) == (1.5, 0.0, 1.5)
    assert (concise["W"], concise["L"], concise["preference"]) == (-0.5, 1.5, -2.0)
    assert [(moved["id"], moved["d"]) for moved in formal["moved_by"]] == [(pair(1).id, 2.0)]
    assert [(moved["id"], moved["d"]) for moved in concise["moved_by"]] == [(pair(2).id, -3.0)]
    assert list(data["attributes"]) == ["concise", "formal", "vivid"]
    text = cli("profile", "explain").out
    assert [line.split() for line in text.splitlines() if line.startswith("formal  ")] == [
        ["formal", "+1.500", "0.000", "+1.500", "+0.600"]
    ]
    assert f"  +2.00  {pair(1).id}  {ASKED} (1)" in text
    only = cli("profile", "explain", "formal").out
    assert "concise" not in only.split("nats:")[1]
    assert cli("profile", "explain", "frmal").err == "Error: unknown attribute 'frmal'; did you mean formal?\n"


def test_choices(cli: Cli) -> None:
    begin()
    data = json.loads(cli("profile", "choices", "--json", "--last", "2").out)
    assert [choice["id"] for choice in data["choices"]] == [pair(2).id, pair(3, tie=True).id]
    assert data["choices"][0]["chosen"] == "Boil water 2."
    assert data["of"] == 3
    text = cli("profile", "choices").out
    assert text.count("rejected") == 2
    assert text.count("equal") == 2


def test_history(cli: Cli) -> None:
    begin()
    data = json.loads(cli("profile", "history", "--json").out)["history"]
    assert [step["n"] for step in data] == [1, 2]
    # After the first choice d = (2, -1, 0), so p = (2, -1) / sqrt 5.
    assert data[0]["weights"] == pytest.approx({"formal": 0.8944, "concise": -0.4472}, abs=1e-4)
    lines = cli("profile", "history").out.splitlines()
    assert [line.split() for line in lines[4:]] == [
        ["concise", "-0.447", "▂▁", "-0.800"],
        ["formal", "+0.894", "█▇", "+0.600"],
    ]


def test_list(cli: Cli) -> None:
    begin("a")
    broken = begin("b").path
    broken.write_text("{")
    rows = {row["name"]: row for row in json.loads(cli("profile", "list", "--json").out)["profiles"]}
    assert rows["a"]["weights"] == pytest.approx({"concise": -0.8, "formal": 0.6})
    assert (rows["a"]["pairs"], rows["a"]["ties"], rows["a"]["error"]) == (2, 1, None)
    assert "not valid JSON" in rows["b"]["error"]
    text = cli("profile", "list").out
    assert "concise=-0.8,formal=0.6" in text
    assert "not valid JSON" in text


def test_control_characters_of_a_choice_never_reach_the_terminal(cli: Cli) -> None:
    profile = Profile.open(slm=SLM("x", "f" * 16), attributes=POOL)
    evil = PreferencePair(({"role": "user", "content": "\x1b]0;evil\x07Hi"},), "a\x1b[2J", "b\x9b2J")
    profile.add(evil, scores((1.0, 0.0, 0.0), (0.0, 0.0, 0.0)))
    text = cli("profile", "choices").out + cli("profile", "explain").out
    assert "Hi" in text
    assert not {"\x1b", "\x07", "\x9b"} & set(text)


def test_no_model_is_loaded() -> None:
    begin()
    code = (
        "import sys\nfrom drift_edge.cli import main\n"
        "for args in ('list', 'show', 'explain', 'choices', 'history', 'set formal=0.5', 'pin vivid', 'path'):\n"
        "    sys.argv = ['drift-edge', 'profile', *args.split()]\n"
        "    try: main()\n"
        "    except SystemExit as leave: print('left with', leave.code)\n"
        "print([m for m in ('llama_cpp', 'gguf', 'jinja2', 'prompt_toolkit', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("left with")] == ["left with 0"] * 8, done.stderr
    assert lines[-1] == "[]"


def test_show_in_ascii_where_the_encoding_is_narrow(process: Process) -> None:
    begin()
    out = process("profile", "show", real=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}).stdout
    assert b"#" in out
    assert b"?" not in out
    assert b"\x1b" not in out
    assert out.decode("ascii").splitlines()[3].startswith("concise  -0.800")


# -- changing


def test_set_weights_and_how_they_are_learned(cli: Cli) -> None:
    begin()
    assert cli("profile", "set", "formal=0.1", "vivid=-0.25").out == "formal +0.600 → +0.100, vivid  0.000 → -0.250\n"
    assert cli("profile", "set", "formal=").out == "formal +0.100 → +0.600\n"
    assert cli("profile", "set", "--beta", "0.3", "--active", "2", "--half-life", "10").code == 0
    settings = Profile.open().settings
    assert (settings.beta, settings.active, settings.half_life, dict(settings.fixed)) == (
        0.3,
        2,
        10.0,
        {"vivid": -0.25},
    )
    assert cli("profile", "set", "--strength", "0.4").out == "strength 0.4\n"
    assert cli("profile", "show").out.splitlines()[1].startswith("closed-form, sum over tokens, strength 0.4")
    assert cli("profile", "set", "--strength", "0.4", "--beta", "0.5").code == 2
    data = json.loads(cli("profile", "set", "--half-life", "0", "--reduction", "mean", "--json").out)
    # Of four tokens chosen and two rejected: sum d = (2/4 + 1/4, -1/2 - 1/4 - 1, 1/4 - 1/2).
    d = np.array([0.75, -1.75, -0.25])
    assert [data["after"][name] for name in ("formal", "concise")] == pytest.approx((d / np.linalg.norm(d))[:2])
    assert Profile.open().settings.half_life is None


def test_pin_block_and_back(cli: Cli) -> None:
    begin()
    assert cli("profile", "set", "--active", "1").code == 0
    assert json.loads(cli("profile", "block", "concise", "--json").out)["active"] == ["formal"]
    assert cli("profile", "block", "vivid").out.startswith("blocked: ")
    assert json.loads(cli("profile", "allow", "concise", "vivid", "--json").out)["active"] == ["concise"]
    assert json.loads(cli("profile", "pin", "formal", "--json").out)["active"] == ["formal"]
    assert cli("profile", "pin", "formal").out == "pinned: formal\n"
    assert cli("profile", "unpin", "formal").out == "pinned: none\n"
    assert list(Profile.open().weights()) == ["concise"]


def test_forget_by_the_beginning_of_an_id(cli: Cli) -> None:
    begin()
    first, second = pair(1).id, pair(2).id
    assert cli("profile", "forget", first[:6]).out.startswith(f"forgot {first}\n")
    # What is left is d = (1, -3, 0).
    assert [Profile.open().table()[name].weight for name in ("formal", "concise")] == pytest.approx(
        [1 / math.sqrt(10), -3 / math.sqrt(10)], abs=1e-12
    )
    for given in (first, "", "zz"):
        result = cli("profile", "forget", given)
        assert (result.code, result.out) == (2, "")
        assert "no choice begins so" in result.err
    assert cli("profile", "forget", second, pair(3, tie=True).id, second[:8]).code == 0
    assert (Profile.open().n, Profile.open().ties) == (0, 0)


def test_undo_and_reset(cli: Cli) -> None:
    begin()
    assert cli("profile", "undo").out == f"forgot {pair(3, tie=True).id}\n"
    assert json.loads(cli("profile", "undo", "--json").out)["ids"] == [pair(2).id]
    cli("profile", "pin", "vivid")
    refused = cli("profile", "reset")
    assert (refused.code, refused.err) == (2, "Error: this cannot be undone: say --yes\n")
    assert Profile.open().n == 1
    assert cli("profile", "reset", "--yes").code == 0
    profile = Profile.open()
    assert (profile.n, profile.settings.pinned) == (0, ("vivid",))
    assert cli("profile", "undo").code == 2


def test_export_import_and_delete(cli: Cli, tmp_path: Path, own_home: Path) -> None:
    begin()
    file = tmp_path / "me.json"
    assert cli("profile", "export", str(file)).code == 0
    assert cli("profile", "export", str(file)).code == 2
    assert cli("profile", "import", str(file), "--profile", "copy").code == 0
    assert Profile.open("copy").table() == Profile.open().table()
    assert [choice.pair for choice in Profile.open("copy").choices()] == [pair(1), pair(2), pair(3, tie=True)]
    assert cli("profile", "import", str(file)).code == 2
    assert cli("profile", "import", str(file), "--replace").code == 0
    assert cli("profile", "export", str(tmp_path / "numbers.json"), "--no-choices").code == 0
    assert ASKED not in (tmp_path / "numbers.json").read_text()
    erased = json.loads(cli("profile", "delete", "copy", "--yes", "--json").out)["erased"]
    assert str(own_home / "data" / "profiles" / "copy.json") in erased
    assert not list((own_home / "data" / "profiles").glob("copy*"))
    assert Profile.open().n == 2
    assert cli("profile", "delete", "copy", "--yes").code == 3


def test_delete_erases_the_cached_scores_of_its_choices_alone(cli: Cli, own_home: Path) -> None:
    begin()
    with RewardCache(own_home / "cache" / "rewards.sqlite3") as cache:
        one = pair(1)
        kept = [text_key(one.messages, response) for response in (one.chosen, one.rejected)]
        for text in (*kept, "other"):
            cache.put("scorer", text, {prompt: CachedScore(-1.0, 3) for prompt in ("s0", "s1")})
        result = cli("profile", "delete", "--yes")
        assert "erased 4 scores in " in result.out
        assert [cache.get("scorer", text, ["s0", "s1"]) for text in kept] == [{}, {}]
        assert len(cache.get("scorer", "other", ["s0", "s1"])) == 2


def test_damaged_profile_is_told_restored_or_deleted(cli: Cli, own_home: Path) -> None:
    path = begin().path
    path.write_bytes(b"{")
    shown = cli("profile", "show")
    assert (shown.code, shown.out) == (3, "")
    assert "drift-edge profile restore" in shown.err
    restored = json.loads(cli("profile", "restore", "--json").out)
    assert (restored["pairs"], restored["damaged"]) == (2, f"{path}.damaged")
    path.write_bytes(b"{")
    assert cli("profile", "delete", "--yes").code == 0
    assert not list((own_home / "data" / "profiles").iterdir())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["set"], "nothing to set"),
        (["set", "formal"], "expected NAME=NUMBER"),
        (["set", "formal=much"], "weight of 'formal': expected a number, got 'much'"),
        (["set", "formal=nan"], "weight of 'formal': expected a number within"),
        (["set", "vivd=1"], "unknown attribute 'vivd'; did you mean vivid?"),
        (["set", "--estimator", "best"], "estimator: expected one of"),
        (["set", "--beta", "0"], "beta: expected a number over 0"),
        (["set", "--half-life", "-1"], "half_life: expected"),
        (["pin", "vivd"], "unknown attribute 'vivd'"),
        (["explain", "vivd"], "unknown attribute 'vivd'"),
        (["plot", "me.gif"], "me.gif: expected a name that ends in .png, .svg, .html"),
        (["show", "a/b\0.json"], "profile "),
    ],
)
def test_bad_use_is_one_line_and_changes_nothing(cli: Cli, args: list[str], message: str) -> None:
    before = begin().path.read_bytes()
    result = cli("profile", *args)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("Error: ")
    assert result.err.count("\n") == 1
    assert message in result.err
    assert Profile.open().path.read_bytes() == before


@pytest.mark.parametrize(("answer", "left"), [("n\n", True), ("\n", True), ("y\n", False)])
def test_delete_asks_on_a_terminal(answer: str, left: bool) -> None:
    pty = pytest.importorskip("pty", reason="pseudo terminals are a POSIX thing")
    path = begin().path
    main, child = pty.openpty()
    run = subprocess.Popen(
        command(["profile", "delete"], real=True), stdin=child, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    os.write(main, answer.encode())
    _, err = run.communicate(timeout=60)
    os.close(main)
    os.close(child)
    assert err.decode().startswith(f"Erase {path}, with 3 choices? [y/N] ")
    assert path.exists() is left
    assert run.returncode == (1 if left else 0)


# -- pictures


def test_plot_without_matplotlib_says_what_to_install(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = cli("profile", "plot", str(tmp_path / "me.png"))
    assert (result.code, result.out) == (1, "")
    assert result.err == "Error: drawing needs matplotlib: python -m pip install 'drift-edge[plot]'\n"
    assert not list(tmp_path.glob("*.png"))


def test_plot_draws(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    begin()
    for kind, head in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".html", b"<!DOCTYPE html>")):
        file = tmp_path / f"me{kind}"
        assert cli("profile", "plot", str(file)).out == f"{file}\n"
        content = file.read_bytes()
        assert content.startswith(head)
        if kind != ".png":
            assert all(name.encode() in content for name in POOL)
            assert cli("profile", "plot", str(file)).code == 0
            assert file.read_bytes() == content  # the same profile gives the same file
    assert cli("profile", "plot", str(tmp_path / "no" / "me.png")).code == 1
