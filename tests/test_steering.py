"""Which sequence an attribute has, and what is computed when the active ones change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from drift_edge.errors import ModelError
from drift_edge.llama.context import Context
from drift_edge.llama.model import Model
from drift_edge.steering import ContextSettings, Steering
from tests import tiny

SETTINGS = ContextSettings(256, threads=1, flash_attn="off", cache_type="f32")
PROMPTS = {name: [20 + i] * 3 + list(range(5 + i)) for i, name in enumerate("abcdefgh")}
BASE = list(range(30, 45))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model(tiny.write(tmp_path_factory.mktemp("steering") / "m.gguf", tiny.byte_bpe())) as opened:
        yield opened


@pytest.fixture
def steering(model: Model) -> Iterator[Steering]:
    opened = Steering(model, SETTINGS, n_seq=4)  # the base and three attributes
    yield opened
    opened.close()


def prefill(steering: Steering, names: str) -> int:
    """Brings the attributes up, checks every row against a context of its own, and tells the tokens computed."""
    before = steering.context.counters.prefilled
    steering.prefill(BASE, {name: PROMPTS[name] for name in names}, None)
    rows = steering.logits()
    assert len(rows) == len(names) + 1
    for row, prompt in zip(rows, (BASE, *(PROMPTS[name] for name in names)), strict=True):
        with Context(steering.model, n_seq=1, n_ctx=256, threads=1, flash_attn="off", cache_type="f32") as alone:
            alone.prefill({0: prompt})
            assert np.abs(alone.logits()[0] - row).max() < 2e-4
    return steering.context.counters.prefilled - before


def length(names: str) -> int:
    return sum(len(PROMPTS[name]) for name in names)


def test_first_time_computes_everything(steering: Steering) -> None:
    assert prefill(steering, "abc") == len(BASE) + length("abc")


def test_again_computes_one_token_each(steering: Steering) -> None:
    prefill(steering, "abc")
    assert prefill(steering, "abc") == 4
    assert prefill(steering, "cab") == 4  # in another order
    assert prefill(steering, "b") == 2


def test_one_changed_attribute_computes_that_one(steering: Steering) -> None:
    prefill(steering, "abc")
    assert prefill(steering, "abd") == 3 + _new("d", "c")
    assert prefill(steering, "bd") == 3


def _new(name: str, instead_of: str) -> int:
    """Tokens of an attribute's prompt that are new to the sequence of another, which shares no beginning with it."""
    assert PROMPTS[name][0] != PROMPTS[instead_of][0]
    return len(PROMPTS[name])


def test_an_attribute_that_rests_keeps_its_sequence(steering: Steering) -> None:
    prefill(steering, "abc")
    prefill(steering, "a")
    assert prefill(steering, "abc") == 4


def test_the_one_longest_out_of_use_makes_room(steering: Steering) -> None:
    prefill(steering, "a")
    prefill(steering, "b")
    prefill(steering, "c")
    prefill(steering, "a")  # now b is the oldest
    assert prefill(steering, "d") == 1 + length("d")
    assert prefill(steering, "a") == 2
    assert prefill(steering, "c") == 2
    assert prefill(steering, "b") == 1 + length("b")


def test_attributes_of_the_same_call_never_push_each_other_out(steering: Steering) -> None:
    prefill(steering, "abc")
    assert prefill(steering, "def") == 1 + length("def")
    assert prefill(steering, "fed") == 4


def test_extend_is_one_decode_for_all(steering: Steering) -> None:
    prefill(steering, "ab")
    rows = steering.context.counters.rows
    steering.extend(7)
    assert steering.context.counters.decodes == 1
    assert steering.context.counters.rows - rows == 3
    assert steering.logits().shape[0] == 3
    assert steering.context.tokens[0] == [*BASE, 7]


def test_room_is_that_of_the_longest(steering: Steering) -> None:
    prefill(steering, "ab")
    assert steering.room() == 256 - max(len(BASE), len(PROMPTS["b"]))
    steering.extend(1)
    assert steering.room() == 255 - max(len(BASE), len(PROMPTS["b"]))


def test_fit_makes_room_once(steering: Steering) -> None:
    prefill(steering, "abc")
    assert not steering.fit(0)
    assert not steering.fit(3)
    assert steering.context.n_seq == 4
    assert steering.fit(5)
    assert steering.context.n_seq == 6
    assert prefill(steering, "abcde") == len(BASE) + length("abcde")
    assert not steering.fit(5)


def test_no_memory_for_more_leaves_what_is_there(steering: Steering, monkeypatch: pytest.MonkeyPatch) -> None:
    prefill(steering, "abc")

    def refuse(*_: object) -> Context:
        raise ModelError("no memory")

    monkeypatch.setattr(ContextSettings, "make", refuse)
    with pytest.raises(ModelError, match="no memory"):
        steering.fit(7)
    assert prefill(steering, "abc") == 4


def test_an_empty_set_of_attributes_is_the_base_alone(steering: Steering, tmp_path: Path) -> None:
    del tmp_path
    assert prefill(steering, "") == len(BASE)
