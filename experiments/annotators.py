"""Real people: PandaLM's three annotators, and 50 pairs of hh-rlhf, each choice predicted from the others.

`python -m experiments.annotators --data FOLDER` reads two files there, and keeps nothing of them but figures:
`pandalm-testset-v1.json` (github.com/WeOpenML/PandaLM, in `data/`) and `hh-harmless-test.jsonl.gz`
(github.com/anthropics/hh-rlhf, `harmless-base/test.jsonl.gz`). Some six of PandaLM's pairs share an instruction, and so
do their answers; therefore a choice is also predicted from those on other instructions alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from drift_edge import Drift
from drift_edge.approximation import estimate_from_rewards
from drift_edge.attributes import Attributes
from drift_edge.evaluation import Share, evaluate
from drift_edge.learning import score_pairs
from drift_edge.models import builtin_pair
from drift_edge.models.nano.report import Progress, aligned
from drift_edge.preferences import PreferencePair, read_pairs
from drift_edge.reward_cache import RewardCache
from drift_edge.rewards import FloatArray, PairScores
from drift_edge.scoring import Scorer
from drift_edge.storage import folders
from experiments.modelling import CHOSEN, FOLDER, PAPER, right, write

PANDALM, HH, HH_PAIRS = "pandalm-testset-v1.json", "hh-harmless-test.jsonl.gz", 50
ESTIMATORS_TOLD = (CHOSEN, (CHOSEN[0], "sqrt"), (CHOSEN[0], "mean"), PAPER, (PAPER[0], "mean"), ("ridge-bt", "sum"))
Scored = list[tuple[PreferencePair, PairScores]]


def scored(scorer: Scorer, pairs: Sequence[PreferencePair]) -> Scored:
    """Those that can be scored and are no tie."""
    progress, found = Progress(len(pairs)), []
    for one in score_pairs(scorer, pairs):
        if one.scores is not None:
            found.append((one.pair, one.scores))
        progress.tick(1)
    return found


def instruction(pair: PreferencePair) -> str:
    """What was asked."""
    return pair.messages[-1]["content"]


def by_other_instructions(mine: Scored, learned_from: Scored, way: tuple[str, str]) -> float:
    """Share of choices predicted right by weights of all pairs but those of the same instruction."""
    names = tuple(Attributes.builtin())
    D = _leads(mine, way[1])
    W, L = (np.stack(rewards) for rewards in zip(*(s.rewards(way[1]) for _, s in learned_from), strict=True))
    asked, known = (np.array([instruction(pair) for pair, _ in people]) for people in (mine, learned_from))
    margins = np.zeros(len(D))
    for text in np.unique(asked):
        others = known != text
        margins[asked == text] = D[asked == text] @ estimate_from_rewards(names, W[others], L[others], way[0]).weights
    return right(margins)


def as_others(mine: Scored, others: Sequence[PreferencePair]) -> float:
    """Share of choices that the other people's majority on the same two answers makes too, undecided ones half."""
    votes: dict[tuple[str, str, str], int] = {}
    for pair in others:
        for sign, (first, second) in ((1, (pair.chosen, pair.rejected)), (-1, (pair.rejected, pair.chosen))):
            key = (instruction(pair), first, second)
            votes[key] = votes.get(key, 0) + (0 if pair.tie else sign)
    return right(np.array([votes.get((instruction(pair), pair.chosen, pair.rejected), 0) for pair, _ in mine], float))


def _leads(people: Scored, reduction: str) -> FloatArray:
    return np.stack([np.subtract(*scores.rewards(reduction)) for _, scores in people])


def shares_of(mine: Scored, others: Scored, judged: Sequence[PreferencePair]) -> dict[str, Share]:
    """One person's share of choices predicted right, by method.

    Args:
        mine: their choices.
        others: those of other people on the same pairs; none where they are not known.
        judged: the same with ties.
    """
    n = len(mine)
    found = evaluate([scores for _, scores in mine], estimator=CHOSEN[0], reduction=CHOSEN[1], ks=())
    told = {f"{estimator}, {reduction}": found.table[estimator, reduction] for estimator, reduction in ESTIMATORS_TOLD}
    told["length alone"] = found.length
    if judged:
        told["other instructions alone"] = Share.of(by_other_instructions(mine, mine, CHOSEN), n)
        told["the other two's weights"] = Share.of(by_other_instructions(mine, others, CHOSEN), n)
        told["the other two's choice"] = Share.of(as_others(mine, judged), n)
    return told


def _told(share: Share | None) -> str:
    return f"{share.right:.3f} ({share.low:.3f} to {share.high:.3f})" if share else ""


def figure(shares: dict[str, dict[str, Share]]) -> Figure:
    """Accuracy with intervals, by person and method."""
    drawn = Figure(figsize=(8, 3.6), layout="constrained")
    axes = drawn.subplots()
    methods = list(dict.fromkeys(method for told in shares.values() for method in told))
    for i, (name, told) in enumerate(shares.items()):
        y = np.array([methods.index(method) + (i - 1.5) * 0.15 for method in told])
        x = np.array([(share.right, share.right - share.low, share.high - share.right) for share in told.values()])
        axes.errorbar(x[:, 0], y, xerr=x[:, 1:].T, fmt="o", markersize=3, capsize=2, linewidth=1, label=name)
    axes.axvline(0.5, color="gray", linewidth=0.8)
    axes.set(xlabel="share of choices predicted right")
    axes.set_yticks(range(len(methods)), methods, fontsize=8)
    axes.invert_yaxis()
    axes.legend(fontsize=7)
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.annotators", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with both files")
    parser.add_argument("--llm", type=Path, default=builtin_pair()[0], help="GGUF file (default: the built-in one)")
    parser.add_argument("--slm", type=Path, default=builtin_pair()[1], help="GGUF file (default: the built-in one)")
    parser.add_argument("--pairs", type=int, help="of PandaLM at most, the first ones (default: all)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where annotators.json and .png go")
    given = parser.parse_args(arguments)
    users = read_pairs(given.data / PANDALM, user="annotator1").users
    judged = {user: read_pairs(given.data / PANDALM, user=user, limit=given.pairs).pairs for user in users}
    crowd = read_pairs(given.data / HH, limit=HH_PAIRS).pairs
    with (
        Drift.load(given.llm, given.slm, ctx_size=1_024) as drift,
        drift.scorer(cache=RewardCache(folders().cache / "experiments.sqlite3")) as scorer,
    ):
        slm = f"{drift.slm.name} ({drift.slm.fingerprint})"
        people = {user: scored(scorer, pairs) for user, pairs in judged.items()}
        hh = scored(scorer, crowd)
    shares: dict[str, dict[str, Share]] = {}
    for user, mine in people.items():
        others = [one for other, theirs in people.items() if other != user for one in theirs]
        votes = [pair for other, pairs in judged.items() if other != user for pair in pairs]
        shares[user] = shares_of(mine, others, votes)
    shares["hh"] = shares_of(hh, [], [])
    counts = {name: len(mine) for name, mine in (*people.items(), ("hh", hh))}
    methods = list(dict.fromkeys(method for told in shares.values() for method in told))
    rows = [[method, *(_told(told.get(method)) for told in shares.values())] for method in methods]
    print(aligned(["", *(f"{name}, n = {n}" for name, n in counts.items())], rows))
    facts: dict[str, Any] = {"slm": slm, "choices": counts}
    facts["accuracy"] = {
        name: {method: [share.right, share.low, share.high] for method, share in told.items()}
        for name, told in shares.items()
    }
    write("annotators", given.out, facts, figure(shares))


if __name__ == "__main__":
    main()
