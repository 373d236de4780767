"""Open WebUI's feedback export (Admin Panel, Evaluations, Feedback, Export): a JSON array of thumbs.

Every record holds the thumb (`data.rating`, 1 or -1), the id of the message it was given to, and a snapshot of the
chat: a tree of messages by `parentId`. Answers with the same parent, made anew or by several models as in its arena,
can be compared: the one with a thumb up was preferred to the others, one with a thumb down was not. A thumb on an
answer without another beside it compares nothing.

Schema: https://github.com/open-webui/open-webui, `backend/open_webui/models/feedbacks.py`, and the `feedbackHandler`
of `src/lib/components/chat/Messages/ResponseMessage.svelte`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from drift_edge.errors import UsageError
from drift_edge.messages import check_text, describe
from drift_edge.preferences.pair import PreferencePair, check_prompt, check_responses, field
from drift_edge.preferences.rows import Outcome, Row, refused

_FOLDED, _FOLDED_END = '<details type="', "</details>"
_TREE = "snapshot.chat.chat.history.messages"
_Tree = dict[str, dict[str, object]]


def openwebui(rows: Iterable[Row | Outcome]) -> Iterator[Outcome]:
    """Each answer with a thumb against each other answer to the same message, unless that got the same thumb."""
    records: list[Row] = []
    thumbs = {}  # a snapshot knows only of thumbs given before it
    for row in rows:
        if isinstance(row, Outcome):
            yield row
            continue
        records.append(row)
        data, meta = _objects(row.data, "data"), _objects(row.data, "meta")
        thumbs[str(meta.get("chat_id")), str(meta.get("message_id"))] = _thumb(data.get("rating"))
    for row in records:
        named = row.data.get("user_id")
        user = named if isinstance(named, str) and named else None
        try:
            yield from _record(row, user, thumbs)
        except UsageError as error:
            yield refused(row.where, error, user)


def _record(row: Row, user: str | None, thumbs: Mapping[tuple[str, str], int | None]) -> Iterator[Outcome]:
    rating = field(_objects(row.data, "data"), "rating")
    thumb = _thumb(rating)
    if thumb is None:
        raise UsageError(f"data.rating: expected 1 or -1, got {describe(rating)}")
    chat = _objects(row.data, "snapshot", "chat", "chat")
    messages = {
        name: message for name, message in _objects(chat, "history", "messages").items() if isinstance(message, dict)
    }
    if not messages:
        raise UsageError(f"{_TREE}: expected the chat's messages, got none; use the export of Evaluations, Feedback")
    meta = _objects(row.data, "meta")
    rated_id, chat_id = str(meta.get("message_id")), str(meta.get("chat_id"))
    rated = messages.get(rated_id)
    if rated is None:
        raise UsageError(f"meta.message_id: {describe(rated_id)} is not among {_TREE}")
    parent = rated.get("parentId")
    others = {
        name: message
        for name, message in messages.items()
        if name != rated_id and message.get("parentId") == parent and message.get("role") == "assistant"
    }
    if not others:
        raise UsageError("meta.message_id: no other answer to the same message, and a thumb alone compares nothing")
    history = _history(chat, messages, parent)
    said = _said(rated, _place(rated_id))
    source = f"{row.file}, {row.where}"
    for name, other in others.items():
        try:
            if thumb == thumbs.get((chat_id, name), _thumb(_objects(other, "annotation").get("rating"))):
                raise UsageError("data.rating: the other answer got the same thumb, so neither was preferred")
            texts, places = (said, _said(other, _place(name))), (_place(rated_id), _place(name))
            if thumb == -1:
                texts, places = texts[::-1], places[::-1]
            chosen, rejected = check_responses(*texts, places)
            yield Outcome(row.where, user, PreferencePair(history, chosen, rejected, source, _time(row.data)))
        except UsageError as error:
            yield refused(row.where, error, user)


def _history(chat: Mapping[str, object], messages: _Tree, last: object) -> tuple[dict[str, str], ...]:
    """The messages from the first one to `last`, after the chat's own system prompt."""
    history: list[dict[str, str]] = []
    while last is not None:
        message = messages.get(str(last))
        if message is None or len(history) > len(messages):
            raise UsageError(f"{_TREE}: the messages before the answer are incomplete")
        role = message.get("role")
        content = _said(message, _place(last))
        history.append({"role": str(role), "content": content})
        last = message.get("parentId")
    system = _objects(chat, "params").get("system")
    if isinstance(system, str) and system.strip():
        history.append({"role": "system", "content": system})
    return check_prompt(history[::-1], _TREE)


def _place(name: object) -> str:
    return f"{_TREE}.{str(name)[:40]}.content"


def _said(message: Mapping[str, object], at: str) -> str:
    """A message without its folded parts: reasoning, tool calls and code that ran."""
    text = check_text(field(message, "content"), at)
    shown, done = [], 0
    while (begin := text.find(_FOLDED, done)) >= 0 and (end := text.find(_FOLDED_END, begin)) >= 0:
        shown.append(text[done:begin])
        done = end + len(_FOLDED_END)
    return "".join((*shown, text[done:])).strip()


def _objects(data: Mapping[str, object], *path: str) -> dict[str, object]:
    """The object at a path of objects; where there is none, an empty one."""
    value: object = data
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, dict) else {}


def _thumb(rating: object) -> int | None:
    return {"1": 1, "-1": -1}.get(str(rating)) if isinstance(rating, (int, str)) else None


def _time(data: Mapping[str, object]) -> str:
    seconds = data.get("updated_at", data.get("created_at"))
    try:
        return datetime.fromtimestamp(float(str(seconds)), UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return ""
