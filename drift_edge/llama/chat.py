"""From messages to token ids, the same way for every system prompt.

Three rules hold here. Text typed by a person never becomes a control token. An answer that was generated keeps the
very ids it was generated with, so that the next turn finds them in the cache. A template without a system role gets
the system text at the head of the first user turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import zip_longest

from drift_edge.errors import ChatTemplateError
from drift_edge.llama.model import Model
from drift_edge.llama.template import Message

# Private-use characters: no vocabulary holds them as a token, and no template looks for them.
_MARK = re.compile("\ue0f0([0-9]{1,9})\ue0f1")
_MARK_CHARACTERS = re.compile("[\ue0f0\ue0f1]")
_PROBE = "\ue0f2"
_PIECES = 256  # pieces of a conversation whose ids are remembered
_LONG = 32_768  # characters of a message from which on the template is spared it


class ChatFormat:
    """How one model writes a conversation.

    A message that must not be read as markup, or whose ids are known already, goes through the template as a mark,
    and its ids take the mark's place.

    Args:
        model: its template and vocabulary are used.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        # k+1 prompts differ in one message, and the next turn has all of this one's: most text comes again.
        self._markup_ids = lru_cache(_PIECES)(lambda text, on: tuple(model.tokenize(text, special=True, continues=on)))
        self._typed_ids = lru_cache(_PIECES)(lambda text, on: tuple(model.tokenize_typed(text, continues=on)))

    @cached_property
    def has_system_role(self) -> bool:
        """Whether the template takes a system message and shows it.

        Raises:
            ChatTemplateError: the template cannot even write a single user turn.
        """
        template = self.model.chat_template
        user = {"role": "user", "content": "Hi"}
        try:
            return _PROBE in template.render([{"role": "system", "content": _PROBE}, user])
        except ChatTemplateError:
            template.render([user])
            return False

    @cached_property
    def _before_answer(self) -> str:
        """Blanks that the template writes before an answer of the past, but not where an answer is to begin.

        They are left out before an answer whose ids are known: it began without them.
        """
        user, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": _PROBE}
        try:
            begun = self.model.chat_template.render([user])
            past = self.model.chat_template.render([user, answer, user]).partition(_PROBE)[0]
        except ChatTemplateError:
            return ""
        return past.removeprefix(begun) if past.startswith(begun) and past.removeprefix(begun).isspace() else ""

    def encode(
        self, messages: Sequence[Message], sentence: str | None, answers: Mapping[str, Sequence[int]]
    ) -> list[int]:
        """Token ids of the conversation, up to where the next answer begins.

        Args:
            messages: checked messages, the user's own system prompt first if there is one.
            sentence: a base or attribute prompt; it stands behind the user's own system prompt. None adds nothing.
            answers: ids of answers that were generated, by their text.

        Raises:
            ChatTemplateError: the template fails on these messages.
        """
        messages = self._with_sentence(messages, sentence)
        model, control = self.model, self.model.control_pattern
        spliced: list[str | Sequence[int]] = []
        marked: list[Message] = []
        for message in messages:
            content = message["content"]
            known = answers.get(content) if message["role"] == "assistant" else None
            if known is not None:
                spliced.append(known)
            elif len(content) > _LONG or control.search(content) or _MARK_CHARACTERS.search(content):
                spliced.append(content)
            else:
                marked.append(message)
                continue
            marked.append({"role": message["role"], "content": f"\ue0f0{len(spliced) - 1}\ue0f1"})
        ids: list[int] = []
        parts = _MARK.split(model.chat_template.render(marked))  # text, mark, text, mark, ..., text
        for text, mark in zip_longest(parts[::2], parts[1::2]):
            if mark is not None and int(mark) >= len(spliced):
                raise ChatTemplateError(f"{model.path.name}: its chat template writes private-use characters")
            held = "" if mark is None else spliced[int(mark)]
            if not isinstance(held, str):
                text = text.removesuffix(self._before_answer)
            if text:
                ids += self._markup_ids(text, self._continues(ids))
            ids += self._typed_ids(held, self._continues(ids)) if isinstance(held, str) else held
        bos = model.special_ids["bos"]
        if model.adds_bos and (not ids or ids[0] != bos):
            ids.insert(0, bos)
        return ids

    @cached_property
    def end_of_turn(self) -> int | None:
        """The token that ends an answer, or None where the vocabulary has none.

        It is what the template writes right behind an answer of the past, where that is an end token; else the model's
        own end of turn, or of text.
        """
        user, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": _PROBE}
        model = self.model
        try:
            behind = model.chat_template.render([user, answer, user]).partition(_PROBE)[2].lstrip()
        except ChatTemplateError:
            behind = ""
        written = model.tokenize(behind, special=True, continues=True)[:1]
        candidates = [*written, model.special_ids["eot"], model.special_ids["eos"]]
        return next((token for token in candidates if token in model.end_ids), None)

    def encode_response(self, text: str, prompt: Sequence[int], most: int) -> list[int]:
        """Token ids of a given answer as it stands behind `prompt`, with the end of turn.

        Args:
            text: typed text, whoever wrote it.
            prompt: what `encode` gave.
            most: tokens of the text; a longer one is cut there, and then has no end.
        """
        ids = self.model.tokenize_typed(text, continues=self._continues(prompt))
        if len(ids) > most:
            return ids[:most]
        return ids if self.end_of_turn is None else [*ids, self.end_of_turn]

    def _continues(self, ids: Sequence[int]) -> bool:
        """Whether what comes next stands behind text, rather than behind a control token or nothing."""
        return bool(ids) and ids[-1] not in self.model.control_ids

    def _with_sentence(self, messages: Sequence[Message], sentence: str | None) -> list[Message]:
        messages = list(messages)
        own = messages.pop(0)["content"] if messages and messages[0]["role"] == "system" else None
        system = " ".join(text for text in (own, sentence) if text)
        if not system:
            return messages
        if self.has_system_role:
            return [{"role": "system", "content": system}, *messages]
        at = next(i for i, message in enumerate(messages) if message["role"] == "user")
        messages[at] = {"role": "user", "content": f"{system}\n\n{messages[at]['content']}"}
        return messages
