"""drift-edge in `llm`, Simon Willison's command line: with both installed, `llm -m drift-edge 'How do I make tea?'`.

It is found by its entry point in the group `llm`. The profile steers as in `drift-edge chat`; what `llm` has of its own
(conversations, templates, logs) works as with any model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import llm
from pydantic import Field

import drift_edge  # whose names are loaded when they are used: `llm` imports this file for every command

Key = tuple[str | None, str | None, str | None]


@llm.hookimpl
def register_models(register: Callable[[llm.Model], None]) -> None:
    """Tell `llm` of the model."""
    register(DriftEdge())


class DriftEdge(llm.Model):
    """A steered pair as a model of `llm`. It is loaded when first asked, and kept for the conversation."""

    model_id = "drift-edge"
    can_stream = True

    class Options(llm.Options):
        """What `llm -o NAME VALUE` sets."""

        pair: str | None = Field(None, description="A pulled pair of `drift-edge models list`, not the built-in one")
        llm: str | None = Field(None, description="GGUF file of the LLM, together with slm")
        slm: str | None = Field(None, description="GGUF file of the small LM")
        profile: str = Field("default", description="Name or path of the profile that steers; none is no profile")
        weights: str | None = Field(None, description="As concise=0.8,vivid=-0.3, or @FILE.json; not the profile's")
        beta: float | None = Field(None, description="The paper's beta, smaller steers more; else the profile's")
        strength: float | None = Field(None, description="Instead of beta: 0 to 1, how far from the plain answer")
        temperature: float = Field(0.8, description="0 takes the likeliest token")
        seed: int | None = Field(None, description="Makes the answer reproducible")
        max_tokens: int = Field(512, description="Most tokens of the answer")

    def __init__(self) -> None:
        self._loaded: tuple[Key, drift_edge.Drift] | None = None

    def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,  # noqa: ARG002 - `llm` joins the pieces where it is false
        response: llm.Response,
        conversation: llm.Conversation | None,
    ) -> Iterator[str]:
        """Answer, piece by piece; see `llm`'s own documentation of plugins.

        Raises:
            llm.ModelError: with the message of the `DriftError`.
        """
        try:
            yield from self._answer(prompt, response, conversation)
        except drift_edge.DriftError as error:
            raise llm.ModelError(str(error)) from error

    def _answer(
        self, prompt: llm.Prompt, response: llm.Response, conversation: llm.Conversation | None
    ) -> Iterator[str]:
        options = prompt.options
        drift = self._engine((options.pair, options.llm, options.slm))
        weights, beta, strength, blocked = _steering(drift, options)
        events = drift.chat(
            _messages(prompt, conversation),
            weights=weights,
            beta=beta,
            strength=strength,
            active=max(1, len(weights)),
            sampler=drift_edge.SamplerSettings(temperature=options.temperature),
            seed=options.seed,
            max_tokens=options.max_tokens,
            speculate="auto",
            blocked=blocked,
        )
        notices = []
        for event in events:
            if isinstance(event, drift_edge.Token | drift_edge.Finish):
                yield event.text
            if isinstance(event, drift_edge.Notice):
                notices.append(event.text)
            if isinstance(event, drift_edge.Finish):
                answer = event.answer
                response.set_usage(input=answer.timings.prompt_tokens, output=answer.timings.generated_tokens)
                response.response_json = {**answer.to_dict(), "notices": notices}

    def _engine(self, key: Key) -> drift_edge.Drift:
        if self._loaded is not None and self._loaded[0] == key:
            return self._loaded[1]
        if self._loaded is not None:
            self._loaded[1].close()
            self._loaded = None
        pair, big, small = key
        if pair is not None and (big or small):
            raise drift_edge.UsageError("pair, or llm and slm: one of them says which models to load")
        if (big is None) != (small is None):
            raise drift_edge.UsageError("llm and slm go together: two GGUF files of one family")
        if pair is not None:
            from drift_edge.models.installed import cached_pair

            big, small = map(str, cached_pair(pair))
        drift = drift_edge.Drift.load(big, small) if big and small else drift_edge.Drift.builtin()
        self._loaded = key, drift
        return drift


def _steering(
    drift: drift_edge.Drift, options: DriftEdge.Options
) -> tuple[dict[str, float], float | None, float | None, tuple[str, ...]]:
    """The weights, beta or strength, and what is blocked: what is asked for, else the profile's."""
    from drift_edge.weights import DEFAULT_BLOCKED, parse_weights

    profile = None
    if options.profile != "none":
        profile = drift_edge.Profile.open(options.profile, slm=drift.slm, attributes=drift.attributes)
    if options.weights is not None:
        weights = parse_weights(options.weights, drift.attributes)
    else:
        weights = {} if profile is None else profile.weights()
    own = options.beta, options.strength
    if profile is None:
        return weights, *own, DEFAULT_BLOCKED
    settings = profile.settings
    return weights, *(settings.steering if own == (None, None) else own), settings.blocked


def _messages(prompt: llm.Prompt, conversation: llm.Conversation | None) -> list[dict[str, str]]:
    turns = [] if conversation is None else conversation.responses
    system = prompt.system or next((turn.prompt.system for turn in turns if turn.prompt.system), None)
    messages = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        messages.append({"role": "user", "content": turn.prompt.prompt})
        messages.append({"role": "assistant", "content": turn.text_or_raise()})
    return [*messages, {"role": "user", "content": prompt.prompt}]
