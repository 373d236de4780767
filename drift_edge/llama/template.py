"""Chat templates: Jinja written by strangers, run in a sandbox with limits on size, output, memory and time.

A GGUF file carries its chat template as a program. jinja2's immutable sandbox keeps it from the machine; what the
sandbox does not stop (endless loops, strings that double) is stopped here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.compiler import CodeGenerator
from jinja2.exceptions import SecurityError
from jinja2.nodes import Concat
from jinja2.sandbox import ImmutableSandboxedEnvironment

from drift_edge.errors import ChatTemplateError

MAX_TEMPLATE = 256 << 10  # characters; the largest in use have about 20,000
MAX_OUTPUT = 4 << 20  # characters beyond the messages' own
MAX_SECONDS = 2.0
_MAX_INT = 1 << 20

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
        self.where = where
        if len(source) > MAX_TEMPLATE:
            raise ChatTemplateError(
                f"{where}: its chat template has {len(source):,} characters, at most {MAX_TEMPLATE:,} are accepted"
            )
        environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        environment.globals.update(raise_exception=_raise, strftime_now=_now, bos_token=bos, eos_token=eos)
        try:
            with _deadline(MAX_SECONDS):
                self._template = environment.from_string(source)
        except (TemplateError, _TimeUpError, RecursionError, OverflowError, ValueError) as error:
            raise ChatTemplateError(f"{where}: its chat template cannot be compiled: {error}") from error

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The prompt text for `messages`.

        Raises:
            ChatTemplateError: the template refuses these messages, fails, or passes a limit of size or time.
        """
        most = MAX_OUTPUT + sum(len(m["content"]) for m in messages)
        parts: list[str] = []
        try:
            with _deadline(MAX_SECONDS):
                for part in self._template.generate(
                    messages=[dict(m) for m in messages], add_generation_prompt=add_generation_prompt
                ):
                    most -= len(part)
                    if most < 0:
                        raise SecurityError(f"it writes over {MAX_OUTPUT:,} characters")
                    parts.append(part)
        except Exception as error:  # a template can raise anything that Python can
            raise ChatTemplateError(f"{self.where}: its chat template failed: {error}") from error
        return "".join(parts)


class _TimeUpError(Exception):
    pass


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Stop template code after `seconds`: compiled templates are Python, so a line trace sees every loop turn.

    Only this thread is traced, and only frames whose code comes from a template. A tracer that was there before
    (a debugger, coverage) is put back.
    """
    end = time.monotonic() + seconds

    def trace_lines(_frame: FrameType, _event: str, _arg: object) -> Callable[..., Any] | None:
        if time.monotonic() > end:
            raise _TimeUpError(f"it took over {seconds:g} seconds")
        return trace_lines

    def trace(frame: FrameType, _event: str, _arg: object) -> Callable[..., Any] | None:
        if time.monotonic() > end:
            raise _TimeUpError(f"it took over {seconds:g} seconds")
        return trace_lines if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def _bounded(value: Any) -> Any:
    if isinstance(value, (str, list, tuple, bytes)) and len(value) > MAX_OUTPUT:
        raise SecurityError(f"a value passes {MAX_OUTPUT:,} elements")
    if isinstance(value, int) and value.bit_length() > 64:
        raise SecurityError("a number passes 64 bits")
    return value


def _bounded_concat(parts: Sequence[Any]) -> str:
    texts = [str(part) for part in parts]
    if sum(map(len, texts)) > MAX_OUTPUT:
        raise SecurityError(f"a text passes {MAX_OUTPUT:,} characters")
    return "".join(texts)


class _CodeGenerator(CodeGenerator):
    """Sends `~` through the environment, so that its result can be bounded."""

    def visit_Concat(self, node: Concat, frame: Any) -> None:  # noqa: N802 (jinja2's name)
        self.write("environment.concat_bounded((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox with bounds on what an operator or a call may build."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    code_generator_class = _CodeGenerator
    concat_bounded = staticmethod(_bounded_concat)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # These can build a huge text from a small one and a number; no chat template needs them.
        for name in ("center", "indent", "format", "wordwrap", "pprint"):
            self.filters.pop(name, None)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator in ("*", "**") and not (_small(left) and _small(right)):
            raise SecurityError(f"{operator!r} on anything but small numbers")
        if operator == "%" and isinstance(left, (str, bytes)):
            raise SecurityError("'%' on text")
        return _bounded(super().call_binop(context, operator, left, right))

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, int) and abs(value) > _MAX_INT:
                raise SecurityError("a call with a huge number")
        if getattr(function, "__name__", "") in ("format", "format_map") and isinstance(
            getattr(function, "__self__", None), str
        ):
            raise SecurityError("str.format")
        return _bounded(super().call(context, function, *args, **kwargs))


def _small(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= _MAX_INT


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
