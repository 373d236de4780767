"""The public names as one piece: all there, typed, documented, in the reference, and no argument that hides."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import drift_edge
from drift_edge import errors

ROOT = Path(__file__).parent.parent
NAMES = sorted(set(drift_edge.__all__) - {"__version__"})
OBJECTS = {name: getattr(drift_edge, name) for name in NAMES}


def callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every function, and of every class what makes it and its public methods."""
    for name, thing in OBJECTS.items():
        if inspect.isclass(thing):
            if "__init__" in vars(thing) and not issubclass(thing, Exception):
                yield name, thing
            for base in thing.__mro__:
                if base.__module__.startswith("drift_edge."):
                    methods = {n: inspect.getattr_static(base, n) for n in vars(base) if not n.startswith("_")}
                    yield from ((f"{name}.{n}", getattr(thing, n)) for n, m in methods.items() if _is_method(m))
        elif callable(thing):
            yield name, thing


def _is_method(member: object) -> bool:
    return inspect.isroutine(member) or isinstance(member, (classmethod, staticmethod))


CALLABLES = dict(callables())


def test_everything_is_named_for_type_checkers_too() -> None:
    tree = ast.parse(Path(drift_edge.__file__ or "").read_text("utf-8"))
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    told = {
        alias.name: node.module
        for node in imported
        for alias in node.names
        if (node.module or "").startswith("drift_edge.") and alias.asname == alias.name
    }
    assert told == {name: f"drift_edge.{module}" for name, module in drift_edge._HOME.items()}
    assert sorted(told) == NAMES
    assert dir(drift_edge) == sorted(drift_edge.__all__)
    with pytest.raises(AttributeError, match="Nothing"):
        _ = drift_edge.Nothing  # type: ignore[attr-defined]


def test_every_error_is_public() -> None:
    tree = {name for name, thing in vars(errors).items() if inspect.isclass(thing)}
    assert tree <= set(NAMES)
    drawn = set(re.findall(r"\w*(?:Error)\b", errors.__doc__ or "")) - {"ValueError"}
    assert drawn == tree


def test_a_name_loads_its_own_module_alone() -> None:
    program = (
        "import sys, drift_edge; drift_edge.DriftError; "
        "print(*sorted(m for m in sys.modules if m.startswith('drift_edge')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["drift_edge", "drift_edge.errors"]
    program = "import sys, drift_edge; drift_edge.PreferencePair; print('llama_cpp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"Event"}))  # a union of three that are documented
def test_documented(name: str) -> None:
    thing = OBJECTS[name]
    assert (thing.__doc__ or "").strip()
    assert not (thing.__doc__ or "").startswith(f"{name}("), "a dataclass's signature is no documentation"
    if inspect.isclass(thing):
        for member, value in inspect.getmembers_static(thing):
            if not member.startswith("_") and (_is_method(value) or isinstance(value, property)):
                home = next(base for base in thing.__mro__ if member in vars(base))
                assert not home.__module__.startswith("drift_edge.") or inspect.getdoc(value), f"{name}.{member}"


@pytest.mark.parametrize("name", sorted(CALLABLES))
def test_signature(name: str) -> None:
    function = CALLABLES[name]
    signature = inspect.signature(function)
    documentation = inspect.getdoc(function) or ""
    if "Args:" in documentation and "other arguments are those of" not in documentation:
        described = documentation.partition("Args:")[2].partition("\n\n")[0]
    else:
        described = None
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        assert parameter.kind is not parameter.VAR_KEYWORD, "**kwargs hides what can be given"
        assert parameter.annotation is not parameter.empty, parameter
        if described is not None:
            assert re.search(rf"\b{parameter.name}\b[^:\n]*:", described), f"{parameter.name} is not described"
    if not inspect.isclass(function):
        assert signature.return_annotation is not signature.empty


def test_everything_is_in_the_reference() -> None:
    pages = (ROOT / "docs" / "reference").glob("*.md")
    told = set(re.findall(r"^::: (\S+)", "\n".join(page.read_text("utf-8") for page in pages), re.MULTILINE))
    for name, module in drift_edge._HOME.items():
        home = getattr(OBJECTS[name], "__module__", f"drift_edge.{module}")
        places = {home, f"{home}.{name}", f"drift_edge.{module}", f"drift_edge.{module}.{name}"}
        assert places & told, f"{name} is not in docs/reference"


def test_types_are_shipped() -> None:
    assert (Path(drift_edge.__file__ or "").parent / "py.typed").is_file()
