"""Choices made in a conversation: what is learned of them, what stays in it, and what the person is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from drift_edge.cli import judging
from drift_edge.cli.learner import Learner, moves
from drift_edge.errors import ProfileError
from drift_edge.learner import choice_context
from tests.cli.fake import FakeEngine, FakeScorer
from tests.cli.talk import INTERRUPT, Talk

POSIX = pytest.mark.skipif(os.name == "nt", reason="a shell script as the editor")


def named_reply(question: str, call: Mapping[str, Any]) -> str:
    """Names the attributes that steer, which is what the fake scorer rewards; another attempt has another end."""
    weights = {} if call["steer"] == "off" else call["weights"]
    how = " ".join(f"{'not ' * (p < 0)}{name}" for name, p in weights.items())
    return f"{question} {how or 'plain'}" + "!" * call["attempt"]


@pytest.fixture
def lesson(lesson: Talk, monkeypatch: pytest.MonkeyPatch) -> Talk:
    """The person's own answer is A, the one that probes is B, and the first to be probed is formal."""
    lesson.engine.reply = named_reply
    monkeypatch.setattr(judging, "noise_seed", lambda *_: 1)
    return lesson


def choices(talk: Talk) -> list[tuple[str, str]]:
    """Chosen and rejected answers on the disk."""
    return [(c.pair.chosen, c.pair.rejected) for c in talk.profile.choices()]


def kept(talk: Talk) -> list[str | None]:
    """The answers that the conversation keeps."""
    return [turn.answer for turn in talk.dialogue.turns]


# -- /ab


def test_ab_shows_two_keeps_the_chosen_and_steers_the_next_answer(lesson: Talk) -> None:
    out, err = lesson("/ab", "One", "b", "Two")
    assert out.splitlines() == ["One plain", "One formal", "Two formal"]
    assert err.splitlines() == ["the next answer comes as two", "A:", "B:", "learned: formal 0.00 -> 1.00"]
    assert choices(lesson) == [("One formal", "One plain")]
    assert [m["content"] for m in lesson.engine.calls[-1]["messages"]] == ["One", "One formal", "Two"]
    assert lesson.engine.calls[-1]["weights"] == {"formal": pytest.approx(1.0)}


def test_the_answer_by_the_profile_can_win_too(lesson: Talk) -> None:
    _, err = lesson("/ab", "One", "A", "Two")
    assert choices(lesson) == [("One plain", "One formal")]
    assert kept(lesson) == ["One plain", "Two not formal"]
    assert err.splitlines()[-1] == "learned: formal 0.00 -> -1.00"


def test_both_are_drawn_with_the_same_noise_and_in_either_order(lesson: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "noise_seed", lambda *_: 2)
    lesson.settings.seed = None
    out, _ = lesson("/ab", "One", "n")
    a, b = lesson.engine.calls
    assert out.splitlines() == ["One formal", "One plain"]
    assert a["seed"] == b["seed"] is not None
    assert a["attempt"] == b["attempt"] == 0


def test_equally_good_is_a_tie_and_neither_is_nothing(lesson: Talk) -> None:
    _, err = lesson("/ab", "One", "n", "/ab", "Two", "=")
    assert "(nothing is learned)" in err
    assert "noted that both are equally good; that moves no weight" in err
    (choice,) = lesson.profile.choices()
    assert choice.pair.tie
    assert (lesson.profile.n, lesson.profile.ties, lesson.profile.weights()) == (0, 1, {})
    assert kept(lesson) == ["One plain", "Two plain"]


def test_another_key_is_asked_for_again(lesson: Talk) -> None:
    _, err = lesson("/ab", "One", "", "c", " B ")
    assert err.count("expected one of a, b, =, n, got ") == 2
    assert choices(lesson) == [("One formal", "One plain")]


@pytest.mark.parametrize("instead", [INTERRUPT, None])
def test_ctrl_c_or_d_instead_of_a_choice_is_neither(lesson: Talk, instead: str | None) -> None:
    lesson("/ab", "One", *([instead] if instead else []))
    assert choices(lesson) == []
    assert kept(lesson) == ["One plain"]


def test_ab_always_until_off(lesson: Talk) -> None:
    lesson("/ab always", "One", "b", "Two", "n", "/ab off", "Three")
    assert len(lesson.engine.calls) == 5
    _, err = lesson("/ab sometimes")
    assert err == "Error: expected /ab, /ab always or /ab off, got /ab sometimes\n"


def test_probes_go_on_to_what_was_not_asked(lesson: Talk) -> None:
    lesson("/ab always", "One", "=", "Two", "=", "Three", "n", "Four", "n")
    probing = [name for call in lesson.engine.calls for name in call["weights"]]
    assert len(set(probing)) == 4
    assert not {"conspiracy", "sycophant"} & set(probing)


def test_equal_answers_are_drawn_again_and_then_let_be(lesson: Talk) -> None:
    lesson.engine.reply = lambda question, call: f"{question} {'same' if call['attempt'] < 2 else call['weights']}"
    out, err = lesson("/ab", "One", "b")
    assert out.splitlines() == ["One same", "One same", "One same", "One {'formal': 1.0}"]
    assert err.count("(the same again; once more:)") == 2
    assert choices(lesson) == [("One {'formal': 1.0}", "One same")]
    lesson.engine.reply = lambda question, _call: question
    _, err = lesson("/ab", "Two", "Three")
    assert "(both came out the same, so there is nothing to choose between)" in err
    assert kept(lesson)[1:] == ["Two", "Three"]


def test_a_stopped_answer_is_nothing_to_choose_from(lesson: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    _stop(lesson, monkeypatch, at=1)
    _, err = lesson("/ab", "One", "Two")
    assert "(stopped, so there is nothing to choose between)" in err
    assert choices(lesson) == []
    assert kept(lesson) == ["One plain", "Two plain"]


def _stop(talk: Talk, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Cancel the engine's answer number `at` after its first word, as Ctrl-C would."""
    chat = talk.engine.chat

    def stopped(messages: object, **call: Any) -> Iterator[object]:
        number = len(talk.engine.calls)
        events = chat(messages, **call)  # type: ignore[arg-type]
        if number == at:
            yield next(events)
            call["cancel"].cancel()
        yield from events

    monkeypatch.setattr(talk.engine, "chat", stopped)


# -- /regen, /keep


def test_going_on_with_another_answer_says_that_it_is_better(lesson: Talk) -> None:
    _, err = lesson("One", "/regen", "Two")
    assert choices(lesson) == [("One plain!", "One plain")]
    assert "(going on keeps this one, and says it is better; /bad takes the one before)" in err
    assert "you went on with the second answer (/undo takes that back)" in err
    assert kept(lesson) == ["One plain!", "Two plain"]


def test_keep_says_so_at_once_and_only_once(lesson: Talk) -> None:
    _, err = lesson("One", "/keep", "/regen", "/keep", "/keep", "Two")
    assert choices(lesson) == [("One plain!", "One plain")]
    assert err.count("Error: there is no other answer that this one took the place of: /regen shows one") == 2


@pytest.mark.parametrize("end", ["/clear", "/exit"])
def test_leaving_another_answer_behind_says_nothing(lesson: Talk, end: str) -> None:
    lesson("One", "/regen", end, "Two")
    assert choices(lesson) == []


def test_bad_goes_back_to_the_answer_before(lesson: Talk) -> None:
    lesson("One", "/regen", "/bad", "Two")
    assert choices(lesson) == [("One plain", "One plain!")]
    assert kept(lesson) == ["One plain", "Two plain"]


def test_nothing_is_learned_from_a_stopped_answer(lesson: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    _stop(lesson, monkeypatch, at=1)
    _, err = lesson("One", "/regen", "/good", "Two")
    assert choices(lesson) == []
    assert "Error: an answer that was stopped teaches nothing: /regen asks again" in err


# -- /good, /bad


def test_good_shows_another_to_be_better_than(lesson: Talk) -> None:
    out, err = lesson("One", "/good", "Two")
    assert out.splitlines()[1] == "One formal!"
    assert choices(lesson) == [("One plain", "One formal!")]
    assert kept(lesson)[0] == "One plain"
    assert err.splitlines() == ["another, to compare:", "learned: formal 0.00 -> -1.00"]


def test_bad_takes_another_and_the_next_bad_yet_another(lesson: Talk) -> None:
    lesson("One", "/bad", "/bad")
    (first, second) = choices(lesson)
    assert first == ("One formal!", "One plain")
    assert second[1] == "One formal!"
    assert second[0] not in ("One plain", "One formal!")
    assert kept(lesson) == [second[0]]


def test_good_and_bad_are_of_what_was_compared(lesson: Talk) -> None:
    lesson("/weights vivid=1", "One", "/compare", "/good")
    assert choices(lesson) == [("One vivid", "One plain")]
    assert len(lesson.engine.calls) == 3


def test_nothing_to_judge_yet(lesson: Talk) -> None:
    for command in ("/good", "/bad", "/keep", "/edit", "/why", "/regen"):
        _, err = lesson(command)
        assert err.startswith("Error: "), command
    assert lesson.engine.calls == []


# -- /edit


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a shell script the editor; `$2` is the file."""

    def make(script: str) -> None:
        path = tmp_path / "my editor"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        monkeypatch.setenv("VISUAL", f"'{path}' --wait")

    return make


@POSIX
def test_an_edited_answer_is_better_and_takes_its_place(lesson: Talk, editor: Callable[[str], None]) -> None:
    editor('sed -i "s/plain/simple/" "$2"')
    _, err = lesson("One", "/edit", "Two")
    assert choices(lesson) == [("One simple", "One plain")]
    assert kept(lesson) == ["One simple", "Two plain"]
    assert "learned: " in err
    assert lesson.engine.calls[1]["messages"][1]["content"] == "One simple"


@POSIX
@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("true", "(the answer was left as it was: nothing is learned)"),
        ('echo >>"$2"', "(the answer was left as it was: nothing is learned)"),
        (':>"$2"', "(the answer was emptied: nothing is learned)"),
        ("exit 3", "my editor' ended with 3: nothing is changed"),
        ('rm "$2"', "saved cannot be read"),
        ('printf "\\377" >"$2"', "saved cannot be read"),
    ],
)
def test_an_editor_that_changes_nothing_teaches_nothing(
    lesson: Talk, editor: Callable[[str], None], script: str, says: str
) -> None:
    editor(script)
    _, err = lesson("One", "/edit")
    assert says in err
    assert err.count("\n") == 1
    assert choices(lesson) == []
    assert kept(lesson) == ["One plain"]


@pytest.mark.parametrize(("value", "says"), [("no-such-editor", "cannot be started"), ("'", "cannot be understood")])
def test_no_usable_editor(lesson: Talk, monkeypatch: pytest.MonkeyPatch, value: str, says: str) -> None:
    monkeypatch.setenv("VISUAL", value)
    assert says in lesson("One", "/edit")[1]


@POSIX
def test_without_a_profile_the_edit_stays_and_nothing_is_learned(talk: Talk, editor: Callable[[str], None]) -> None:
    editor('echo Mine >"$2"')
    _, err = talk("One", "/edit")
    assert talk.dialogue.turns[0].answer == "Mine"
    assert "without a profile nothing is learned" in err


# -- /undo, /profile, /why


def test_undo_forgets_the_last_choice_and_says_which(lesson: Talk) -> None:
    _, err = lesson("/ab always", "One", "b", "Two", "=", "/undo", "/undo", "/undo")
    assert "forgot the choice that 'Two formal' and 'Two " in err
    assert "forgot the choice 'One formal' over 'One plain': formal 1.00 -> 0.00" in err
    assert "Error: " in err.splitlines()[-1]
    assert (choices(lesson), lesson.profile.weights(), lesson.profile.ties) == ([], {}, 0)


def test_profile_shows_the_weights(lesson: Talk) -> None:
    _, err = lesson("/profile", "/ab", "One", "b", "/profile")
    assert "nothing is learned yet" in err
    assert "me.json: 1 choice\n" in err
    assert "formal" in err.splitlines()[-3]
    assert "active" in err


def test_without_a_profile_there_is_nothing_to_teach(talk: Talk) -> None:
    talk("One")
    for command in ("/ab", "/good", "/bad", "/keep", "/undo", "/profile"):
        assert talk(command)[1] == "Error: there is no profile to teach: start again without --no-profile\n"
    assert len(talk.engine.calls) == 1


def test_why_tells_who_pushed_which_words(lesson: Talk) -> None:
    _, err = lesson("/weights vivid=0.5", "One", "/why")
    assert err.splitlines()[1:] == [
        "where steering mattered most, in nats (gain: log-probability, steered less plain):",
        "  'vivid '   +0.50  vivid +0.5",
        "in the whole answer: vivid +0.5",
    ]
    lesson.dialogue.screen.color = True
    _, err = lesson("/why")
    assert err.endswith("\x1b[33mvivid \x1b[0m\nOne \x1b[33mvivid \x1b[0m\n")


def test_why_has_nothing_to_say_of_a_plain_or_foreign_answer(lesson: Talk) -> None:
    assert lesson("One", "/why")[1] == "Error: nothing steered the last answer, so there is nothing to explain\n"
    lesson("/good")
    lesson.dialogue.last = None
    assert "there is no answer to explain" in lesson("/why")[1]


# -- what the profile is told, and when


def test_own_weights_win_and_the_profile_goes_on_learning(lesson: Talk) -> None:
    lesson("/weights vivid=1", "/ab", "One", "b", "/weights none", "Two")
    assert [set(call["weights"]) for call in lesson.engine.calls] == [{"vivid"}, {"formal"}, {"formal", "vivid"}]


def test_greeting_tells_of_the_profile(lesson: Talk) -> None:
    lesson()
    assert "nothing is learned of you yet, so nothing is steered; /ab lets you choose" in lesson.greeting
    lesson("/ab", "One", "b")
    lesson()
    assert "profile me, 1 choice: formal=1; beta 0.5; steer logits" in lesson.greeting
    lesson.settings.weights = {"vivid": 1.0}
    lesson()
    assert "your own weights, in place of the profile's (/weights none takes those): vivid=1; beta" in lesson.greeting


def test_the_profiles_beta_and_number_of_attributes(lesson: Talk) -> None:
    lesson("/ab", "One", "b")
    learner = lesson.dialogue.learner
    assert learner
    learner.profile.set("vivid", 0.5)
    learner.profile.configure(beta=0.25, active=1)
    lesson("Three", "/set beta 0.4", "/set active 5", "Four")
    three, four = lesson.engine.calls[-2:]
    assert (three["beta"], len(three["weights"])) == (0.25, 1)
    assert (four["beta"], len(four["weights"])) == (0.4, 2)


def test_the_profiles_strength(lesson: Talk) -> None:
    lesson("/ab", "One", "b")
    learner = lesson.dialogue.learner
    assert learner
    learner.profile.configure(strength=0.25)
    _, err = lesson("/set strength", "Two", "/set beta 0.4", "Three")
    assert "strength        0.25" in err
    assert [(call["beta"], call["strength"]) for call in lesson.engine.calls[-2:]] == [(None, 0.25), (0.4, None)]


def test_a_choice_is_on_the_disk_before_it_is_scored(lesson: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def die(_scorer: FakeScorer, *_args: object, **_more: object) -> None:
        seen.append(lesson.profile.pending)
        raise KeyboardInterrupt  # as if the terminal were gone

    with monkeypatch.context() as patch:
        patch.setattr(FakeScorer, "score", die)
        lesson("/ab", "One", "b")
    assert seen == [1]
    assert (lesson.profile.n, lesson.profile.pending) == (0, 1)
    _, err = lesson("Two")  # the next chat catches up
    assert err == "learned: formal 0.00 -> 1.00\n"
    assert (lesson.profile.n, lesson.profile.pending) == (1, 0)
    assert kept(lesson)[-1] == "Two formal"


def test_ctrl_c_leaves_scoring_for_later(lesson: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    real = FakeScorer.score

    def interrupted(scorer: FakeScorer, pair: Any, *, cancel: Any = None) -> Any:
        cancel.set()
        return real(scorer, pair, cancel=cancel)

    with monkeypatch.context() as patch:
        patch.setattr(FakeScorer, "score", interrupted)
        _, err = lesson("/ab", "One", "b")
    assert err.splitlines()[-1] == "(kept, to be learned from later: 1 choice)"
    assert lesson.profile.pending == 1
    _, err = lesson("/ab", "Two", "n", "/ab", "Three", "b")
    assert lesson.profile.pending == 0
    assert lesson.profile.n == 2


def test_a_choice_that_cannot_be_scored_is_kept_and_told_once(lesson: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    from drift_edge.errors import ContextOverflowError

    def too_long(*_args: object, **_more: object) -> None:
        raise ContextOverflowError("it has 9,000 tokens")

    monkeypatch.setattr(FakeScorer, "score", too_long)
    _, err = lesson("/ab", "One", "b", "Two", "/profile")
    assert err.count("it has 9,000 tokens") == 1
    assert lesson.profile.pending == 1
    lesson("Three")


def test_a_profile_that_cannot_be_written_costs_no_answer(lesson: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise ProfileError("no space left")

    learner = lesson.dialogue.learner
    assert learner
    monkeypatch.setattr(learner.profile, "add", full)
    _, err = lesson("One", "/regen", "Two", "/ab", "Three", "b")
    assert err.count("Error: no space left\n") == 2
    assert kept(lesson) == ["One plain!", "Two plain", "Three formal"]


def test_the_same_choice_counts_once(lesson: Talk) -> None:
    lesson("/ab", "One", "b", "/clear", "/weights none")
    learner = lesson.dialogue.learner
    assert learner
    (choice,) = lesson.profile.choices()
    learner.learn(choice.pair)
    assert "counts no more than once" in lesson.capsys.readouterr().err
    assert lesson.profile.n == 1


def test_without_a_journal_the_numbers_are_learned_all_the_same(lesson: Talk) -> None:
    from drift_edge.profile import Profile

    profile = Profile.open(lesson.folder / "numbers.json", slm=FakeEngine.slm, journal=False)
    lesson.dialogue.learner = Learner(profile, lesson.engine, lesson.dialogue.screen, small=True)  # type: ignore[arg-type]
    _, err = lesson("/ab", "One", "b", "/undo")
    assert profile.n == 1
    assert list(profile.choices()) == []
    assert "journal" in err.splitlines()[-1]


def test_scorers_are_closed_before_the_engine(lesson: Talk) -> None:
    lesson("/ab", "One", "b")
    learner = lesson.dialogue.learner
    assert learner
    learner.close()
    assert [scorer.closed for scorer in lesson.engine.scorers] == [True]


def test_a_choice_remembers_the_last_short_turns() -> None:
    def say(role: str, text: str) -> dict[str, str]:
        return {"role": role, "content": text}

    system, short, long = say("system", "s"), say("assistant", "a"), say("assistant", "x" * 3_000)
    asks = [say("user", str(i)) for i in range(4)]
    talk = [system, asks[0], short, asks[1], long, asks[2], short, asks[3]]
    assert choice_context(talk) == (system, asks[2], short, asks[3])
    assert choice_context([asks[0]]) == (asks[0],)
    assert choice_context([asks[0], long, asks[1]]) == (asks[1],)
    assert choice_context([asks[0], short, asks[1]]) == (asks[0], short, asks[1])


def test_moves_names_the_three_largest() -> None:
    before = {"formal": 0.41, "concise": 0.1, "vivid": 0.0, "humor": 0.5, "easy": -0.1}
    after = {"formal": 0.47, "concise": -0.2, "vivid": 0.004, "humor": 0.52, "easy": -0.14}
    assert moves(before, after) == "concise 0.10 -> -0.20, formal 0.41 -> 0.47, easy -0.10 -> -0.14"
    assert moves(before, before) == "no weight moved by 0.01"
