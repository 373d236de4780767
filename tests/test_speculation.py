"""Speculation: the same text as without it, the same caches behind it, and the right distribution where bits differ.

The engine's tests run on the built-in pair, whose logits do not depend on the number of rows, and on scripted models;
the distribution's on a fake context whose logits do.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from drift_edge import Answer, CancelToken, Drift, Finish, Notice, SamplerSettings, Token
from drift_edge.costs import KINDS, MOST_DRAFTED, Costs, DraftKind, Plan
from drift_edge.decoding import Decoder, Generation, InStep
from drift_edge.draws import Draws
from drift_edge.errors import UsageError
from drift_edge.fusion import Fusion
from drift_edge.speculation import Speculation
from drift_edge.steering import Steering
from tests import tiny
from tests.conftest import ASK

Messages = list[dict[str, str]]
WEIGHTS = {"concise": -0.4, "vivid": 0.4, "formal": 0.4, "humor": -0.3, "respect": 0.3, "emotion": 0.3, "energy": -0.3}
FORMS = (
    "What is {}?", "Tell me about {}.", "How do I begin with {}?", "Is {} difficult?", "Why do people like {}?",
    "Give me a tip on {}.", "Please explain {}.", "What do I need for {}?", "Who invented {}?", "Write a poem on {}.",
)  # fmt: skip
TOPICS = (
    "tea", "bread", "bicycles", "winter", "cats", "the sea", "chess", "gardens", "music", "sleep",
    "rice", "clouds", "maps", "paper", "running", "soap", "bees", "clocks", "snow", "Quxberg",
)  # fmt: skip
PROMPTS = [form.format(topic) for topic in TOPICS for form in FORMS]
CELLS = list(product((0.0, 0.7, 1.2), (0.9, 1.0), range(1, MOST_DRAFTED + 1), KINDS))
AHEAD: tuple[tuple[int, DraftKind], ...] = ((1, "steered"), (3, "base"), (7, "steered"))


@pytest.fixture(scope="module")
def pair(builtin_files: tuple[Path, Path]) -> Iterator[tuple[Drift, Drift]]:
    """Two engines on the built-in pair: one goes in step, one speculates."""
    with Drift.load(*builtin_files) as plain, Drift.load(*builtin_files) as ahead:
        yield plain, ahead


def caches(drift: Drift, slm: bool = True) -> list[list[int]]:
    """What every sequence holds."""
    contexts = drift._contexts
    assert contexts.steering is not None or not slm
    return [*contexts.llm.tokens, *(contexts.steering.context.tokens if slm and contexts.steering else [])]


def question(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def follow_up(messages: Messages, answer: Answer) -> Messages:
    return [*messages, {"role": "assistant", "content": answer.text}, *question("And what else?")]


def same(plain: Answer, ahead: Answer) -> None:
    assert (ahead.tokens, ahead.text, ahead.finish_reason) == (plain.tokens, plain.text, plain.finish_reason)
    assert ahead.timings.prefilled_tokens == plain.timings.prefilled_tokens
    assert ahead.speculation.same_text


def check_cell(pair: tuple[Drift, Drift], prompt: str, cell: tuple[float, float, int, DraftKind], seed: int) -> int:
    """Two turns with and without; returns how many drafted tokens were accepted."""
    plain, ahead = pair
    temperature, top_p, g, draft = cell
    print(f"{prompt!r}, {cell}, seed {seed}")
    choose = random.Random(seed)
    sampler = SamplerSettings(
        temperature=temperature,
        top_p=top_p,
        repeat_penalty=choose.choice((1.0, 1.15)),
        presence_penalty=choose.choice((0.0, 0.4)),
        frequency_penalty=choose.choice((0.0, 0.2)),
        plausibility=choose.choice((0.0, 0.05)),
    )
    how: dict[str, Any] = {"weights": WEIGHTS, "beta": 1.0, "sampler": sampler, "seed": seed, "max_tokens": 24}
    messages, accepted = question(prompt), 0
    for _ in range(2):
        a = plain.complete(messages, **how)
        b = ahead.complete(messages, speculate=g, draft=draft, **how)
        same(a, b)
        assert caches(plain) == caches(ahead)
        accepted += b.speculation.accepted
        messages = follow_up(messages, a)
    return accepted


def check_cells(pair: tuple[Drift, Drift], prompts: Sequence[str], cells_each: int) -> None:
    """Every prompt on some cells, so that all cells come up as often."""
    choose = random.Random(2025)
    cells: list[tuple[float, float, int, DraftKind]] = []
    accepted = 0
    for prompt in prompts:
        for _ in range(cells_each):
            cells = cells or choose.sample(CELLS, len(CELLS))
            accepted += check_cell(pair, prompt, cells.pop(), choose.randrange(1 << 32))
    assert accepted > 5 * len(prompts) * cells_each  # of up to 48 tokens


def test_same_seed_same_text(pair: tuple[Drift, Drift]) -> None:
    check_cells(pair, PROMPTS[::20], 1)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_same_seed_same_text_on_200_prompts(pair: tuple[Drift, Drift]) -> None:
    assert len(set(PROMPTS)) == 200
    check_cells(pair, PROMPTS, 3)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("steer", ["prompt", "off"])
def test_same_seed_same_text_on_200_prompts_without_fusion(pair: tuple[Drift, Drift], steer: Any) -> None:
    for seed, prompt in enumerate(PROMPTS):
        g = 1 + seed % MOST_DRAFTED
        print(prompt, g, seed)
        a, b = (
            drift.complete(question(prompt), weights=WEIGHTS, steer=steer, seed=seed, max_tokens=24, speculate=how)
            for drift, how in zip(pair, ("off", g), strict=True)
        )
        assert (a.tokens, a.finish_reason) == (b.tokens, b.finish_reason)


@pytest.mark.parametrize("steer", ["prompt", "off"])
def test_without_fusion_the_base_drafts_for_the_llm(pair: tuple[Drift, Drift], steer: Any) -> None:
    plain, ahead = pair
    messages = question("How do you make tea?")
    for turn, g in enumerate((3, "off", 7)):  # what was appended without a draft is caught up with
        a = plain.complete(messages, weights=WEIGHTS, steer=steer, seed=turn, max_tokens=40)
        b = ahead.complete(messages, weights=WEIGHTS, steer=steer, seed=turn, max_tokens=40, speculate=g)  # type: ignore[arg-type]
        assert (a.tokens, a.text, a.finish_reason) == (b.tokens, b.text, b.finish_reason)
        assert caches(plain, slm=False) == caches(ahead, slm=False)
        if g != "off":
            assert b.speculation.draft == "base"
            assert b.speculation.accepted > 3
            assert b.timings.llm_decodes < a.timings.llm_decodes
            prompt = ahead.pair.slm_format.encode(messages, ahead.attributes.base, ahead._contexts.answers.by_text)
            assert ahead._contexts.steering is not None
            base = ahead._contexts.steering.context.tokens[0]
            assert base == [*prompt, *b.tokens][: len(base)]
            assert len(base) > len(prompt) + len(b.tokens) - 9
        messages = follow_up(messages, a)


def test_a_change_of_mode_keeps_the_text(pair: tuple[Drift, Drift]) -> None:
    plain, ahead = pair
    messages = question("Tell me about bread.")
    for turn, steer in enumerate(("off", "logits", "prompt", "logits", "off")):
        a = plain.complete(messages, weights=WEIGHTS, steer=steer, seed=turn, max_tokens=20)  # type: ignore[arg-type]
        b = ahead.complete(messages, weights=WEIGHTS, steer=steer, seed=turn, max_tokens=20, speculate=3)  # type: ignore[arg-type]
        assert a.tokens == b.tokens
        messages = follow_up(messages, a)


# -- what lies in the caches when an answer ends in the middle of a draft


@pytest.mark.parametrize("ahead_by", AHEAD)
@pytest.mark.parametrize("max_tokens", [1, 2, 5, 9])
def test_limit(pair: tuple[Drift, Drift], max_tokens: int, ahead_by: tuple[int, DraftKind]) -> None:
    a, b = both(pair, ahead_by, max_tokens=max_tokens)
    assert (len(a.tokens), b.finish_reason) == (max_tokens, "length")


@pytest.mark.parametrize("ahead_by", AHEAD)
def test_end_of_turn(pair: tuple[Drift, Drift], ahead_by: tuple[int, DraftKind]) -> None:
    a, _ = both(pair, ahead_by, max_tokens=400)
    assert a.finish_reason == "stop"


@pytest.mark.parametrize("ahead_by", AHEAD)
def test_stop_strings(pair: tuple[Drift, Drift], ahead_by: tuple[int, DraftKind]) -> None:
    text = pair[0].complete(question("How do you make tea?"), weights=WEIGHTS, beta=1.0, seed=3, max_tokens=40).text
    for at in (5, 24):
        a, _ = both(pair, ahead_by, max_tokens=40, stop=[text[at : at + 6]])
        assert a.finish_reason == "stop"
        assert len(a.text) <= at


def both(pair: tuple[Drift, Drift], ahead_by: tuple[int, DraftKind], **how: Any) -> tuple[Answer, Answer]:
    """An answer with and without, and the next turn, which finds the same in the caches."""
    g, draft = ahead_by
    messages = question("How do you make tea?")
    how = {"weights": WEIGHTS, "beta": 1.0, "seed": 3, **how}
    for drift in pair:
        drift.complete(question("x"), weights=WEIGHTS, seed=0, max_tokens=1)  # nothing of an answer lies there yet
    a = pair[0].complete(messages, **how)
    b = pair[1].complete(messages, speculate=g, draft=draft, **how)
    same(a, b)
    assert caches(pair[0]) == caches(pair[1])
    messages = follow_up(messages, a)
    same(pair[0].complete(messages, **how), pair[1].complete(messages, speculate=g, draft=draft, **how))
    return a, b


@pytest.mark.parametrize("steer", ["logits", "off"])
@pytest.mark.parametrize("ahead_by", AHEAD)
def test_context_limit(tmp_path: Path, ahead_by: tuple[int, DraftKind], steer: Any) -> None:
    """Models that never end fill the context to the same token, and drafts stop before it overflows."""
    forever = {a: a for a in range(len(BPE))}
    files = [tiny.write_script(tmp_path / f"{name}.gguf", BPE, forever) for name in ("llm", "slm")]
    g, draft = ahead_by
    how: dict[str, Any] = {"weights": {"concise": 1.0}, "steer": steer, "seed": 0, "max_tokens": 10_000}
    with Drift.load(*files, ctx_size=160) as plain, Drift.load(*files, ctx_size=160) as ahead:
        a = plain.complete(ASK, **how)
        b = ahead.complete(ASK, speculate=g, draft=draft, **how)
        assert (a.tokens, a.finish_reason) == (b.tokens, b.finish_reason)
        assert caches(plain, steer == "logits") == caches(ahead, steer == "logits")[: 9 if steer == "logits" else 1]
        assert a.finish_reason == "length"
        assert max(map(len, caches(plain, steer == "logits"))) == 159
        assert b.speculation.accepted > len(a.tokens) // 3


@pytest.mark.parametrize("ahead_by", AHEAD)
@pytest.mark.parametrize("n", [1, 2, 6])
def test_cancelled_between_tokens(pair: tuple[Drift, Drift], n: int, ahead_by: tuple[int, DraftKind]) -> None:
    g, draft = ahead_by
    messages = question("How do you make tea?")
    cancel, seen = CancelToken(), 0
    events = pair[1].chat(
        messages, weights=WEIGHTS, beta=1.0, seed=3, max_tokens=40, cancel=cancel, speculate=g, draft=draft
    )
    for event in events:
        seen += isinstance(event, Token)
        if seen == n:
            cancel.cancel()
    assert isinstance(event, Finish)
    short = pair[0].complete(messages, weights=WEIGHTS, beta=1.0, seed=3, max_tokens=n)
    assert event.answer.finish_reason == "cancelled"
    assert event.answer.tokens == short.tokens
    # A cancelled answer may hold its last token or lack it, as without speculation.
    for left, wanted in zip(caches(pair[1]), caches(pair[0]), strict=True):
        assert left[: len(wanted)] == wanted
        assert len(left) - len(wanted) in (0, 1)


@pytest.mark.parametrize("which", ["llm", "slm"])
@pytest.mark.parametrize("nth", range(6))
def test_cancelled_within_a_decode(
    builtin_files: tuple[Path, Path], which: str, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flag goes up as the n-th decode of a model begins: what was drafted until then is out of the caches."""
    with Drift.load(*builtin_files) as drift:
        drift.complete(ASK, weights=WEIGHTS, seed=3, max_tokens=12, speculate=3, draft="steered")
        assert drift._contexts.steering is not None
        context = drift._contexts.llm if which == "llm" else drift._contexts.steering.context
        cancel, calls = CancelToken(), 0

        def stopped(decode: Callable[..., None]) -> Callable[..., None]:
            def stop_at_nth(*arguments: Any) -> None:
                nonlocal calls
                if calls == nth:
                    cancel.cancel()
                calls += 1
                decode(*arguments)

            return stop_at_nth

        for name in ("extend", "feed"):
            monkeypatch.setattr(context, name, stopped(getattr(context, name)))
        answer = drift.complete(
            question("Tell me about cats."), weights=WEIGHTS, seed=3, cancel=cancel, speculate=3, draft="steered"
        )
        monkeypatch.undo()
        assert answer.finish_reason == "cancelled"
        prompts = answer.timings.prompt_tokens
        n = len(answer.tokens)
        held = drift._contexts.llm.tokens[0]
        assert len(held) in (prompts + n - 1, prompts + n)
        assert held[prompts:] == list(answer.tokens[: len(held) - prompts])
        again = drift.complete(question("Tell me about cats."), weights=WEIGHTS, seed=3, max_tokens=20)
        with Drift.load(*builtin_files) as fresh:
            wanted = fresh.complete(question("Tell me about cats."), weights=WEIGHTS, seed=3, max_tokens=20)
        assert again.tokens == wanted.tokens
        assert again.tokens[:n] == answer.tokens


def test_dropped_and_closed_in_the_middle(builtin_files: tuple[Path, Path]) -> None:
    with Drift.load(*builtin_files) as drift:
        wanted = drift.complete(ASK, weights=WEIGHTS, seed=0, max_tokens=9).tokens
        for take in (1, 3, 6):
            events = drift.chat(ASK, weights=WEIGHTS, seed=0, max_tokens=9, speculate=5)
            for _ in range(take):
                next(events)
            del events
            assert drift.complete(ASK, weights=WEIGHTS, seed=0, max_tokens=9).tokens == wanted
    other = Drift.load(*builtin_files)
    events = other.chat(ASK, weights=WEIGHTS, seed=0, max_tokens=50, speculate=5)
    next(events)
    other.close()
    events.close()  # type: ignore[attr-defined]  # and no error out of nowhere


# -- counts, by hand


BPE = tiny.byte_bpe()
TEXT = "abcdefghijklmnopq"


def scripted(folder: Path, llm: Mapping[int, int], slm: Mapping[int, int]) -> Drift:
    files = (tiny.write_script(folder / f"{name}.gguf", BPE, table) for name, table in (("llm", llm), ("slm", slm)))
    return Drift.load(*files)


def test_a_draft_that_is_always_right(tmp_path: Path) -> None:
    table = tiny.say(BPE, BPE.ids(TEXT))
    with scripted(tmp_path, table, table) as drift:
        drift.complete(ASK, weights=WEIGHTS, seed=0, speculate=3, draft="steered", max_tokens=8)  # tries the shape
        answer = drift.complete(ASK, weights=WEIGHTS, seed=0, speculate=3, draft="steered")
    assert (answer.text, answer.finish_reason) == (TEXT, "stop")
    # 17 tokens are appended, four by each decode; the last draft comes upon the end at once.
    assert answer.timings.llm_decodes == 5
    assert answer.timings.slm_decodes == 17
    assert answer.to_dict()["speculation"] == {
        "draft": "steered", "g": 3, "drafted": 12, "accepted": 12, "auto": False,
    }  # fmt: skip


def test_a_draft_that_is_always_wrong(tmp_path: Path) -> None:
    right, wrong = tiny.say(BPE, BPE.ids(TEXT)), {a: BPE.id("Z") for a in range(len(BPE))}
    with scripted(tmp_path, right, wrong) as drift:
        drift.complete(ASK, steer="off", seed=0, speculate=4, max_tokens=8)
        answer = drift.complete(ASK, steer="off", seed=0, speculate=4)
        unspeculated = drift.complete(ASK, steer="off", seed=0)
    assert answer.text == unspeculated.text == TEXT
    assert (answer.speculation.drafted, answer.speculation.accepted) == (4 * 17, 0)
    assert answer.timings.llm_decodes == unspeculated.timings.llm_decodes == 17
    # A token to catch up with goes along with the block's first: four decodes a block.
    assert answer.timings.slm_decodes == 4 * 17


def test_every_token_is_either_accepted_or_costs_a_decode(pair: tuple[Drift, Drift]) -> None:
    _, drift = pair
    for g, draft in AHEAD:
        answer = drift.complete(ASK, weights=WEIGHTS, beta=1.0, seed=5, max_tokens=50, speculate=g, draft=draft)
        answer = drift.complete(ASK, weights=WEIGHTS, beta=1.0, seed=6, max_tokens=50, speculate=g, draft=draft)
        appended = len(answer.tokens) - (answer.finish_reason == "length")
        assert answer.timings.llm_decodes + answer.speculation.accepted == appended
        assert 0 < answer.speculation.accepted <= answer.speculation.drafted


def test_off_is_no_speculation(pair: tuple[Drift, Drift]) -> None:
    _, drift = pair
    answer = drift.complete(ASK, weights=WEIGHTS, seed=5, max_tokens=30)
    assert answer.to_dict()["speculation"] == {"draft": "off", "g": 0, "drafted": 0, "accepted": 0, "auto": False}
    assert answer.timings.slm_decodes == answer.timings.llm_decodes == len(answer.tokens) - 1


def test_auto_keeps_the_text_and_remembers_prices(builtin_files: tuple[Path, Path], tmp_path: Path) -> None:
    wanted = []
    for cache in (None, tmp_path, tmp_path):
        with Drift.load(*builtin_files, cache=cache) as drift:
            got = [
                drift.complete(question(text), weights=WEIGHTS, steer=steer, seed=i, max_tokens=40, speculate=how)  # type: ignore[arg-type]
                for i, (text, steer) in enumerate(product(PROMPTS[:40:10], ("logits", "off")))
                for how in (("off",) if cache is None else ("auto",))
            ]
        wanted = wanted or got
        assert [a.tokens for a in got] == [a.tokens for a in wanted]
        assert all(a.speculation.auto == (cache is not None) for a in got)
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("speculation-")
    assert Costs.open(None).file is None


def test_auto_that_is_settled_on_nothing_costs_nothing(builtin_files: tuple[Path, Path]) -> None:
    with Drift.load(*builtin_files) as drift:
        costs = drift._planner.costs()
        for _ in range(5):
            costs.add(costs.steps, 0, 1.0)
            costs.add(costs.steps, len(WEIGHTS), 9.0)
        for rows in range(1, 57):
            for _ in range(5):
                costs.add(costs.llm, rows, float(rows))
                costs.add(costs.slm, rows, float(rows))
        for steer in ("logits", "off"):
            plain = drift.complete(ASK, weights=WEIGHTS, steer=steer, seed=0, max_tokens=20)  # type: ignore[arg-type]
            auto = drift.complete(ASK, weights=WEIGHTS, steer=steer, seed=0, max_tokens=20, speculate="auto")  # type: ignore[arg-type]
            assert auto.tokens == plain.tokens
            assert auto.timings.llm_decodes == plain.timings.llm_decodes
            assert auto.timings.slm_decodes == plain.timings.slm_decodes
            assert (auto.speculation.draft, auto.speculation.auto) == ("off", True)


# -- models and arguments


@pytest.mark.parametrize("which", ["llm", "slm"])
def test_a_model_that_cannot_roll_back(which: str, pair: tuple[Drift, Drift], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, ahead = pair
    monkeypatch.setattr(getattr(ahead.pair, which), "can_roll_back", False)
    monkeypatch.setattr(ahead._answerer, "_told", set())
    for turn, kinds in enumerate((["no-speculation"], [])):
        events = list(ahead.chat(ASK, weights=WEIGHTS, seed=turn, max_tokens=9, speculate=3))
        notices = [e for e in events if isinstance(e, Notice)]
        assert [notice.kind for notice in notices] == kinds
        assert all(f"drift-nano-{which}-Q8_0.gguf is recurrent" in notice.text for notice in notices)
        assert isinstance(events[-1], Finish)
        answer = events[-1].answer
        assert answer.speculation.drafted == 0
        assert answer.tokens == plain.complete(ASK, weights=WEIGHTS, seed=turn, max_tokens=9).tokens


def test_a_small_model_gone_wrong_cannot_spoil_a_plain_answer(tmp_path: Path) -> None:
    good = tiny.write(tmp_path / "good.gguf", BPE)
    bad = tiny.write(tmp_path / "bad.gguf", BPE, tensors={"output_norm.weight": np.full(32, np.nan, np.float32)})
    with Drift.load(good, bad) as drift:
        wanted = drift.complete(ASK, seed=0, max_tokens=9)
        answer = drift.complete(ASK, seed=0, max_tokens=9, speculate=3)
    assert answer.tokens == wanted.tokens
    assert answer.speculation.drafted == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"speculate": 0}, "speculate: expected auto, off, or 1 to 7 tokens, got 0"),
        ({"speculate": 8}, "got 8"),
        ({"speculate": "on"}, "got 'on'"),
        ({"speculate": True}, "got True"),
        ({"speculate": 2.0}, "got 2.0"),
        ({"draft": "both"}, "draft: expected one of auto, steered, base, got 'both'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], expected: str, pair: tuple[Drift, Drift]) -> None:
    with pytest.raises(UsageError, match=expected):
        pair[0].chat(ASK, **arguments)


# -- the distribution, where logits depend on the number of rows


class FakeContext:
    """Sequences whose next token depends on the last one by a table, and on the number of rows by a little."""

    n_ctx, n_batch, n_outputs = 64, 64, 64
    model = SimpleNamespace(end_ids=frozenset(), piece=lambda _: b"x")

    def __init__(self, tables: NDArray[np.float32], wobble: float) -> None:
        self.tables, self.wobble, self.n_seq = tables, wobble, len(tables)
        self.tokens: list[list[int]] = [[] for _ in tables]
        self.shapes: set[int] = set()
        self._logits: NDArray[np.float32] = np.empty((0, 0), np.float32)

    def prefill(self, prompts: Mapping[int, Sequence[int]]) -> None:
        for seq, prompt in prompts.items():
            self.tokens[seq] = list(prompt[:-1])
        self.extend([prompt[-1] for prompt in prompts.values()], list(prompts))

    def extend(self, tokens: Sequence[int], seqs: Sequence[int]) -> None:
        self.feed([(seq, [token]) for seq, token in zip(seqs, tokens, strict=True)])

    def feed(self, parts: Sequence[tuple[int, Sequence[int]]], outputs: Sequence[int] | None = None) -> None:
        wanted = [len(tokens) for _, tokens in parts] if outputs is None else outputs
        n = sum(len(tokens) for _, tokens in parts)
        rows = []
        for (seq, tokens), last in zip(parts, wanted, strict=True):
            self.tokens[seq] += tokens
            rows += [self.tables[seq][token] for token in tokens[len(tokens) - last :]]
        self.shapes.add(n)
        self._logits = np.array(rows) + np.float32(self.wobble * n) * np.cos(np.arange(6, dtype=np.float32))

    def truncate(self, seq: int, n: int) -> None:
        del self.tokens[seq][n:]

    def set_abort(self, flag: object) -> None:
        pass

    def logits(self) -> NDArray[np.float32]:
        return self._logits


def fakes(k: int, wobble: float) -> tuple[Any, Steering]:
    rng = np.random.default_rng(4)
    llm = FakeContext(rng.normal(0, 1.2, (1, 6, 6)).astype(np.float32), wobble)
    tables = llm.tables + rng.normal(0, 0.6, (k + 1, 6, 6)).astype(np.float32)
    settings = SimpleNamespace(make=lambda *_: FakeContext(tables, wobble))
    return llm, Steering(llm.model, settings, k + 1)  # type: ignore[arg-type]


def fake_answer(
    llm: Any, slm: Steering, p: NDArray[np.float64], plan: Plan | None, seed: int, settings: SamplerSettings, n: int = 3
) -> tuple[tuple[int, ...], Speculation | None]:
    """The tokens of an answer to the prompt [0, 1], and what speculated."""
    llm.prefill({0: [0, 1]})
    slm.prefill([0, 1], {str(i): [0, 1] for i in range(len(p))}, None)
    draws, decoder, out = Draws(decoder_of_6.sampler, settings, seed, [0, 1], n), decoder_of_6, Generation()
    fusion = Fusion(p)
    steps = (
        InStep(llm, slm if len(p) else None, 6) if plan is None else Speculation(llm, slm, fusion, 6, draws, plan, n)
    )
    for _ in decoder.generate(
        steps, fusion, draws, max_tokens=n, stop=(), cancel=CancelToken(), measure=False, into=out
    ):
        pass
    return tuple(out.tokens), steps if isinstance(steps, Speculation) else None


decoder_of_6 = Decoder(6)


def target(llm: Any, slm: Steering, p: NDArray[np.float64], settings: SamplerSettings) -> NDArray[np.float64]:
    """Probabilities (6, 6) of the next token by the last, by plain numpy: Eq. 15, temperature, top-p."""
    tables = slm.context.tables.astype(np.float64)  # type: ignore[attr-defined]
    h = llm.tables[0] + sum(p_i * (h_i - tables[0]) for p_i, h_i in zip(p, tables[1:], strict=True))
    probability = np.exp(h / settings.temperature)
    probability /= probability.sum(axis=1, keepdims=True)
    for row in probability:
        order = np.argsort(-row)
        n = int(np.searchsorted(np.cumsum(row[order]), settings.top_p)) + 1
        row[order[n:]] = 0
        row /= row.sum()
    return probability


@pytest.mark.parametrize(("k", "g", "draft"), [(2, 2, "steered"), (2, 1, "base"), (0, 2, "base")])
def test_the_distribution_is_the_targets(k: int, g: int, draft: DraftKind) -> None:
    """Chi-square over all answers of three tokens; the seed decides which ones are seen."""
    p, n = np.array([1.2, -0.7])[:k], 2_000
    settings = SamplerSettings(temperature=1.6, top_k=0, top_p=0.95 if k else 1.0, min_p=0)
    llm, slm = fakes(k, wobble=1e-4)
    plan = Plan(Costs(), k, (draft,), g, seeded=True)
    found: Counter[tuple[int, ...]] = Counter()
    drafted = accepted = 0
    for seed in range(n):
        tokens, speculation = fake_answer(llm, slm, p, plan, seed, settings)
        found[tokens] += 1
        assert speculation is not None
        drafted, accepted = drafted + speculation.drafted, accepted + speculation.accepted
        assert speculation.same is False
    assert 0.3 < accepted / drafted < 0.95  # else the draft is never wrong, or never right
    step = target(llm, slm, p, settings)
    statistic, cells, rare_expected, rare_found = 0.0, 0, 0.0, 0
    for tokens in product(range(6), repeat=3):
        expected = n * float(np.prod([step[a, b] for a, b in pairwise((1, *tokens))]))
        if expected < 5:  # too few for chi-square: together they are one cell
            rare_expected, rare_found = rare_expected + expected, rare_found + found[tokens]
        else:
            statistic, cells = statistic + (found[tokens] - expected) ** 2 / expected, cells + 1
    if rare_expected > 1:
        statistic, cells = statistic + (rare_found - rare_expected) ** 2 / rare_expected, cells + 1
    assert cells > 20
    df, z = cells - 1, 3.7  # one in ten thousand, by Wilson and Hilferty
    assert statistic < df * (1 - 2 / (9 * df) + z * (2 / (9 * df)) ** 0.5) ** 3


@pytest.mark.parametrize("draft", KINDS)
def test_without_the_wobble_the_text_is_the_same(draft: DraftKind) -> None:
    p, settings = np.array([1.2, -0.7]), SamplerSettings(temperature=0.9, repeat_penalty=1.3, repeat_last_n=4)
    llm, slm = fakes(2, wobble=0.0)
    for seed in range(60):
        g = 1 + seed % MOST_DRAFTED
        llm.shapes.clear()
        plain, _ = fake_answer(llm, slm, p, None, seed, settings, n=20)
        ahead, speculation = fake_answer(llm, slm, p, Plan(Costs(), 2, (draft,), g, seeded=True), seed, settings, n=20)
        assert plain == ahead
        assert speculation is not None
        assert speculation.same
        assert [len(t) for t in (*llm.tokens, *slm.context.tokens)] == [21] * 4
        assert llm.shapes == {1, g + 1}  # whatever a draft's length: other shapes are not known to be the same


def test_what_was_chosen_is_of_the_tokens_that_were_drafted_for() -> None:
    """One draft of two tokens, then eighteen tokens without."""
    choices = iter([("base", 2)])

    class Once(Plan):
        def choose(self, *_: int) -> tuple[DraftKind, int]:
            return next(choices, ("steered", 0))  # type: ignore[arg-type]

    llm, slm = fakes(2, wobble=0)
    plan = Once(Costs(), 2, KINDS, None)
    _, speculation = fake_answer(llm, slm, np.array([1.2, -0.7]), plan, 7, SamplerSettings(), n=20)
    assert speculation is not None
    assert speculation.drafted == 2
    assert speculation.choice() == ("base", 2)


def test_a_limit_that_leaves_no_room_for_a_draft_is_none(pair: tuple[Drift, Drift]) -> None:
    answer = pair[1].complete(ASK, weights=WEIGHTS, seed=0, speculate=3, max_tokens=1)
    assert answer.to_dict()["speculation"] == {"draft": "off", "g": 0, "drafted": 0, "accepted": 0, "auto": False}


def test_auto_with_a_seed_leaves_out_what_would_change_the_text() -> None:
    settings, p = SamplerSettings(), np.array([1.2, -0.7])
    llm, slm = fakes(2, wobble=1e-3)
    for seeded in (True, False):
        costs = Costs()
        for _ in range(5):
            costs.add(costs.steps, 2, 3.0)
        for rows in range(1, 17):  # the first drafts look as if they paid: more rows cost nothing more
            for prices in (costs.llm, costs.slm):
                costs.add(prices, rows, 1.0 if rows == 1 else 1.5)
                costs.add(prices, rows, 1.0 if rows == 1 else 1.5)
        _, speculation = fake_answer(llm, slm, p, Plan(costs, 2, KINDS, None, seeded), 7, settings, n=40)
        assert speculation is not None
        assert (speculation.drafted > 0) == (not seeded)
        assert speculation.same is (True if seeded else None)  # without a seed nobody looked
        assert set(costs.same.values()) == ({False} if seeded else set())
