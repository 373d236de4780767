"""Whole conversations, typed line by line: what the model is asked, what the person sees, what each command does."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from drift_edge.cli.render import Screen
from drift_edge.cli.session import read_session
from drift_edge.errors import ContextOverflowError
from tests.cli.talk import INTERRUPT, Talk


def test_turns_build_on_each_other(talk: Talk) -> None:
    out, err = talk("One", "", "  ", "Two")
    assert out == "You said: One [plain, seed 1, attempt 0]\nYou said: Two [plain, seed 1, attempt 0]\n"
    assert err == ""
    assert [m["role"] for m in talk.engine.calls[1]["messages"]] == ["user", "assistant", "user"]


def test_greeting_says_what_to_do(talk: Talk) -> None:
    talk()
    assert "the built-in pair. /help lists the commands, Ctrl-D leaves." in talk.greeting
    assert "no weights, so nothing is steered; try /weights concise=0.8" in talk.greeting


def test_triple_quotes_hold_several_lines(talk: Talk) -> None:
    talk('"""One', "/not a command", 'two"""', '"""', "three", '"""', '"""four"""')
    talk('"""/etc/passwd', 'is what?"""')
    assert talk.asked == ["One\n/not a command\ntwo", "three", "four", "/etc/passwd\nis what?"]


def test_ctrl_c_at_the_prompt_gives_a_hint_and_drops_the_quoted_lines(talk: Talk) -> None:
    _, err = talk(INTERRUPT, '"""One', INTERRUPT, "Two")
    assert err == "(Ctrl-D leaves)\n" * 2
    assert talk.asked == ["Two"]


@pytest.mark.parametrize("word", ["/exit", "/bye", "/quit", " /EXIT "])
def test_leaving(talk: Talk, word: str) -> None:
    talk(word, "One")
    assert talk.asked == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/wieghts a=1", "Error: unknown command /wieghts; did you mean /weights? (a message may begin with //)\n"),
        ("/etc/passwd is what?", "unknown command /etc/passwd"),
        ("/help\nHow do I make tea?", "Error: /help stands alone, but 'How do I make tea?' follows"),
        ("/exit now", "Error: /exit stands alone, but 'now' follows (a message may begin with //)"),
        ("/set beta 0", "Error: beta: expected a number over 0"),
        ("/set top-p none", "Error: top-p: expected a number, got 'none'"),
        ("/set bata 1", "Error: unknown setting 'bata'; did you mean beta?"),
        ("/set ctx-size 64", "Error: ctx-size is fixed once a chat has begun: start again with --ctx-size"),
        ("/set top-k many", "Error: top-k: expected a whole number, 0 or more, got 'many'"),
        ("/weights consise=1", "Error: weights: unknown attribute 'consise'; did you mean concise?"),
        ("/steer all", "Error: steer: expected one of logits, prompt, both, off, got 'all'"),
        ("/stats maybe", "Error: stats: expected on or off, got 'maybe'"),
        ("/regen", "Error: nothing has been asked yet"),
        ("/compare", "Error: nothing has been asked yet"),
        ("/save", "Error: expected /save FILE"),
        ("/load nowhere.json", "Error: nowhere.json: cannot read the session"),
    ],
)
def test_refused_commands_change_nothing_and_reach_no_model(talk: Talk, line: str, says: str) -> None:
    before = talk.settings.to_dict(("beta", "weights", "steer", "top-k", "stats"))
    out, err = talk(line)
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
    assert talk.asked == []
    assert talk.settings.to_dict(("beta", "weights", "steer", "top-k", "stats")) == before


def test_two_slashes_send_one(talk: Talk) -> None:
    talk("//etc/passwd is what?")
    assert talk.asked == ["/etc/passwd is what?"]


def test_settings_change_between_turns(talk: Talk) -> None:
    talk("One", "/weights concise=0.8,vivid=-0.3", "/set beta 0.25", "/set top-p 0.5", "/set stop END", "Two")
    talk("/steer off", "/weights none", "/set seed none", "/set stop none", "/system Be kind.", "Three")
    one, two, three = talk.engine.calls
    assert (one["weights"], one["beta"]) == ({}, 0.5)
    assert two["weights"] == {"concise": 0.8, "vivid": -0.3}
    assert (two["beta"], two["sampler"].top_p, two["stop"]) == (0.25, 0.5, ("END",))
    assert (three["weights"], three["steer"], three["seed"], three["stop"]) == ({}, "off", None, ())
    assert three["messages"][0] == {"role": "system", "content": "Be kind."}


def test_commands_show_what_is_set(talk: Talk) -> None:
    talk.settings.active = 1
    out, err = talk("/weights", "/weights concise=0.3,vivid=-0.8", "/weights", "/steer", "/system", "/set beta")
    assert out == ""
    assert err.splitlines() == [
        "no weights: nothing is steered. /weights concise=0.8,vivid=-0.3 sets two, /attributes lists all",
        "  weights         concise=0.3,vivid=-0.8",
        "  vivid            -0.8",
        "  concise          +0.3  (not active)",
        "  your own; beta 0.5, steer logits",
        "  steer           logits",
        "  system          none",
        "  beta            0.5",
    ]


def test_lists_are_complete(talk: Talk) -> None:
    _, err = talk("/help", "/set", "/attributes")
    for text in ("/compare", '"""', "temperature", "top-k", "You are a humorous AI assistant."):
        assert text in err


def test_regenerate_asks_with_another_attempt(talk: Talk) -> None:
    talk("One", "/regen", "/regen", "Two")
    assert [call["attempt"] for call in talk.engine.calls] == [0, 1, 2, 0]
    assert [m["content"] for m in talk.engine.calls[3]["messages"]] == [
        *("One", "You said: One [plain, seed 1, attempt 2]", "Two"),
    ]


def test_compare_shows_both_and_keeps_the_steered(talk: Talk) -> None:
    out, err = talk("/weights concise=1", "One", "/regen", "/compare", "Two")
    assert out.splitlines() == [
        "You said: One [concise=1, seed 1, attempt 0]",
        "You said: One [concise=1, seed 1, attempt 1]",
        "You said: One [plain, seed 1, attempt 1]",
        "You said: One [concise=1, seed 1, attempt 1]",
        "You said: Two [concise=1, seed 1, attempt 0]",
    ]
    assert err.splitlines()[1:] == ["plain:", "steered (concise=1; beta 0.5):"]
    kept = talk.engine.calls[-1]["messages"]
    assert [m["content"] for m in kept] == ["One", "You said: One [concise=1, seed 1, attempt 1]", "Two"]


def test_compare_takes_one_fresh_seed_for_both(talk: Talk) -> None:
    talk.settings.seed = None
    talk("/weights concise=1", "One", "/compare")
    assert [call["seed"] for call in talk.engine.calls] == [None, 7, 7]


def test_compare_needs_something_that_steers(talk: Talk) -> None:
    _, err = talk("One", "/compare", "/weights concise=1", "/steer off", "/compare")
    assert "/weights concise=0.8 sets a weight" in err
    assert "/steer logits turns steering on" in err
    assert len(talk.engine.calls) == 1


def test_clear_forgets_and_begins_another_file(talk: Talk) -> None:
    talk("One", "/clear", "/regen", "Two")
    assert len(talk.engine.calls[-1]["messages"]) == 1
    files = sorted((talk.folder / "sessions").iterdir())
    assert sorted(read_session(path).turns[0].question for path in files) == ["One", "Two"]


def test_save_and_load(talk: Talk) -> None:
    path = talk.folder / "kept.json"
    lines = ["/weights concise=1", "One", f"/save {path}", "/weights none", "/clear", "Two", f"/load {path}", "Three"]
    _, err = talk(*lines)
    last = talk.engine.calls[-1]
    assert [m["content"] for m in last["messages"]][::2] == ["One", "Three"]
    assert last["weights"] == {"concise": 1.0}
    assert [turn.question for turn in read_session(path).turns] == ["One"]  # later turns go elsewhere
    assert "loaded the conversation of " in err
    assert ", 1 question long" in err
    saved = [read_session(file).turns for file in (talk.folder / "sessions").iterdir()]
    assert sorted([turn.question for turn in turns] for turns in saved) == [["One"], ["One", "Three"], ["Two"]]


def test_save_replaces_no_file_but_a_session(talk: Talk) -> None:
    path = talk.folder / "essay.txt"
    path.write_text("my work of years")
    _, err = talk("One", f"/save {path}", f"/save {talk.folder / 'no' / 'such' / 'folder.json'}")
    assert "is no saved session: take another name" in err
    assert "cannot be written" in err
    assert path.read_text() == "my work of years"


def test_load_of_a_bad_file_changes_nothing(talk: Talk) -> None:
    path = talk.folder / "bad.json"
    path.write_text(json.dumps({"format": 1, "created": "", "settings": {"beta": 2, "top-p": 7}, "turns": []}))
    talk("One", f"/load {path}", "Two")
    assert len(talk.engine.calls[-1]["messages"]) == 3
    assert talk.engine.calls[-1]["beta"] == 0.5


def test_an_error_in_one_turn_does_not_end_the_talk(talk: Talk) -> None:
    def fail(question: str, _call: object) -> str:
        if question == "Long":
            raise ContextOverflowError("it does not fit")
        return "Yes."

    talk.engine.reply = fail
    out, err = talk("One", "Long", "Two")
    assert (out, err) == ("Yes.\nYes.\n", "Error: it does not fit\n")
    assert [m["content"] for m in talk.engine.calls[-1]["messages"]] == ["One", "Yes.", "Two"]


def test_a_stopped_answer_keeps_the_part_shown(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    _stop_after(talk, monkeypatch, words=2)
    out, err = talk("One", "Two")
    assert out == "You said:\nYou said:\n"
    assert err == "(stopped; /regen asks again)\n" * 2
    assert [m["content"] for m in talk.engine.calls[1]["messages"]] == ["One", "You said:", "Two"]


def test_an_answer_stopped_before_its_first_word_can_be_asked_for_again(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stop_after(talk, monkeypatch, words=0)
    talk("One", "/regen", "Two")
    assert [m["content"] for m in talk.engine.calls[1]["messages"]] == ["One"]
    assert talk.engine.calls[1]["attempt"] == 0
    assert [m["content"] for m in talk.engine.calls[2]["messages"]] == ["Two"]


def _stop_after(talk: Talk, monkeypatch: pytest.MonkeyPatch, words: int) -> None:
    """Cancel every answer after that many words, as Ctrl-C would."""
    chat = talk.engine.chat

    def stopped(messages: object, **call: object) -> Iterator[object]:
        events = chat(messages, **call)  # type: ignore[arg-type]
        for _ in range(words):
            yield next(events)
        call["cancel"].cancel()  # type: ignore[attr-defined]
        yield from events

    monkeypatch.setattr(talk.engine, "chat", stopped)


def test_a_full_disk_is_told_once(talk: Talk) -> None:
    (talk.folder / "sessions").write_text("a file where the folder should be")
    _, err = talk("One", "Two", "/clear", "Three")
    assert err.count("note: the conversation is not saved") == 1
    assert len(talk.engine.calls) == 3


def test_the_builtin_pair_is_told_to_be_small_once(talk: Talk) -> None:
    talk.engine.reply = lambda question, _: f"I do not know much about {question}."
    _, err = talk("quasars", "pulsars")
    assert err.count("note: this is the small built-in pair") == 1


def test_model_output_cannot_drive_the_terminal(talk: Talk) -> None:
    talk.engine.reply = lambda *_: "a\x1b]0;evil\x07b\x9bc\td"
    talk.dialogue.screen._clean = True
    out, _ = talk("One")
    assert out == "a]0;evilbc\td\n"


def test_color_only_where_wanted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drift_edge.cli.render.is_terminal", lambda _: True)
    monkeypatch.setenv("TERM", "xterm")
    shown: dict[str, bool] = {}
    for color in ("auto", "always", "never"):
        Screen(color).note("x")
        shown[color] = "\x1b" in capsys.readouterr().err
    assert shown == {"auto": True, "always": True, "never": False}
    monkeypatch.setenv("NO_COLOR", "1")
    assert (Screen("auto").color, Screen("always").color) == (False, True)
