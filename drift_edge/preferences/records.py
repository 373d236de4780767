"""Forms of file where every record holds a choice by itself: Hugging Face's, hh-rlhf, PandaLM, Perspective."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

from drift_edge.errors import UsageError
from drift_edge.messages import check_messages, check_text, describe
from drift_edge.preferences.pair import PreferencePair, check_responses, field, is_time
from drift_edge.preferences.rows import Outcome, Row, refused

_TURN = re.compile(r"\n\n(Human|Assistant):")
_TRANSCRIPT = "\n\nHuman:"
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_ANNOTATOR = re.compile(r"annotator\d{1,3}")

Messages = Sequence[Mapping[str, str]]


def each(convert: Callable[[Row], Iterable[Outcome]]) -> Callable[[Iterable[Row | Outcome]], Iterator[Outcome]]:
    """A reader of files from a reader of rows; a row it cannot read is refused by itself."""

    def read(rows: Iterable[Row | Outcome]) -> Iterator[Outcome]:
        for row in rows:
            try:
                yield from (row,) if isinstance(row, Outcome) else convert(row)
            except UsageError as error:
                yield refused(row.where, error)

    return read


def jsonl(row: Row) -> Iterator[Outcome]:
    """`chosen` and `rejected`, with `prompt` as text or messages or implied by what both begin with.

    https://huggingface.co/docs/trl/dataset_formats#preference. `messages` is taken for `prompt`, and optional fields
    are `system`, `user`, `source`, `time` and `tie`.
    """
    data = row.data
    head, chosen, rejected = _sides(data)
    system = data.get("system")
    if isinstance(system, str) and system.strip():
        head = [{"role": "system", "content": check_text(system, "system")}, *head]
    yield _outcome(row, data.get("user", data.get("user_id")), head, chosen, rejected, tie=data.get("tie", False))


def hh(row: Row) -> Iterator[Outcome]:
    """`chosen` and `rejected` as whole transcripts of `Human:` and `Assistant:` that differ in the last answer.

    https://github.com/anthropics/hh-rlhf
    """
    for name in ("chosen", "rejected"):
        if not is_transcript(field(row.data, name)):
            found = describe(field(row.data, name))
            raise UsageError(f"{name}: expected a transcript that begins with {_TRANSCRIPT!r}, got {found}")
    head, chosen, rejected = _sides({name: row.data[name] for name in ("chosen", "rejected")})
    yield _outcome(row, None, head, chosen, rejected)


def pandalm(row: Row) -> Iterator[Outcome]:
    """Two responses to an instruction, judged by several people: 0 a tie, 1 or 2 the better one.

    https://github.com/WeOpenML/PandaLM, `data/testset-v1.json`
    """
    data = row.data
    responses = check_responses(field(data, "response1"), field(data, "response2"), ("response1", "response2"))
    parts = (check_text(field(data, "instruction"), "instruction"), check_text(data.get("input", ""), "input"))
    head = [{"role": "user", "content": "\n\n".join(part for part in parts if part.strip())}]
    for name in list(filter(_ANNOTATOR.fullmatch, data)) or ["annotator1"]:
        judged = field(data, name)
        if isinstance(judged, bool) or judged not in (0, 1, 2):
            yield refused(row.where, UsageError(f"{name}: expected 0, 1 or 2, got {describe(judged)}"), name)
            continue
        chosen, rejected = reversed(responses) if judged == 2 else responses
        yield _outcome(row, name, head, chosen, rejected, tie=judged == 0)


def perspective(row: Row) -> Iterator[Outcome]:
    """`prompt`, `win`, `lose` and their scores, for a persona that is described in a text (the paper, Appendix D.1)."""
    data = row.data
    chosen, rejected = check_responses(field(data, "win"), field(data, "lose"), ("win", "lose"))
    head = [{"role": "user", "content": check_text(field(data, "prompt"), "prompt")}]
    scores = [_number(data, name) for name in ("win_score", "lose_score")] if "win_score" in data else [1.0, 0.0]
    if scores[0] < scores[1]:
        raise UsageError(f"win_score: {scores[0]:g} is less than lose_score, {scores[1]:g}")
    yield _outcome(row, data.get("gold_persona"), head, chosen, rejected, tie=scores[0] == scores[1])


def is_transcript(value: object) -> bool:
    """Whether a value is text in hh-rlhf's form."""
    return isinstance(value, str) and value.startswith(_TRANSCRIPT)


def _outcome(row: Row, user: object, head: Messages, chosen: str, rejected: str, *, tie: object = False) -> Outcome:
    if not isinstance(tie, bool):
        raise UsageError(f"tie: expected true or false, got {describe(tie)}")
    time, source = row.data.get("time"), row.data.get("source")
    pair = PreferencePair(
        tuple(head),
        chosen,
        rejected,
        source=source if isinstance(source, str) and source else f"{row.file}, {row.where}",
        time=time if isinstance(time, str) and is_time(time) else "",
        tie=tie,
    )
    named = isinstance(user, (str, int)) and not isinstance(user, bool) and user != ""
    return Outcome(row.where, str(user) if named else None, pair)


def _number(data: Mapping[str, object], name: str) -> float:
    value = field(data, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UsageError(f"{name}: expected a finite number, got {describe(value)}")
    return float(value)


def _sides(data: Mapping[str, object]) -> tuple[Messages, str, str]:
    """The messages and both answers of a record in Hugging Face's forms."""
    chosen, rejected = (_turns(field(data, name), name, "assistant") for name in ("chosen", "rejected"))
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        if not turns or turns[-1]["role"] != "assistant":
            raise UsageError(f"{name}: expected its last message to be the assistant's")
    head, answers = chosen[:-1], (chosen[-1]["content"], rejected[-1]["content"])
    if head != rejected[:-1]:
        raise UsageError("rejected: differs from chosen before the last answer, so they answer different prompts")
    name = "messages" if "prompt" not in data and "messages" in data else "prompt"
    given = data.get(name)
    if given is None:
        return (head, *answers) if head else _implied(*answers)
    prompt = _turns(given, name, "user")
    if prompt and prompt[-1] == {"role": "assistant", "content": ""}:  # a transcript up to where the answer begins
        prompt.pop()
    if head and isinstance(given, list) and head != prompt:
        raise UsageError(f"{name}: other messages than those that chosen begins with")
    return (head or prompt, *answers)


def _turns(value: object, name: str, role: str) -> list[dict[str, str]]:
    """Messages from an array, from a transcript, or from plain text, which is one message of `role`."""
    if isinstance(value, list):
        return check_messages(value, name)
    text = check_text(value, name)
    if not is_transcript(text):
        return [{"role": role, "content": text}]
    parts = _TURN.split(text)  # "", speaker, words, speaker, words, ...
    said = groupby(zip(parts[1::2], parts[2::2], strict=True), key=itemgetter(0))
    return [
        {"role": _SPEAKERS[speaker], "content": "\n\n".join(words.strip() for _, words in turn)}
        for speaker, turn in said
    ]


def _implied(chosen: str, rejected: str) -> tuple[Messages, str, str]:
    """The words that two texts begin with alike as the prompt, and the rest of each."""
    shorter = min(len(chosen), len(rejected))
    end = next((i for i in range(shorter) if chosen[i] != rejected[i]), shorter)
    while end and not chosen[end - 1].isspace():
        end -= 1
    prompt = chosen[:end].strip()
    if not prompt:
        raise UsageError("prompt: missing, and chosen and rejected do not begin with the same words")
    return [{"role": "user", "content": prompt}], chosen[end:].strip(), rejected[end:].strip()
