"""Preference pairs, and files of them: every form, people in them, and whatever is wrong with a file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from drift_edge import preferences
from drift_edge.errors import DriftError, PreferencesError, UsageError
from drift_edge.preferences import FORMATS, PairFile, PreferencePair, read_pairs
from drift_edge.preferences import rows as rows_module

USER = {"role": "user", "content": "Is tea nice?"}
PAIR = PreferencePair((USER,), "Yes.", "No.")

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes rows as JSON lines, or bytes as they are, and returns the path."""

    def write(content: list[object] | bytes, name: str = "pairs.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else lines(content))
        return path

    return write


def lines(rows: list[object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def told(file: PairFile) -> list[tuple[str, str, bool]]:
    return [(pair.chosen, pair.rejected, pair.tie) for pair in file.pairs]


# One pair


def test_a_pair_is_known_by_what_was_chosen() -> None:
    assert PAIR.id == "bde1c247f759f200"
    same = [replace(PAIR, source="elsewhere"), replace(PAIR, time="2025-02-20"), replace(PAIR, messages=(dict(USER),))]
    assert {pair.id for pair in same} == {PAIR.id}
    others = [
        replace(PAIR, chosen="Yes!"),
        replace(PAIR, rejected="No!"),
        replace(PAIR, tie=True),
        replace(PAIR, chosen="No.", rejected="Yes."),
        replace(PAIR, messages=(turn("system", "Be kind."), USER)),
        replace(PAIR, messages=(turn("user", "Is tea"), turn("assistant", "nice?"), USER)),
    ]
    assert len({pair.id for pair in (PAIR, *others)}) == 7


def test_a_pair_comes_back_from_json() -> None:
    pair = PreferencePair(
        (turn("system", "S"), turn("user", "ü\n\U0001f375"), turn("assistant", ""), USER),
        " a\x00b ",
        "c" * 100_000,
        "a chat",
        "2025-02-20T12:00:00Z",
        tie=True,
    )
    data = json.loads(json.dumps(pair.to_dict()))
    assert PreferencePair.from_dict(data) == pair
    assert PreferencePair.from_dict(data | {"later": 1}).id == pair.id
    bare = {"messages": [USER], "chosen": "Yes.", "rejected": "No."}
    assert PreferencePair.from_dict(bare) == PAIR


def test_a_pair_keeps_nothing_of_what_it_was_made_of() -> None:
    message = dict(USER)
    pair = PreferencePair((message,), "Yes.", "No.")
    message["content"] = "changed"
    assert pair == PAIR


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"messages": []}, "at $.p.messages: expected the last to be the user's, but there are none"),
        ({"messages": None}, "at $.p.messages: expected an array of messages, got null"),
        ({"messages": [5]}, "at $.p.messages[0]: expected an object with role and content, got a number"),
        ({"messages": [turn("tool", "x")]}, "at $.p.messages[0].role: expected one of system, user, assistant"),
        (
            {"messages": [{"role": ["user"]}]},
            "at $.p.messages[0].role: expected one of system, user, assistant, got an",
        ),
        ({"messages": [{"role": "user"}]}, "at $.p.messages[0].content: expected text, got nothing"),
        ({"messages": [USER, turn("system", "x")]}, "at $.p.messages[1].role: a system message can only be the first"),
        ({"messages": [USER, turn("assistant", "x")]}, "the last to be the user's, but the last is the assistant's"),
        ({"messages": [turn("user", " \n")]}, "at $.p.messages: the prompt is empty"),
        ({"chosen": 5}, "at $.p.chosen: expected text, got a number"),
        ({"chosen": True}, "at $.p.chosen: expected text, got true"),
        ({"rejected": ["x"]}, "at $.p.rejected: expected text, got an array"),
        ({"rejected": {}}, "at $.p.rejected: expected text, got an object"),
        ({"chosen": ""}, "at $.p.chosen: empty"),
        ({"rejected": " \t"}, "at $.p.rejected: empty"),
        ({"rejected": "Yes. "}, "at $.p.rejected: the same text as chosen; nothing can be learned from it"),
        ({"chosen": "ab\ud800"}, "at $.p.chosen: character 3 is not Unicode"),
        ({"source": None}, "at $.p.source: expected text, got null"),
        ({"time": 17}, "at $.p.time: expected text, got a number"),
        ({"time": "yesterday"}, "at $.p.time: expected ISO 8601, as in 2025-02-20T12:00:00Z, got 'yesterday'"),
        ({"tie": 1}, "at $.p.tie: expected true or false, got a number"),
    ],
)
def test_a_pair_that_is_wrong(change: dict[str, object], expected: str) -> None:
    with pytest.raises(PreferencesError) as caught:
        PreferencePair.from_dict(PAIR.to_dict() | change, "$.p")
    assert expected in str(caught.value)


def test_a_pair_made_wrongly_in_code_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"^rejected: the same text as chosen"):
        PreferencePair((USER,), "Yes.", "Yes.")
    data: object
    for data in (None, [], "x"):
        with pytest.raises(PreferencesError, match="at \\$: expected an object"):
            PreferencePair.from_dict(data)


# Hugging Face's forms

ANSWERS = {"chosen": "Yes.", "rejected": "No."}
AS_MESSAGES = {"chosen": [turn("assistant", "Yes.")], "rejected": [turn("assistant", "No.")]}
WHOLE = {side: [USER, *messages] for side, messages in AS_MESSAGES.items()}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Is tea nice?", **ANSWERS},
        {"prompt": [USER], **ANSWERS},
        {"prompt": [USER], **AS_MESSAGES},
        {"prompt": "Is tea nice?", **AS_MESSAGES},
        WHOLE,
        {"prompt": "Is tea nice?", **WHOLE},
        {"prompt": [USER], **WHOLE},
        {"prompt": None, **WHOLE},
        {"messages": [USER], **ANSWERS},
        {"prompt": "\n\nHuman: Is tea nice?\n\nAssistant:", **ANSWERS},
        {"prompt": "\n\nHuman: Is tea nice?", **ANSWERS},
        {side: f"\n\nHuman: Is tea nice?\n\nAssistant: {answer}\n" for side, answer in ANSWERS.items()},
        {side: f"Is tea nice? {answer}" for side, answer in ANSWERS.items()},
        PAIR.to_dict(),
    ],
)
def test_every_form_of_the_same_choice(row: dict[str, object], save: Save) -> None:
    file = read_pairs(save([row]))
    assert [pair.id for pair in file.pairs] == [PAIR.id]
    assert file.pairs[0].source == "pairs.jsonl, line 1"
    assert (file.skipped, file.users) == ((), ())


def test_what_a_row_may_say_besides(save: Save) -> None:
    row = {"prompt": "Is tea nice?", **ANSWERS, "system": "Be kind.", "source": "s", "time": "2025-02-20", "tie": True}
    expected = PreferencePair((turn("system", "Be kind."), USER), "Yes.", "No.", "s", "2025-02-20", tie=True)
    assert read_pairs(save([row])).pairs == (expected,)
    # A time in some other form is left out: it is no part of the choice.
    row |= {"time": 1_740_000_000, "source": 7, "system": " "}
    assert read_pairs(save([row])).pairs == (
        replace(expected, messages=(USER,), source="pairs.jsonl, line 1", time=""),
    )


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt", "answers"),
    [
        ("The sky is blue.", "The sky is black.", "The sky is", ("blue.", "black.")),
        ("Say hi", "Say hi there", "Say", ("hi", "hi there")),
        ("Q: why?\nA: so", "Q: why?\nA: no", "Q: why?\nA:", ("so", "no")),
    ],
)
def test_an_implied_prompt_is_whole_words(
    chosen: str, rejected: str, prompt: str, answers: tuple[str, str], save: Save
) -> None:
    (pair,) = read_pairs(save([{"chosen": chosen, "rejected": rejected}])).pairs
    assert (pair.messages, (pair.chosen, pair.rejected)) == ((turn("user", prompt),), answers)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "p", "chosen": "a"}, "at $.rejected: expected text, got nothing"),
        ({"prompt": "p", "chosen": None, "rejected": "b"}, "at $.chosen: expected text, got null"),
        ({"prompt": 5, **ANSWERS}, "at $.prompt: expected text, got a number"),
        ({"prompt": " ", **ANSWERS}, "at $.messages: the prompt is empty"),
        ({"prompt": [turn("user", "p"), {"role": "assistant"}], **ANSWERS}, "at $.prompt[1].content: expected text"),
        (
            {"prompt": [turn("assistant", "p")], **ANSWERS},
            "expected the last to be the user's, but the last is the ass",
        ),
        (
            {"messages": "p", "prompt": None, **ANSWERS},
            "at $.prompt: missing, and chosen and rejected do not begin with",
        ),
        (ANSWERS, "at $.prompt: missing"),
        (
            {"prompt": "p", "chosen": [], "rejected": "b"},
            "at $.chosen: expected its last message to be the assistant's",
        ),
        (
            {"prompt": "p", "chosen": "a", "rejected": [USER]},
            "at $.rejected: expected its last message to be the assis",
        ),
        (
            {"prompt": "p", "chosen": [{"role": "assistant", "content": 1}], "rejected": "b"},
            "at $.chosen[0].content: exp",
        ),
        (
            {**WHOLE, "prompt": [turn("user", "other")]},
            "at $.prompt: other messages than those that chosen begins with",
        ),
        (
            {**WHOLE, "rejected": [turn("user", "other"), turn("assistant", "No.")]},
            "at $.rejected: differs from chosen before the last answer",
        ),
        ({"prompt": "p", **ANSWERS, "tie": "no"}, "at $.tie: expected true or false, got 'no'"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "at $.rejected: the same text as chosen"),
        ({"prompt": "p", "chosen": "a\ud800", "rejected": "b"}, "at $.chosen: character 2 is not Unicode"),
        (
            {"prompt": [turn("system", "a"), USER], **ANSWERS, "system": "b"},
            "at $.messages[1].role: a system message can only be the first",
        ),
        ([1], "expected a JSON object, got an array"),
    ],
)
def test_a_row_that_gives_no_pair_is_listed_and_the_others_are_used(row: object, why: str, save: Save) -> None:
    path = save([{"prompt": "Is tea nice?", **ANSWERS}, row, {"prompt": "p", "chosen": "x", "rejected": "y"}])
    file = read_pairs(path)
    assert [pair.chosen for pair in file.pairs] == ["Yes.", "x"]
    assert [skipped.where for skipped in file.skipped] == ["line 2"]
    assert file.skipped[0].why.startswith(why) or why in file.skipped[0].why
    with pytest.raises(PreferencesError) as caught:
        read_pairs(path, strict=True)
    assert str(caught.value) == f"{path}: line 2: {file.skipped[0].why}"


def test_long_answers_and_deep_or_odd_values_elsewhere(save: Save) -> None:
    rows = [
        b'{"prompt": "p", "chosen": "%s", "rejected": "b"}' % (b"x" * 100_000),
        b'{"prompt": "q", "chosen": "a", "rejected": "b", "score": NaN, "more": [[[1e999]]]}',
        b'{"prompt": "p", "chosen": NaN, "rejected": "b"}',
        b'{"prompt": "p", "chosen": ' + b"[" * 100_000 + b"]" * 100_000 + b', "rejected": "b"}',
        b'{"prompt": "p", "chosen": "a", "rejected": "b", "n": ' + b"9" * 5_000 + b"}",
        b'{"prompt": "p", "chosen": "a", "rejected": "b"',
        b"",
        b'{"prompt": "r", "chosen": "a", "rejected": "b"}',
    ]
    file = read_pairs(save(b"\n".join(rows)))
    assert [(len(pair.chosen), pair.messages[0]["content"]) for pair in file.pairs] == [
        (100_000, "p"),
        (1, "q"),
        (1, "r"),
    ]
    assert [skipped.where for skipped in file.skipped] == ["line 3", "line 4", "line 5", "line 6"]
    assert file.skipped[0].why == "at $.chosen: expected text, got a number"
    assert file.skipped[1].why.startswith("not valid JSON: maximum recursion depth")
    assert file.skipped[3].why.startswith("not valid JSON: Expecting ',' delimiter at column")


def test_the_same_choice_counts_once(save: Save) -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    swapped = {"prompt": "p", "chosen": "b", "rejected": "a"}
    file = read_pairs(save([row, swapped, row]))
    assert told(file) == [("a", "b", False), ("b", "a", False)]
    assert [(s.where, s.why) for s in file.skipped] == [("line 3", "the same choice as line 1")]


def test_more_rows_than_are_looked_at_to_find_the_form(save: Save) -> None:
    rows: list[object] = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(350)]
    file = read_pairs(save(rows))
    assert [pair.messages[0]["content"] for pair in file.pairs] == [f"p{i}" for i in range(350)]
    assert read_pairs(save(rows), limit=7).pairs == file.pairs[:7]


# hh-rlhf


def test_transcripts(save: Save) -> None:
    start = "\n\nHuman: Hello: you\n\nAssistant: Hi.\n\nAssistant: Go on?\n\nHuman: Human: tell me\n\nAssistant:"
    rows: list[object] = [
        {"chosen": f"{start} A joke.\n\nAnd more.", "rejected": f"{start} No."},
        {"chosen": f"{start} \n", "rejected": f"{start} No."},
        {"chosen": f"{start} A.", "rejected": "\n\nHuman: Hello\n\nAssistant: No."},
        {"chosen": f"{start} A.", "rejected": "No."},
        {"chosen": f"{start} A.\n\nHuman: and?", "rejected": f"{start} No."},
    ]
    path = save(gzip.compress(lines(rows)), "hh.jsonl.gz")
    file = read_pairs(path)
    assert file.format == "hh"
    assert file.pairs == (
        PreferencePair(
            (turn("user", "Hello: you"), turn("assistant", "Hi.\n\nGo on?"), turn("user", "Human: tell me")),
            "A joke.\n\nAnd more.",
            "No.",
            "hh.jsonl.gz, line 1",
        ),
    )
    assert [(s.where, s.why.partition(";")[0][:60]) for s in file.skipped] == [
        ("line 2", "at $.chosen: empty"),
        ("line 3", "at $.rejected: differs from chosen before the last answer, s"),
        ("line 4", "at $.rejected: expected a transcript that begins with '\\n\\nH"),
        ("line 5", "at $.chosen: expected its last message to be the assistant's"),
    ]


# CSV


@pytest.mark.parametrize(("delimiter", "name"), [(",", "a.csv"), (";", "a.CSV"), ("\t", "a.tsv")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv(delimiter: str, name: str, encoding: str, save: Save) -> None:
    text = io.StringIO()
    table = csv.writer(text, delimiter=delimiter)
    table.writerow([" Prompt", "chosen", "rejected", "user", "tie"])
    table.writerow(["Is tea nice?", "Yes,\r\n;\tvery — ü.", 'No "way".', "ann", ""])
    table.writerow(["p", "a", "b", "ann", "TRUE"])
    table.writerow(["p", "a"])
    table.writerow([])
    table.writerow(["p", "", "b", "ann", "no"])
    table.writerow(["p", "a", "c", "ann", "maybe"])
    table.writerow(["p", "a", "d", "ann", "0"])
    file = read_pairs(save(text.getvalue().encode(encoding), name))
    assert (file.format, file.users) == ("csv", ("ann",))
    assert told(file) == [("Yes,\n;\tvery — ü.", 'No "way".', False), ("a", "b", True), ("a", "d", False)]
    assert [pair.source for pair in file.pairs] == [f"{name}, line {n}" for n in (2, 4, 9)]
    assert [(s.where, s.why[:42]) for s in file.skipped] == [
        ("line 5", "expected 5 cells, as the first line has, g"),
        ("line 7", "at $.chosen: empty; that any answer is bet"),
        ("line 8", "at $.tie: expected true or false, got 'may"),
    ]


# PandaLM and Perspective

JUDGED = {
    "idx": 0,
    "cmp_key": "a_b",
    "instruction": "Sum up.",
    "input": "Tea is hot.",
    "response1": "Hot.",
    "response2": "Tea.",
}


def test_pandalm(save: Save) -> None:
    rows = [
        {**JUDGED, "annotator1": 1, "annotator2": 2, "annotator3": 0},
        {**JUDGED, "input": "", "annotator1": 2, "annotator2": 3, "annotator3": None},
        {**JUDGED, "response1": True, "annotator1": 1, "annotator2": 1, "annotator3": 1},
        {**JUDGED, "response2": "", "annotator1": 1, "annotator2": 1, "annotator3": 1},
        {**JUDGED, "response2": "Hot. ", "annotator1": 1, "annotator2": 1, "annotator3": 1},
        JUDGED,
    ]
    path = save(json.dumps(rows, indent=1).encode(), "test.json")
    with pytest.raises(UsageError) as caught:
        read_pairs(path)
    people = "'annotator1', 'annotator2', 'annotator3'"
    assert str(caught.value) == f"{path}: holds choices of 3 people ({people}); pick one with --user"
    shared = [
        ("record 3", "at $.response1: expected text, got true"),
        ("record 4", "at $.response2: empty; that any answer is better than none says nothing about taste"),
        ("record 5", "at $.response2: the same text as response1; nothing can be learned from it"),
    ]
    missing = ("record 6", "at $.annotator1: expected 0, 1 or 2, got nothing")
    first, second, third = (read_pairs(path, user=f"annotator{n}") for n in (1, 2, 3))
    assert first.format == "pandalm"
    assert first.users == ("annotator1", "annotator2", "annotator3")
    assert [pair.messages for pair in first.pairs] == [
        (turn("user", "Sum up.\n\nTea is hot."),),
        (turn("user", "Sum up."),),
    ]
    assert told(first) == [("Hot.", "Tea.", False), ("Tea.", "Hot.", False)]
    assert [(s.where, s.why) for s in first.skipped] == [*shared, missing]
    assert told(second) == [("Tea.", "Hot.", False)]
    bad = ("record 2", "at $.annotator2: expected 0, 1 or 2, got a number")
    assert [(s.where, s.why) for s in second.skipped] == [bad, *shared]
    assert told(third) == [("Hot.", "Tea.", True)]


def test_perspective(save: Save) -> None:
    row = {"gold_persona": "A seasoned engineer.", "prompt": "Why?", "win": "So.", "lose": "No.", "win_score": 5}
    other = {"gold_persona": "A seasoned cook.", "prompt": "Why?", "win": "Salt.", "lose": "No."}
    rows = [
        {**row, "lose_score": 4},
        {**row, "lose_score": 5, "prompt": "How?"},
        {**row, "lose_score": 6},
        {**row, "lose_score": "4"},
        {**row, "lose_score": float("nan")},
        {**row, "lose_score": 1, "win": None},
        other,
    ]
    path = save(rows)
    file = read_pairs(path, user="A seasoned e")
    assert file.format == "perspective"
    assert told(file) == [("So.", "No.", False), ("So.", "No.", True)]
    assert [s.why for s in file.skipped] == [
        "at $.win_score: 5 is less than lose_score, 6",
        "at $.lose_score: expected a finite number, got '4'",
        "at $.lose_score: expected a finite number, got a number",
        "at $.win: expected text, got null",
    ]
    assert told(read_pairs(path, user="A seasoned cook.")) == [("Salt.", "No.", False)]
    with pytest.raises(UsageError, match="2 people's names begin with 'A seasoned'; it holds choices of 'A seasoned e"):
        read_pairs(path, user="A seasoned")


# People


def test_people(save: Save) -> None:
    row = {"prompt": "p", "chosen": "a"}
    path = save(
        [{**row, "rejected": "b", "user": "ann"}, {**row, "rejected": "c", "user_id": "anna"}, {**row, "rejected": "d"}]
    )
    assert told(read_pairs(path, user="ann")) == [("a", "b", False)]  # the whole name, not the longer one it begins
    assert told(read_pairs(path, user="anna")) == [("a", "c", False)]
    with pytest.raises(UsageError, match="nobody is called 'bob'; it holds choices of 'ann', 'anna'"):
        read_pairs(path, user="bob")
    nobody = save([{**row, "rejected": "d"}], "nobody.jsonl")
    with pytest.raises(UsageError, match="names nobody, so there is no 'ann' to pick; leave out --user"):
        read_pairs(nobody, user="ann")
    many = save([{**row, "rejected": "d", "user": f"{i:02}" + "x" * 1_000} for i in range(30)], "many.jsonl")
    with pytest.raises(UsageError, match="30 people") as caught:
        read_pairs(many)
    assert len(str(caught.value)) < 1_000


# PRISM


def said(turn: int, response: str, score: object, chosen: object = False, **more: object) -> dict[str, object]:
    """A row of utterances.jsonl by the published schema."""
    return {
        "utterance_id": "ut0",
        "interaction_id": f"int{turn}",
        "conversation_id": "c0",
        "user_id": "user0",
        "turn": turn,
        "within_turn_id": 0,
        "included_in_balanced_subset": True,
        "conversation_type": "unguided",
        "user_prompt": f"prompt {turn}",
        "model_response": response,
        "model_name": "m",
        "model_provider": "p",
        "score": score,
        "if_chosen": chosen,
        **more,
    }


PRISM: list[object] = [
    said(0, "a", 10),
    said(0, "b", 90, chosen=True),
    said(0, "c", 90),
    said(0, "EMPTY STRING", 1),
    said(1, "d", 40, chosen=True),
    said(1, "e", 30),
]


def test_prism_sets_the_chosen_answer_against_each_other_one(save: Save) -> None:
    file = read_pairs(save(PRISM, "utterances.jsonl"))
    assert (file.format, file.users) == ("prism", ("user0",))
    # 0-based turns; an equal score makes a tie, since the chosen one was then picked at random.
    assert told(file) == [("b", "a", False), ("b", "c", True), ("d", "e", False)]
    opening = (turn("user", "prompt 0"),)
    assert [pair.messages for pair in file.pairs] == [
        opening,
        opening,
        (*opening, turn("assistant", "b"), turn("user", "prompt 1")),
    ]
    assert [(s.where, s.why.partition(";")[0]) for s in file.skipped] == [("line 4", "at $.model_response: empty")]


def test_prism_in_any_order_and_of_several_people(save: Save) -> None:
    other = [{**row, "user_id": "user1", "conversation_id": "c1"} for row in PRISM if isinstance(row, dict)]
    rows = [*PRISM, *other]
    expected = {pair.id for pair in read_pairs(save(PRISM)).pairs}
    seed = random.randrange(2**32)
    print(f"{seed=}")
    random.Random(seed).shuffle(rows)
    path = save(rows)
    for user in ("user0", "user1"):
        file = read_pairs(path, user=user)
        assert {pair.id for pair in file.pairs} == expected
        assert len(file.skipped) == 1
    # Another person's bad row is not this one's.
    path = save([*PRISM[4:], *PRISM[:3], said(0, "x", "high", user_id="user1", conversation_id="c1")])
    assert read_pairs(path, user="user0", strict=True).skipped == ()
    with pytest.raises(PreferencesError, match=r"line 6: at \$.score: expected a number from 1 to 100, got 'high'"):
        read_pairs(path, user="user1", strict=True)


@pytest.mark.parametrize(
    ("rows", "pairs", "why"),
    [
        ([PRISM[0], PRISM[2]], 0, "at $.if_chosen: no answer of this turn is the chosen one"),
        (PRISM[4:], 0, "at $.turn: an earlier turn of this conversation is missing, or its chosen answer"),
        ([*PRISM[:1], *PRISM[4:]], 0, "at $.turn: an earlier turn"),
        (
            [*PRISM[:1], said(0, "b", 90, chosen=True), said(0, "f", 90, chosen=True)],
            1,
            "at $.if_chosen: another answer",
        ),
        (
            [*PRISM[:2], said(0, "b", 90, chosen=True)],
            1,
            "at $.model_response: the same text as model_response of line 2",
        ),
        ([*PRISM[:2], said(0, "x", float("nan"))], 1, "at $.score: expected a number from 1 to 100, got a number"),
        ([*PRISM[:2], said(0, "x", 1, chosen=1)], 1, "at $.if_chosen: expected true or false, got a number"),
        ([*PRISM[:2], said(0, "x", 1, user_prompt=" ")], 1, "at $.user_prompt: empty"),
        ([*PRISM[:2], said(-1, "x", 1)], 1, "at $.turn: expected a whole number from 0"),
        ([*PRISM[:2], said(0, "x", 1, conversation_id=None)], 1, "at $.conversation_id: expected text, got null"),
    ],
)
def test_prism_rows_that_give_no_pair(rows: list[object], pairs: int, why: str, save: Save) -> None:
    file = read_pairs(save(rows))
    assert len(file.pairs) == pairs
    assert file.skipped[-1].why.startswith(why)


# Open WebUI


def chat(*messages: tuple[str, str | None, str, object], **params: object) -> dict[str, object]:
    """A snapshot's chat: messages of (id, parent's id, role, content)."""
    tree: dict[str, dict[str, object]] = {
        name: {"id": name, "parentId": parent, "childrenIds": [], "role": role, "content": content}
        for name, parent, role, content in messages
    }
    inner: dict[str, object] = {
        "title": "t",
        "models": ["m"],
        "params": params,
        "history": {"messages": tree, "currentId": None},
    }
    return {"id": "chat", "user_id": "u", "title": "t", "chat": inner}


def thumb(rating: object, message: str, seen: dict[str, object], **more: object) -> dict[str, object]:
    return {
        "id": "f",
        "user_id": "u",
        "version": 0,
        "type": "rating",
        "data": {"rating": rating, "model_id": "m", "sibling_model_ids": ["n"], "reason": "", "comment": ""},
        "meta": {"arena": False, "model_id": "m", "message_id": message, "message_index": 2, "chat_id": "chat"},
        "snapshot": {"chat": seen},
        "created_at": 1_740_000_000,
        "updated_at": 1_740_000_000,
        **more,
    }


FOLD = '<details type="reasoning" done="true" duration="3">\n<summary>Thought</summary>\n> hm\n</details>\n'
CHAT = chat(
    ("q", None, "user", "Is tea nice?"),
    ("a", "q", "assistant", FOLD + "Yes."),
    ("b", "q", "assistant", "No."),
    ("c", "q", "assistant", "Perhaps."),
    ("q2", "a", "user", "Why?"),
    ("d", "q2", "assistant", "Warm."),
    ("e", "q2", "assistant", ""),
    ("f", "q2", "assistant", "Wet."),
    ("q3", "d", "user", "And?"),
    ("g", "q3", "assistant", "No more."),
    ("u", "q", "user", "No answer, but what the person went on to say."),
)


def test_openwebui_compares_siblings(save: Save) -> None:
    rows = [
        thumb(1, "a", CHAT),
        thumb(-1, "b", CHAT),
        thumb("1", "d", CHAT),
        thumb(1, "g", CHAT),
        thumb(None, "f", CHAT),
    ]
    file = read_pairs(save(json.dumps(rows).encode(), "feedback-history-export-1.json"))
    assert (file.format, file.users) == ("openwebui", ("u",))
    # a is up: over b and c. b is down: under a (already said) and under c. d is up: over f; e is empty.
    assert told(file) == [
        ("Yes.", "No.", False),
        ("Yes.", "Perhaps.", False),
        ("Perhaps.", "No.", False),
        ("Warm.", "Wet.", False),
    ]
    assert file.pairs[0].messages == (USER,)
    assert file.pairs[3].messages == (USER, turn("assistant", "Yes."), turn("user", "Why?"))
    assert {pair.time for pair in file.pairs} == {"2025-02-19T21:20:00+00:00"}
    assert [(s.where, s.why.partition(";")[0]) for s in file.skipped] == [
        ("record 2", "the same choice as record 1"),
        ("record 3", "at $.snapshot.chat.chat.history.messages.e.content: empty"),
        ("record 4", "at $.meta.message_id: no other answer to the same message, and a thumb alone compares nothing"),
        ("record 5", "at $.data.rating: expected 1 or -1, got null"),
    ]


def test_openwebui_does_not_compare_two_thumbs_of_one_kind(save: Save) -> None:
    both = chat(("q", None, "user", "Is tea nice?"), ("a", "q", "assistant", "Yes."), ("b", "q", "assistant", "No."))
    file = read_pairs(save([thumb(-1, "a", both), thumb(-1, "b", both)]))
    assert file.pairs == ()
    assert [s.why for s in file.skipped] == [
        "at $.data.rating: the other answer got the same thumb, so neither was preferred"
    ] * 2
    # The snapshot's own thumb counts where the export has no record of it.
    tree = both["chat"]["history"]["messages"]  # type: ignore[index]
    tree["b"]["annotation"] = {"rating": 1}
    assert read_pairs(save([thumb(1, "a", both)])).pairs == ()
    tree["b"]["annotation"] = {"rating": -1}
    assert told(read_pairs(save([thumb(1, "a", both)]))) == [("Yes.", "No.", False)]


def test_openwebui_keeps_the_system_prompt_of_the_chat(save: Save) -> None:
    messages = (("q", None, "user", "Is tea nice?"), ("a", "q", "assistant", "Yes."), ("b", "q", "assistant", "No."))
    (pair,) = read_pairs(save([thumb(1, "a", chat(*messages, system="Be kind."))])).pairs
    assert pair.messages == (turn("system", "Be kind."), USER)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (thumb(10, "a", CHAT), "at $.data.rating: expected 1 or -1, got a number"),
        (thumb(True, "a", CHAT), "at $.data.rating: expected 1 or -1, got true"),
        (thumb(-1, "e", CHAT), "at $.snapshot.chat.chat.history.messages.e.content: empty"),
        (thumb(1, "x", CHAT), "at $.meta.message_id: 'x' is not among snapshot.chat.chat.history.messages"),
        (
            thumb(1, "a", CHAT, snapshot=None),
            "at $.snapshot.chat.chat.history.messages: expected the chat's messages, got",
        ),
        (thumb(1, "a", CHAT, data=None), "at $.data.rating: expected 1 or -1, got nothing"),
        (
            thumb(
                1, "a", chat(("q", "p", "user", "?"), ("a", "q", "assistant", "Yes."), ("b", "q", "assistant", "No."))
            ),
            "at $.snapshot.chat.chat.history.messages: the messages before the answer are incomplete",
        ),
        (
            thumb(
                1, "a", chat(("q", "a", "user", "?"), ("a", "q", "assistant", "Yes."), ("b", "q", "assistant", "No."))
            ),
            "at $.snapshot.chat.chat.history.messages: the messages before the answer are incomplete",  # a ring
        ),
        (
            thumb(1, "a", chat(("a", None, "assistant", "Yes."), ("b", None, "assistant", "No."))),
            "at $.snapshot.chat.chat.history.messages: expected the last to be the user's, but there are none",
        ),
        (
            thumb(
                1, "a", chat(("q", None, "user", 5), ("a", "q", "assistant", "Yes."), ("b", "q", "assistant", "No."))
            ),
            "at $.snapshot.chat.chat.history.messages.q.content: expected text, got a number",
        ),
    ],
)
def test_openwebui_records_that_give_no_pair(row: dict[str, object], why: str, save: Save) -> None:
    file = read_pairs(save([row]))
    assert file.pairs == ()
    assert {s.why.startswith(why) for s in file.skipped} == {True}, file.skipped


# Files

EXAMPLES: dict[str, list[object]] = {
    "jsonl": [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "q", "chosen": "ü", "rejected": "b"}],
    "hh": [{side: f"\n\nHuman: Is tea nice?\n\nAssistant: {answer}" for side, answer in ANSWERS.items()}],
    "pandalm": [{**JUDGED, "annotator1": 1}, {**JUDGED, "input": "", "annotator1": 0}],
    "perspective": [{"prompt": "Why?", "win": "So.", "lose": "No.", "win_score": 5, "lose_score": 4}],
    "prism": PRISM,
    "openwebui": [thumb(1, "a", CHAT), thumb(1, "d", CHAT)],
}


def test_there_is_an_example_of_every_form() -> None:
    assert {*EXAMPLES, "csv"} == set(FORMATS)


@pytest.mark.parametrize("form", EXAMPLES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_the_same_rows_in_any_wrapping(form: str, encoding: str, save: Save) -> None:
    rows = EXAMPLES[form]
    expected = read_pairs(save(rows))
    assert expected.format == form
    text = "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    array = json.dumps(rows, ensure_ascii=False, indent=2)
    for content in (text, array, f" \n{array}\n"):
        for pack in (bytes, gzip.compress):
            path = save(pack(content.encode(encoding)), "some.file")
            for named in (None, form):
                file = read_pairs(path, format=named)
                assert [pair.id for pair in file.pairs] == [pair.id for pair in expected.pairs]
                assert [s.why for s in file.skipped] == [s.why for s in expected.skipped]


def test_bytes_that_are_not_utf8_spoil_their_row_alone(save: Save) -> None:
    rows = ['{"prompt": "p", "chosen": "é", "rejected": "b"}'.encode(code) for code in ("latin-1", "utf-8", "cp1250")]
    odd = '{"prompt": "q", "chosen": "é", "rejected": "b", "note": "é"}'
    file = read_pairs(save(b"\n".join([*rows, odd.encode("utf-8")[:-4] + b'\xe9"}'])))
    assert [pair.source for pair in file.pairs] == ["pairs.jsonl, line 2", "pairs.jsonl, line 4"]
    why = "at $.chosen: character 1 is not Unicode but half of a surrogate pair; write it as UTF-8"
    assert [(s.where, s.why) for s in file.skipped] == [("line 1", why), ("line 3", why)]
    table = "prompt,chosen,rejected\np,\u00e9,b\nq,a,b\n".encode("cp1252")
    assert [s.where for s in read_pairs(save(table, "excel.csv")).skipped] == ["line 2"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz"])
@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b" \n\n", gzip.compress(b"")])
@pytest.mark.parametrize("form", [None, "jsonl", "prism", "openwebui"])
def test_a_file_that_is_empty(name: str, content: bytes, form: str | None, save: Save) -> None:
    path = save(content, name)
    with pytest.raises(PreferencesError, match=r"it is empty|holds nothing that is compared") as caught:
        read_pairs(path, format=form)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[]", "it is empty"),
        (
            b'{"a": 1, "b": 2}',
            r"line 1 has the fields 'a', 'b'; expected JSON or CSV with type, data, meta \(openwebui\)",
        ),
        (b"{}", r"line 1 has the fields \(none\)"),
        (b"[1]", "record 1: expected a JSON object, got a number"),
        (b"hello\n", "line 1: not valid JSON: Expecting value at column 1"),
        (b"PK\x03\x04" + bytes(50), "line 1: not valid JSON"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "line 1: not valid JSON"),
        (b'{"' + b"x" * 10_000 + b'": 1}', "'x{40}'; expected"),
        (b'{"prompt": "p"}\n' * 101 + b'{"prompt": "p", "chosen": "a", "rejected": "b"}', "fields 'prompt'"),
    ],
)
def test_a_file_of_no_known_form(content: bytes, expected: str, save: Save) -> None:
    with pytest.raises(PreferencesError, match=expected):
        read_pairs(save(content))


def test_a_table_without_the_columns(save: Save) -> None:
    path = save(b"question;better;worse\nq;a;b\n", "a.csv")
    with pytest.raises(
        PreferencesError, match=r"line 2 has the fields 'question', 'better', 'worse'; .*chosen, rejected"
    ):
        read_pairs(path)
    assert read_pairs(path, format="csv").skipped[0].why == "at $.chosen: expected text, got nothing"


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(PreferencesError, match="cannot read the preference pairs: "):
            read_pairs(path)
        with pytest.raises(PreferencesError, match="cannot read the preference pairs: "):
            read_pairs(str(path), format="jsonl")


def test_arguments_that_are_wrong(save: Save) -> None:
    path = save(EXAMPLES["jsonl"])
    with pytest.raises(UsageError, match=r"format: expected one of jsonl, hh, csv, .*, got 'parquet'"):
        read_pairs(path, format="parquet")
    for limit in (0, -1, True, 1.5):
        with pytest.raises(UsageError, match="limit: expected a whole number, 1 or more"):
            read_pairs(path, limit=limit)  # type: ignore[arg-type]


def test_a_torn_file_gives_what_came_before(save: Save) -> None:
    rows: list[object] = [
        {"prompt": f"p{i}", "chosen": "a", "rejected": random.Random(i).randbytes(99).hex()} for i in range(500)
    ]
    whole = lines(rows)
    packed = gzip.compress(whole)
    for torn in (packed[:-2_000], packed[:-8] + bytes(8)):  # cut short; a checksum that is wrong
        path = save(torn, "torn.jsonl.gz")
        file = read_pairs(path)
        assert 400 < len(file.pairs) <= 500
        assert file.skipped[-1].why.startswith("the rest of the file cannot be read: ")
        assert file.skipped[-1].where.startswith("after line ")
        with pytest.raises(PreferencesError, match=r"after line .*the rest of the file cannot be read"):
            read_pairs(path, strict=True)
    array = json.dumps(rows).encode()
    file = read_pairs(save(array[:-150], "torn.json"))
    assert (len(file.pairs), file.skipped[-1].where) == (499, "record 500")
    assert "not valid JSON, and the rest is not read: Unterminated string" in file.skipped[-1].why
    file = read_pairs(save(array.replace(b", {", b" {", 1), "torn.json"))
    assert (len(file.pairs), file.skipped[-1].where) == (1, "after record 1")
    assert file.skipped[-1].why == "expected ',' or ']', got '{' at character 248; the rest is not read"
    with pytest.raises(PreferencesError, match="cannot read the preference pairs: "):
        read_pairs(save(packed[:5], "torn.jsonl.gz"))


def test_bounds(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    good = b'{"prompt": "p", "chosen": "a", "rejected": "b"}\n'
    monkeypatch.setattr(rows_module, "MAX_LINE", 100)
    long = b'{"prompt": "p", "chosen": "' + b"x" * 250 + b'", "rejected": "c"}'
    for content, where in ((long + b"\n" + good, "line 1"), (good + long, "line 2"), (good + b"x" * 202, "line 2")):
        file = read_pairs(save(content))
        assert len(file.pairs) == 1
        assert [s.where for s in file.skipped] == [where]
        assert "longer than" in file.skipped[0].why
    table = b"prompt,chosen,rejected\np,a,b\nq,a," + b"x" * 200 + b"\nr,a,b\n"
    file = read_pairs(save(table, "a.csv"))
    assert (len(file.pairs), file.skipped[0].where) == (1, "after line 2")
    monkeypatch.setattr(rows_module, "MAX_ARRAY", 100)
    with pytest.raises(PreferencesError, match="a JSON array may have at most"):
        read_pairs(save(b"[" + b",".join([good] * 3) + b"]"))
    monkeypatch.setattr(rows_module, "MAX_FILE", 1_000)
    with pytest.raises(PreferencesError, match=r"may have at most .* characters"):
        read_pairs(save(good * 30))


def test_a_cell_larger_than_the_csv_module_takes(save: Save) -> None:
    table = b"prompt,chosen,rejected\np,%s,b\nq,%s,b\nr,a,b\n" % (b"x" * 100_000, b"x" * 140_000)
    file = read_pairs(save(table, "a.csv"))
    assert [len(pair.chosen) for pair in file.pairs] == [100_000]
    assert file.skipped[0].where == "after line 2"
    assert "field larger than field limit" in file.skipped[0].why


def test_a_small_file_that_unpacks_to_a_large_one(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "MAX_LINE", 1 << 16)
    monkeypatch.setattr(rows_module, "MAX_FILE", 1 << 22)
    monkeypatch.setattr(rows_module, "MAX_ARRAY", 1 << 20)
    for begins, what in ((b"", "may have at most"), (b"[", "a JSON array may have at most")):
        path = save(gzip.compress(begins + b" " * (1 << 26), 1), "bomb.gz")
        assert path.stat().st_size < 1 << 19
        tracemalloc.start()
        try:
            with pytest.raises(PreferencesError, match=what):
                read_pairs(path, format="jsonl")
            assert tracemalloc.get_traced_memory()[1] < 1 << 23
        finally:
            tracemalloc.stop()


def test_rows_and_texts_beyond_all_measure(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preferences, "_MAX_REFUSED", 100)
    for line in (b"x\n", b"{}\n"):
        with pytest.raises(PreferencesError, match=r"line 101: over 100 rows give no pair, this one because (not|at)"):
            read_pairs(save(line * 200), format="jsonl")
    monkeypatch.setattr(preferences, "_MAX_TOLD", 50_000)
    rows = [said(0, "b", 90, chosen=True, user_prompt="p" * 10_000), *(said(0, f"a{i}", 1) for i in range(10))]
    with pytest.raises(PreferencesError, match="line 6: the pairs up to here repeat so much"):
        read_pairs(save(rows))
    monkeypatch.setattr(preferences, "_MAX_PAIRS", 2)
    with pytest.raises(PreferencesError, match="line 3: over 2 pairs; split the file"):
        read_pairs(save([{"prompt": "p", "chosen": "a", "rejected": f"b{i}"} for i in range(9)]))


@pytest.mark.parametrize("form", EXAMPLES)
def test_damaged_files_end_in_pairs_or_in_our_errors(form: str, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"{seed=}")
    choose = random.Random(seed)
    path = tmp_path / "damaged"
    pieces = [b'"', b"{", b"}", b"[", b"]", b"null", b"NaN", b"-1", b"\\ud800", b"\n", b"\0", b"\xff", b"1e999", b"\\"]
    for content in (lines(EXAMPLES[form]), json.dumps(EXAMPLES[form]).encode()):
        for _ in range(40):
            damaged = bytearray(content)
            for _ in range(choose.randint(1, 4)):
                at = choose.randrange(len(damaged))
                damaged[at : at + choose.choice((0, 1, 9))] = choose.choice(pieces)
            path.write_bytes(gzip.compress(damaged)[: choose.choice((-1, None))] if choose.random() < 0.2 else damaged)
            for named in (None, form):
                try:
                    file = read_pairs(path, format=named)
                except DriftError as error:
                    assert str(path) in str(error)  # noqa: PT017
                else:
                    assert all(pair == PreferencePair.from_dict(pair.to_dict()) for pair in file.pairs)
                    assert file.pairs or file.skipped


def test_no_model_is_loaded_to_read_pairs() -> None:
    program = "import sys, drift_edge.preferences; print({'llama_cpp', 'numpy', 'gguf', 'typer'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
