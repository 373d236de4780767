"""Tokens a second: plain llama.cpp, a naive Drift program, and drift-edge with every kind of speculation.

All programs take turns on the same question, so that a change in the machine's mood hits all of them; rates are
medians, and ratios are medians of the ratios within a round. The ceiling is what the soonest choice of draft would give
if decodes were all there is, at the costs and the acceptance measured in the same run.

Of the fixed drafts (1 to 7 tokens, steered and base) the first round measures all whose decodes alone do not rule them
out, and the rounds after it those that were near the best. `auto` learns nothing from them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from drift_edge import Drift
from drift_edge.conversation import build_prompts
from drift_edge.costs import KINDS, DraftKind, Plan
from drift_edge.llama.library import default_threads

from .bare import Bare, rate_of
from .peers import plain_llama
from .programs import MESSAGES, Measured, Naive, PlainLlama, Program, Steered, measure
from .questions import SAMPLED

PLAIN, NAIVE = "plain llama_cpp.Llama", "naive Drift, k+2 llama_cpp.Llama objects"
OFF, AUTO = "steered, --speculate off", "steered, --speculate auto"
N_CTX = 1_024
_RULED_OUT = 1.4  # times the seconds of the soonest draft's decodes: those of a draft that cannot be the best
_NEAR, _MOST_NEAR = 0.9, 4  # fixed drafts that go on after the first round: of the best one's speed, and no more


def run(
    llm: Path,
    slm: Path,
    weights: Mapping[str, float],
    *,
    rounds: int = 5,
    tokens: int = 64,
    processor_time: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure a pair.

    Args:
        llm, slm: GGUF files.
        weights: of the attributes that steer.
        rounds: answers of each program; of a fixed draft far from the best, one.
        tokens: of an answer, at most.
        processor_time: run on one thread and count the processor's time, for a machine that does other things too.
        say: told what is done.

    Returns:
        JSON values: `k`, `tokens`, `rounds`, `processor_time`; `rows`: {name, tokens_per_second, times_plain,
        times_naive, of_ceiling, choice}; `costs_ms`: {llm, slm}: {rows: ms}; `acceptance`: {kind: rate};
        `ceiling`: {draft, g, tokens_per_second}; `best_fixed`, `auto_of_best_fixed`, `auto_of_off`.
    """
    with ExitStack() as stack:
        if processor_time:  # the engine's own prices too
            stack.enter_context(mock.patch("drift_edge.speculation.perf_counter", time.process_time))
        say(f"loading {llm.name} and {slm.name}")
        clock, most = (time.process_time, 1) if processor_time else (time.perf_counter, None)
        drift = stack.enter_context(Drift.load(llm, slm, ctx_size=N_CTX, active=len(weights), threads=most))
        prompts = build_prompts(drift.pair, drift.attributes, MESSAGES, weights, "logits", {})
        bare = Bare(drift, prompts, clock)
        stack.callback(bare.close)
        bare.measure()  # warms up
        threads = {path: most or default_threads(path.stat().st_size) for path in (llm, slm)}
        llama = plain_llama(llm, n_ctx=N_CTX, threads=threads[llm])
        naive = [plain_llama(slm, n_ctx=N_CTX, threads=threads[slm]) for _ in range(len(weights) + 1)]
        programs: dict[str, Program] = {
            PLAIN: PlainLlama(llama, clock),
            NAIVE: Naive(llama, naive, prompts, weights, clock),
            OFF: Steered(drift, weights, clock=clock),
            AUTO: Steered(drift, weights, speculate="auto", clock=clock),
        }
        say("warming up")
        for name, program in programs.items():
            program.answer(MESSAGES, 0, tokens if name == AUTO else 4)
        bare.measure()
        seen = Plan(drift._planner.costs(), len(weights), KINDS, None)  # what the warm-up told `auto`
        for kind, g in _not_ruled_out(bare, {kind: seen.rate(kind) for kind in KINDS}):
            programs[fixed(kind, g)] = Steered(drift, weights, speculate=g, draft=kind, clock=clock, apart=True)
        programs["--steer prompt, --speculate auto"] = Steered(drift, weights, "prompt", "auto", clock=clock)
        programs["--steer off, --speculate auto"] = Steered(drift, {}, speculate="auto", clock=clock)
        programs["--steer off, --speculate off"] = Steered(drift, {}, clock=clock)
        found: dict[str, list[Measured]] = {name: [] for name in programs}
        for i in range(1, rounds + 1):
            for name, program in programs.items():
                say(f"round {i} of {rounds}: {name}")
                # The naive program's speed does not depend on what it says: a part of an answer will do.
                found[name].append(measure(program, i, max(4, tokens // 8) if name == NAIVE else tokens))
            bare.measure()
            if i == 1:
                programs = {name: program for name, program in programs.items() if name not in _far(found)}
        facts = {"k": len(weights), "tokens": tokens, "rounds": rounds, "processor_time": processor_time}
        return {**facts, **_summary(found, bare)}


def fixed(kind: str, g: int) -> str:
    """The name of a fixed choice."""
    return f"steered, --speculate {g} --draft {kind}"


def _not_ruled_out(bare: Bare, acceptance: dict[DraftKind, float]) -> Iterator[tuple[DraftKind, int]]:
    drafts = [choice for choice in bare.best(bare.costs(acceptance)) if choice[2]]
    yield from ((kind, g) for seconds, kind, g in drafts if seconds <= _RULED_OUT * drafts[0][0])


def _far(found: Mapping[str, list[Measured]]) -> set[str]:
    """The fixed drafts that the first round left behind."""
    rates = {name: answers[0].rate for name, answers in found.items() if " --draft " in name}
    ranked = sorted(rates, key=lambda name: -rates[name])
    near = {name for name in ranked[:_MOST_NEAR] if rates[name] >= _NEAR * rates[ranked[0]]}
    return rates.keys() - near


def _summary(found: Mapping[str, list[Measured]], bare: Bare) -> dict[str, Any]:
    plain, naive, off = ([m.rate for m in found[name]] for name in (PLAIN, NAIVE, OFF))
    acceptance: dict[DraftKind, float] = {}
    for kind in KINDS:
        runs = [m for name, ms in found.items() if name.endswith(f"--draft {kind}") for m in ms if m.drafted]
        weighed = [(rate_of(m.accepted, m.drafted, int(m.choice.split()[1])), m.drafted) for m in runs]
        if weighed:
            acceptance[kind] = sum(a * n for a, n in weighed) / sum(n for _, n in weighed)
    for kind in KINDS:  # of a kind that was not tried, what the other one had
        acceptance.setdefault(kind, next(iter(acceptance.values()), 0.8))
    costs = bare.costs(acceptance)
    seconds, kind, g = next(bare.best(costs))
    rows = []
    for name, answers in found.items():
        rates = [m.rate for m in answers]
        rows.append(
            {
                "name": name,
                "tokens_per_second": median(rates),
                "times_plain": _ratio(rates, plain),
                "times_naive": _ratio(rates, naive),
                "of_ceiling": median(rates) * seconds if name.startswith("steered") else None,
                "choice": max((m.choice for m in answers), key=[m.choice for m in answers].count),
            }
        )
    steady = {name: [m.rate for m in ms] for name, ms in found.items() if name.startswith("steered, --speculate")}
    whole = [name for name in steady if name != AUTO and len(steady[name]) == len(off)]
    best = max(whole, key=lambda name: median(steady[name]))
    return {
        "rows": rows,
        "costs_ms": {
            model: {rows: s * 1e3 for rows, s in prices.to_dict().items()}
            for model, prices in (("llm", costs.llm), ("slm", costs.slm))
        },
        "acceptance": dict(acceptance),
        "ceiling": {"draft": kind, "g": g, "tokens_per_second": 1 / seconds},
        "best_fixed": best,
        "auto_of_best_fixed": _ratio(steady[AUTO], steady[best]),
        "auto_of_off": _ratio(steady[AUTO], off),
    }


def _ratio(rates: list[float], others: list[float]) -> float:
    return median(a / b if b else 0.0 for a, b in zip(rates, others, strict=False))


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The result as a table."""
    clock = "; one thread, processor time" if result["processor_time"] else ""
    yield f"Speed: k = {result['k']}, {SAMPLED}{clock}"
    yield f"medians of {result['rounds']} answers of {result['tokens']} tokens"
    yield f"{'':44} {'tokens/s':>9} {'x plain':>8} {'x naive':>8} {'of ceiling':>10}  chosen"
    for row in result["rows"]:
        ceiling = f"{row['of_ceiling']:10.2f}" if row["of_ceiling"] is not None else f"{'':10}"
        yield (
            f"{row['name']:44} {row['tokens_per_second']:9.2f} {row['times_plain']:8.2f} {row['times_naive']:8.2f} "
            f"{ceiling}  {row['choice']}"
        ).rstrip()
    ceiling = result["ceiling"]
    draft = f"drafts of {ceiling['g']}, {ceiling['draft']}" if ceiling["g"] else "no draft"
    yield f"ceiling by the decodes alone: {ceiling['tokens_per_second']:.2f} tokens/s ({draft})"
    yield "acceptance: " + ", ".join(f"{kind} {rate:.2f}" for kind, rate in result["acceptance"].items())
    for model, costs in result["costs_ms"].items():
        yield f"{model} decodes, ms by rows: " + ", ".join(f"{rows}: {ms:.3g}" for rows, ms in costs.items())
    yield (
        f"auto: {result['auto_of_best_fixed']:.2f} of the best fixed choice ({result['best_fixed']}), "
        f"{result['auto_of_off']:.2f} of off"
    )
