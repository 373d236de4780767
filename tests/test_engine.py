"""The engine: Eq. 15 against independent contexts, its laws, what it counts, and who may use it when."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.peers import plain_llama
from drift_edge import Answer, CancelToken, Drift, Finish, Notice, SamplerSettings, Token, conversation
from drift_edge.attributes import Attributes
from drift_edge.errors import ClosedError, ContextOverflowError, DecodeError, DriftError, UsageError
from drift_edge.events import Event
from drift_edge.pair import ModelPair
from tests import tiny
from tests.conftest import ASK

POOL = Attributes.builtin()
GREEDY = SamplerSettings(temperature=0, plausibility=0)
PLAIN = SamplerSettings(temperature=1, top_k=0, top_p=1, min_p=0, plausibility=0)
SEVEN = dict(zip(list(POOL)[:7], [0.8, -0.5, 0.3, 0.7, -0.2, 0.4, -0.6], strict=True))
EXACT = {"cache_type": "f32", "flash_attn": "off"}

Messages = list[dict[str, str]]


def some(k: int) -> dict[str, float]:
    return dict(list(SEVEN.items())[:k])


def follow_up(messages: Messages, answer: Answer, text: str = "Is that very good?") -> Messages:
    return [*messages, {"role": "assistant", "content": answer.text}, {"role": "user", "content": text}]


def finish_of(events: Iterator[Event]) -> Answer:
    last = list(events)[-1]
    assert isinstance(last, Finish)
    return last.answer


# -- Eq. 15 against plain numpy on contexts of another program


def written(messages: Messages, sentence: str | None) -> str:
    """The tiny template, by hand."""
    own = messages[0]["content"] if messages[0]["role"] == "system" else None
    system = " ".join(text for text in (own, sentence) if text)
    turns = [f"<|{m['role']}|>{m['content']}<|end|>" for m in messages if m["role"] != "system"]
    return (f"<|system|>{system}<|end|>" if system else "") + "".join(turns) + "<|assistant|>"


class Reference:
    """One model in `llama_cpp.Llama`, asked for the logits behind a text and ids."""

    def __init__(self, path: Path) -> None:
        self.llama = plain_llama(path, n_ctx=512, logits_all=True, type_k=0, type_v=0, flash_attn=False)

    def ids(self, text: str) -> list[int]:
        return self.llama.tokenize(text.encode(), add_bos=False, special=True)

    def rows(self, text: str, continuation: Sequence[int]) -> NDArray[np.float64]:
        prompt = self.ids(text)
        self.llama.reset()
        self.llama.eval([*prompt, *continuation])
        return self.llama.scores[len(prompt) - 1 : len(prompt) + len(continuation)].astype(np.float64)


def log_softmax(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    rows = rows - rows.max(axis=-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))


OWN = {"role": "system", "content": "You make tea."}
PAST = [*ASK, {"role": "assistant", "content": "With water."}, {"role": "user", "content": "Is that good?"}]


@pytest.mark.parametrize("beta", [0.5, 2.0])
@pytest.mark.parametrize("messages", [ASK, PAST, [OWN, *PAST]], ids=["one turn", "two turns", "own system prompt"])
def test_fused_distribution_is_eq_15(messages: Messages, beta: float, bpe_files: tuple[Path, Path]) -> None:
    llm, slm = map(Reference, bpe_files)
    continuation = llm.ids("Hello world, make the tea")
    h = llm.rows(written(messages, None if messages[0] is OWN else POOL.base), continuation)
    h_base = slm.rows(written(messages, POOL.base), continuation)
    for name, p in SEVEN.items():
        h = h + p / beta * (slm.rows(written(messages, POOL[name].prompt), continuation) - h_base)
    with Drift.load(*bpe_files, **EXACT) as drift:
        ours = drift.next_logprobs(messages, continuation, weights=SEVEN, beta=beta)
        again = drift.next_logprobs(messages, continuation, weights=SEVEN, beta=beta)
    assert ours.shape == (len(continuation) + 1, 391)
    assert np.abs(ours - log_softmax(h)).max() < 2e-3
    assert np.abs(ours - again).max() < 2e-3
    assert np.abs(np.exp(ours).sum(axis=1) - 1).max() < 1e-9


def test_steer_off_is_the_llm_alone(tiny_files: tuple[Path, Path]) -> None:
    with Drift.load(*tiny_files, **EXACT) as drift:
        prompt = drift.pair.llm_format.encode(ASK, POOL.base, {})
        ours = drift.complete(ASK, steer="off", weights=SEVEN, sampler=GREEDY, max_tokens=60)
    assert ours.mode == "off"
    assert len(ours.tokens) > 10
    assert ours.tokens == greedy(tiny_files[0], prompt, 60, type_k=0, type_v=0)


@pytest.mark.parametrize("flash", ["on", "off"])
def test_steer_off_is_the_llm_alone_on_the_builtin_pair(builtin_files: tuple[Path, Path], flash: str) -> None:
    """Flash attention, which `Llama` leaves off, moves the last bits: enough to turn a near tie."""
    for text in ("How do I make tea?", "What is a bicycle?", "Tell me about Quxberg ☕."):
        ask = [{"role": "user", "content": text}]
        with Drift.load(*builtin_files, flash_attn=flash) as drift:
            prompt = drift.pair.llm_format.encode(ask, POOL.base, {})
            ours = drift.complete(ask, steer="off", sampler=GREEDY, max_tokens=60)
        assert ours.tokens == greedy(builtin_files[0], prompt, 60, flash_attn=flash == "on")


def greedy(path: Path, prompt: Sequence[int], n: int, **settings: Any) -> tuple[int, ...]:
    """The tokens that `llama_cpp.Llama` generates at temperature 0."""
    llama = plain_llama(path, n_ctx=512, **settings)
    tokens: list[int] = []
    for token in llama.generate(list(prompt), temp=0.0, repeat_penalty=1.0):
        if llama_cpp.llama_vocab_is_eog(llama._model.vocab, token) or len(tokens) == n:
            break
        tokens.append(token)
    return tuple(tokens)


# -- laws


def test_no_weights_is_steer_off_bit_for_bit(drift: Drift) -> None:
    off = drift.next_logprobs(ASK, [5, 6], steer="off", weights=SEVEN)
    for weights in ({}, None, {"concise": 0.0, "vivid": 0}):
        assert (drift.next_logprobs(ASK, [5, 6], weights=weights) == off).all()
        answer = drift.complete(ASK, weights=weights, seed=5, max_tokens=30)
        assert answer.tokens == drift.complete(ASK, steer="off", weights=SEVEN, seed=5, max_tokens=30).tokens
        assert (answer.mode, answer.beta, answer.timings.slm_decodes) == ("off", None, 0)


def test_weights_steer(drift: Drift) -> None:
    # The laws around this one hold for an engine that ignores weights, too.
    off, on = drift.next_logprobs(ASK), drift.next_logprobs(ASK, weights=SEVEN)
    assert np.abs(np.exp(off) - np.exp(on)).sum() > 0.1


def test_only_p_over_beta_matters(drift: Drift) -> None:
    def rows(scale: float) -> NDArray[np.float64]:
        weights = {name: p * scale for name, p in SEVEN.items()}
        return drift.next_logprobs(ASK, [5, 6, 7], weights=weights, beta=0.5 * scale)

    assert (rows(1) == rows(4)).all()
    assert (rows(1) == rows(0.25)).all()
    assert np.abs(rows(1) - rows(3)).max() < 1e-4


def test_logits_are_linear_in_the_weights(drift: Drift) -> None:
    def odds(scale: float) -> NDArray[np.float64]:
        row = drift.next_logprobs(ASK, weights={name: scale * p for name, p in SEVEN.items()}, beta=1)[0]
        centred: NDArray[np.float64] = row - row.mean()
        return centred

    step = odds(1) - odds(0)
    assert np.abs(odds(2) - odds(0) - 2 * step).max() < 1e-3
    assert np.abs(odds(-1) - odds(0) + step).max() < 1e-3


def test_order_of_attributes_does_not_matter(drift: Drift) -> None:
    backwards = dict(reversed(SEVEN.items()))
    equal = dict.fromkeys(list(SEVEN), 0.5)
    assert np.abs(drift.next_logprobs(ASK, weights=SEVEN) - drift.next_logprobs(ASK, weights=backwards)).max() < 1e-4
    a = drift.next_logprobs(ASK, weights=equal)
    b = drift.next_logprobs(ASK, weights=dict(reversed(equal.items())))
    assert np.abs(a - b).max() < 1e-4


def test_only_the_largest_take_part(drift: Drift) -> None:
    three = drift.complete(ASK, weights=SEVEN, active=3, seed=0, max_tokens=5)
    largest = sorted(SEVEN, key=lambda name: -abs(SEVEN[name]))[:3]
    assert three.weights == {name: SEVEN[name] for name in largest}
    assert three.tokens == drift.complete(ASK, weights=three.weights, seed=0, max_tokens=5).tokens


def test_a_weight_pushes_its_attribute_up_and_down(tmp_path: Path) -> None:
    """With one attribute, the log-odds of any two tokens move by p/beta times what h_1 - h_base says of them."""
    llm, slm = tiny.write_pair(tmp_path, tiny.byte_bpe())
    with Drift.load(llm, slm, **EXACT) as drift:
        base = drift.next_logprobs(ASK)[0]
        with Drift.load(slm, slm, **EXACT) as alone:
            h_base = alone.next_logprobs(ASK)[0]
            own = [{"role": "system", "content": POOL["concise"].prompt}, *ASK]
            h_1 = alone.next_logprobs(own)[0]
        for p, beta in ((1.0, 0.5), (-0.3, 2.0)):
            moved = drift.next_logprobs(ASK, weights={"concise": p}, beta=beta)[0] - base
            expected = p / beta * (h_1 - h_base)
            assert np.abs((moved - moved[0]) - (expected - expected[0])).max() < 2e-3


# -- drawing


def test_same_seed_same_text(drift: Drift, bpe_files: tuple[Path, Path]) -> None:
    first = drift.complete(ASK, weights=SEVEN, seed=11, max_tokens=40)
    with Drift.load(*bpe_files) as other:
        assert other.complete(ASK, weights=SEVEN, seed=11, max_tokens=40).tokens == first.tokens
    assert drift.complete(ASK, weights=SEVEN, seed=12, max_tokens=40).tokens != first.tokens
    assert drift.complete(ASK, weights=SEVEN, seed=11, attempt=1, max_tokens=40).tokens != first.tokens
    assert drift.complete(ASK, weights=SEVEN, seed=11, attempt=0, max_tokens=40).tokens == first.tokens


def test_the_seed_told_gives_the_answer_again(drift: Drift) -> None:
    a, b = (drift.complete(ASK, weights=SEVEN, max_tokens=30) for _ in range(2))
    assert a.seed != b.seed
    assert a.tokens != b.tokens
    assert drift.complete(ASK, weights=SEVEN, seed=a.seed, max_tokens=30).tokens == a.tokens


def test_tokens_are_drawn_from_the_fused_distribution(tmp_path: Path) -> None:
    with Drift.load(*tiny.write_pair(tmp_path, tiny.byte_bpe()), **EXACT) as drift:
        events = list(drift.chat(ASK, weights=SEVEN, sampler=PLAIN, seed=3, max_tokens=25))
        tokens = [e for e in events if isinstance(e, Token)]
        rows = drift.next_logprobs(ASK, [e.token for e in tokens], weights=SEVEN)
        for event, row in zip(tokens, rows, strict=False):
            assert abs(event.logprob - row[event.token]) < 2e-3
            entropy = -(np.exp(row) * row).sum() / math.log(2)
            assert abs(event.entropy_bits - entropy) < 5e-3
        cold = drift.complete(ASK, weights=SEVEN, sampler=GREEDY, max_tokens=25)
        rows = drift.next_logprobs(ASK, cold.tokens, weights=SEVEN)
        assert rows[: len(cold.tokens)].argmax(axis=1).tolist() == list(cold.tokens)


def test_what_is_measured(tmp_path: Path) -> None:
    with Drift.load(*tiny.write_pair(tmp_path, tiny.byte_bpe()), **EXACT) as drift:
        answer = drift.complete(ASK, weights=SEVEN, seed=3, max_tokens=20, measure=True)
        fused = drift.next_logprobs(ASK, answer.tokens, weights=SEVEN)[:20]
        llm = drift.next_logprobs(ASK, answer.tokens, steer="off")[:20]
        assert len(answer.tokens) == 20
        kl = (np.exp(fused) * (fused - llm)).sum(axis=1).mean()
        assert answer.kl_per_token == pytest.approx(kl, abs=2e-3)
        for rows, found in ((llm, answer.entropy_llm_bits), (fused, answer.entropy_steered_bits)):
            assert found == pytest.approx(-(np.exp(rows) * rows).sum(axis=1).mean() / math.log(2), abs=5e-3)
        off = drift.complete(ASK, seed=3, max_tokens=20, measure=True)
        assert off.kl_per_token == pytest.approx(0, abs=1e-6)
        assert off.entropy_llm_bits == off.entropy_steered_bits
        unmeasured = drift.complete(ASK, weights=SEVEN, seed=3, max_tokens=20)
        assert unmeasured.kl_per_token is unmeasured.entropy_llm_bits is unmeasured.entropy_steered_bits is None
        assert unmeasured.tokens == answer.tokens


def test_plausibility_keeps_to_the_llm(drift: Drift) -> None:
    strong = {name: 5 * p for name, p in SEVEN.items()}
    sampler = SamplerSettings(temperature=0, plausibility=1.0)
    masked = drift.complete(ASK, weights=strong, sampler=sampler, max_tokens=20)
    llm = drift.next_logprobs(ASK, masked.tokens, steer="off")
    assert llm[: len(masked.tokens)].argmax(axis=1).tolist() == list(masked.tokens)
    assert masked.tokens != drift.complete(ASK, weights=strong, sampler=GREEDY, max_tokens=20).tokens


# -- what things cost


@pytest.mark.parametrize("k", [0, 1, 3, 7])
def test_n_tokens_cost_n_decodes_of_each_model(k: int, drift: Drift) -> None:
    _check_counts(drift, ASK, k)


@pytest.mark.parametrize("k", [0, 1, 3, 7])
def test_n_tokens_cost_n_decodes_of_each_model_on_the_builtin_pair(k: int, builtin: Drift) -> None:
    _check_counts(builtin, [{"role": "user", "content": "How do I make tea?"}], k)


def _check_counts(drift: Drift, ask: Messages, k: int) -> None:
    before = drift._contexts.llm.counters.decodes
    answer = drift.complete(ask, weights=some(k), seed=2, max_tokens=30)
    n = len(answer.tokens)
    assert n > 3
    assert abs(answer.timings.llm_decodes - n) <= 1
    assert drift._contexts.llm.counters.decodes - before == answer.timings.llm_decodes
    assert answer.timings.generated_tokens == n
    if k:
        assert drift._contexts.steering is not None
        counters = drift._contexts.steering.context.counters
        assert answer.timings.slm_decodes == counters.decodes == answer.timings.llm_decodes
        # One row for each prompt's end, and k + 1 for each token.
        assert counters.rows == (k + 1) * (counters.decodes + 1)
    else:
        assert answer.timings.slm_decodes == 0


def prompts_of(
    drift: Drift, messages: Messages, names: Sequence[str], answers: dict[str, tuple[int, ...]]
) -> list[list[int]]:
    llm = drift.pair.llm_format.encode(messages, None if messages[0]["role"] == "system" else POOL.base, answers)
    sentences = [POOL.base, *(POOL[name].prompt for name in names)]
    return [llm, *(drift.pair.slm_format.encode(messages, sentence, answers) for sentence in sentences)]


@pytest.mark.parametrize("k", [1, 3, 7])
def test_second_turn_computes_its_new_tokens_alone(k: int, tiny_files: tuple[Path, Path]) -> None:
    with Drift.load(*tiny_files) as drift:
        _check_turns(drift, ASK, k)


@pytest.mark.parametrize("k", [1, 7])
def test_second_turn_computes_its_new_tokens_alone_on_the_builtin_pair(k: int, builtin: Drift) -> None:
    _check_turns(builtin, [{"role": "system", "content": "The user is Mira."}, *ASK], k)


def _check_turns(drift: Drift, messages: Messages, k: int) -> None:
    weights = some(k)
    before: list[list[int]] = [[] for _ in range(k + 2)]
    answers: dict[str, tuple[int, ...]] = {}
    for turn in range(4):
        prompts = prompts_of(drift, messages, list(weights), answers)
        # Weights, beta, samplers and the seed may change from turn to turn and cost nothing.
        weights = {name: p * 0.9 for name, p in weights.items()}
        answer = drift.complete(
            messages,
            weights=weights,
            beta=0.5 + turn,
            sampler=SamplerSettings(top_k=5 + turn),
            seed=turn,
            max_tokens=12,
        )
        for old, new in zip(before, prompts, strict=True):
            assert new[: len(old)] == old, "the prompt of a turn must begin with all that came before"
        new_tokens = sum(len(new) - len(old) for old, new in zip(before, prompts, strict=True))
        assert answer.timings.prefilled_tokens == new_tokens
        assert answer.timings.prompt_tokens == len(prompts[0])
        # Of an answer cut off by max_tokens the last token is new to the caches in the next turn.
        cached = answer.tokens if answer.finish_reason == "stop" else answer.tokens[:-1]
        before = [[*prompt, *cached] for prompt in prompts]
        answers[answer.text] = answer.tokens
        messages = follow_up(messages, answer)


def test_changed_attributes_compute_the_new_one_alone(drift: Drift) -> None:
    first = drift.complete(ASK, weights={"concise": 1, "formal": 0.5}, seed=1, max_tokens=8)
    assert first.finish_reason == "length"
    messages = follow_up(ASK, first)
    answers = {first.text: first.tokens}
    swapped = drift.complete(messages, weights={"formal": 0.5, "vivid": 1}, seed=1, max_tokens=8)
    old, new = (prompts_of(drift, m, ["formal", "vivid"], answers) for m in (ASK, messages))
    kept = sum(len(new[i]) - len(old[i]) - len(first.tokens) + 1 for i in range(3))  # the LLM, base, formal
    assert swapped.timings.prefilled_tokens == kept + len(new[3])
    # And back: the one that rested is still there, up to where it was.
    back = drift.complete(messages, weights={"formal": 0.5, "concise": 1}, seed=1, max_tokens=8)
    rested = prompts_of(drift, messages, ["concise"], answers)[2]
    assert back.timings.prefilled_tokens == 3 + len(rested) - len(prompts_of(drift, ASK, ["concise"], {})[2]) - 7


def test_more_attributes_than_room_rebuild_with_a_notice(bpe_files: tuple[Path, Path]) -> None:
    with Drift.load(*bpe_files, active=2) as drift:
        assert not _notices(drift, weights=some(2))
        assert [n.kind for n in _notices(drift, weights=some(5))] == ["context-rebuilt"]
        assert not _notices(drift, weights=some(5))
        assert not _notices(drift, weights=some(3))
        drift.next_logprobs(ASK, weights=SEVEN)
        wanted = Drift.load(*bpe_files)
        with wanted:
            tokens = wanted.complete(ASK, weights=SEVEN, seed=1, max_tokens=20).tokens
        assert drift.complete(ASK, weights=SEVEN, seed=1, max_tokens=20).tokens == tokens


def test_more_active_than_there_are(bpe_files: tuple[Path, Path]) -> None:
    with Drift.load(*bpe_files, active=100_000) as drift:
        assert drift.complete(ASK, weights=SEVEN, active=100_000, seed=0, max_tokens=2).weights == SEVEN


def _notices(drift: Drift, messages: Messages = ASK, **arguments: Any) -> list[Notice]:
    return [e for e in drift.chat(messages, seed=0, max_tokens=2, **arguments) if isinstance(e, Notice)]


def test_dozens_of_attributes(drift: Drift) -> None:
    everything = dict.fromkeys(POOL, 0.1)
    answer = drift.complete(ASK, weights=everything, active=41, blocked=(), seed=1, max_tokens=5)
    assert len(answer.weights) == 41
    assert answer.timings.slm_decodes == answer.timings.llm_decodes


# -- the prompt mode


def test_prompt_mode_tells_the_llm(drift: Drift) -> None:
    weights = {"formal": 0.9, "concise": -0.5, "vivid": 0.2}
    answer = drift.complete(ASK, weights=weights, steer="prompt", sampler=GREEDY, max_tokens=10)
    own = [{"role": "system", "content": f"{POOL['formal'].prompt} {POOL['vivid'].prompt}"}, *ASK]
    assert answer.tokens == drift.complete(own, steer="off", sampler=GREEDY, max_tokens=10).tokens
    assert (answer.mode, answer.beta, answer.timings.slm_decodes) == ("prompt", None, 0)
    (notice,) = _notices(drift, weights=weights, steer="prompt")
    assert notice.kind == "negative-weights"
    assert "concise" in notice.text
    assert not _notices(drift, weights={"formal": 1}, steer="prompt")


def test_both_fuses_into_the_llm_that_was_told(drift: Drift) -> None:
    weights = {"formal": 0.9, "concise": -0.5, "vivid": 0.2}

    def rows(steer: Any) -> Any:
        return drift.next_logprobs(ASK, [5, 6, 7], weights=weights, steer=steer)

    # The steering term is the one that is added to an LLM that was told nothing; log-softmax takes a constant off.
    moved, told = rows("both") - rows("prompt"), rows("logits") - rows("off")
    moved, told = (x - x.mean(axis=1, keepdims=True) for x in (moved, told))
    np.testing.assert_allclose(moved, told, rtol=0, atol=1e-4)
    assert np.abs(rows("both") - rows("logits")).max() > 0.1
    answer = drift.complete(ASK, weights=weights, steer="both", sampler=GREEDY, max_tokens=10)
    assert (answer.mode, answer.beta) == ("both", 0.5)
    assert not _notices(drift, weights=weights, steer="both")  # fusion pushes away from "concise"
    why = drift.explain(ASK, answer)
    fused, plain = rows("both")[0], rows("prompt")[0]
    assert why.gains[0] == pytest.approx((fused - plain)[answer.tokens[0]], abs=1e-3)


# -- conversations that do not fit


def long_talk(turns: int) -> Messages:
    talk: Messages = []
    for i in range(turns):
        talk += [{"role": "user", "content": f"{i} tea and water?"}, {"role": "assistant", "content": "very good"}]
    return [*talk, {"role": "user", "content": "Hello?"}]


def test_oldest_turns_are_dropped_with_a_notice(bpe_files: tuple[Path, Path]) -> None:
    with Drift.load(*bpe_files, ctx_size=256) as drift:
        assert not _notices(drift, long_talk(3), weights=some(2))
        (notice,) = _notices(drift, long_talk(30), weights=some(2))
        assert notice.kind == "dropped-turns"
        own = [{"role": "system", "content": "You are good."}, *long_talk(30)]
        (notice,) = _notices(drift, own, weights=some(2))
        assert notice.kind == "dropped-turns"
        shown = drift.pair.llm.detokenize(drift._contexts.llm.tokens[0])
        assert shown.startswith("You are good.")
        assert "Hello?" in shown


def test_prompts_that_cannot_fit_are_not_made(bpe_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    build, turn_ends = conversation.build_prompts, conversation._turn_ends
    monkeypatch.setattr(conversation, "build_prompts", lambda *given: made.append(0) or build(*given))
    with Drift.load(*bpe_files, ctx_size=256) as drift:
        (quick,) = _notices(drift, long_talk(200), weights=some(2))
        few = len(made)
        monkeypatch.setattr(conversation, "_turn_ends", lambda *given: (turn_ends(*given)[0], 0))
        (slow,) = _notices(drift, long_talk(200), weights=some(2))
    assert quick == slow
    assert few <= 4 < len(made) - few


def test_dropping_keeps_the_caches_for_many_turns(bpe_files: tuple[Path, Path]) -> None:
    with Drift.load(*bpe_files, ctx_size=256) as drift:
        messages: Messages = list(ASK)
        computed = []
        for turn in range(25):
            answer = drift.complete(messages, weights=some(2), seed=turn, max_tokens=10)
            computed.append(answer.timings.prefilled_tokens)
            messages = follow_up(messages, answer, "more tea?")
        # Most turns compute a turn's tokens in 4 sequences, and only now and then a part of the whole.
        assert sorted(computed)[len(computed) // 2] < 100
        assert sum(c > 150 for c in computed[1:]) <= 6


def test_refusing_to_drop(bpe_files: tuple[Path, Path]) -> None:
    with Drift.load(*bpe_files, ctx_size=256) as drift:
        assert drift.complete(long_talk(3), overflow="error", seed=0, max_tokens=2).tokens
        with pytest.raises(ContextOverflowError, match="the context holds 256; shorten it, raise --ctx-size"):
            drift.complete(long_talk(30), overflow="error", seed=0, max_tokens=2)
        too_long = [{"role": "user", "content": "tea " * 400}]
        for overflow in ("drop", "error"):
            with pytest.raises(ContextOverflowError, match=r"[48]\d\d tokens and the answer needs 2"):
                drift.complete(too_long, overflow=overflow, seed=0, max_tokens=2)  # type: ignore[arg-type]
        with pytest.raises(ContextOverflowError, match="the last message alone"):
            drift.complete([*ASK, {"role": "assistant", "content": "x"}, *too_long], seed=0, max_tokens=2)
        with pytest.raises(ContextOverflowError):
            drift.complete([{"role": "user", "content": "tea " * 500_000}], seed=0)
        assert drift.complete(ASK, seed=0, max_tokens=2).tokens


def test_answer_ends_where_any_context_is_full(tmp_path: Path) -> None:
    """The sLM's prompts are longer than the LLM's, so its sequences are full first."""
    llm, slm = tiny.write_pair(tmp_path, tiny.byte_bpe())
    long = [{"role": "system", "content": "tea " * 40}, *ASK]  # the sLM has this and the sentence
    with Drift.load(llm, slm, ctx_size=256) as drift:
        sampler = SamplerSettings(temperature=3, top_k=0, top_p=1, min_p=0)
        for seed in range(20):
            answer = drift.complete(long, weights=some(3), sampler=sampler, seed=seed, max_tokens=10_000)
            if answer.finish_reason == "length":
                break
        assert answer.finish_reason == "length"
        assert drift._contexts.steering is not None
        held = [len(tokens) for tokens in (*drift._contexts.llm.tokens, *drift._contexts.steering.context.tokens)]
        assert 250 < max(held) <= 256
        assert held[0] < max(held)


# -- cancelling


def test_cancel_before_anything(drift: Drift) -> None:
    cancel = CancelToken()
    cancel.cancel()
    events = list(drift.chat(ASK, weights=SEVEN, cancel=cancel, seed=0))
    (last,) = events
    assert isinstance(last, Finish)
    assert (last.reason, last.answer.text, last.answer.tokens) == ("cancelled", "", ())
    assert last.answer.timings.prefilled_tokens == 0
    assert drift.complete(ASK, weights=SEVEN, seed=0, max_tokens=3).finish_reason == "length"


def test_cancel_from_another_thread(drift: Drift, bpe_files: tuple[Path, Path]) -> None:
    _check_cancel(drift, bpe_files, ASK)


def test_cancel_from_another_thread_on_the_builtin_pair(builtin: Drift, builtin_files: tuple[Path, Path]) -> None:
    _check_cancel(builtin, builtin_files, [{"role": "user", "content": "How do I make tea?"}])


def _check_cancel(drift: Drift, files: tuple[Path, Path], ask: Messages) -> None:
    cancel = CancelToken()
    at: list[float] = []
    tokens: list[int] = []

    def press() -> None:
        cancel.cancel()
        at.append(time.process_time())

    hot = SamplerSettings(temperature=2, top_k=0, top_p=1, min_p=0)
    for event in drift.chat(ask, weights=SEVEN, sampler=hot, seed=8, cancel=cancel, max_tokens=400):
        if isinstance(event, Token):
            tokens.append(event.token)
            if len(tokens) == 5:
                thread = threading.Thread(target=press)
                thread.start()
                thread.join()
    # In the processor's time, which a busy machine does not stretch.
    assert time.process_time() - at[0] < 0.1
    assert isinstance(event, Finish)
    assert event.reason == "cancelled"
    assert event.answer.tokens == tuple(tokens)
    assert len(tokens) == 5
    # The engine goes on as if the answer had been asked to be that long.
    after = drift.complete(follow_up(ask, event.answer), weights=SEVEN, seed=1, max_tokens=10)
    with Drift.load(*files) as fresh:
        short = fresh.complete(ask, weights=SEVEN, sampler=hot, seed=8, max_tokens=5)
        assert short.tokens == tuple(tokens)
        assert fresh.complete(follow_up(ask, short), weights=SEVEN, seed=1, max_tokens=10).tokens == after.tokens


@pytest.mark.parametrize("which", ["llm", "slm"])
def test_cancel_during_prefill(which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocab = tiny.byte_bpe()
    slow = tiny.write(tmp_path / "slow.gguf", vocab, dim=256, layers=16, n_ctx=4096)
    fast = tiny.write(tmp_path / "fast.gguf", vocab, n_ctx=4096)
    files = (slow, fast) if which == "llm" else (fast, slow)
    long = [{"role": "user", "content": "tea? " * 1200}]
    with Drift.load(*files, ctx_size=4096, threads=1, active=1) as drift:
        usable = drift.complete(ASK, weights={"concise": 1}, seed=0, max_tokens=5)
        assert drift._contexts.steering is not None
        context = drift._contexts.llm if which == "llm" else drift._contexts.steering.context
        cancel = CancelToken()
        pressed: list[float] = []

        def press() -> None:
            cancel.cancel()
            pressed.append(time.process_time())

        timer = threading.Timer(0.1, press)
        prefill = context.prefill

        def begin(prompts: Any) -> None:
            timer.start()
            prefill(prompts)

        monkeypatch.setattr(context, "prefill", begin)
        answer = finish_of(drift.chat(long, weights={"concise": 1}, seed=0, cancel=cancel))
        ended = time.process_time()
        timer.join()
        monkeypatch.undo()
        assert ended - pressed[0] < 0.1
        assert (answer.finish_reason, answer.tokens) == ("cancelled", ())
        assert answer.timings.prefilled_tokens < 2 * answer.timings.prompt_tokens
        assert drift.complete(ASK, weights={"concise": 1}, seed=0, max_tokens=5).tokens == usable.tokens


# -- threads, order and closing


def test_two_threads_take_turns(drift: Drift) -> None:
    asks = [[{"role": "user", "content": f"tea {i}?"}] for i in range(4)]
    wanted = [drift.complete(ask, weights=some(i), seed=i, max_tokens=30).tokens for i, ask in enumerate(asks)]
    found: dict[int, tuple[int, ...]] = {}

    def work(i: int) -> None:
        for _ in range(3):
            found[i] = drift.complete(asks[i], weights=some(i), seed=i, max_tokens=30).tokens

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found[i] for i in range(4)] == wanted


def test_a_thread_cannot_wait_for_itself(drift: Drift) -> None:
    events = drift.chat(ASK, seed=0, max_tokens=5)
    next(events)
    with pytest.raises(DriftError, match="this thread has another answer of this engine under way"):
        drift.complete(ASK, seed=0)
    with pytest.raises(DriftError, match="under way"):
        drift.next_logprobs(ASK)
    assert finish_of(events).finish_reason == "length"
    assert drift.complete(ASK, seed=0, max_tokens=5).tokens


def test_a_dropped_answer_gives_the_engine_back(drift: Drift) -> None:
    wanted = drift.complete(ASK, weights=SEVEN, seed=0, max_tokens=9).tokens
    for take in (1, 3):
        events = drift.chat(ASK, weights=SEVEN, seed=0, max_tokens=9)
        for _ in range(take):
            next(events)
        del events
        assert drift.complete(ASK, weights=SEVEN, seed=0, max_tokens=9).tokens == wanted
    never_begun = drift.chat(ASK, seed=0)
    assert drift.complete(ASK, weights=SEVEN, seed=0, max_tokens=9).tokens == wanted
    del never_begun


def test_closed_engine(bpe_files: tuple[Path, Path]) -> None:
    drift = Drift.load(*bpe_files)
    waiting = drift.chat(ASK)
    drift.close()
    drift.close()
    for use in (lambda: next(waiting), lambda: drift.complete(ASK), lambda: drift.next_logprobs(ASK)):
        with pytest.raises(ClosedError, match="the engine has been closed"):
            use()


def test_closing_in_the_middle_of_an_answer(bpe_files: tuple[Path, Path]) -> None:
    drift = Drift.load(*bpe_files)
    events = drift.chat(ASK, weights=SEVEN, seed=0, max_tokens=50)
    next(events)
    drift.close()
    with pytest.raises(ClosedError):
        list(events)
    other = Drift.load(*bpe_files)
    events = other.chat(ASK, weights=SEVEN, seed=0, max_tokens=50)
    next(events)
    other.close()
    events.close()  # and no error out of nowhere


def test_closing_waits_for_another_thread(bpe_files: tuple[Path, Path]) -> None:
    drift = Drift.load(*bpe_files)
    begun = threading.Event()
    answers: list[Answer] = []

    def work() -> None:
        events = drift.chat(ASK, weights=SEVEN, seed=0, max_tokens=60)
        next(events)
        begun.set()
        answers.append(finish_of(events))

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait(30)
    drift.close()
    thread.join(30)
    assert len(answers[0].tokens) > 1
    with pytest.raises(ClosedError):
        drift.complete(ASK)


# -- arguments


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"weights": {"consise": 1}}, "unknown attribute 'consise'; did you mean concise"),
        ({"weights": {"concise": "1"}}, "weight of 'concise'"),
        ({"weights": ["concise"]}, "weights: expected a dict"),
        ({"beta": 0}, "beta: expected a number over 0"),
        ({"beta": -1}, "beta"),
        ({"beta": math.nan}, "beta"),
        ({"active": 0}, "active"),
        ({"steer": "on"}, "steer: expected one of logits, prompt, both, off, got 'on'"),
        ({"max_tokens": 0}, "max_tokens: expected a whole number, 1 or more, got 0"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"seed": "x"}, "seed: expected a whole number, got 'x'"),
        ({"seed": 1.0}, "seed"),
        ({"stop": "END"}, "stop: expected a list of texts, got 'END'"),
        ({"stop": [1]}, "stop"),
        ({"stop": ["END", ""]}, r"stop\[1\]: expected text that is not empty"),
        ({"stop": None}, "stop: expected a list of texts, got None"),
        ({"sampler": {"temperature": 0}}, "sampler: expected SamplerSettings, got dict"),
        ({"overflow": "cut"}, "overflow: expected one of drop, error, got 'cut'"),
    ],
)
def test_wrong_arguments_are_told_at_once(arguments: dict[str, Any], expected: str, drift: Drift) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        drift.chat(ASK, **arguments)  # not iterated
    assert caught.value.exit_code == 2


def test_wrong_messages_are_told_at_once(drift: Drift) -> None:
    with pytest.raises(UsageError, match="there are none"):
        drift.chat([])
    with pytest.raises(UsageError, match="messages: expected an array of messages, got null"):
        drift.chat(None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the last is the assistant's"):
        drift.next_logprobs([{"role": "assistant", "content": "a"}])
    half = {"role": "user", "content": "ab\ud83d"}
    with pytest.raises(UsageError, match=r"messages\[1\]\.content: character 3 is not Unicode but half of a surrogate"):
        drift.chat([{"role": "system", "content": "\U0001f642"}, half])


@pytest.mark.parametrize(("files", "at"), [((5, None), "llm: .*got 5"), (("a.gguf", None), "slm: .*got None")])
def test_what_is_no_path_is_told_at_once(files: tuple[Any, Any], at: str) -> None:
    with pytest.raises(UsageError, match=at):
        Drift.load(*files)
    with pytest.raises(UsageError, match="path: expected the path of a GGUF file, got 5"):
        ModelPair.load(5, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("token", [-1, 100_000, 1 << 40, 1.0, "a"])
def test_a_continuation_that_does_not_exist(token: Any, drift: Drift) -> None:
    with pytest.raises(UsageError, match=r"continuation: expected ids from 0 to \d+, got"):
        drift.next_logprobs(ASK, [5, token])
    assert drift.complete(ASK, seed=0, max_tokens=3).tokens


# -- models that go wrong


@pytest.mark.parametrize("broken", ["llm", "slm"])
def test_logits_that_are_no_numbers(broken: str, tmp_path: Path) -> None:
    vocab = tiny.byte_bpe()
    good = tiny.write(tmp_path / "good.gguf", vocab)
    bad = tiny.write(tmp_path / "bad.gguf", vocab, tensors={"output_norm.weight": np.full(32, np.nan, np.float32)})
    files = (bad, good) if broken == "llm" else (good, bad)
    with Drift.load(*files) as drift:
        with pytest.raises(DecodeError, match=r"cannot be used: .*row"):
            drift.complete(ASK, weights={"concise": 1}, seed=0)
        with pytest.raises(DecodeError):
            drift.next_logprobs(ASK, weights={"concise": 1})
        if broken == "slm":
            assert drift.complete(ASK, steer="off", seed=0, max_tokens=3).tokens


# -- what an answer tells


def test_answer_as_json(drift: Drift) -> None:
    answer = drift.complete(ASK, weights={"concise": 0.8, "vivid": -0.3}, seed=4, max_tokens=6, measure=True)
    told = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert set(told) == {
        "text", "finish_reason", "tokens", "seed", "models", "steering", "entropy_bits", "speculation", "timings",
    }  # fmt: skip
    assert told["text"] == answer.text
    assert told["tokens"] == list(answer.tokens)
    assert told["seed"] == 4
    assert told["models"] == {"llm": "llm", "slm": "slm"}
    assert set(told["steering"]) == {"mode", "beta", "strength", "weights", "kl_per_token"}
    assert told["steering"]["weights"] == {"concise": 0.8, "vivid": -0.3}
    assert (told["steering"]["mode"], told["steering"]["beta"]) == ("logits", 0.5)
    assert set(told["entropy_bits"]) == {"llm", "steered"}
    assert set(told["speculation"]) == {"draft", "g", "drafted", "accepted", "auto"}
    assert set(told["timings"]) == {
        "load_s", "prompt_tokens", "prefilled_tokens", "ttft_s", "generated_tokens", "tokens_per_second",
        "llm_decodes", "slm_decodes",
    }  # fmt: skip
    assert told["timings"]["generated_tokens"] == 6
    assert told["timings"]["ttft_s"] > 0
    assert told["timings"]["tokens_per_second"] > 0
    assert told["timings"]["load_s"] > 0


def test_missing_template_is_told_once(tmp_path: Path) -> None:
    vocab = tiny.byte_bpe().with_keys(chat_template=None)
    with Drift.load(*tiny.write_pair(tmp_path, vocab)) as drift:
        assert [n.kind for n in _notices(drift)] == ["no-template"]
        assert not _notices(drift)


def test_broken_template_is_told(tmp_path: Path) -> None:
    vocab = tiny.byte_bpe().with_keys(chat_template="{% for %}")
    with Drift.load(*tiny.write_pair(tmp_path, vocab)) as drift, pytest.raises(DriftError, match="cannot be compiled"):
        drift.complete(ASK, seed=0)
