"""OpenAI's own client against the server: chat, streams, log-probabilities, errors, cancelling."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from drift_edge import Drift
from drift_edge.sampling import SamplerSettings
from drift_edge.server import Defaults
from tests.server.scripted import QUESTION, Running, contents, lines, running, until

PLAIN = Defaults(profile=None, speculate="off")


@pytest.fixture(scope="module")
def server(builtin_files: tuple[Path, Path]) -> Iterator[Running]:
    """The built-in pair, without a profile."""
    with running(Drift.load(*builtin_files), PLAIN, model="nano") as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[Any]:
    """OpenAI's client."""
    with openai.OpenAI(base_url=server.url, api_key="any", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def engine(builtin_files: tuple[Path, Path]) -> Iterator[Drift]:
    """The same pair, asked directly."""
    with Drift.load(*builtin_files) as drift:
        yield drift


def test_models(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["nano"]
    assert client.models.retrieve("nano").owned_by == "drift-edge"
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("gpt-4")
    assert error.value.code == "model_not_found"


def test_an_answer_is_the_engine_s_own(client: Any, engine: Drift) -> None:
    reply = client.chat.completions.create(
        model="nano", messages=QUESTION, seed=5, max_tokens=40, temperature=1.1, top_p=0.8
    )
    sampler = SamplerSettings(temperature=1.1, top_p=0.8)
    answer = engine.complete(QUESTION, seed=5, max_tokens=40, sampler=sampler)
    choice = reply.choices[0]
    assert choice.message.content == answer.text
    assert choice.finish_reason == answer.finish_reason
    assert choice.message.role == "assistant"
    assert reply.usage.completion_tokens == len(answer.tokens)
    assert reply.usage.prompt_tokens == answer.timings.prompt_tokens
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.drift["seed"] == 5
    assert reply.drift["steering"]["mode"] == "off"


def test_a_stream_is_the_same_answer(client: Any) -> None:
    asked = {"model": "nano", "messages": QUESTION, "seed": 6, "max_tokens": 30}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_the_end_of_a_stream(server: Running) -> None:
    connection = server.begin(stream=True, max_tokens=3)
    reply = connection.getresponse()
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["cache-control"] == "no-store"
    values = list(lines(reply))
    connection.close()
    assert values[-1] == "[DONE]"
    assert [v["choices"][0]["finish_reason"] for v in values[:-1]][:-1] == [None] * (len(values) - 2)
    assert "usage" not in values[-2]
    assert values[-2]["drift"]["timings"]["generated_tokens"] == 3


def test_stop_and_limit(client: Any) -> None:
    asked = {"model": "nano", "messages": QUESTION, "seed": 5}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    word = whole.split()[4]
    for stop in (word, [word], ["never said", word]):
        stopped = client.chat.completions.create(**asked, stop=stop).choices[0]
        assert stopped.message.content == whole[: whole.index(word)]
        assert stopped.finish_reason == "stop"
    for stop in ("", [""]):  # what a client sends whose field for it was left empty
        assert client.chat.completions.create(**asked, stop=stop).choices[0].message.content == whole
    streamed = client.chat.completions.create(**asked, stop=word, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == whole[: whole.index(word)]
    for name in ("max_tokens", "max_completion_tokens"):
        limited = client.chat.completions.create(**asked, **{name: 3})
        assert (limited.choices[0].finish_reason, limited.usage.completion_tokens) == ("length", 3)


def test_seeds_and_attempts(client: Any) -> None:
    def say(**more: Any) -> str:
        made = client.chat.completions.create(model="nano", messages=QUESTION, temperature=1.5, **more)
        text: str = made.choices[0].message.content
        return text

    assert say(seed=1) == say(seed=1)
    assert say(seed=1, extra_body={"drift": {"attempt": 1}}) == say(seed=1, extra_body={"drift": {"attempt": 1}})
    assert len({say(seed=1), say(seed=2), say(seed=1, extra_body={"drift": {"attempt": 1}})}) == 3


def test_steering_by_a_request(client: Any, engine: Drift) -> None:
    weights = {"exclamatory": 1.0} if "exclamatory" in engine.attributes else {next(iter(engine.attributes)): 1.0}
    for mode in ("logits", "prompt", "both", "off"):
        drift = {"weights": weights, "beta": 0.4, "mode": mode, "measure": True}
        reply = client.chat.completions.create(model="nano", messages=QUESTION, seed=3, extra_body={"drift": drift})
        answer = engine.complete(QUESTION, seed=3, weights=weights, beta=0.4, steer=mode, measure=True)  # type: ignore[arg-type]
        assert reply.choices[0].message.content == answer.text
        assert reply.drift["steering"] == answer.to_dict()["steering"]
    assert reply.drift["profile"] is None


def test_messages_in_all_forms(client: Any) -> None:
    def say(messages: Any) -> str:
        text: str = client.chat.completions.create(model="nano", messages=messages, seed=1).choices[0].message.content
        return text

    parts = [{"type": "text", "text": "How do you "}, {"type": "text", "text": "make tea?"}]
    assert say([{"role": "user", "content": parts}]) == say(QUESTION)
    system = {"role": "system", "content": "Be brief."}
    assert say([{**system, "role": "developer"}, *QUESTION]) == say([system, *QUESTION])


def test_logprobs(client: Any, engine: Drift) -> None:
    asked = {"model": "nano", "messages": QUESTION, "seed": 4, "max_tokens": 12, "logprobs": True, "top_logprobs": 3}
    whole = client.chat.completions.create(**asked).choices[0]
    tokens = whole.logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == whole.message.content
    assert [bytes(token.bytes).decode() for token in tokens] == [token.token for token in tokens]
    ids = engine.complete(QUESTION, seed=4, max_tokens=12).tokens
    rows = engine.next_logprobs(QUESTION, ids)
    for token, told, row in zip(ids, tokens, rows, strict=False):
        assert told.logprob == pytest.approx(row[token], abs=1e-4)
        assert [top.logprob for top in told.top_logprobs] == pytest.approx(sorted(row, reverse=True)[:3], abs=1e-4)
    plain = client.chat.completions.create(**{**asked, "top_logprobs": None}).choices[0].logprobs
    assert [token.top_logprobs for token in plain.content] == [[]] * len(tokens)
    streamed = list(client.chat.completions.create(**asked, stream=True))
    assert [t for chunk in streamed for t in (chunk.choices[0].logprobs or _None).content] == tokens


class _None:
    content: tuple[object, ...] = ()


BAD: list[tuple[dict[str, Any], str | None]] = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, None),
    ({"temperature": -1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 2}, "top_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"seed": 1 << 80}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"stop": 5}, "stop"),
    ({"stop": ["x", 5]}, "stop[1]"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stop": ["x" * 300]}, "stop"),
    ({"n": 2}, "n"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"top_logprobs": 2}, None),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"drift": {"weights": {str(i): 1 for i in range(1_001)}}}, "drift.weights"),
    ({"drift": {"wieghts": {}}}, "drift.wieghts"),
    ({"drift": {"weights": {"unheard-of": 1}}}, None),
    ({"drift": {"weights": {"concise": "much"}}}, "drift.weights.concise"),
    ({"drift": {"beta": 0}}, "beta"),
    ({"drift": {"beta": -1}}, "beta"),
    ({"drift": {"strength": 1.5}}, "strength"),
    ({"drift": {"strength": 0.5, "beta": 0.5}}, None),
    ({"drift": {"mode": "magic"}}, "drift.mode"),
]


@pytest.mark.parametrize(("wrong", "param"), BAD, ids=[json.dumps(wrong)[:50] for wrong, _ in BAD])
def test_bad_requests(client: Any, wrong: dict[str, Any], param: str | None) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as error:
            client.chat.completions.create(model="nano", messages=QUESTION, extra_body=wrong, stream=stream)
        assert error.value.type == "invalid_request_error"
        assert error.value.body["message"]
        if param is not None:
            assert error.value.param == param


def test_what_was_found_is_told(server: Running) -> None:
    def message(**wrong: Any) -> str:
        return str(server.ask("POST", "/v1/chat/completions", {"messages": QUESTION, **wrong})[1]["error"]["message"])

    image = [{"role": "user", "content": [{"type": "text", "text": "?"}, {"type": "image_url"}]}]
    assert message(messages=image) == (
        "messages[0].content[1].type: expected 'text', got 'image_url': this model reads text alone"
    )
    assert message(n=2).endswith(", got 2")
    assert message(stream="yes").endswith("boolean, got 'yes'")


def test_what_is_null_counts_as_left_out(server: Running) -> None:
    names = ("drift", "stop", "seed", "max_tokens", "temperature", "stream_options", "model", "n", "logprobs", "top_p")
    asked = {"messages": QUESTION, **dict.fromkeys(names), "max_completion_tokens": 2}
    assert server.ask("POST", "/v1/chat/completions", asked)[0] == 200


def test_unknown_model_and_profile(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="gpt-4", messages=QUESTION)
    assert error.value.param == "model"
    for name in ("nobody", "../default", "/etc/passwd"):
        with pytest.raises(openai.NotFoundError) as error:
            client.chat.completions.create(model="nano", messages=QUESTION, extra_body={"drift": {"profile": name}})
        assert error.value.code == "profile_not_found"


def test_a_conversation_that_does_not_fit(client: Any) -> None:
    long = [{"role": "user", "content": "tea " * 20_000}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as error:
            client.chat.completions.create(model="nano", messages=long, stream=stream)
        assert error.value.code == "context_length_exceeded"


def test_the_client_s_cancel_frees_the_engine(client: Any, server: Running) -> None:
    asked = {"model": "nano", "messages": QUESTION, "max_tokens": 3_000, "extra_body": {"repeat_penalty": 1.0}}
    with client.chat.completions.create(**asked, temperature=100, top_p=1, stream=True) as stream:
        next(iter(stream))
    until(lambda: not server.health()["busy"])


def test_contents_of_raw_chunks(server: Running) -> None:
    connection = server.begin(stream=True, seed=6, max_tokens=30)
    values = list(lines(connection.getresponse()))
    connection.close()
    whole = server.ask("POST", "/v1/chat/completions", {"messages": QUESTION, "seed": 6, "max_tokens": 30})[1]
    assert contents(values) == whole["choices"][0]["message"]["content"]
