"""Imports go one way: the table of docs/architecture.md names every module, and those above it that it may import."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = {"drift_edge": "drift_edge", "models": "drift_edge.models", "benchmarks": "drift_edge.benchmarks"}
FOLDERS |= {"cli": "drift_edge.cli"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT / folder).with_suffix("").parts
            if folder == "drift_edge" and inside[0] in FOLDERS:  # the other folders, linked by some installs
                continue
            found[".".join([package, *inside]).removesuffix(".__init__")] = path
    return found


def rooms() -> list[str]:
    """The table's rooms in its order, as paths from the root."""
    table = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").partition("\n## One answer")[0]
    cells = re.findall(r"^\| (`.*?`[^|]*) \|", table, re.M)
    paths = [path for cell in cells for path in re.findall(r"`([^`]+(?:\.py|/))`", cell)]
    return [path if (ROOT / path).exists() else f"drift_edge/{path}" for path in paths]


def room_of(path: Path, order: list[str]) -> int:
    """Index of the room that names `path` most closely; -1 for none."""
    name = path.relative_to(ROOT).as_posix()
    fits = [i for i, room in enumerate(order) if name == room or (room.endswith("/") and name.startswith(room))]
    return max(fits, key=lambda i: len(order[i]), default=-1)


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """What a module imports of ours, at its top or later: lines and dotted names."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                if whole in known or base in known:
                    yield node.lineno, whole if whole in known else base


def test_the_table_names_what_is_there() -> None:
    order = rooms()
    assert [room for room in order if not (ROOT / room).exists()] == []
    known = modules()
    assert len(known) > 100
    assert [name for name, path in known.items() if name != "drift_edge" and room_of(path, order) < 0] == []


def test_a_module_imports_only_from_modules_above_it() -> None:
    order, known = rooms(), modules()
    upward = []
    for name, path in known.items():
        if path.name == "__init__.py":  # it offers what its room holds
            continue
        for line, other in imports(name, path, known):
            if other != "drift_edge" and room_of(known[other], order) > room_of(path, order):
                upward.append(f"{path.relative_to(ROOT)}:{line} imports {other}")
    assert upward == []
