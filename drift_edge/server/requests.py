"""Bodies of requests: fields and kinds of value are checked here, ranges by the engine and the profile."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from drift_edge.server.errors import RequestError

_MAX_STOPS = 16
_MAX_STOP = 256  # characters
_MAX_TOP = 20  # alternatives of a token, as OpenAI's
_UNSUPPORTED = ("tools", "functions", "logit_bias", "audio", "modalities", "prediction")

Count = Annotated[int, Field(ge=1, lt=1 << 31)]
Seed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Names = Annotated[list[str], Field(max_length=1_000)]


class Strict(BaseModel):
    """A body of Drift's own: fields that nobody knows are refused, so that no misspelt one is lost."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Part(BaseModel):
    """A part of a message's content; only text is understood."""

    model_config = ConfigDict(strict=True)

    type: str
    text: str = ""

    @field_validator("type")
    @classmethod
    def _only_text(cls, value: str) -> str:
        if value != "text":
            raise ValueError(f"expected 'text', got {value!r:.40}: this model reads text alone")
        return value


class Message(BaseModel):
    """One message. `developer` is OpenAI's newer name of `system`."""

    model_config = ConfigDict(strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None = None

    def plain(self) -> dict[str, str]:
        """The message as the engine takes it."""
        role = "system" if self.role == "developer" else self.role
        content = self.content or ""
        return {"role": role, "content": content if isinstance(content, str) else "".join(p.text for p in content)}


class DriftField(Strict):
    """What steers one answer; None leaves it to the server."""

    profile: Name | None = None
    weights: Annotated[dict[str, float] | None, Field(max_length=1_000)] = None
    beta: float | None = None
    strength: float | None = None
    active: Count | None = None
    mode: Literal["logits", "prompt", "both", "off"] | None = None
    attempt: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    measure: bool = False


class StreamOptions(BaseModel):
    """OpenAI's options of a stream."""

    include_usage: bool = False


class Question(BaseModel):
    """A conversation to answer, in the fields of OpenAI and, where it has none, of llama.cpp's server.

    Fields that are not known are left out of account, since clients send many; those that would change what an answer
    means are refused.
    """

    model_config = ConfigDict(strict=True)

    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    seed: Seed | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    plausibility: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    drift: DriftField | None = None

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, value: str | list[str] | None) -> str | list[str] | None:
        stops = [value] if isinstance(value, str) else value or []
        if len(stops) > _MAX_STOPS or any(len(stop) > _MAX_STOP for stop in stops):
            raise ValueError(f"expected {_MAX_STOPS} texts at most, of {_MAX_STOP} characters at most")
        return value

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for name in _UNSUPPORTED:
                if data.get(name):
                    raise RequestError(
                        400, f"{name}: not supported by this server", "unsupported_parameter", param=name
                    )
            form = data.get("response_format")
            if form and form != {"type": "text"}:
                raise RequestError(
                    400, "response_format: only text is supported", "unsupported_parameter", param="response_format"
                )
        return data

    def conversation(self, system: str | None) -> list[dict[str, str]]:
        """The messages as the engine takes them, with a system message in front where they have none."""
        messages = [message.plain() for message in self.messages]
        if system and messages[0]["role"] != "system":
            return [{"role": "system", "content": system}, *messages]
        return messages


class Completion(Question):
    """Body of `/v1/chat/completions`."""

    n: Literal[1] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=_MAX_TOP)] | None = None

    @model_validator(mode="after")
    def _logprobs_asked(self) -> Completion:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: needs logprobs to be true")
        return self


class Judgement(Strict):
    """A choice between two answers."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    chosen: str
    rejected: str
    tie: bool = False
    source: Annotated[str, Field(max_length=200)] = ""
    profile: Name | None = None


class SettingsPatch(Strict):
    """Settings of a profile; what is left out stays."""

    reduction: str | None = None
    estimator: str | None = None
    beta: float | None = None
    strength: float | None = None
    active: Count | None = None
    sure: float | None = None
    renormalise: bool | None = None
    half_life: float | None = None


class ProfilePatch(Strict):
    """Changes of a profile."""

    weights: Annotated[dict[str, float | None], Field(max_length=1_000)] = Field(default_factory=dict)
    pin: Names = Field(default_factory=list)
    unpin: Names = Field(default_factory=list)
    block: Names = Field(default_factory=list)
    allow: Names = Field(default_factory=list)
    settings: SettingsPatch | None = None
    profile: Name | None = None


class AnswerName(Strict):
    """An answer given before."""

    id: str
    index: Annotated[int, Field(ge=0, le=1)] = 0
