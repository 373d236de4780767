"""Contexts: shared prefixes, many sequences, failures and cancelling, each held against a fresh context."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from drift_edge.errors import ClosedError, ContextOverflowError, DecodeError, UsageError
from drift_edge.kernel import AbortFlag
from drift_edge.llama.context import CACHE_TYPES, Aborted, Context
from drift_edge.llama.model import Model
from tests import tiny

EXACT = {"cache_type": "f32", "flash_attn": "off"}
CLOSE = 2e-4  # of logits with a deviation of about 2, when only the shape of a batch differs


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = tiny.write(tmp_path_factory.mktemp("context") / "m.gguf", tiny.byte_bpe(), dim=64, layers=2)
    with Model(path) as opened:
        yield opened


def fresh(model: Model, prompt: Sequence[int], *, n_ctx: int = 256) -> NDArray[np.float32]:
    """Logits after `prompt`, by a context of its own that sees it in one go."""
    with Context(model, n_seq=1, n_ctx=n_ctx, **EXACT) as context:
        context.prefill({0: prompt})
        return context.logits()[0].copy()


def prompt(seed: int, n: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, 256, n).tolist()


def test_different_prompts_give_different_logits(model: Model) -> None:
    # What the tests below compare would agree for nothing if the tiny model did not look at its prompt.
    a = prompt(0, 20)
    b = [a[0] + 1, *a[1:]]
    assert np.abs(fresh(model, a) - fresh(model, b)).max() > 0.1


def test_shared_prefixes_change_nothing(model: Model) -> None:
    rng = np.random.default_rng(7)
    with Context(model, n_seq=3, n_ctx=256, n_batch=48, **EXACT) as context:
        held: list[list[int]] = [[], [], []]
        for _ in range(12):
            wanted = {}
            for seq in rng.permutation(3)[: rng.integers(1, 4)].tolist():
                keep = held[seq][: rng.integers(0, len(held[seq]) + 1)]
                held[seq] = (keep + prompt(int(rng.integers(1 << 30)), int(rng.integers(1, 40))))[-200:]
                wanted[seq] = held[seq]
            before = [list(tokens) for tokens in context.tokens]
            reused, prefilled = context.counters.reused, context.counters.prefilled
            context.prefill(wanted)
            shared = sum(min(_common(before[seq], tokens), len(tokens) - 1) for seq, tokens in wanted.items())
            assert context.counters.reused - reused == shared
            assert context.counters.prefilled - prefilled == sum(map(len, wanted.values())) - shared
            for row, tokens in zip(context.logits(), wanted.values(), strict=True):
                assert np.abs(row - fresh(model, tokens)).max() < CLOSE
            assert all(context.tokens[seq] == tokens for seq, tokens in wanted.items())


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


def test_the_same_prompt_again_computes_one_token(model: Model) -> None:
    with Context(model, n_seq=2, n_ctx=256, **EXACT) as context:
        context.prefill({0: prompt(1, 30), 1: prompt(2, 20)})
        first = context.logits().copy()
        assert context.counters.prefilled == 50
        context.prefill({0: prompt(1, 30), 1: prompt(2, 20)})
        assert context.counters.prefilled == 52
        assert context.counters.reused == 48
        assert np.abs(context.logits() - first).max() < CLOSE


def test_a_shorter_prompt_rolls_back(model: Model) -> None:
    whole = prompt(3, 60)
    with Context(model, n_seq=1, n_ctx=256, **EXACT) as context:
        context.prefill({0: whole})
        context.prefill({0: whole[:25]})
        assert context.tokens[0] == whole[:25]
        assert np.abs(context.logits()[0] - fresh(model, whole[:25])).max() < CLOSE


def test_truncate(model: Model) -> None:
    whole = prompt(4, 40)
    with Context(model, n_seq=2, n_ctx=256, **EXACT) as context:
        context.prefill({0: whole, 1: whole[:10]})
        context.truncate(0, 100)  # more than there is: nothing happens
        assert context.tokens == [whole, whole[:10]]
        context.truncate(0, 15)
        assert context.tokens == [whole[:15], whole[:10]]
        context.extend([whole[15]], [0])
        assert np.abs(context.logits()[0] - fresh(model, whole[:16])).max() < CLOSE
        context.truncate(0, 0)
        assert context.tokens[0] == []
        context.extend([5], [0])
        assert np.abs(context.logits()[0] - fresh(model, [5])).max() < CLOSE


def test_n_sequences_equal_n_contexts_of_one(model: Model) -> None:
    prompts = [prompt(10 + i, n) for i, n in enumerate([40, 1, 7, 40, 90])]
    steps = [prompt(50 + i, 5) for i in range(5)]
    with Context(model, n_seq=5, n_ctx=256, **EXACT) as context:
        context.prefill(dict(enumerate(prompts)))
        for at in range(6):
            for seq, row in enumerate(context.logits()):
                assert np.abs(row - fresh(model, prompts[seq] + steps[seq][:at])).max() < CLOSE, (seq, at)
            if at < 5:
                context.extend([step[at] for step in steps], range(5))
        assert context.counters.decodes == 5


def test_rows_stand_in_the_order_asked_for(model: Model) -> None:
    a, b, c = prompt(20, 9), prompt(21, 30), prompt(22, 17)
    with Context(model, n_seq=4, n_ctx=256, **EXACT) as context:
        context.prefill({3: a, 0: b, 2: c})
        assert context.logits().shape == (3, model.n_vocab)
        for row, tokens in zip(context.logits(), (a, b, c), strict=True):
            assert np.abs(row - fresh(model, tokens)).max() < CLOSE
        context.extend([1, 2], [2, 3])
        assert context.logits().shape == (2, model.n_vocab)
        for row, tokens in zip(context.logits(), ([*c, 1], [*a, 2]), strict=True):
            assert np.abs(row - fresh(model, tokens)).max() < CLOSE


@pytest.mark.parametrize("n_batch", [1, 4, 33, 512])
def test_prompts_over_several_batches(model: Model, n_batch: int) -> None:
    prompts = [prompt(30 + i, n) for i, n in enumerate([100, 70, 5, 1])]
    with Context(model, n_seq=4, n_ctx=256, n_batch=n_batch, **EXACT) as context:
        context.prefill(dict(enumerate(prompts)))
        for row, tokens in zip(context.logits(), prompts, strict=True):
            assert np.abs(row - fresh(model, tokens)).max() < CLOSE
        assert context.counters.prefilled == 176
        assert context.counters.rows == 4
        # All but the four last tokens fill whole batches, as far as lengths allow, and those share one decode.
        assert context.counters.prefill_decodes <= -(-172 // context.n_batch) + 3
        assert context.counters.decodes == 0


def test_logits_are_llama_cpps_own_buffer(model: Model) -> None:
    with Context(model, n_seq=2, n_ctx=256) as context:
        context.prefill({0: [1, 2], 1: [3]})
        view = context.logits()
        assert view is context.logits()
        assert view.dtype == np.float32
        assert not view.flags.owndata


def test_a_model_that_cannot_roll_back_starts_over(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recurrent models forget how they got where they are: llama.cpp then refuses to take a part out."""
    remove = lib.llama_memory_seq_rm

    def whole_alone(memory: object, seq: int, start: int, end: int) -> bool:
        return start <= 0 and bool(remove(memory, seq, start, end))

    monkeypatch.setattr(lib, "llama_memory_seq_rm", whole_alone)
    whole = prompt(8, 30)
    with Context(model, n_seq=2, n_ctx=256, **EXACT) as context:
        context.prefill({0: whole, 1: whole[:9]})
        context.prefill({0: [*whole[:20], 5, 6], 1: [*whole[:9], 7]})
        assert context.counters.prefilled == 30 + 9 + 22 + 1
        assert context.tokens == [[*whole[:20], 5, 6], [*whole[:9], 7]]
        for row, tokens in zip(context.logits(), context.tokens, strict=True):
            assert np.abs(row - fresh(model, tokens)).max() < CLOSE
        with pytest.raises(DecodeError):
            context.extend([1, 100_000], [0, 1])
        context.prefill({0: whole[:5]})
        assert np.abs(context.logits()[0] - fresh(model, whole[:5])).max() < CLOSE


# -- errors, after each of which the context is usable


def still_works(context: Context) -> None:
    tokens = prompt(99, 12)
    context.prefill({0: tokens})
    assert np.abs(context.logits()[0] - fresh(context.model, tokens)).max() < CLOSE


def test_no_logits_before_the_first_decode(model: Model) -> None:
    with Context(model, n_seq=1, n_ctx=256, **EXACT) as context:
        with pytest.raises(DecodeError, match="nothing has been decoded"):
            context.logits()
        still_works(context)


def test_prompt_longer_than_the_context(model: Model) -> None:
    with Context(model, n_seq=1, n_ctx=256, **EXACT) as context:
        with pytest.raises(ContextOverflowError, match="257 tokens, the context holds 256"):
            context.prefill({0: prompt(0, 257)})
        still_works(context)


def test_a_full_sequence_is_an_error(model: Model) -> None:
    with Context(model, n_seq=2, n_ctx=256, **EXACT) as context:
        context.prefill({0: prompt(0, 256), 1: [1]})
        with pytest.raises(DecodeError, match="no room in the KV cache"):
            context.extend([1, 2], [0, 1])
        assert [len(tokens) for tokens in context.tokens] == [256, 1]
        with pytest.raises(DecodeError, match="nothing has been decoded"):
            context.logits()
        still_works(context)


def test_empty_prompt(model: Model) -> None:
    with Context(model, n_seq=1, n_ctx=256, **EXACT) as context:
        with pytest.raises(UsageError, match="at least one token"):
            context.prefill({0: []})
        still_works(context)


@pytest.mark.parametrize("token", [-1, 10_000])
def test_a_token_that_does_not_exist(model: Model, token: int) -> None:
    with Context(model, n_seq=1, n_ctx=256, **EXACT) as context:
        context.prefill({0: [1, 2, 3]})
        with pytest.raises(DecodeError, match="invalid batch"):
            context.extend([token], [0])
        assert context.tokens[0] == [1, 2, 3]
        context.extend([4], [0])
        assert np.abs(context.logits()[0] - fresh(model, [1, 2, 3, 4])).max() < CLOSE


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"flash_attn": "maybe"}, "flash_attn: expected one of auto, off, on"),
        ({"cache_type": "f64"}, "cache_type: expected one of"),
        ({"n_seq": 0}, "n_seq: expected 1 to"),
        ({"n_seq": 100_000}, "n_seq: expected 1 to"),
        ({"n_ctx": 0}, "n_ctx: expected 1 to"),
        ({"n_ctx": -5}, "n_ctx: expected 1 to"),
        ({"n_ctx": 1 << 29, "n_seq": 8}, "n_ctx: expected 1 to 134,217,728 tokens for 8 sequences"),
        ({"threads": 0}, "threads: expected 1 to"),
        ({"threads": -2}, "threads: expected 1 to"),
        ({"threads": 1 << 20}, "threads: expected 1 to"),
    ],
)
def test_settings_out_of_range(model: Model, setting: dict[str, object], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        Context(model, **{"n_seq": 1, "n_ctx": 256, **setting})  # type: ignore[arg-type]


@pytest.mark.parametrize("cache_type", CACHE_TYPES)
def test_every_cache_type_works(model: Model, cache_type: str) -> None:
    tokens = prompt(5, 30)
    with Context(model, n_seq=1, n_ctx=256, cache_type=cache_type, flash_attn="on") as context:
        context.prefill({0: tokens})
        exact = fresh(model, tokens)
        assert np.corrcoef(context.logits()[0], exact)[0, 1] > 0.85


def test_closed_context(model: Model) -> None:
    context = Context(model, n_seq=1, n_ctx=256)
    context.prefill({0: [1, 2]})
    context.close()
    context.close()
    for use in (
        lambda: context.prefill({0: [1]}),
        lambda: context.extend([1], [0]),
        lambda: context.truncate(0, 1),
        lambda: context.set_abort(None),
        context.logits,
    ):
        with pytest.raises(ClosedError):
            use()


# -- cancelling


def test_a_flag_that_is_set_stops_before_anything_is_computed(model: Model) -> None:
    flag = AbortFlag()
    with Context(model, n_seq=2, n_ctx=256, **EXACT) as context:
        context.prefill({0: [1, 2, 3], 1: [4]})
        context.set_abort(flag)
        flag.set()
        with pytest.raises(Aborted):
            context.extend([9, 9], [0, 1])
        with pytest.raises(Aborted):
            context.prefill({0: [1, 2, 3, 4, 5, 6]})
        assert context.tokens == [[1, 2, 3], [4]]
        flag.clear()
        context.extend([7, 8], [0, 1])
        for row, tokens in zip(context.logits(), ([1, 2, 3, 7], [4, 8]), strict=True):
            assert np.abs(row - fresh(model, tokens)).max() < CLOSE
        flag.set()
        context.set_abort(None)
        still_works(context)


def test_cancelling_in_the_middle_of_a_decode(tmp_path: Path) -> None:
    """One decode of seconds ends soon after the flag is set, and what it left behind is taken out again."""
    vocab = tiny.byte_bpe()
    with Model(tiny.write(tmp_path / "m.gguf", vocab, dim=256, layers=16, n_ctx=4096)) as model:
        tokens = prompt(6, 4000)
        flag = AbortFlag()
        with Context(model, n_seq=2, n_ctx=4096, n_batch=4096, threads=1, **EXACT) as context:
            context.prefill({1: tokens[:50]})
            context.set_abort(flag)
            timer = threading.Timer(0.15, flag.set)
            timer.start()
            start = time.perf_counter()
            with pytest.raises(Aborted):
                # Of unequal sequences llama.cpp computes the common length first: that part is done by then.
                context.prefill({0: tokens, 1: tokens[:90]})
            took = time.perf_counter() - start
            timer.join()
            assert took > 0.1, "the machine was done before the flag was set: make the model larger"
            flag.clear()
            assert context.tokens == [[], tokens[:50]]
            context.prefill({0: tokens[:30], 1: tokens[:60]})
            for row, n in zip(context.logits(), (30, 60), strict=True):
                assert np.abs(row - fresh(model, tokens[:n])).max() < CLOSE


def test_feeding_several_tokens_of_several_sequences_gives_the_rows_asked_for(model: Model) -> None:
    a, b = prompt(3, 30), prompt(4, 21)
    with Context(model, n_seq=3, n_ctx=256, n_outputs=12, **EXACT) as context:
        context.prefill({0: a[:20], 2: b[:18]})
        context.feed([(2, b[18:]), (0, a[20:])], outputs=[3, 4])
        expected = [fresh(model, b[:n]) for n in (19, 20, 21)] + [fresh(model, a[:n]) for n in (27, 28, 29, 30)]
        assert context.logits().shape == (7, model.n_vocab)
        assert np.abs(context.logits() - expected).max() < CLOSE
        assert context.tokens == [a, [], b]
        assert context.counters.decodes == 1
        context.truncate(0, 25)
        context.feed([(0, a[25:])])
        assert np.abs(context.logits() - [fresh(model, a[:n]) for n in range(26, 31)]).max() < CLOSE


def test_feeding_more_than_the_context_was_made_for_is_refused_and_loses_nothing(model: Model) -> None:
    with Context(model, n_seq=2, n_ctx=64, n_batch=16, n_outputs=4, **EXACT) as context:
        context.prefill({0: [1, 2, 3]})
        with pytest.raises(UsageError, match="asked for 5 and 5"):
            context.feed([(0, [1, 2, 3, 4, 5])])
        with pytest.raises(UsageError, match="takes 16 tokens and gives 4 rows; asked for 17 and 1"):
            context.feed([(0, [1] * 17)], outputs=[1])
        with pytest.raises(DecodeError):
            _overfill(context)
        context.feed([(0, [4, 5])], outputs=[1])
        assert context.tokens[0] == [1, 2, 3, 4, 5]
        assert np.abs(context.logits()[0] - fresh(model, [1, 2, 3, 4, 5])).max() < CLOSE


def _overfill(context: Context) -> None:
    for _ in range(40):
        context.feed([(1, [7] * 16)], outputs=[1])
