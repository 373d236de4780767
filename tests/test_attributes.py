"""The pool of attributes: the paper's, a person's own, and files that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from drift_edge.attributes import Attribute, Attributes
from drift_edge.errors import DriftError, UsageError


def test_the_papers_pool() -> None:
    pool = Attributes.builtin()
    assert len(pool) == 41
    assert {"concise", "vivid", "formal", "old-fashioned", "western", "utilitarian"} <= set(pool)
    assert pool.base
    assert len({a.prompt for a in pool.values()} | {pool.base}) == 42
    assert pool is Attributes.builtin()


def test_unknown_attribute_names_close_ones() -> None:
    pool = Attributes.builtin()
    assert pool.require("concise").name == "concise"
    with pytest.raises(UsageError, match="unknown attribute 'formall'; did you mean formal"):
        pool.require("formall")
    with pytest.raises(UsageError, match="`drift-edge attributes list` shows them all"):
        pool.require("zzzzzz")


def test_own_attributes(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('[attributes]\npirate = "You talk like a pirate."\nconcise = "Be brief."\n', encoding="utf-8")
    own = Attributes.from_toml(path)
    assert list(own) == ["pirate", "concise"]
    assert own.base == Attributes.builtin().base
    both = Attributes.builtin().extended(own)
    assert len(both) == 42
    assert both["concise"].prompt == "Be brief."
    assert both["pirate"].prompt == "You talk like a pirate."
    assert Attributes.builtin()["concise"].prompt != "Be brief."
    assert len(Attributes.builtin().extended([Attribute("x", "You are x.")])) == 42
    path.write_text('[base]\nprompt = "Base."\n[attributes]\na = "A."\n', encoding="utf-8")
    assert Attributes.from_toml(path).base == "Base."


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", r"expected a table \[attributes\]"),
        (b"attributes = 5", r"expected a table \[attributes\]"),
        (b"[attributes]", r"expected a table \[attributes\]"),
        (b"[attributes\n", "not valid TOML"),
        (b"a = " + b"[" * 50_000, "not valid TOML"),
        (b"a = " + b"9" * 5_000, "not valid TOML"),
        (b'[attributes]\na = "\xff"', "not valid TOML"),
        (b"[attributes]\na = 5", "attribute 'a': expected a prompt that is not empty, got 5"),
        (b'[attributes]\na = "  "', "expected a prompt that is not empty"),
        (b'[attributes]\nA = "x"', "attribute name 'A': expected 1-64 of a-z"),
        (b'[attributes]\n"a=b" = "x"', "attribute name 'a=b'"),
        (b'[attributes]\n"-a" = "x"', "starting with a letter or digit"),
        (b'[attributes]\na = "x"\na = "y"', "not valid TOML"),
        (b'[attributes.a]\nprompt = "x"', "expected a prompt"),
        (b'[base]\nprompt = ""\n[attributes]\na = "x"', "base prompt: expected text"),
        (b'base = "x"\n[attributes]\na = 1', "attribute 'a'"),
        (b'[attributes]\na = "' + b"x" * 2001 + b'"', "its prompt has 2001 characters, at most 2000"),
        (b"#" * 1_000_001, "at most 1,000,000 bytes"),
    ],
)
def test_file_that_is_wrong(raw: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(raw)
    with pytest.raises(UsageError, match=expected) as caught:
        Attributes.from_toml(path)
    assert str(path) in str(caught.value)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UsageError, match="cannot read the attributes file"):
            Attributes.from_toml(path)
    with pytest.raises(DriftError):
        Attributes.from_toml("a\0b")


def test_names_must_differ() -> None:
    with pytest.raises(UsageError, match="'a' is defined twice"):
        Attributes("Base.", [Attribute("a", "x"), Attribute("a", "y")])
