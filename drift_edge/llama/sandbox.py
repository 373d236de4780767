"""The sandbox that chat templates run in: jinja2's immutable one, with bounds on time and on what can be built.

jinja2 keeps a template from the machine, but not from its time and memory: a text can be doubled forty times in forty
lines. Python code can be stopped from outside, since a tracer sees every line; a single call into C cannot. So each
operation that could make something large out of something small is measured before or right after it runs, and the
ones that chat templates have no use for are not there.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count, islice
from types import FrameType
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_VALUE = 2 << 20  # characters and elements of one value, written out in full
MAX_INT = 1 << 20
_EVENTS = 32  # lines and calls of a template from one look at the time to the next


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What templates in use call, as far as it is harmless.
_FILTERS = _words("""
    abs batch capitalize count d default dictsort e escape first float groupby int items last length list lower map max
    min reject rejectattr reverse round safe select selectattr slice sort string title trim truncate unique upper
""")
_TEXT_METHODS = _words("""
    capitalize casefold count endswith find format index isalnum isalpha isdecimal isdigit islower isnumeric isspace
    istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip
    split splitlines startswith strip swapcase title upper
""")


class TimeUpError(Exception):
    """A template took too long."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Stop template code after `seconds` of this thread's processor time, so that a busy machine fails no template.

    Compiled templates are Python: a line trace sees every turn of a loop, and a call trace every Python function they
    call. A tracer that was there before (a debugger, coverage) is put back.

    Raises:
        TimeUpError: the time is up.
    """
    end = time.thread_time() + seconds
    events = count(1)

    def trace(frame: FrameType, _event: str, _arg: object) -> Callable[..., Any] | None:
        # To ask for the time at every event took most of the time of a rendering.
        if next(events) % _EVENTS == 0 and time.thread_time() > end:
            raise TimeUpError(f"it took over {seconds:g} seconds")
        return trace if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def bounded(value: Any) -> Any:
    """`value`, if it is of a size that a chat template can have a use for.

    Raises:
        SecurityError: it is not.
    """
    if isinstance(value, int) and value.bit_length() > 64:
        raise SecurityError("a number passes 64 bits")
    if _weight(value, {}) > MAX_VALUE:
        raise SecurityError(f"a value passes {MAX_VALUE:,} characters and elements")
    return value


def _weight(value: Any, seen: dict[int, int]) -> int:
    """Characters and elements of `value` written out in full: a list that holds another twice counts it twice.

    Lists that share their parts can mean more than they take, and a comparison or `str` walks all of it.
    """
    if isinstance(value, (str, bytes)):
        return len(value) + 1
    if isinstance(value, dict):
        parts: Iterable[Any] = (*value.keys(), *value.values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts = value
    else:
        return 1
    if id(value) not in seen:
        seen[id(value)] = 1 + sum(_weight(part, seen) for part in parts)
    return seen[id(value)]


def concat(parts: Iterable[Any]) -> str:
    """The parts as one text."""
    texts = [str(part) for part in islice(parts, MAX_VALUE)]
    _check_size(sum(map(len, texts)))
    return "".join(texts)


def _check_size(characters: int) -> None:
    if characters > MAX_VALUE:
        raise SecurityError(f"a text passes {MAX_VALUE:,} characters")


def _replace(text: Any, old: str, new: str, count: int = -1) -> str:
    text, old, new = str(text), str(old), str(new)
    times = text.count(old)
    _check_size(len(text) + (times if count is None or count < 0 else min(count, times)) * len(new))
    result: str = text.replace(old, new, -1 if count is None else count)
    return result


def _join(values: Iterable[Any], separator: Any = "", attribute: str | None = None) -> str:
    items = list(islice(values, MAX_VALUE))
    if attribute is not None:
        items = [item[attribute] for item in items]
    texts = [str(item) for item in bounded(items)]
    _check_size(len(texts) * len(str(separator)))
    return str(separator).join(texts)


def _format(text: str, *values: Any) -> str:
    """`str.format` with plain `{}` alone: widths and nested fields can build anything."""
    parts = text.split("{}")
    if len(parts) - 1 > len(values) or any("{" in part or "}" in part for part in parts):
        raise SecurityError("str.format with anything but {} for each value")
    return concat(piece for pair in zip(parts, (*values, ""), strict=False) for piece in pair)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON, as the authors of templates expect it: not escaped for HTML."""
    if indent is not None and not 0 <= indent <= 16:
        raise SecurityError("tojson with a huge indent")
    if separators is not None:
        _check_size(_weight(value, {}) * sum(map(len, separators)))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _indent(text: Any, width: int = 4, first: bool = False, blank: bool = False) -> str:
    if not isinstance(width, int) or not 0 <= width <= 64:
        raise SecurityError("indent by anything but a small number")
    lines = str(text).split("\n")
    pad = " " * width
    _check_size(len(lines) * width)
    return "\n".join(pad + line if (i or first) and (line or blank) else line for i, line in enumerate(lines))


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose numbers and result are bounded; it keeps what jinja2 has noted on it."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        _check_numbers((*args, *kwargs.values()))
        return bounded(function(*args, **kwargs))

    return guarded


def _check_numbers(values: Iterable[Any]) -> None:
    if any(isinstance(value, int) and abs(value) > MAX_INT for value in values):
        raise SecurityError("a call with a huge number")


class Generation(Extension):
    """`{% generation %}`, by which some templates mark what a model is trained on: here just its content."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's name and type)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The nodes between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _CodeGenerator(CodeGenerator):
    """Sends what the sandbox has no hook for, `~` and literals of containers, through the environment."""

    def visit_Concat(self, node: nodes.Concat, frame: Any) -> None:  # noqa: N802 (jinja2's name)
        self.write("environment.concat((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def _bounded(self, visit: Callable[[Any, Any], None], node: nodes.Expr, frame: Any) -> None:
        self.write("environment.bounded(")
        visit(node, frame)
        self.write(")")

    def visit_List(self, node: nodes.List, frame: Any) -> None:  # noqa: N802
        self._bounded(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Any) -> None:  # noqa: N802
        self._bounded(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Any) -> None:  # noqa: N802
        if node.ctx == "load":
            self._bounded(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)


class Environment(ImmutableSandboxedEnvironment):
    """jinja2's immutable sandbox, bounded, with the settings that chat templates are written for."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    code_generator_class = _CodeGenerator
    concat = staticmethod(concat)  # of macros, blocks and `~`
    bounded = staticmethod(bounded)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation], cache_size=0
        )
        self.globals.pop("lipsum")
        own = {"replace": _replace, "join": _join, "tojson": _to_json, "indent": _indent}
        known = {name: function for name, function in self.filters.items() if name in _FILTERS}
        self.filters = {name: _guarded(function) for name, function in (known | own).items()}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """jinja2's rule, and of a text only the methods that cannot blow it up."""
        if isinstance(obj, (str, bytes)) and attr not in _TEXT_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format`, harmless; jinja2 asks here for what `text.format` means."""
        text = getattr(value, "__self__", None)
        if not isinstance(text, str) or getattr(value, "__name__", "") not in ("format", "format_map"):
            return None
        return functools.partial(_format, text)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An intercepted operator."""
        if operator in ("*", "**") and not (_small(left) and _small(right, 64 if operator == "**" else MAX_INT)):
            raise SecurityError(f"{operator!r} on anything but small numbers")
        if operator == "%" and isinstance(left, (str, bytes)):
            raise SecurityError("'%' on text")
        return bounded(super().call_binop(context, operator, left, right))

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        """A call out of a template."""
        _check_numbers((*args, *kwargs.values()))
        bounded((args, kwargs))  # a macro finds them as lists, which it can hand on
        text, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(text, str) and name == "replace":
            own = {key: value for key, value in kwargs.items() if not key.startswith("_")}  # less jinja2's
            return _replace(text, *args, **own)
        if isinstance(text, str) and name == "join":
            (values,) = args
            return _join(values, text)
        return bounded(super().call(context, function, *args, **kwargs))


def _small(value: Any, most: int = MAX_INT) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= most
