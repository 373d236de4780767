"""PRISM's `utterances.jsonl`: one row for each of up to four answers to a message, scored by one person.

By its published schema, https://github.com/HannahKirk/prism-alignment (code book, "The Utterances"): turns count from
0, `if_chosen` marks the answer the conversation went on with, an empty text is written `EMPTY STRING`, and where the
best score was given twice the chosen one is random.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from drift_edge.errors import UsageError
from drift_edge.messages import check_text, describe
from drift_edge.preferences.pair import PreferencePair, check_responses, field
from drift_edge.preferences.rows import Outcome, Row, refused

_EMPTY = "EMPTY STRING"


@dataclass(frozen=True, slots=True)
class _Utterance:
    row: Row
    user: str
    conversation: str
    turn: int
    prompt: str
    response: str
    score: float
    chosen: bool

    @classmethod
    def of(cls, row: Row) -> _Utterance:
        data = row.data
        turn, score, chosen = field(data, "turn"), field(data, "score"), field(data, "if_chosen")
        if not isinstance(turn, int) or isinstance(turn, bool) or turn < 0:
            raise UsageError(f"turn: expected a whole number from 0, got {describe(turn)}")
        if not isinstance(score, (int, float)) or isinstance(score, bool) or not 0 <= score <= 100:
            raise UsageError(f"score: expected a number from 1 to 100, got {describe(score)}")
        if not isinstance(chosen, bool):
            raise UsageError(f"if_chosen: expected true or false, got {describe(chosen)}")
        texts = ("user_id", "conversation_id", "user_prompt", "model_response")
        user, conversation, prompt, response = (check_text(field(data, name), name) for name in texts)
        if not prompt.strip() or prompt == _EMPTY:
            raise UsageError("user_prompt: empty")
        response = "" if response == _EMPTY else response
        return cls(row, user, conversation, turn, prompt, response, score, chosen)


def prism(rows: Iterable[Row | Outcome]) -> Iterator[Outcome]:
    """The chosen answer against each other of its turn, after the conversation as it went."""
    conversations: dict[str, list[_Utterance]] = {}
    for row in rows:
        if isinstance(row, Outcome):
            yield row
            continue
        try:
            utterance = _Utterance.of(row)
        except UsageError as error:
            user = row.data.get("user_id")
            yield refused(row.where, error, user if isinstance(user, str) else None)
        else:
            conversations.setdefault(utterance.conversation, []).append(utterance)
    for utterances in conversations.values():
        yield from _conversation(utterances)


def _conversation(utterances: list[_Utterance]) -> Iterator[Outcome]:
    turns: dict[int, list[_Utterance]] = {}
    for utterance in utterances:
        turns.setdefault(utterance.turn, []).append(utterance)
    history: list[dict[str, str]] = []
    gone_on = True  # whether every turn up to here is there, with the answer that was chosen
    for expected, turn in enumerate(sorted(turns)):
        best = next((u for u in turns[turn] if u.chosen), None)
        gone_on = gone_on and turn == expected
        for other in turns[turn]:
            if other is not best:
                yield _outcome(history, best, other, gone_on)
        gone_on = gone_on and best is not None
        if best is not None:
            history += [
                {"role": "user", "content": best.prompt},
                {"role": "assistant", "content": best.response},
            ]


def _outcome(history: list[dict[str, str]], best: _Utterance | None, other: _Utterance, gone_on: bool) -> Outcome:
    row = other.row
    try:
        if best is None:
            raise UsageError("if_chosen: no answer of this turn is the chosen one")
        if not gone_on:
            raise UsageError("turn: an earlier turn of this conversation is missing, or its chosen answer")
        names = (f"model_response of {best.row.where}", "model_response")
        chosen, rejected = check_responses(best.response, other.response, names)
        if other.chosen:
            raise UsageError("if_chosen: another answer of this turn is the chosen one as well")
        pair = PreferencePair(
            (*history, {"role": "user", "content": best.prompt}),
            chosen,
            rejected,
            source=f"{row.file}, {row.where}",
            tie=best.score == other.score,
        )
    except UsageError as error:
        return refused(row.where, error, other.user)
    return Outcome(row.where, other.user, pair)
