"""Tokens per second on the built-in pair: plain llama_cpp.Llama, a naive Drift program, and drift-edge.

The limit of a plain Drift step is one decode of the LLM plus one decode of the sLM with k+1 rows, timed bare in the
same run. Programs take turns, so that a change in the machine's mood hits all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import llama_cpp
import numpy as np

from benchmarks.peers import plain_llama
from drift_edge import Drift, SamplerSettings, Token
from drift_edge.conversation import build_prompts
from drift_edge.models import builtin_pair

WEIGHTS = {
    "concise": -0.4,
    "vivid": 0.4,
    "formal": 0.4,
    "humor": -0.3,
    "respect": 0.3,
    "emotion": 0.3,
    "energy": -0.3,
}
BETA = 1.0
QUESTION = [{"role": "user", "content": "Please tell me about making tea."}]
SAMPLER = SamplerSettings(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
N_TOKENS = 60


def run(quick: bool = False, llm: Path | None = None, slm: Path | None = None) -> list[dict[str, Any]]:
    """Rows of {name, ms_per_token, tokens_per_second}: medians over rounds, all programs in turn.

    Args:
        quick: fewer rounds.
        llm: GGUF of the LLM; None is the built-in one.
        slm: GGUF of the sLM.
    """
    if llm is None or slm is None:
        llm, slm = builtin_pair()
    rounds = 5 if quick else 25
    with Drift.load(llm, slm) as drift:
        programs: dict[str, Callable[[], float]] = {
            "plain llama_cpp.Llama": _Llama(llm).run,
            "naive Drift, k+2 llama_cpp.Llama objects": _Naive(drift, llm, slm).run,
            "limit: bare decodes, LLM 1 row + sLM k+1 rows": _Bare(drift).run,
            "drift-edge, steered": _DriftEdge(drift, WEIGHTS).run,
            "drift-edge, --steer off": _DriftEdge(drift, {}).run,
        }
        for program in programs.values():
            program()  # warm
        times: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(rounds):
            for name, program in programs.items():
                if name.startswith("naive") and len(times[name]) >= max(3, rounds // 5):
                    continue
                times[name].append(program())
    ms = {name: median(values) * 1e3 for name, values in times.items()}
    limit = ms["limit: bare decodes, LLM 1 row + sLM k+1 rows"]
    plain = ms["plain llama_cpp.Llama"]
    return [
        {
            "name": name,
            "ms_per_token": value,
            "tokens_per_second": 1e3 / value,
            "times_the_limit": value / limit,
            "times_plain_llama": value / plain,
        }
        for name, value in ms.items()
    ]


class _DriftEdge:
    """The engine itself: seconds a token of an answer that is not let end."""

    def __init__(self, drift: Drift, weights: dict[str, float]) -> None:
        self.drift, self.weights, self.attempt = drift, weights, 0

    def run(self) -> float:
        tokens: list[float] = []
        while len(tokens) < 20:  # an answer that ends at once tells little
            self.attempt += 1
            events = self.drift.chat(
                QUESTION,
                weights=self.weights,
                beta=BETA,
                sampler=SAMPLER,
                seed=1,
                attempt=self.attempt,
                max_tokens=N_TOKENS,
            )
            tokens = [time.perf_counter() for event in events if isinstance(event, Token)]
        return (tokens[-1] - tokens[0]) / (len(tokens) - 1)


class _Bare:
    """The decodes alone: no fusion, no sampling, no text."""

    def __init__(self, drift: Drift) -> None:
        pair, settings = drift.pair, drift.settings
        p = build_prompts(pair, drift.attributes, QUESTION, WEIGHTS, "logits", {})
        self.prompts = p
        self.llm = settings.make(pair.llm, 1)
        self.slm = settings.make(pair.slm, len(WEIGHTS) + 1)
        self.seqs = list(range(len(WEIGHTS) + 1))
        self.token = pair.llm.tokenize(" the", special=False)[0]

    def run(self) -> float:
        self.llm.prefill({0: self.prompts.llm})
        self.slm.prefill(dict(enumerate([self.prompts.base, *self.prompts.attributes.values()])))
        start = time.perf_counter()
        for _ in range(N_TOKENS):
            self.llm.extend([self.token], [0])
            self.slm.extend([self.token] * len(self.seqs), self.seqs)
        return (time.perf_counter() - start) / N_TOKENS


class _Llama:
    """What a user of llama-cpp-python has: one model, the same samplers, no steering."""

    def __init__(self, llm: Path) -> None:
        self.llama = plain_llama(llm)
        self.seed = 0

    def run(self) -> float:
        times: list[float] = []
        while len(times) < 20:
            self.seed += 1
            times = [
                time.perf_counter()
                for _ in self.llama.create_chat_completion(  # type: ignore[union-attr]
                    QUESTION,
                    stream=True,
                    temperature=SAMPLER.temperature,
                    top_k=SAMPLER.top_k,
                    top_p=SAMPLER.top_p,
                    min_p=SAMPLER.min_p,
                    seed=self.seed,
                    max_tokens=N_TOKENS,
                )
            ][1:-1]
        return (times[-1] - times[0]) / (len(times) - 1)


class _Naive:
    """Algorithm 2 as most people would write it: an object per prompt, numpy, a full sort."""

    def __init__(self, drift: Drift, llm: Path, slm: Path) -> None:
        self.llm, self.slms = plain_llama(llm), [plain_llama(slm) for _ in range(len(WEIGHTS) + 1)]
        p = build_prompts(drift.pair, drift.attributes, QUESTION, WEIGHTS, "logits", {})
        self.prompts = [p.llm, p.base, *p.attributes.values()]
        self.rng = np.random.default_rng(0)

    def run(self) -> float:
        models = [self.llm, *self.slms]
        for model, prompt in zip(models, self.prompts, strict=True):
            model.reset()
            model.eval(prompt)
        start = time.perf_counter()
        for _ in range(N_TOKENS):
            rows = [np.array(_last_logits(model)) for model in models]
            h = rows[0] + sum(p / BETA * (h_i - rows[1]) for p, h_i in zip(WEIGHTS.values(), rows[2:], strict=True))
            order = np.argsort(-h)[: SAMPLER.top_k]
            probability = np.exp((h[order] - h[order[0]]) / SAMPLER.temperature)
            probability /= probability.sum()
            keep = np.searchsorted(np.cumsum(probability), SAMPLER.top_p) + 1
            token = int(self.rng.choice(order[:keep], p=probability[:keep] / probability[:keep].sum()))
            for model in models:
                model.eval([token])
        return (time.perf_counter() - start) / N_TOKENS


def _last_logits(model: Any) -> Any:
    return np.ctypeslib.as_array(llama_cpp.llama_get_logits(model.ctx), (model.n_vocab(),))


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    k = len(WEIGHTS)
    print(f"\nEngine: built-in pair, k = {k}, temperature 0.8, top-k 40, top-p 0.95, min-p 0.05; medians")
    print(f"{'':48} {'ms/token':>9} {'tokens/s':>9} {'x limit':>8} {'x plain':>8}")
    for row in rows:
        print(
            f"{row['name']:48} {row['ms_per_token']:9.3f} {row['tokens_per_second']:9.0f} "
            f"{row['times_the_limit']:8.2f} {row['times_plain_llama']:8.2f}"
        )
    ms = {row["name"]: row["ms_per_token"] for row in rows}
    steered = ms["drift-edge, steered"]
    limit, naive = ms["limit: bare decodes, LLM 1 row + sLM k+1 rows"], ms["naive Drift, k+2 llama_cpp.Llama objects"]
    print(f"steered step / limit            {steered / limit:.2f}  (aim: at most 1.15)")
    print(f"naive program / steered step    {naive / steered:.2f}  (aim: at least 3)")
