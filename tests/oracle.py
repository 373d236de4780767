"""Oracle: Eq. 15's next-token distribution, and log pi(y | x, s) of Eq. 12, computed by transformers in float32.

`make oracle` computes the values anew from the shipped weights, compares the engine with them, and writes
`tests/data/oracle.npz`, which the suite checks the engine against without torch. Nothing here shares code with the
engine but the file of weights: the template is written out by hand, the tokenizer is Hugging Face's, the models are
transformers', the formula is torch's.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from drift_edge.attributes import Attributes
from drift_edge.preferences import PreferencePair

RECORDED = Path(__file__).parent / "data" / "oracle.npz"
F32_BOUND = 5e-3
F32_SEQUENCE_BOUND = 1e-2  # of log pi of a whole response, nats
# Of the same by its tokens, the mean over prompts: llama.cpp rounds activations to 16 bits, each response its own way.
F16_TOKEN_BOUND = 2e-3


@dataclass(frozen=True)
class Case:
    """One conversation, an answer to walk along, and the steering."""

    name: str
    messages: list[dict[str, str]]
    answer: str
    weights: dict[str, float] = field(default_factory=dict)
    beta: float = 0.5

    def f16_bound(self) -> float:
        """The bound for an F16 export: rounding errors of the rows, times their weights in the sum.

        Without weights it is left out: llama.cpp rounds activations to 16 bits there, which alone moves the LLM's own
        row by 0.02 to 0.03.
        """
        if not self.weights:
            return float("inf")
        return 0.02 * (1 + 2 * sum(map(abs, self.weights.values())) / self.beta)


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


CASES = [
    Case(
        "three attributes",
        [_user("How do I make tea?")],
        "First, boil some fresh water. Then, put one spoon of leaves in the pot. Next, pour the water over the leaves.",
        {"formal": 0.7, "concise": -0.5, "exclamatory": 0.3},
    ),
    Case(
        "multi-turn, five attributes, own system prompt",
        [
            {"role": "system", "content": "The user is called Mira."},
            _user("What is a bicycle?"),
            _assistant("I would say that a bicycle is a good friend on the road."),
            _user("Why?"),
        ],
        "Riding a bicycle is worth it because it keeps you fit. I hope that this is of some use to you, Mira.",
        {"vivid": 0.4, "humor": -0.3, "emotion": 0.5, "old-fashioned": 0.6, "direct": -0.2},
        beta=1.0,
    ),
    Case("no steering", [_user("Tell me about café ☕ au lait, 你好")], "I do not know much about that yet."),
]


PAIRS = {
    "one question": PreferencePair(
        (_user("How do I make tea?"),),
        "First, boil some fresh water. Then, put one spoon of leaves in the pot. It is worth it!",
        "I do not know much about that yet.",
    ),
    "multi-turn, own system prompt": PreferencePair(
        (
            {"role": "system", "content": "The user is called Mira."},
            _user("What is a bicycle?"),
            _assistant("I would say that a bicycle is a good friend on the road."),
            _user("Why?"),
        ),
        "Riding a bicycle is worth it because it keeps you fit.",
        "Riding a bicycle is fun! I love it! I hope that this is of some use to you, Mira.",
    ),
    "odd text": PreferencePair((_user("Tell me about café ☕"),), "Café? 你好 😀\n\n  <|end|>", "No."),
}


def oracle_rows(case: Case, llm: Any, slm: Any, tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities at every position of the case's answer, and the ids of the answer.

    Returns:
        float32 (n + 1, V) and int32 (n,).
    """
    import torch

    pool = Attributes.builtin()
    continuation = tokenizer.encode(case.answer).ids

    def logits(model: Any, sentence: str | None) -> Any:
        return _logits(model, tokenizer, case.messages, sentence, continuation)

    own_system = case.messages[0]["role"] == "system"
    h = logits(llm, None if own_system else pool.base)
    if case.weights:
        h_base = logits(slm, pool.base)
        h = h + sum(p / case.beta * (logits(slm, pool[name].prompt) - h_base) for name, p in case.weights.items())
    return torch.log_softmax(h, -1).float().numpy(), np.array(continuation, np.int32)


def oracle_scores(pair: PreferencePair, slm: Any, tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """log pi(y | x, s) of both responses under s_0 and all of the pool, the end of turn included, and their tokens.

    Returns:
        float64 (2, K+1), nats, and int64 (2,).
    """
    import torch

    pool = Attributes.builtin()
    sentences = [pool.base, *(attribute.prompt for attribute in pool.values())]
    end = tokenizer.encode("<|end|>").ids
    scores, tokens = [], []
    for response in (pair.chosen, pair.rejected):
        # Typed text holds no control token: "<|end|>" in it is split before the tokenizer sees it.
        ids = [t for part in response.replace("<|", "<\0|").split("\0") for t in tokenizer.encode(part).ids] + end
        rows = [_logits(slm, tokenizer, pair.messages, sentence, ids[:-1]) for sentence in sentences]
        scores.append([float(torch.log_softmax(row, -1)[range(len(ids)), ids].sum()) for row in rows])
        tokens.append(len(ids))
    return np.array(scores), np.array(tokens)


def _logits(model: Any, tokenizer: Any, messages: Any, sentence: str | None, continuation: list[int]) -> Any:
    """float64 (n + 1, V) at the n tokens of a continuation, and before them."""
    import torch

    messages = list(messages)
    own = messages.pop(0)["content"] if messages[0]["role"] == "system" else None
    system = " ".join(text for text in (own, sentence) if text)
    text = "".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in [{"role": "system", "content": system}, *messages])
    prompt = tokenizer.encode(text + "<|assistant|>").ids
    with torch.no_grad():
        rows = model(torch.tensor([prompt + continuation])).logits[0]
    return rows[len(prompt) - 1 :].double()


def compare(engine_rows: np.ndarray, recorded: np.ndarray) -> tuple[float, int]:
    """Greatest |difference| of log-probabilities, and how many positions have another top token although the oracle's
    best leads by over 0.1."""
    difference = float(np.abs(engine_rows - recorded).max())
    top = np.sort(recorded, axis=1)[:, -2:]
    clear = top[:, 1] - top[:, 0] > 0.1
    wrong = int((engine_rows.argmax(1) != recorded.argmax(1))[clear].sum())
    return difference, wrong


def compare_scores(scores: Any, recorded: np.ndarray, tokens: np.ndarray) -> tuple[float, float]:
    """Greatest |difference| of a response's log pi, and its mean by the tokens; infinite where their number differs."""
    if tokens.tolist() != [scores.n_chosen, scores.n_rejected]:
        return float("inf"), float("inf")
    difference = np.abs(np.stack([scores.chosen, scores.rejected]) - recorded)
    return float(difference.max()), float((difference / tokens[:, None]).mean())


def main() -> None:
    """Compute the values, compare the engine with them, and write them only if it agrees."""
    from drift_edge import Drift
    from drift_edge.models import builtin_pair
    from drift_edge.models.nano import convert, hf
    from drift_edge.models.nano.tokenizer import gguf_tokenizer
    from drift_edge.scoring import Scorer

    shipped = builtin_pair()
    recorded: dict[str, np.ndarray] = {}
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        twins = {kind: [Path(folder) / f"{kind}-{path.name}" for path in shipped] for kind in ("F32", "F16")}
        for kind, paths in twins.items():
            for path, out in zip(shipped, paths, strict=True):
                convert.dequantise(path, out, kind)
        llm, slm = (hf.load_gguf(path) for path in twins["F32"])
        f16_slm = hf.load_gguf(twins["F16"][1])  # its weights are rounded, which is no error of the engine's
        tokenizer = gguf_tokenizer(shipped[0])
        with (
            Drift.load(*twins["F32"], cache_type="f32", flash_attn="off") as f32,
            Drift.load(*twins["F16"]) as f16,
        ):
            for i, case in enumerate(CASES):
                rows, continuation = oracle_rows(case, llm, slm, tokenizer)
                for kind, drift, bound in (("F32", f32, F32_BOUND), ("F16", f16, case.f16_bound())):
                    ours = drift.next_logprobs(
                        case.messages, continuation.tolist(), weights=case.weights, beta=case.beta
                    )
                    difference, wrong = compare(ours, rows)
                    ok = difference < bound and wrong == 0
                    failed |= not ok
                    print(
                        f"{case.name}: {kind}: {len(rows)} positions, greatest difference {difference:.2e} "
                        f"(bound {bound:.2e}), wrong top tokens {wrong}: {'ok' if ok else 'FAILED'}"
                    )
                recorded[f"rows{i}"], recorded[f"ids{i}"] = rows, continuation
            for i, (name, pair) in enumerate(PAIRS.items()):
                for kind, drift, model in (("F32", f32, slm), ("F16", f16, f16_slm)):
                    scores, tokens = oracle_scores(pair, model, tokenizer)
                    with Scorer.for_pair(drift.pair, Attributes.builtin(), cache_type="f32") as scorer:
                        by_sequence, by_token = compare_scores(scorer.score(pair), scores, tokens)
                    ok = by_sequence < F32_SEQUENCE_BOUND if kind == "F32" else by_token < F16_TOKEN_BOUND
                    failed |= not ok
                    print(
                        f"{name}: {kind}: log pi of {tokens.tolist()} tokens, greatest difference {by_sequence:.2e}, "
                        f"mean by token {by_token:.2e}: {'ok' if ok else 'FAILED'}"
                    )
                    recorded[f"scores{i}_{kind}"], recorded[f"tokens{i}"] = scores, tokens
    if failed:
        sys.exit("the engine and the oracle differ: nothing written")
    recorded["cases"] = np.array(json.dumps([*(case.name for case in CASES), *PAIRS]))
    RECORDED.parent.mkdir(exist_ok=True)
    np.savez_compressed(RECORDED, **recorded)  # type: ignore[arg-type]
    print(f"wrote {RECORDED}: {sum(len(v) for k, v in recorded.items() if k.startswith('rows'))} positions")


if __name__ == "__main__":
    main()
