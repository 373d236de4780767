"""Oracle: Eq. 15's next-token distribution computed by transformers in float32, from the shipped weights.

`make oracle` computes the values anew, compares the engine with them, and writes `tests/data/oracle.npz`, which the
suite checks the engine against without torch. Nothing here shares code with the engine but the file of weights: the
template is written out by hand, the tokenizer is Hugging Face's, the models are transformers', the formula is torch's.
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

RECORDED = Path(__file__).parent / "data" / "oracle.npz"
F32_BOUND = 5e-3


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


def oracle_rows(case: Case, llm: Any, slm: Any, tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities at every position of the case's answer, and the ids of the answer.

    Returns:
        float32 (n + 1, V) and int32 (n,).
    """
    import torch

    pool = Attributes.builtin()
    continuation = tokenizer.encode(case.answer).ids

    def logits(model: Any, sentence: str | None) -> Any:
        messages = list(case.messages)
        own = messages.pop(0)["content"] if messages[0]["role"] == "system" else None
        system = " ".join(text for text in (own, sentence) if text)
        text = "".join(
            f"<|{m['role']}|>{m['content']}<|end|>" for m in [{"role": "system", "content": system}, *messages]
        )
        prompt = tokenizer.encode(text + "<|assistant|>").ids
        with torch.no_grad():
            rows = model(torch.tensor([prompt + continuation])).logits[0]
        return rows[len(prompt) - 1 :].double()

    own_system = case.messages[0]["role"] == "system"
    h = logits(llm, None if own_system else pool.base)
    if case.weights:
        h_base = logits(slm, pool.base)
        h = h + sum(p / case.beta * (logits(slm, pool[name].prompt) - h_base) for name, p in case.weights.items())
    return torch.log_softmax(h, -1).float().numpy(), np.array(continuation, np.int32)


def compare(engine_rows: np.ndarray, recorded: np.ndarray) -> tuple[float, int]:
    """Greatest |difference| of log-probabilities, and how many positions have another top token although the oracle's
    best leads by over 0.1."""
    difference = float(np.abs(engine_rows - recorded).max())
    top = np.sort(recorded, axis=1)[:, -2:]
    clear = top[:, 1] - top[:, 0] > 0.1
    wrong = int((engine_rows.argmax(1) != recorded.argmax(1))[clear].sum())
    return difference, wrong


def main() -> None:
    """Compute the values, compare the engine with them, and write them only if it agrees."""
    from drift_edge import Drift
    from drift_edge.models import builtin_pair
    from drift_edge.models.nano import convert, hf
    from drift_edge.models.nano.tokenizer import gguf_tokenizer

    shipped = builtin_pair()
    recorded: dict[str, np.ndarray] = {}
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        twins = {kind: [Path(folder) / f"{kind}-{path.name}" for path in shipped] for kind in ("F32", "F16")}
        for kind, paths in twins.items():
            for path, out in zip(shipped, paths, strict=True):
                convert.dequantise(path, out, kind)
        llm, slm = (hf.load_gguf(path) for path in twins["F32"])
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
    if failed:
        sys.exit("the engine and the oracle differ: nothing written")
    recorded["cases"] = np.array(json.dumps([case.name for case in CASES]))
    RECORDED.parent.mkdir(exist_ok=True)
    np.savez_compressed(RECORDED, **recorded)  # type: ignore[arg-type]
    print(f"wrote {RECORDED}: {sum(len(v) for k, v in recorded.items() if k.startswith('rows'))} positions")


if __name__ == "__main__":
    main()
