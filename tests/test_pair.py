"""The proof that two models share a tokenizer, and what it says when they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from drift_edge import Drift, SamplerSettings
from drift_edge.errors import TokenizerMismatchError
from drift_edge.llama.model import Model
from drift_edge.pair import ModelPair, real_tokens, shared_vocabulary
from tests import tiny
from tests.conftest import ASK

BPE, SPM = tiny.byte_bpe(), tiny.spm()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[str, tiny.Vocab], Model]]:
    """Opens a vocabulary as a model of the given name."""
    models: list[Model] = []

    def open_one(name: str, vocab: tiny.Vocab) -> Model:
        models.append(Model(tiny.write(tmp_path / f"{name}.gguf", vocab), vocab_only=True))
        return models[-1]

    yield open_one
    for model in models:
        model.close()


Opened = Callable[[str, tiny.Vocab], Model]


@pytest.mark.parametrize("vocab", [BPE, SPM], ids=["bpe", "spm"])
def test_equal_tokenizers_pass(vocab: tiny.Vocab, opened: Opened) -> None:
    llm, slm = opened("llm", vocab), opened("slm", vocab)
    assert ModelPair(llm, slm).n_vocab == len(vocab)
    assert shared_vocabulary(llm, llm) == len(vocab)


TEA = BPE.id("Ġtea")
DIFFERENT = {
    "one token's text": (BPE, BPE.changed(TEA, text="Ġtei"), f"token {TEA} is 'Ġtea' in the LLM and 'Ġtei' in the sLM"),
    "the last token's text": (SPM, SPM.changed(len(SPM) - 1, text="<end>"), "'<|end|>' in the LLM and '<end>' in the"),
    "one token's type": (BPE, BPE.changed(TEA, kind=tiny.CONTROL), f"token {TEA} 'Ġtea' has type"),
    "a normal token unused": (BPE, BPE.changed(TEA, kind=tiny.UNUSED), f"token {TEA} 'Ġtea' has type"),
    "a token more in the LLM": (
        BPE.padded(1, kind=tiny.NORMAL, text="more"),
        BPE,
        f"only the LLM has token {len(BPE)}, 'more' \\({len(BPE) + 1} against {len(BPE)}",
    ),
    "a token more in the sLM": (
        SPM,
        SPM.padded(1, kind=tiny.CONTROL, text="more"),
        f"only the sLM has token {len(SPM)}",
    ),
    "another kind of tokenizer": (BPE, SPM, "tokenizer.ggml.model is 'gpt2' in the LLM and 'llama' in the sLM"),
    "another pre-tokenizer": (BPE, BPE.with_keys(ggml__pre="llama-bpe"), "tokenizer.ggml.pre is 'gpt-2' in the LLM"),
    "a merge less": (
        BPE,
        tiny.replace(BPE, merges=(BPE.merges or [])[:-1]),
        "tokenizer.ggml.merges is 131 in the LLM and 130 in the sLM",
    ),
    "merges in another order": (
        BPE,
        tiny.replace(BPE, merges=(BPE.merges or [])[::-1]),
        "they split .* differently",
    ),
    "another end of text": (
        BPE,
        BPE.with_keys(ggml__eos_token_id=BPE.id("<|user|>")),
        f"the eos id is {BPE.id('<|end|>')} in the LLM and {BPE.id('<|user|>')} in the sLM",
    ),
    "another beginning": (SPM, SPM.with_keys(ggml__bos_token_id=2), "the bos id is 1 in the LLM and 2 in the sLM"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_first_difference_is_shown(name: str, opened: Opened) -> None:
    ours, theirs, expected = DIFFERENT[name]
    with pytest.raises(TokenizerMismatchError, match=expected) as caught:
        ModelPair(opened("big", ours), opened("small", theirs))
    assert "the LLM big.gguf and the sLM small.gguf do not share a tokenizer" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [tiny.UNUSED, tiny.USER_DEFINED, tiny.UNKNOWN, tiny.NORMAL])
def test_padded_tails_pass(kind: int, opened: Opened) -> None:
    padded = opened("padded", BPE.padded(73, kind=kind))
    assert real_tokens(padded) == len(BPE)
    assert shared_vocabulary(padded, opened("plain", BPE)) == len(BPE)
    assert shared_vocabulary(opened("plain2", BPE), padded) == len(BPE)
    assert shared_vocabulary(padded, opened("padded2", BPE.padded(5, kind=kind))) == len(BPE)


def test_a_tail_that_is_no_padding_does_not_pass(opened: Opened) -> None:
    odd = BPE.padded(3, kind=tiny.NORMAL, text="[PAD{}0]")  # not its own number
    with pytest.raises(TokenizerMismatchError):
        shared_vocabulary(opened("odd", odd), opened("plain", BPE))
    hole = BPE.padded(3).changed(len(BPE) + 2, text="real", kind=tiny.NORMAL)
    assert real_tokens(opened("hole", hole)) == len(BPE) + 3


@pytest.mark.parametrize("kind", [tiny.UNUSED, tiny.USER_DEFINED])
def test_padding_is_never_drawn(kind: int, tmp_path: Path) -> None:
    """Both models want nothing but padding, by far; every token drawn is a real one all the same."""
    padded = BPE.padded(64, kind=kind)
    dim = 64
    head = np.random.default_rng(3).standard_normal((len(padded), dim), np.float32)
    head[len(BPE) :] = 0
    # A token's embedding has a first component of 1, and the padding's rows look at that alone.
    embedding = np.random.default_rng(4).standard_normal((len(padded), dim), np.float32)
    embedding[:, 0] = 20
    head[len(BPE) :, 0] = 50
    tensors = {"token_embd.weight": embedding, "output.weight": head}
    llm, slm = (tiny.write(tmp_path / f"{n}.gguf", padded, dim=dim, tensors=tensors) for n in ("llm", "slm"))
    with Drift.load(llm, slm) as drift:
        assert drift.pair.n_vocab == len(BPE)
        for settings in (SamplerSettings(temperature=0), SamplerSettings(temperature=2, top_k=0, top_p=1, min_p=0)):
            for weights in ({}, {"concise": 1.0}):
                answer = drift.complete(ASK, weights=weights, sampler=settings, seed=1, max_tokens=60)
                assert len(answer.tokens) > 0
                assert max(answer.tokens) < len(BPE)
        row = drift._contexts.llm.logits()[0]
        assert row[len(BPE) :].min() > row[: len(BPE)].max()  # the padding did lead
        assert drift.next_logprobs(ASK).shape == (1, len(BPE))


def test_foreign_vocabularies_prove_their_pair_and_chat(foreign_files: tuple[Path, Path]) -> None:
    with Drift.load(*foreign_files) as drift:
        first = drift.complete(ASK, weights={"concise": 1, "vivid": -0.5}, seed=3, max_tokens=12)
        talk = [*ASK, {"role": "assistant", "content": first.text}, {"role": "user", "content": "<|end|></s> more?"}]
        second = drift.complete(talk, weights={"concise": 1, "vivid": -0.5}, seed=3, max_tokens=12)
        assert first.finish_reason in ("length", "stop")
        assert second.timings.prefilled_tokens < second.timings.prompt_tokens * 3


def test_foreign_vocabularies_refuse_each_other(foreign_vocab: Path, bpe_files: tuple[Path, Path]) -> None:
    with Model(foreign_vocab, vocab_only=True) as foreign, Model(bpe_files[1], vocab_only=True) as ours:
        with pytest.raises(TokenizerMismatchError):
            ModelPair(foreign, ours)
        with pytest.raises(TokenizerMismatchError):
            ModelPair(ours, foreign)
