"""Scoring against scoring one by one, values by hand, and a count of tokens; and everything that stops it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from drift_edge import Attribute, Attributes, CancelToken, Drift, Finish, kernel
from drift_edge.errors import ClosedError, ContextOverflowError, DecodeError, UsageError
from drift_edge.kernel import AbortFlag
from drift_edge.llama.chat import ChatFormat
from drift_edge.llama.context import Aborted, Context
from drift_edge.llama.model import Model
from drift_edge.preferences import PreferencePair
from drift_edge.reward_cache import RewardCache, text_key
from drift_edge.rewards import PairScores
from drift_edge.scoring import Scorer
from tests import tiny

POOL = Attributes(
    "You are an AI assistant.",
    [Attribute(name, f"You are a very {name} assistant.") for name in ("formal", "concise", "vivid", "warm")],
)
LARGE = POOL.extended([Attribute(f"a{i}", f"You like the number {i}" + " and tea" * i) for i in range(8)])


def pair(question: str, chosen: str, rejected: str, *before: str, system: str | None = None) -> PreferencePair:
    """A pair; `before` are the turns in front of the question, the user's first."""
    roles = ["user", "assistant"] * (len(before) // 2) + ["user"]
    messages = [{"role": role, "content": text} for role, text in zip(roles, [*before, question], strict=True)]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return PreferencePair(tuple(messages), chosen, rejected)


# Prefixes shared and not; responses that begin alike, that differ in the first or the last token alone, long and short.
PAIRS = [
    pair("How do you make tea?", "Take water, and the tea with it.", "Take water, then wait."),
    pair("How do you make tea?", "Take water, and the tea with it.", "No"),
    pair("Why?", "a", "b", "How do you make tea?", "Take water."),
    pair("Why?", "that is good", "that is good tea", system="The user is called Mira."),
    pair("Tell me <|end|> about it", "very " * 60, "I do not know <|end|> that."),
    pair("How", "the", "the the"),
]


@pytest.fixture(scope="module")
def model(bpe_files: tuple[Path, Path]) -> Iterator[Model]:
    with Model(bpe_files[0]) as opened:
        yield opened


def one_by_one(
    model: Model, pairs: Sequence[PreferencePair], pool: Attributes, *, text_length: int = 500, cache_type: str = "f16"
) -> list[tuple[list[float], list[float]]]:
    """log pi of both responses under every prompt, each from an empty context that sees all of it in one decode."""
    form = ChatFormat(model)
    prompts = [pool.base, *(attribute.prompt for attribute in pool.values())]

    def log_pi(choice: PreferencePair, response: str, sentence: str) -> float:
        prompt = form.encode([dict(m) for m in choice.messages], sentence, {})
        targets = form.encode_response(response, prompt, text_length)
        n = len(targets)
        context.truncate(0, 0)
        context.feed([(0, prompt + targets[:-1])], [max(n, 2)])  # llama.cpp computes one row alone in another way
        return float(kernel.logprobs(context.logits()[-n:], np.array(targets, np.int32)).sum())

    with Context(
        model, n_seq=1, n_ctx=1024, n_batch=1024, n_outputs=1024, flash_attn="off", cache_type=cache_type
    ) as context:
        return [tuple([log_pi(p, y, s) for s in prompts] for y in (p.chosen, p.rejected)) for p in pairs]  # type: ignore[misc]


def score(
    model: Model, pairs: Sequence[PreferencePair], pool: Attributes, **settings: object
) -> tuple[list[PairScores], Scorer]:
    with Scorer(model, ChatFormat(model), pool, **settings) as scorer:  # type: ignore[arg-type]
        return [scorer.score(choice) for choice in pairs], scorer


@pytest.fixture(scope="module")
def large(model: Model) -> list[tuple[list[float], list[float]]]:
    """`PAIRS` under the large pool, one by one."""
    return one_by_one(model, PAIRS, LARGE)


def same(found: Sequence[PairScores], expected: Sequence[tuple[list[float], list[float]]]) -> None:
    for scores, (chosen, rejected) in zip(found, expected, strict=True):
        assert scores.chosen.tolist() == chosen
        assert scores.rejected.tolist() == rejected


# -- the numbers


@pytest.mark.parametrize("quant", ["F32", "F16", "Q8_0"])
@pytest.mark.parametrize(
    "vocab", [tiny.byte_bpe(), tiny.spm().with_keys(chat_template=tiny.NO_SYSTEM)], ids=["bpe", "spm"]
)
def test_equal_to_scoring_one_by_one_to_the_last_bit(vocab: tiny.Vocab, quant: str, tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "m.gguf", vocab, dim=64, layers=2, quant=quant)
    with Model(path) as model:
        expected = one_by_one(model, PAIRS, POOL)
        found, _ = score(model, PAIRS, POOL)
        same(found, expected)
        spread = [np.ptp(scores.chosen) for scores in found]
        assert min(spread) > 1e-3  # else the prompts would not matter to the model


def test_equal_to_the_last_bit_on_the_builtin_slm(builtin_files: tuple[Path, Path]) -> None:
    pool = Attributes.builtin()
    few = Attributes(pool.base, list(pool.values())[:9])
    with Model(builtin_files[1]) as model:
        same(score(model, PAIRS, few)[0], one_by_one(model, PAIRS, few))
        same(score(model, PAIRS[:2], few, cache_type="f32")[0], one_by_one(model, PAIRS[:2], few, cache_type="f32"))


@pytest.mark.parametrize(
    "settings",
    [
        {"output_bytes": 4 * 400 * 8},  # few rows a decode, few sequences together
        {"output_bytes": 4 * 400 * 40},
        {"cache_bytes": 1},  # one sequence for all prompts
        {"cache_bytes": 10 * 256 * 512},  # ten for thirteen
    ],
    ids=str,
)
def test_limits_of_memory_change_no_number(
    model: Model, settings: dict[str, object], large: list[tuple[list[float], list[float]]]
) -> None:
    same(score(model, PAIRS, LARGE, **settings)[0], large)


def test_values_by_hand(tmp_path: Path) -> None:
    # The next token depends on the last alone. It leads by 3 nats, less what the norm's epsilon takes:
    # p = e^lead / (e^lead + V - 1), and 1 / (e^lead + V - 1) for every other token.
    vocab = tiny.byte_bpe()
    said = [vocab.id(char) for char in "tea"]
    path = tiny.write_script(tmp_path / "m.gguf", vocab, tiny.say(vocab, said), margin=3.0)
    dim = -(-len(vocab) // 32) * 32
    lead = 3 / np.sqrt(1 + 1e-5 * dim)
    total = np.log(np.exp(lead) + len(vocab) - 1)
    spelt = mock.patch.object(Model, "tokenize_typed", lambda _self, text, **_: [vocab.id(c) for c in text])
    with Model(path) as model, spelt:
        (scores,), _ = score(model, [pair("Hi", "tea", "tat")], POOL)
    assert (scores.n_chosen, scores.n_rejected) == (4, 4)
    assert scores.chosen == pytest.approx(np.full(5, 4 * lead - 4 * total), abs=1e-4)
    assert scores.rejected == pytest.approx(np.full(5, lead - 4 * total), abs=1e-4)  # only the first t is what follows
    W, L = scores.rewards()
    assert W.tolist() == L.tolist() == [0.0] * 4


def test_swapping_the_responses_swaps_the_scores(model: Model) -> None:
    swapped = [PreferencePair(p.messages, p.rejected, p.chosen) for p in PAIRS]
    for one, other in zip(score(model, PAIRS, POOL)[0], score(model, swapped, POOL)[0], strict=True):
        assert one.chosen.tolist() == other.rejected.tolist()
        assert one.rejected.tolist() == other.chosen.tolist()


def test_some_of_the_attributes_in_any_order(model: Model) -> None:
    with Scorer(model, ChatFormat(model), LARGE) as scorer:
        few = scorer.score(PAIRS[0], names=["warm", "a5", "formal"])
        whole = scorer.score(PAIRS[0])
        at = [0, *(1 + scorer.names.index(name) for name in ("warm", "a5", "formal"))]
        assert few.chosen.tolist() == whole.chosen[at].tolist()
        assert few.rejected.tolist() == whole.rejected[at].tolist()
        with pytest.raises(UsageError, match="unknown attribute 'wram'; did you mean warm"):
            scorer.score(PAIRS[0], names=["wram"])
        with pytest.raises(UsageError, match="every attribute once"):
            scorer.score(PAIRS[0], names=["warm", "warm"])


# -- what is scored


def test_the_end_of_turn_is_scored_and_a_cut_response_has_none(model: Model) -> None:
    form, end = ChatFormat(model), model.tokenize("<|end|>", special=True)
    ids = model.tokenize_typed("very good tea")
    n = len(ids)
    assert form.encode_response("very good tea", [], 500) == [*ids, *end]
    assert form.encode_response("very good tea", [], n) == [*ids, *end]
    assert form.encode_response("very good tea", [], n - 1) == ids[:-1]
    choice = pair("Hi", "very good tea", "tea")
    for length, scored in ((500, n + 1), (n, n + 1), (n - 1, n - 1), (1, 1)):
        (scores,), _ = score(model, [choice], POOL, text_length=length)
        assert scores.n_chosen == scored
        same([scores], one_by_one(model, [choice], POOL, text_length=length))


def test_responses_that_are_equal_where_they_are_cut(model: Model) -> None:
    choice = pair("Hi", "very good tea", "very good water")
    (scores,), scorer = score(model, [choice], POOL, text_length=1)
    assert scores.chosen.tolist() == scores.rejected.tolist()
    assert scores.rewards()[0].tolist() == scores.rewards()[1].tolist()
    same([scores], one_by_one(model, [choice], POOL, text_length=1))
    assert scorer.counters.scored == 10


@pytest.mark.parametrize("responses", [("very good", "very"), ("very", "very good")])
def test_a_cut_response_that_the_other_one_begins_with(model: Model, responses: tuple[str, str]) -> None:
    choice = pair("Hi", *responses)
    (scores,), _ = score(model, [choice], POOL, text_length=1)
    assert sorted((scores.n_chosen, scores.n_rejected)) == [1, 2]
    same([scores], one_by_one(model, [choice], POOL, text_length=1))


def test_a_very_long_response_costs_what_is_scored_of_it(model: Model) -> None:
    (scores,), scorer = score(model, [pair("Hi", "x" * 100_000, "tea")], POOL, text_length=50, n_ctx=256)
    assert scores.n_chosen == 50
    assert scorer.counters.tokens < 5 * 256


@pytest.mark.parametrize(
    ("behind", "end_token", "expected"),
    [
        ("<|end|>", "<|end|>", "<|end|>"),
        (" </s>\n", "<|end|>", "</s>"),
        (
            "\n",
            "<|end|>",
            "<|end|>",
        ),  # the template writes none: the model's own end of turn, which llama.cpp knows by name
        ("<|user|>", "<|end|>", "<|end|>"),  # a control token, but none that ends an answer
        ("<|user|>", "<|other|>", "</s>"),  # no end of turn at all: the end of text
        ("{{ raise_exception('no') }}", "<|end|>", "<|end|>"),
    ],
)
def test_the_end_of_turn_is_the_templates_or_the_models(
    behind: str, end_token: str, expected: str, tmp_path: Path
) -> None:
    vocab = tiny.spm()
    vocab = vocab.changed(vocab.id("<|end|>"), text=end_token)
    template = tiny.TEMPLATE.replace("<|end|>", behind)
    with Model(tiny.write(tmp_path / "m.gguf", vocab.with_keys(chat_template=template))) as model:
        assert ChatFormat(model).end_of_turn == vocab.id(expected)


def test_a_response_never_holds_a_control_token(model: Model) -> None:
    ids = ChatFormat(model).encode_response("well <|end|><|user|> then", [], 500)
    assert [t for t in ids if t in model.control_ids] == [ChatFormat(model).end_of_turn]


# -- what it costs


def minimum(model: Model, pairs: Sequence[PreferencePair], pool: Attributes) -> int:
    """Tokens that must be computed: of every prompt's way through the pairs, what the step before has not left."""
    form, total = ChatFormat(model), 0
    for sentence in [pool.base, *(attribute.prompt for attribute in pool.values())]:
        held: list[int] = []
        for choice in pairs:
            prompt = form.encode([dict(m) for m in choice.messages], sentence, {})
            chosen, rejected = (form.encode_response(y, prompt, 500) for y in (choice.chosen, choice.rejected))
            # The last token of the prompt is always computed: its row says what the response begins with.
            h = min(common(held, prompt), len(prompt) - 1)
            total += len(prompt) - h + len(chosen) - 1
            c = min(common(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
            total += len(rejected) - 1 - c
            held = prompt + rejected[:-1] if len(rejected) - 1 - c else prompt + chosen[:-1]
    return total


def common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


LONGER = [  # no part of a response behind the common beginning is a single token
    pair("How do you make tea?", "Take water, and the tea with it.", "Take water, then wait."),
    pair("How do you make water?", "Is that hard?", "Take water, then wait for a very long time."),
    pair("Why?", "that is good", "what is it", "How do you make water?", "Take it."),
    pair("And then?", "that is good", "what is it", "How do you make water?", "Take it."),
]


def test_tokens_computed_are_the_least_possible(model: Model) -> None:
    _, scorer = score(model, LONGER, LARGE)
    assert scorer.counters.tokens == minimum(model, LONGER, LARGE)
    # By hand for the first pair alone, s_i new: prompts, and both responses less their last tokens and the common part.
    form = ChatFormat(model)
    prompts = [form.encode([dict(m) for m in LONGER[0].messages], s, {}) for s in scorer._prompts]
    y_w, y_l = (form.encode_response(y, prompts[0], 500) for y in (LONGER[0].chosen, LONGER[0].rejected))
    _, first = score(model, LONGER[:1], LARGE)
    c = common(y_w, y_l)
    assert c > 2
    assert first.counters.tokens == sum(map(len, prompts)) + 13 * (len(y_w) - 1 + len(y_l) - 1 - c)


def test_a_single_token_takes_the_one_before_it_along(model: Model) -> None:
    choice = [pair("How do you make tea?", "ab", "acd")]  # behind the common "a": one token of y_w's rest, "c" and "d"
    _, scorer = score(model, [*choice, *choice], POOL)
    # The second time all but the prompt's last token is cached; of "acd" only "c" is new, and "a" goes with it.
    assert ChatFormat(model).encode_response("acd", [], 500)[:-1] == model.tokenize_typed("acd")
    form = ChatFormat(model)
    prompts = [form.encode([dict(m) for m in choice[0].messages], s, {}) for s in scorer._prompts]
    first = sum(map(len, prompts)) + 5 * (2 + 2)
    assert scorer.counters.tokens == first + 5 * (1 + 2 + 2)


def test_fewer_sequences_than_prompts_compute_s_i_again(model: Model) -> None:
    one = 256 * model.kv_width * 2
    _, roomy = score(model, LONGER, LARGE)
    _, tight = score(model, LONGER, LARGE, cache_bytes=10 * one)
    assert roomy.counters.tokens < tight.counters.tokens < 2 * roomy.counters.tokens


def test_prompts_that_share_a_sequence_take_turns(model: Model) -> None:
    # Ten sequences for thirteen prompts: two have their own, eleven share eight, so that s_2 and s_10 have the same.
    with Scorer(model, ChatFormat(model), LARGE, cache_bytes=10 * 256 * model.kv_width * 2) as scorer:
        names = [scorer.names[1], scorer.names[9]]
        few = scorer.score(LONGER[0], names=names)
    whole, _ = score(model, LONGER[:1], LARGE)
    assert few.chosen.tolist() == whole[0].chosen[[0, 2, 10]].tolist()


@pytest.mark.parametrize("rows", [3, 10, 64])
def test_rows_at_once_stay_under_the_bound(model: Model, rows: int) -> None:
    asked: list[int] = []

    class Watched(Context):
        def feed(self, parts: Sequence[tuple[int, Sequence[int]]], outputs: Sequence[int] | None = None) -> None:
            asked.append(sum(outputs or [0]))
            assert all(len(tokens) > 1 for _, tokens in parts)
            assert self.n_outputs <= rows
            super().feed(parts, outputs)

    with mock.patch("drift_edge.scoring.Context", Watched):
        _, scorer = score(model, PAIRS, LARGE, output_bytes=rows * 4 * model.n_vocab + 3)
    assert max(asked) == scorer.counters.most_rows <= rows
    assert scorer.counters.rows == sum(asked)


def test_the_context_grows_with_the_pairs(model: Model) -> None:
    sizes: list[int] = []

    class Watched(Context):
        def __init__(self, *args: object, n_ctx: int, **settings: object) -> None:
            sizes.append(n_ctx)
            super().__init__(*args, n_ctx=n_ctx, **settings)  # type: ignore[arg-type]

    pairs = [*PAIRS[:2], pair("How " * 60, "very " * 100, "tea"), PAIRS[0]]
    with mock.patch("drift_edge.scoring.Context", Watched):
        found, _ = score(model, pairs, POOL, n_ctx=500)
    assert sizes == [256, 500]
    same(found, one_by_one(model, pairs, POOL))


# -- what stops it


def test_a_pair_that_does_not_fit_is_an_error_and_the_next_one_is_scored(model: Model) -> None:
    with Scorer(model, ChatFormat(model), POOL, n_ctx=200) as scorer:
        with pytest.raises(ContextOverflowError, match=r"have \d{3} tokens together, scoring has room for 200"):
            scorer.score(pair("How " * 300, "tea", "water"))
        with pytest.raises(ContextOverflowError):
            scorer.score(pair("How", "tea", "water " * 190))
        same([scorer.score(PAIRS[0])], one_by_one(model, PAIRS[:1], POOL))


def test_the_longest_pair_that_fits(model: Model) -> None:
    choice = pair("How do you make tea?", "tea", "very good water")
    form = ChatFormat(model)
    prompts = [
        form.encode([dict(m) for m in choice.messages], s, {}) for s in [POOL.base, *(a.prompt for a in POOL.values())]
    ]
    need = max(map(len, prompts)) + len(form.encode_response(choice.rejected, prompts[0], 500)) - 1
    found, _ = score(model, [choice], POOL, n_ctx=need)
    same(found, one_by_one(model, [choice], POOL))
    with pytest.raises(ContextOverflowError, match=f"have {need} tokens"):
        score(model, [choice], POOL, n_ctx=need - 1)


class Cancelling(Context):
    """Sets a flag before its n-th decode."""

    flag: AbortFlag
    left = 0

    def feed(self, parts: Sequence[tuple[int, Sequence[int]]], outputs: Sequence[int] | None = None) -> None:
        type(self).left -= 1
        if type(self).left == 0:
            self.flag.set()
        super().feed(parts, outputs)


@pytest.mark.parametrize("decodes", [1, 2, 5, 9])
def test_cancelled_anywhere_the_next_call_gives_the_same_numbers(
    model: Model, decodes: int, large: list[tuple[list[float], list[float]]]
) -> None:
    Cancelling.flag, Cancelling.left = AbortFlag(), decodes
    with mock.patch("drift_edge.scoring.Context", Cancelling), Scorer(model, ChatFormat(model), LARGE) as scorer:
        with pytest.raises(Aborted):
            all(scorer.score(choice, cancel=Cancelling.flag) for choice in PAIRS[:2])
        with pytest.raises(Aborted):
            scorer.score(PAIRS[0], cancel=Cancelling.flag)
        same([scorer.score(choice, cancel=AbortFlag()) for choice in PAIRS[:2]], large[:2])
        same([scorer.score(choice) for choice in PAIRS[:2]], large[:2])


def test_what_was_scored_before_a_cancel_is_not_scored_again(model: Model, tmp_path: Path) -> None:
    # Thirteen prompts are eight and five.
    with RewardCache(tmp_path / "rewards") as cache:
        whole, _ = score(model, PAIRS[:1], LARGE)
        scorer = Scorer(model, ChatFormat(model), LARGE, cache=cache)
        put, flag = cache.put, AbortFlag()

        def put_and_cancel(*args: object) -> None:
            put(*args)  # type: ignore[arg-type]
            flag.set()

        with mock.patch.object(cache, "put", put_and_cancel), pytest.raises(Aborted):
            scorer.score(PAIRS[0], cancel=flag)
        assert scorer.counters.scored == 16
        found = scorer.score(PAIRS[0])
        assert scorer.counters.scored == 26
        assert found.chosen.tolist() == whole[0].chosen.tolist()
        assert found.rejected.tolist() == whole[0].rejected.tolist()
        scorer.close()


def test_logits_that_are_not_numbers(tmp_path: Path) -> None:
    vocab = tiny.byte_bpe()
    broken = {"output.weight": np.full((len(vocab), 32), np.nan, np.float32)}
    with (
        Model(tiny.write(tmp_path / "m.gguf", vocab, tensors=broken)) as model,
        pytest.raises(DecodeError, match="NaN"),
    ):
        score(model, PAIRS[:1], POOL)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"text_length": 0}, "text_length: expected 1 token or more, got 0"),
        ({"text_length": 1.5}, "text_length"),
        ({"n_ctx": 3}, "n_ctx: expected 16"),
        ({"cache_type": "q8_0"}, "cache_type: scoring takes f16 or f32"),
        ({"output_bytes": 100}, "output_bytes: expected .* room for 3 rows"),
    ],
)
def test_settings_out_of_range(model: Model, settings: dict[str, object], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        score(model, PAIRS, POOL, **settings)


def test_nothing_to_score_and_a_closed_scorer(model: Model) -> None:
    with pytest.raises(UsageError, match="1 or more to score"):
        Scorer(model, ChatFormat(model), Attributes("You are.", []))
    _, scorer = score(model, PAIRS[:1], POOL)
    with pytest.raises(ClosedError):
        scorer.score(PAIRS[0])


# -- beside a chat, and by several threads


def together(*works: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_scoring_while_a_chat_goes_on_changes_neither(drift: Drift) -> None:
    ask = [{"role": "user", "content": "How do you make tea?"}]
    weights = {"formal": 0.6, "concise": -0.4}
    expected = one_by_one(drift.pair.slm, PAIRS, POOL)
    alone = drift.complete(ask, weights=weights, seed=1, max_tokens=150).text
    answers: list[str] = []
    found: list[PairScores] = []
    with Scorer.for_pair(drift.pair, POOL) as scorer:

        def chat() -> None:
            for _ in range(3):
                answers.append(drift.complete(ask, weights=weights, seed=1, max_tokens=150).text)

        def learn() -> None:
            found.extend(scorer.score(choice) for choice in PAIRS)

        together(chat, learn)
    same(found, expected)
    assert answers == [alone] * 3


def test_two_threads_take_turns(model: Model) -> None:
    expected = one_by_one(model, PAIRS[:2], POOL)
    with Scorer(model, ChatFormat(model), POOL) as scorer:
        together(
            *(lambda i=i: same([scorer.score(PAIRS[i]) for _ in range(5)], [expected[i]] * 5) for i in (0, 1))  # type: ignore[misc]
        )


def test_a_chat_can_be_stopped_without_stopping_the_scorer(drift: Drift) -> None:
    cancel = CancelToken()
    events = drift.chat([{"role": "user", "content": "How?"}], seed=1, max_tokens=100, cancel=cancel)
    next(events)
    with Scorer.for_pair(drift.pair, POOL) as scorer:
        cancel.cancel()
        same([scorer.score(PAIRS[0])], one_by_one(drift.pair.slm, PAIRS[:1], POOL))
    finish = list(events)[-1]
    assert isinstance(finish, Finish)
    assert finish.reason == "cancelled"


# -- of an engine


def test_a_scorer_of_an_engine_that_is_closed_first(bpe_files: tuple[Path, Path]) -> None:
    drift = Drift.load(*bpe_files)
    slm = drift.pair.slm
    expected = one_by_one(slm, PAIRS[:1], drift.attributes)

    class Closing(Context):
        def feed(self, parts: Sequence[tuple[int, Sequence[int]]], outputs: Sequence[int] | None = None) -> None:
            drift.close()  # in the middle of a pair, again and again
            super().feed(parts, outputs)

    with mock.patch("drift_edge.scoring.Context", Closing), drift.scorer(cache=False) as scorer:
        same([scorer.score(PAIRS[0])], expected)
        with pytest.raises(ClosedError, match="the model has been closed"):
            scorer.score(PAIRS[1])
        assert slm._handle is not None
    assert slm._handle is None
    with pytest.raises(ClosedError, match="the engine has been closed"):
        drift.scorer()


def test_a_scorer_of_an_engine_keeps_scores_for_the_next(
    bpe_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFT_EDGE_HOME", str(tmp_path / "home"))
    with Drift.load(*bpe_files, attributes=POOL) as drift:
        computed = []
        caches = (True, True, False, RewardCache(tmp_path / "own"), RewardCache(tmp_path / "own"))
        for cache in caches:
            with drift.scorer(cache=cache) as scorer:
                scorer.score(PAIRS[0])
                computed.append(scorer.counters.scored)
        assert computed == [10, 0, 10, 10, 0]
        assert (tmp_path / "home" / "cache" / "rewards.sqlite3").exists()
        with drift.scorer(text_length=3) as scorer:
            assert scorer.score(PAIRS[0]).n_chosen == 3


# -- the cache of scores


def test_another_attribute_costs_that_attribute_alone(model: Model, tmp_path: Path) -> None:
    more = POOL.extended([Attribute("dry", "You are a dry assistant.")])
    with RewardCache(tmp_path / "rewards") as cache:
        first, scorer = score(model, PAIRS, POOL, cache=cache)
        responses = len({(repr(choice.messages), y) for choice in PAIRS for y in (choice.chosen, choice.rejected)})
        assert responses == 2 * len(PAIRS) - 1
        assert scorer.counters.scored == 5 * responses
        again, scorer = score(model, PAIRS, POOL, cache=cache)
        assert (scorer.counters.scored, scorer.counters.tokens, scorer.counters.cached) == (0, 0, 10 * len(PAIRS))
        assert [s.chosen.tolist() for s in again] == [s.chosen.tolist() for s in first]
        assert [s.n_rejected for s in again] == [s.n_rejected for s in first]
        found, scorer = score(model, PAIRS, more, cache=cache)
        assert scorer.counters.scored == responses
        same(found, one_by_one(model, PAIRS, more))


def test_no_response_is_scored_twice_whatever_it_is_compared_with(model: Model, tmp_path: Path) -> None:
    first, turned = PAIRS[0], pair("How do you make tea?", PAIRS[0].rejected, PAIRS[0].chosen)
    shares = [
        pair("How do you make tea?", first.rejected, "Wait for the water."),
        pair("How do you make tea?", "Take the pot.", first.chosen),
    ]
    more = POOL.extended([Attribute("dry", "You are a dry assistant.")])
    with RewardCache(tmp_path / "rewards") as cache:
        (one,), scorer = score(model, [first], POOL, cache=cache)
        (other,), again = score(model, [turned], POOL, cache=cache)
        assert (scorer.counters.scored, again.counters.scored, again.counters.tokens) == (10, 0, 0)
        assert other.chosen.tolist() == one.rejected.tolist()
        assert other.rejected.tolist() == one.chosen.tolist()
        assert (other.n_chosen, other.n_rejected) == (one.n_rejected, one.n_chosen)

        found, half = score(model, shares, POOL, cache=cache)
        assert half.counters.scored == 2 * 5
        same(found, one_by_one(model, shares, POOL))
        # Some prompts lack both responses, and some one of them.
        mixed = [pair("How do you make tea?", first.chosen, "A pot.")]
        _, few = score(model, mixed, POOL, cache=cache)
        assert few.counters.scored == 5
        cache.forget([text_key(mixed[0].messages, "A pot.")])
        found, both = score(model, mixed, more, cache=cache)
        assert both.counters.scored == 5 + 2
        same(found, one_by_one(model, mixed, more))
        # The same answer to another question is another one.
        _, elsewhere = score(model, [pair("How do you make coffee?", first.chosen, first.rejected)], POOL, cache=cache)
        assert elsewhere.counters.scored == 10


def test_scores_of_other_settings_models_and_prompts_are_other_scores(
    model: Model, bpe_files: tuple[Path, Path], tmp_path: Path
) -> None:
    with RewardCache(tmp_path / "rewards") as cache:

        def scored(of: Model, pool: Attributes = POOL, **settings: object) -> int:
            return score(of, PAIRS[:1], pool, cache=cache, **settings)[1].counters.scored

        assert scored(model) == 10
        assert scored(model) == 0
        assert scored(model, text_length=3) == 10
        assert scored(model, cache_type="f32") == 10
        assert scored(model, Attributes("You are a tea pot.", POOL.values())) == 2
        with Model(bpe_files[1]) as other:
            assert scored(other) == 10
        (tmp_path / "other").mkdir()
        twins = [tiny.write(tmp_path / at / "m.gguf", tiny.byte_bpe(), seed=i) for i, at in enumerate((".", "other"))]
        for twin in twins:  # of one shape and name, as a model and what it was trained on to
            with Model(twin) as opened:
                assert scored(opened) == 10
