"""What a generation shows: whole characters, nothing of a stop string, penalties, and an end for each reason.

The models here are scripted: they say a given text, one token for each of its bytes.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from drift_edge import Answer, CancelToken, Drift, Finish, SamplerSettings, Token
from drift_edge.errors import UsageError
from tests import tiny
from tests.conftest import ASK

BPE = tiny.byte_bpe()
TEXT = "ab \u00e9\U0001f642cd\u8336.ef"  # letters of one, two, four and three bytes, every byte another


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[[Sequence[int]], Drift]]:
    """Makes an engine whose models answer with the given tokens."""
    opened: list[Drift] = []

    def make(tokens: Sequence[int], vocab: tiny.Vocab = BPE) -> Drift:
        path = tiny.write_script(tmp_path / "m.gguf", vocab, tiny.say(vocab, tokens))
        opened.append(Drift.load(path, path))
        return opened[-1]

    yield make
    for drift in opened:
        drift.close()


Script = Callable[[Sequence[int]], Drift]


def run(drift: Drift, **arguments: object) -> tuple[list[str], str, Answer]:
    """Texts of the tokens, the text of the end, and the answer."""
    events = list(drift.chat(ASK, seed=0, **arguments))  # type: ignore[arg-type]
    *tokens, last = events
    assert isinstance(last, Finish)
    assert all(isinstance(event, Token) for event in tokens)
    shown = [event.text for event in tokens if isinstance(event, Token)]
    assert "".join(shown) + last.text == last.answer.text
    assert last.answer.tokens == tuple(event.token for event in tokens if isinstance(event, Token))
    assert last.reason == last.answer.finish_reason
    return shown, last.text, last.answer


def test_characters_come_whole(script: Script) -> None:
    shown, rest, answer = run(script(BPE.ids(TEXT)))
    assert shown == ["a", "b", " ", "", "\u00e9", "", "", "", "\U0001f642", "c", "d", "", "", "\u8336", ".", "e", "f"]
    assert (rest, answer.text, answer.finish_reason) == ("", TEXT, "stop")


def test_a_character_cut_off_by_the_limit(script: Script) -> None:
    shown, rest, answer = run(script(BPE.ids(TEXT)), max_tokens=7)
    assert shown == ["a", "b", " ", "", "\u00e9", "", ""]
    assert rest == "\ufffd"
    assert (answer.text, answer.finish_reason) == ("ab \u00e9\ufffd", "length")
    assert len(answer.tokens) == 7


def test_bytes_that_are_no_character(script: Script) -> None:
    chars = tiny._byte_chars()
    _, _, answer = run(script([BPE.id(chars[b]) for b in b"a\xffb\xc3c\xf0\x9f"]))
    assert answer.text == "a\ufffdb\ufffdc\ufffd"


def test_second_turn_finds_a_broken_answer_in_the_cache(script: Script) -> None:
    drift = script(BPE.ids(TEXT))
    first = drift.complete(ASK, seed=0, max_tokens=7)
    talk = [*ASK, {"role": "assistant", "content": first.text}, {"role": "user", "content": "x"}]
    second = drift.complete(talk, seed=0, max_tokens=3)
    # New: the answer's last token, the end of its turn, the user's mark, one letter, end, and the answer's mark.
    assert second.timings.prefilled_tokens == 6


@pytest.mark.parametrize("n", [1, 2, 16, 17, 18])
def test_limit(n: int, script: Script) -> None:
    _, _, answer = run(script(BPE.ids(TEXT)), max_tokens=n)
    assert len(answer.tokens) == min(n, 17)
    assert answer.finish_reason == ("length" if n <= 17 else "stop")
    # The end token is drawn too, but costs no decode; nor does the last token of an answer that ran out.
    assert answer.timings.llm_decodes == min(n - 1, 17)


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (["b"], "a"),
        (["a"], ""),
        (["b \u00e9"], "a"),
        (["\U0001f642c"], "ab \u00e9"),
        (["cd\u8336.e"], "ab \u00e9\U0001f642"),
        (["ef"], "ab \u00e9\U0001f642cd\u8336."),
        (["f"], TEXT[:-1]),
        (["d\u8336", "cd"], "ab \u00e9\U0001f642"),  # the one that begins first
        (["cdX", "d"], "ab \u00e9\U0001f642c"),  # a false beginning, then another
        (["cd\u8336", "d"], "ab \u00e9\U0001f642c"),  # the shorter is complete first
        (["a", "ab"], ""),
    ],
)
def test_stop_strings(stop: list[str], text: str, script: Script) -> None:
    shown, rest, answer = run(script(BPE.ids(TEXT)), stop=stop)
    assert (answer.text, answer.finish_reason, rest) == (text, "stop", "")
    so_far = ""
    for piece in shown:  # at no moment is a part of the stop string shown
        so_far += piece
        assert text.startswith(so_far)


@pytest.mark.parametrize("stop", [["efg"], ["fz", "e."], ["x"], [], ["f."]])
def test_stop_strings_that_never_come(stop: list[str], script: Script) -> None:
    shown, rest, answer = run(script(BPE.ids(TEXT)), stop=stop)
    assert (answer.text, answer.finish_reason) == (TEXT, "stop")
    held = {"efg": "ef", "fz": "f", "f.": "f"}.get(stop[0] if stop else "", "")
    assert rest == held
    assert "".join(shown) == TEXT.removesuffix(held)


def test_text_held_back_is_shown_when_the_answer_runs_out(script: Script) -> None:
    _, rest, answer = run(script(BPE.ids(TEXT)), stop=["b \u00e9Z"], max_tokens=4)
    assert (rest, answer.text) == ("b \ufffd", "ab \ufffd")


def test_text_held_back_is_shown_when_cancelled(script: Script) -> None:
    cancel = CancelToken()
    shown = ""
    for event in script(BPE.ids(TEXT)).chat(ASK, seed=0, stop=["b zzz"], cancel=cancel):
        if isinstance(event, Token):
            shown += event.text
            if event.token == BPE.ids(" ")[0]:
                cancel.cancel()
    assert isinstance(event, Finish)
    assert (shown, event.text, event.answer.text, event.reason) == ("a", "b ", "ab ", "cancelled")


def test_cancelling_in_a_signal_handler(script: Script) -> None:
    cancel = CancelToken()
    before = signal.signal(signal.SIGINT, lambda *_: cancel.cancel())
    try:
        n = 0
        for event in script(BPE.ids(TEXT)).chat(ASK, seed=0, cancel=cancel):
            n += isinstance(event, Token)
            if n == 4:
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert isinstance(event, Finish)
    assert (event.reason, n) == ("cancelled", 4)


def test_a_token_can_be_cancelled_again_and_from_many_threads(script: Script) -> None:
    cancel = CancelToken()
    assert not cancel.cancelled
    threads = [threading.Thread(target=cancel.cancel) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cancel.cancelled
    assert script(BPE.ids(TEXT)).complete(ASK, seed=0, cancel=cancel).finish_reason == "cancelled"


def test_the_plain_fallback_stops_where_the_user_would_speak(tmp_path: Path) -> None:
    bare = BPE.with_keys(chat_template=None)
    # "Assistant:" ends in a colon, so the script begins there; it says the user's name without one.
    follow = tiny.say(bare, [bare.id("a"), *bare.ids("\nUser")], start=":", end=":")
    path = tiny.write_script(tmp_path / "m.gguf", bare, follow)
    with Drift.load(path, path) as drift:
        answer = drift.complete(ASK, seed=0, max_tokens=30)
        assert (answer.text, answer.finish_reason) == ("a", "stop")
    # A fallback with an end token of its own has no such stop.
    chatml = bare.changed(bare.id("<|end|>"), text="<|im_end|>").changed(bare.id("<|user|>"), text="<|im_start|>")
    newline = tiny._byte_chars()[10]
    follow = tiny.say(bare, [*bare.ids("a"), *bare.ids("User")], start=newline, end=":") | {bare.id(":"): bare.id("x")}
    path = tiny.write_script(tmp_path / "c.gguf", chatml, follow)
    with Drift.load(path, path) as drift:
        assert drift.complete(ASK, seed=0, max_tokens=7).text == "aUser:x"


def test_penalties_look_at_the_answer_and_the_prompt(tmp_path: Path) -> None:
    """A model that says one token for ever, by 3 nats: penalties of more than that make it say others."""
    a = BPE.id("a")
    path = tiny.write_script(tmp_path / "m.gguf", BPE, {BPE.id("<|assistant|>"): a}, margin=3.0)
    with Drift.load(path, path) as drift:

        def say(**settings: float) -> tuple[int, ...]:
            sampler = SamplerSettings(temperature=0, **settings)  # type: ignore[arg-type]
            return drift.complete(ASK, sampler=sampler, seed=0, max_tokens=6).tokens

        assert say() == (a,) * 6
        assert say(presence_penalty=2.9) == (a,) * 6
        assert say(presence_penalty=3.1)[:2] != (a, a)
        # By 1 nat for each time: 2 times cost 2 and leave the lead at 1, 4 times have cost it.
        assert say(frequency_penalty=0.8)[:4] == (a,) * 4
        assert say(frequency_penalty=0.8)[4] != a
        assert say(repeat_penalty=1.5) == (a,) * 6  # 3 / 1.5 is still more than 0
        asked = [{"role": "user", "content": "a"}]
        sampler = SamplerSettings(temperature=0, presence_penalty=3.1)
        assert drift.complete(asked, sampler=sampler, seed=0, max_tokens=1).tokens != (a,)
        short = SamplerSettings(temperature=0, presence_penalty=3.1, repeat_last_n=1)
        assert drift.complete(asked, sampler=short, seed=0, max_tokens=1).tokens == (a,)


def test_control_tokens_in_an_answer_are_not_shown(script: Script) -> None:
    tokens = [*BPE.ids("a"), BPE.id("<|user|>"), *BPE.ids("b")]
    shown, _, answer = run(script(tokens))
    assert shown == ["a", "", "b"]
    assert answer.tokens == tuple(tokens)


def test_sentencepiece_answers_keep_their_blanks(tmp_path: Path) -> None:
    vocab = tiny.spm()
    tokens = [
        vocab.id("\u2581Hello"),
        vocab.id("\u2581the"),
        *vocab.ids("\u00e9"),
        vocab.id("\u2581tea"),
        vocab.id("."),
    ]
    path = tiny.write_script(tmp_path / "m.gguf", vocab, tiny.say(vocab, tokens, end="</s>"))
    with Drift.load(path, path) as drift:
        assert drift.complete(ASK, seed=0).text == " Hello the\u00e9 tea."


def test_logprobs_are_those_before_any_sampler(drift: Drift) -> None:
    asked = {"seed": 3, "max_tokens": 8, "sampler": SamplerSettings(temperature=0.3, top_k=2), "logprobs": 4}
    weights = {"concise": 0.8, "vivid": -0.5}
    tokens = [event for event in drift.chat(ASK, weights=weights, **asked) if isinstance(event, Token)]
    rows = drift.next_logprobs(ASK, [token.token for token in tokens], weights=weights)
    for token, row in zip(tokens, rows, strict=False):
        own, *likeliest = token.logprobs
        assert own.token == token.token
        assert own.logprob == pytest.approx(row[token.token], abs=1e-4)
        assert [told.token for told in likeliest] == list(np.argsort(-row, kind="stable")[:4])
        assert all(told.piece == drift.pair.llm.piece(told.token) for told in token.logprobs)
    assert all(event.logprobs == () for event in drift.chat(ASK, max_tokens=2) if isinstance(event, Token))
    with pytest.raises(UsageError, match="logprobs"):
        drift.chat(ASK, logprobs=-1)


def test_all_logprobs_are_a_distribution(drift: Drift) -> None:
    token = next(event for event in drift.chat(ASK, max_tokens=1, logprobs=1 << 30) if isinstance(event, Token))
    values = [told.logprob for told in token.logprobs[1:]]
    assert sum(math.exp(value) for value in values) == pytest.approx(1)
    assert values == sorted(values, reverse=True)
