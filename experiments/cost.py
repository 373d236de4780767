"""What a token costs (the paper's Table 3): measured processor time against N, by every method.

`python -m experiments.cost` answers the same questions plain, by Drift with N attributes, by ARGS with the top N tokens
and by Best-of-N, all on one thread. What is told is the processor time of a whole answer, its prompt included, by token
of the answer, in units of a plain answer's to the same question; and next to it what Table 3 says, with the LLM's and
the sLM's own cost of a token, C and c.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from drift_edge import Drift
from drift_edge.models.nano.report import Progress
from drift_edge.weights import DEFAULT_BLOCKED
from experiments.args_search import Args
from experiments.modelling import markdown, options, write
from experiments.reward_model import Embedder
from experiments.world import SAMPLER, ask, models_of

NS = (1, 2, 4, 7, 10, 20, 40)
BETA = 1.0
MAX_TOKENS = 64
DRIFT, ARGS, BEST = "Drift, N attributes", "ARGS, top N tokens", "Best-of-N"
PLAIN, SMALL, PROMPT = "plain LLM", "plain sLM", "one attribute as system prompt"
Costs = dict[str, list[float]]  # seconds a token, by question

#: What Table 3 says, in seconds a token: of N, C and c.
TOLD: Mapping[str, Callable[[int, float, float], float]] = {
    DRIFT: lambda n, C, c: C + n * c,
    ARGS: lambda n, C, c: C + n * c,
    BEST: lambda n, C, c: n * C + n * c,
}


def timed(answer: Callable[[], int]) -> float:
    """Processor seconds a token of what `answer` makes, which returns how many tokens that is."""
    begun = time.process_time()
    tokens = answer()
    return (time.process_time() - begun) / max(1, tokens)


class Methods:
    """All methods with one N, over models of their own."""

    def __init__(self, pair: tuple[Path, Path], n: int) -> None:
        self.n, (llm, slm) = n, pair
        self.drift = Drift.load(llm, slm, ctx_size=512, threads=1, active=n)
        self.embedder = Embedder(slm, n)
        self.args = Args(llm, self.embedder, "mean", n)
        names = [name for name in self.drift.attributes if name not in DEFAULT_BLOCKED]
        self.weights = dict.fromkeys(names[:n], 1 / np.sqrt(n))

    def close(self) -> None:
        """Free the models."""
        self.args.close()
        self.embedder.__exit__(None, None, None)
        self.drift.close()

    def all(self, question: str, seed: int) -> Iterator[tuple[str, Callable[[], int]]]:
        """Each method's name, and what answers once and returns the number of tokens."""
        zeros = np.zeros(self.embedder.width)
        yield DRIFT, lambda: _said(self.drift, question, seed, self.weights)[1]
        yield ARGS, lambda: len(self.args.answer(question, zeros, np.random.default_rng(seed), MAX_TOKENS))
        yield BEST, lambda: self._best(question, seed)

    def _best(self, question: str, seed: int) -> int:
        """The tokens of one of N answers, each of which is scored."""
        tokens = []
        for i in range(self.n):
            text, n = _said(self.drift, question, seed + i)
            self.embedder.vectors(question, text)
            tokens.append(n)
        return round(float(np.mean(tokens)))


def _said(
    drift: Drift, question: str, seed: int, weights: Mapping[str, float] | None = None, *, prompt: bool = False
) -> tuple[str, int]:
    """An answer and its tokens, the end among them."""
    answer = drift.complete(
        [{"role": "user", "content": question}],
        weights=weights,
        steer="off" if not weights else "prompt" if prompt else "logits",
        beta=None if prompt or not weights else BETA,
        active=len(weights or [0]),
        sampler=SAMPLER,
        seed=seed,
        max_tokens=MAX_TOKENS,
    )
    return answer.text, len(answer.tokens) + answer.ended


def measure(pair: tuple[Path, Path], questions: Sequence[str], seed: int) -> tuple[str, Costs, dict[int, Costs]]:
    """Names of the models, seconds a token without N, and by N."""
    llm, slm = pair
    progress, by_n = Progress(len(NS) + 1), dict[int, Costs]()
    with Drift.load(llm, slm, ctx_size=512, threads=1) as drift, Drift.load(slm, slm, ctx_size=512, threads=1) as small:
        models, one = models_of(drift), {next(iter(drift.attributes)): 1.0}

        def without(question: str) -> Iterator[tuple[str, Callable[[], int]]]:
            yield PLAIN, lambda: _said(drift, question, seed)[1]
            yield SMALL, lambda: _said(small, question, seed)[1]
            yield PROMPT, lambda: _said(drift, question, seed, one, prompt=True)[1]

        alone = _over(questions, without)
    progress.tick(1)
    for n in NS:
        with closing(Methods(pair, n)) as methods:
            by_n[n] = _over(questions, partial(methods.all, seed=seed))
        progress.tick(1)
    return models, alone, by_n


def _over(questions: Sequence[str], methods: Callable[[str], Iterator[tuple[str, Callable[[], int]]]]) -> Costs:
    found: Costs = {}
    for question in ("Hello!", *questions):
        for name, answer in methods(question):
            found.setdefault(name, []).append(timed(answer))
    return {name: costs[1:] for name, costs in found.items()}  # what is done but once was done with the first


def figure(relative: Mapping[str, Sequence[float]], told: Mapping[str, Sequence[float]]) -> Figure:
    """Cost against N: measured (points) and as Table 3 has it (dotted)."""
    drawn = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = drawn.subplots()
    for i, (name, values) in enumerate(relative.items()):
        axes.plot(NS, values, "o-", color=f"C{i}", markersize=3, linewidth=1.2, label=name)
        axes.plot(NS, told[name], ":", color=f"C{i}", linewidth=1)
    axes.axhline(1, color="gray", linewidth=0.8)
    axes.set(xlabel="N", ylabel="processor time a token, plain LLM = 1", xscale="log", yscale="log")
    axes.set_xticks(NS, [str(n) for n in NS])
    axes.set_yticks(ticks := [1, 2, 5, 10, 20, 50], [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.legend(fontsize=8, title="dotted: Table 3", title_fontsize=8)
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = options("cost", __doc__)
    parser.add_argument("--asked", type=int, default=8, help="of the questions")
    given = parser.parse_args(arguments)
    questions = [question.text for question in ask(given.questions, given.seed)[: given.asked]]
    models, alone, by_n = measure((given.llm, given.slm), questions, given.seed)
    C, c = (float(np.median(alone[name])) for name in (PLAIN, SMALL))

    def ratio(costs: Sequence[float]) -> float:
        return float(np.median(np.array(costs) / alone[PLAIN]))

    relative = {name: [ratio(by_n[n][name]) for n in NS] for name in TOLD}
    told = {name: [cost(n, C, c) / C for n in NS] for name, cost in TOLD.items()}
    rows = [[name, *(f"{x:.2f}" for x in relative[name])] for name in TOLD]
    rows += [[f"{name}, as Table 3 has it", *(f"{x:.2f}" for x in told[name])] for name in TOLD]
    print(f"C {1e3 * C:.2f} ms a token, c {1e3 * c:.2f} ms; {PROMPT}: {ratio(alone[PROMPT]):.2f} times plain")
    print(markdown(["times plain, N =", *map(str, NS)], rows))
    facts = {
        "models": models,
        "seed": given.seed,
        "asked": len(questions),
        "max tokens": MAX_TOKENS,
        "ns": NS,
        "C, s": C,
        "c, s": c,
        "alone": {name: ratio(costs) for name, costs in alone.items()},
        "times plain": relative,
        "Table 3": told,
    }
    write("cost", given.out, facts, figure(relative, told))


if __name__ == "__main__":
    main()
