"""Chat templates: Jinja written by strangers, run in a sandbox with limits on size, output, memory and time.

A GGUF file carries its chat template as a program; `sandbox.py` is where it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NoReturn

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError

from drift_edge.errors import ChatTemplateError
from drift_edge.llama.sandbox import Environment, deadline

MAX_TEMPLATE = 256 << 10  # characters; the largest in use have about 20,000
MAX_OUTPUT = 2 << 20  # characters beyond the messages' own
_MAX_SAID = 300
MAX_SECONDS = 2.0  # of the processor

Message = dict[str, str]

# For models that carry no template. ChatML where its tokens exist, else plain text.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n{% elif m.role == 'user' %}"
    "User: {{ m.content }}\n{% else %}Assistant: {{ m.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
PLAIN_STOP = "\nUser:"


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: the Jinja source.
        bos: text of the beginning-of-sequence token, for `{{ bos_token }}`.
        eos: text of the end token, for `{{ eos_token }}`.
        where: name of the model, for messages.

    Raises:
        ChatTemplateError: larger than 256 KiB, or not valid Jinja.
    """

    def __init__(self, source: str, *, bos: str = "", eos: str = "", where: str = "the model") -> None:
        self.where, self.source = where, source
        if len(source) > MAX_TEMPLATE:
            raise ChatTemplateError(
                f"{where}: its chat template has {len(source):,} characters, at most {MAX_TEMPLATE:,} are accepted"
            )
        environment = Environment()
        environment.globals.update(raise_exception=_raise, strftime_now=_now, bos_token=bos, eos_token=eos)
        try:
            with deadline(MAX_SECONDS):
                self._template = environment.from_string(source)
            # jinja2 copies its chain of dictionaries anew for every rendering, slowly.
            self._template.globals = dict(self._template.globals)
        except Exception as error:  # jinja2's parser and Python's compiler have many ways to give up
            raise ChatTemplateError(f"{where}: its chat template cannot be compiled: {_said(error)}") from error

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The prompt text for `messages`.

        Raises:
            ChatTemplateError: the template refuses these messages, fails, or passes a limit of size or time.
        """
        most = MAX_OUTPUT + sum(len(m["content"]) for m in messages)
        parts: list[str] = []
        try:
            with deadline(MAX_SECONDS):
                for part in self._template.generate(
                    messages=[dict(m) for m in messages], add_generation_prompt=add_generation_prompt
                ):
                    most -= len(part)
                    if most < 0:
                        raise SecurityError(f"it writes over {MAX_OUTPUT:,} characters")
                    parts.append(part)
        except Exception as error:  # a template can raise anything that Python can
            raise ChatTemplateError(f"{self.where}: its chat template failed: {_said(error)}") from error
        return "".join(parts)


def _said(error: Exception) -> str:
    """What an error says, in one short line: a stranger may have written it."""
    text = "".join(c if c.isprintable() else " " for c in str(error)[:_MAX_SAID]).strip()
    return text or type(error).__name__


def _raise(message: object) -> NoReturn:
    raise TemplateError(str(message)[:_MAX_SAID])


def _now(pattern: str) -> str:
    if len(pattern) > _MAX_SAID or any(digit in pattern for digit in "0123456789"):  # "%999999d" pads
        raise SecurityError("strftime_now with a long pattern or a width")
    return datetime.now().strftime(pattern)
