"""Drift inside someone else's `llama_cpp.Llama`: the same text as the engine's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from benchmarks.peers import plain_llama
from drift_edge import Drift, DriftLogitsProcessor, SamplerSettings
from drift_edge.attributes import Attributes
from drift_edge.errors import ModelFileError, TokenizerMismatchError, UsageError
from tests import tiny

TALK = [
    {"role": "system", "content": "You make tea."},
    {"role": "user", "content": "How do you make tea?"},
    {"role": "assistant", "content": "With water."},
    {"role": "user", "content": "Is that good?"},
]
WEIGHTS = {"concise": 0.9, "vivid": -0.4, "formal": 0.6}


@pytest.fixture
def llama(bpe_files: tuple[Path, Path]) -> Any:
    return plain_llama(bpe_files[0], n_ctx=512, type_k=0, type_v=0, flash_attn=False)


@pytest.fixture
def processor(llama: Any, bpe_files: tuple[Path, Path]) -> Iterator[DriftLogitsProcessor]:
    with DriftLogitsProcessor(llama, bpe_files[1]) as opened:
        yield opened


def answer(llama: Any, messages: list[dict[str, str]], steer: Any, n: int = 25) -> str:
    done = llama.create_chat_completion(
        messages,
        temperature=0.0,
        max_tokens=n,
        repeat_penalty=1.0,
        logits_processor=llama_cpp.LogitsProcessorList([steer]) if steer else None,
    )
    text: str = done["choices"][0]["message"]["content"]
    return text


def generated(llama: Any, prompt: list[int], steer: Any, n: int = 25) -> list[int]:
    processors = llama_cpp.LogitsProcessorList([steer]) if steer else None
    tokens = llama.generate(prompt, temp=0.0, repeat_penalty=1.0, logits_processor=processors)
    return list(islice(tokens, n))


@pytest.mark.parametrize("messages", [TALK, TALK[:2]], ids=["three turns", "one turn"])
def test_same_tokens_as_the_engine(
    messages: list[dict[str, str]], llama: Any, processor: DriftLogitsProcessor, bpe_files: tuple[Path, Path]
) -> None:
    with Drift.load(*bpe_files, cache_type="f32", flash_attn="off") as drift:
        cold = SamplerSettings(temperature=0, plausibility=0)
        ours = drift.complete(messages, weights=WEIGHTS, beta=0.4, sampler=cold, max_tokens=25)
        plain = drift.complete(messages, steer="off", sampler=cold, max_tokens=25)
        prompt = drift.pair.llm_format.encode(messages, None, {})
    steer = processor.for_chat(messages, weights=WEIGHTS, beta=0.4)
    assert generated(llama, prompt, steer, len(ours.tokens)) == list(ours.tokens)
    llama.reset()
    assert generated(llama, prompt, None, len(plain.tokens)) == list(plain.tokens)
    assert ours.tokens != plain.tokens
    assert len(ours.tokens) > 5


def test_same_text_as_the_engine_on_the_builtin_pair(builtin_files: tuple[Path, Path]) -> None:
    talk = [{"role": "system", "content": Attributes.builtin().base}, {"role": "user", "content": "What is a bicycle?"}]
    with DriftLogitsProcessor(plain_llama(builtin_files[0], n_ctx=512), builtin_files[1]) as processor:
        llama = plain_llama(builtin_files[0], n_ctx=512, flash_attn=True)  # as the engine has it
        # The LLM has s_0 as its system prompt, as in the engine; the sLM's prompts are made of the question alone.
        steer = processor.for_chat(talk[1:], weights=WEIGHTS)
        steered = answer(llama, talk, steer, 60)
    with Drift.load(*builtin_files) as drift:
        cold = SamplerSettings(temperature=0, plausibility=0)
        ours = drift.complete(talk[1:], weights=WEIGHTS, sampler=cold, max_tokens=60)
    assert steered == ours.text


def test_second_answer_needs_a_second_processor(llama: Any, processor: DriftLogitsProcessor) -> None:
    first = processor.for_chat(TALK, weights=WEIGHTS)
    once = answer(llama, TALK, first)
    with pytest.raises(UsageError, match="a processor serves one completion"):
        first(np.array([1, 2, 3], np.intc), np.zeros(391, np.single))
    assert answer(llama, TALK, processor.for_chat(TALK, weights=WEIGHTS)) == once


def test_no_weights_change_nothing(processor: DriftLogitsProcessor) -> None:
    scores = np.random.default_rng(0).standard_normal(391).astype(np.float32)
    for weights in ({}, {"concise": 0.0}):
        assert processor.for_chat(TALK, weights=weights)(np.array([1, 2], np.intc), scores) is scores


def test_scores_are_left_alone_and_padding_is_shut_out(tmp_path: Path) -> None:
    padded = tiny.byte_bpe().padded(9)
    llm, slm = tiny.write_pair(tmp_path, padded)
    with DriftLogitsProcessor(plain_llama(llm, n_ctx=256), slm) as processor:
        scores = np.zeros(len(padded), np.single)
        fused = processor.for_chat(TALK, weights=WEIGHTS)(np.array([1, 2, 3], np.intc), scores)
        assert not scores.any()
        assert fused.dtype == np.single
        assert np.isneginf(fused[-9:]).all()
        assert np.isfinite(fused[:-9]).all()
        assert fused[:-9].std() > 0.1


def test_more_attributes_than_the_first_room(llama: Any, processor: DriftLogitsProcessor) -> None:
    many = dict.fromkeys(list(Attributes.builtin())[:12], 0.2)
    assert answer(llama, TALK, processor.for_chat(TALK, weights=many, active=12))


def test_wrong_arguments(llama: Any, processor: DriftLogitsProcessor, spm_files: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="unknown attribute"):
        processor.for_chat(TALK, weights={"nice": 1})
    with pytest.raises(UsageError, match="beta"):
        processor.for_chat(TALK, weights=WEIGHTS, beta=0)
    with pytest.raises(UsageError, match="there are none"):
        processor.for_chat([], weights=WEIGHTS)
    with pytest.raises(TokenizerMismatchError):
        DriftLogitsProcessor(llama, spm_files[1])
    with pytest.raises(ModelFileError):
        DriftLogitsProcessor(llama, "none.gguf")
