"""A vocabulary of any size for models that know nothing: bytes, the words of our own prompts, and made-up words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gguf import GGUFWriter, TokenType

from drift_edge.attributes import Attributes

from .questions import TEXTS

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_CONTROL = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
N_CONTROL = len(_CONTROL)  # the last tokens of every vocabulary
_SPACE = "\u0120"  # how byte-level vocabularies write a space
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Vocabulary:
    """Tokens, one for every word that the benchmarks say, so that prompts have about as many tokens as on real models.

    Of the kind `llama-bpe`, where a word that is a token needs no merges.

    Args:
        n: tokens.
    """

    def __init__(self, n: int) -> None:
        words = sorted({form for word in _words() for form in (word, _SPACE + word)})
        self.tokens = list(dict.fromkeys([*_byte_chars(), _SPACE + "t", *words]))
        known, i = set(self.tokens), 0
        while len(self.tokens) < n - N_CONTROL:
            made_up = _SPACE + _made_up(i)
            if made_up not in known:
                self.tokens.append(made_up)
            i += 1
        self.tokens = [*self.tokens[: n - N_CONTROL], *_CONTROL]
        self.types = [TokenType.NORMAL] * (n - N_CONTROL) + [TokenType.CONTROL] * N_CONTROL

    @property
    def before_answer(self) -> int:
        """The id of a prompt's last token, a line's end."""
        return self.tokens.index(_byte_chars()[ord("\n")])

    def write(self, writer: GGUFWriter) -> None:
        """Add the tokenizer's keys."""
        end = self.tokens.index("<|eot_id|>")
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("llama-bpe")
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges([f"{_SPACE} t"])  # there must be one
        writer.add_bos_token_id(self.tokens.index("<|begin_of_text|>"))
        writer.add_eos_token_id(end)
        writer.add_eot_token_id(end)
        writer.add_add_bos_token(False)  # the template has it
        writer.add_chat_template(TEMPLATE)


def _words() -> Iterator[str]:
    pool = Attributes.builtin()
    for text in ("system user assistant", pool.base, *(pool[name].prompt for name in pool), *TEXTS):
        yield from re.findall(r"[^\W\d_]+", text)


def _made_up(i: int) -> str:
    """Words of four letters and more, each once."""
    letters = ""
    while i or len(letters) < 4:
        i, at = divmod(i, 26)
        letters = _LETTERS[at] + letters
    return letters


def _byte_chars() -> list[str]:
    """The printable character by which byte-level vocabularies write each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(other)) for b in range(256)]
