"""Looking inside: the distribution of a next token, and why an answer's tokens were drawn. Nothing is drawn here."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from drift_edge.attributes import Attributes
from drift_edge.contexts import Contexts
from drift_edge.conversation import Mode
from drift_edge.decoding import Decoder, InStep
from drift_edge.draws import usable
from drift_edge.errors import DecodeError, UsageError
from drift_edge.events import Answer, CancelToken
from drift_edge.explanation import Explanation, token_shares
from drift_edge.fusion import check_steering
from drift_edge.llama.context import Aborted
from drift_edge.messages import check_prompt
from drift_edge.pair import ModelPair
from drift_edge.request import Request, active_weights
from drift_edge.weights import check_weights


def check_next(
    pair: ModelPair,
    pool: Attributes,
    messages: Sequence[Mapping[str, str]],
    continuation: Sequence[int],
    weights: Mapping[str, float] | None,
    beta: float | None,
    strength: float | None,
    active: int,
    steer: Mode,
    blocked: Collection[str],
) -> Request:
    """The request that the arguments of `Drift.next_logprobs` make.

    Raises:
        UsageError: an argument is out of range, an attribute is unknown, or a continuation's id does not exist.
    """
    checked = check_prompt(messages)
    for token in continuation:
        if not isinstance(token, (int, np.integer)) or not 0 <= token < pair.n_vocab:
            raise UsageError(f"continuation: expected ids from 0 to {pair.n_vocab - 1:,}, got {token!r}")
    p = active_weights(weights, active, steer, pool, blocked)
    return Request(checked, p, *check_steering(beta, strength), steer, len(continuation) + 1, "error")


def next_logprobs(
    contexts: Contexts, decoder: Decoder, request: Request, continuation: Sequence[int]
) -> NDArray[np.float64]:
    """Log-probabilities of the next token, at the answer's start and after each given token.

    Args:
        contexts: of both models.
        decoder: for their vocabulary.
        request: what the answer is to.
        continuation: ids the answer begins with, n of them.

    Returns:
        float64 (n + 1, n_vocab): log softmax of Eq. 15's logits.

    Raises:
        DecodeError: there is NaN among the logits, or a decode failed.
        ContextOverflowError: the conversation and the continuation do not fit.
    """
    prompts = contexts.prompts(request)
    contexts.make_room(prompts)
    try:
        steps = InStep(contexts.llm, contexts.prefill(prompts, request.cancel), contexts.pair.n_vocab)
        rows, fusion = np.empty((len(continuation) + 1, contexts.pair.n_vocab)), request.fusion
        for i in range(len(rows)):
            rows[i] = decoder.fused(steps.rows(), fusion)
            if i < len(continuation):
                steps.append(continuation[i])
    finally:
        contexts.release()
    if np.isnan(rows).any():
        raise DecodeError("the model's logits cannot be used: there is NaN among them")
    rows -= rows.max(axis=1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return rows


def check_answer(
    pair: ModelPair,
    pool: Attributes,
    messages: Sequence[Mapping[str, str]],
    answer: Answer,
    cancel: CancelToken | None,
) -> tuple[Request, Sequence[int]]:
    """The request that the arguments of `Drift.explain` make, and the ids to explain.

    Raises:
        UsageError: nothing was fused in the answer, or an attribute is unknown.
    """
    if answer.beta is None and answer.strength is None:
        raise UsageError("nothing was fused into this answer: it was not steered by weights")
    checked, weights = check_prompt(messages), check_weights(answer.weights, pool)
    beta, strength = check_steering(answer.beta, answer.strength)
    mode: Mode = "both" if answer.mode == "both" else "logits"
    tokens = (*answer.tokens, pair.llm.end_id) if answer.ended else answer.tokens
    most = len(answer.tokens) + 1
    return Request(checked, weights, beta, strength, mode, most, "drop", cancel=cancel or CancelToken()), tokens


def explain(contexts: Contexts, request: Request, tokens: Sequence[int]) -> Explanation:
    """Which attributes pushed which tokens.

    Args:
        contexts: of both models.
        request: what was answered; its weights are fused. Where it is cancelled, the tokens so far are explained.
        tokens: ids of the answer, its end token included.

    Raises:
        UsageError: the request fuses nothing.
        DecodeError: as its name says.
        ContextOverflowError: the conversation and the answer do not fit.
    """
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    texts, gains = [], np.zeros(len(tokens))
    shares, pushes = (np.zeros((len(tokens), len(request.weights))) for _ in range(2))
    prompts = contexts.prompts(request)
    contexts.make_room(prompts)
    fusion, h = request.fusion, np.empty(contexts.pair.n_vocab, np.float32)
    try:
        steering = contexts.prefill(prompts, request.cancel)
        if steering is None:
            raise UsageError("the answer has no weights to explain")
        steps = InStep(contexts.llm, steering, contexts.pair.n_vocab)
        for t, token in enumerate(tokens):
            if t:
                steps.append(tokens[t - 1])
            h_llm, H = steps.rows()[0], steering.logits()[:, : contexts.pair.n_vocab]
            with usable():
                added = fusion.into(h, h_llm, H)
            shares[t], pushes[t], gains[t] = token_shares(token, h_llm, h, H, added)
            texts.append(decode(contexts.pair.llm.piece(token)))
    except Aborted:
        shares, pushes, gains = (array[: len(texts)] for array in (shares, pushes, gains))
    finally:
        contexts.release()
    return Explanation(tuple(texts), tuple(request.weights), shares, pushes, gains)
