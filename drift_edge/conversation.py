"""Prompts of one call: the LLM's and the sLM's k+1, from the same messages, cut to fit the context."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from drift_edge.attributes import Attributes
from drift_edge.errors import ContextOverflowError
from drift_edge.llama.template import Message
from drift_edge.pair import ModelPair

Mode = Literal["logits", "prompt", "both", "off"]
MODES: tuple[Mode, ...] = ("logits", "prompt", "both", "off")
FUSING: tuple[Mode, ...] = ("logits", "both")
Overflow = Literal["drop", "error"]
OVERFLOWS: tuple[Overflow, ...] = ("drop", "error")


@dataclass(frozen=True, slots=True)
class Prompts:
    """Token ids of every prompt of one call.

    Attributes:
        llm: the LLM's prompt: the user's own system prompt, or s_0 where there is none; attributes if the mode says so.
        base: the sLM's under s_0; empty where it takes no part.
        attributes: the sLM's under s_i, by attribute.
        dropped: oldest messages left out so that the rest fits.
    """

    llm: list[int]
    base: list[int]
    attributes: dict[str, list[int]]
    dropped: int = 0

    def longest(self) -> int:
        """Tokens of the longest prompt that the answer depends on."""
        steering = (self.base, *self.attributes.values()) if self.attributes else ()
        return max(map(len, (self.llm, *steering)))


class AnswerIds:
    """The ids that recent answers were generated with, by their text, so that the next turn finds them in the caches.

    Args:
        most: answers remembered; the oldest is forgotten first.
    """

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self.by_text: OrderedDict[str, tuple[int, ...]] = OrderedDict()

    def remember(self, text: str, tokens: Sequence[int]) -> None:
        """Keep the ids of an answer."""
        self.by_text[text] = tuple(tokens)
        self.by_text.move_to_end(text)
        while len(self.by_text) > self._most:
            self.by_text.popitem(last=False)


def build_prompts(
    pair: ModelPair,
    pool: Attributes,
    messages: Sequence[Message],
    weights: Mapping[str, float],
    mode: Mode,
    answers: Mapping[str, Sequence[int]],
    drafts: bool = False,
) -> Prompts:
    """All prompts of one call.

    Args:
        pair: templates and vocabularies.
        pool: base and attribute prompts.
        messages: checked messages, the last the user's.
        weights: the active attributes.
        mode: `logits` prompts the sLM; `prompt` tells the LLM itself the sentences of the attributes with p_i > 0;
            `both` does both.
        answers: ids of known answers by text.
        drafts: prompt the sLM under s_0 even where it does not steer, since it drafts.
    """
    own_system = messages[0]["role"] == "system"
    sentence = None if own_system else pool.base
    if mode in ("prompt", "both"):
        sentences = [pool[name].prompt for name, p in weights.items() if p > 0]
        sentence = " ".join(sentences) or sentence
    llm = pair.llm_format.encode(messages, sentence, answers)
    encode = pair.slm_format.encode
    steering = weights if mode in FUSING else ()
    attributes = {name: encode(messages, pool[name].prompt, answers) for name in steering}
    base = encode(messages, pool.base, answers) if attributes or drafts else []
    return Prompts(llm, base, attributes)


def fit_prompts(
    pair: ModelPair,
    pool: Attributes,
    messages: Sequence[Message],
    weights: Mapping[str, float],
    mode: Mode,
    answers: Mapping[str, Sequence[int]],
    *,
    n_ctx: int,
    reserve: int,
    overflow: Overflow,
    drafts: bool = False,
) -> Prompts:
    """All prompts of one call, whole oldest turns dropped where they do not fit.

    Turns go in blocks of about half a context, measured from the conversation's beginning: what is left then keeps
    its beginning for many turns, and the caches stay good, where dropping one turn a time would recompute everything
    on every turn.

    Args:
        n_ctx: tokens a sequence can hold.
        reserve: tokens to leave for the answer.
        overflow: `drop`, or `error` to refuse instead.
        drafts: as in `build_prompts`.

    Raises:
        ContextOverflowError: the prompts do not fit and `overflow` is `error`, or not even the last turn fits.
    """
    prompts = build_prompts(pair, pool, messages, weights, mode, answers, drafts)
    room = n_ctx - reserve
    if prompts.longest() <= room:
        return prompts
    if overflow == "error":
        raise ContextOverflowError(
            f"the conversation has {prompts.longest():,} tokens and the answer needs {reserve:,}, but the context "
            f"holds {n_ctx:,}; shorten it, raise --ctx-size, or let old turns be dropped"
        )
    head = 1 if messages[0]["role"] == "system" else 0
    ends, total = _turn_ends(pair, messages, head)
    block = max(1, room // 2)
    for n in range(1, ends[-1][1] // block + 2 if ends else 1):
        cut, gone = next((end for end in ends if end[1] >= n * block), ends[-1])
        if total - gone > room and cut != ends[-1][0]:  # making the prompts would take long to find out the same
            continue
        prompts = build_prompts(pair, pool, [*messages[:head], *messages[cut:]], weights, mode, answers, drafts)
        if prompts.longest() <= room:
            return Prompts(prompts.llm, prompts.base, prompts.attributes, dropped=cut - head)
        if cut == ends[-1][0]:
            break
    raise ContextOverflowError(
        f"the last message alone makes a prompt of {prompts.longest():,} tokens and the answer needs {reserve:,}, "
        f"but the context holds {n_ctx:,}; shorten it or raise --ctx-size"
    )


def _turn_ends(pair: ModelPair, messages: Sequence[Message], head: int) -> tuple[list[tuple[int, int]], int]:
    """Where each whole turn but the last ends, and the tokens of all contents.

    An end is (index of the next user message, tokens of contents up to there).
    """
    ends, tokens = [], 0
    for i in range(head, len(messages)):
        if i > head and messages[i]["role"] == "user":
            ends.append((i, tokens))
        tokens += len(pair.llm.tokenize(messages[i]["content"], special=False))
    return ends, tokens
