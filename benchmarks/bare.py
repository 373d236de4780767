"""What the decodes alone cost, by their rows: the limit of any program that makes these decodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from drift_edge import Drift
from drift_edge.conversation import Prompts
from drift_edge.costs import KINDS, MOST_DRAFTED, Acceptance, Costs, DraftKind, Plan, Prices
from drift_edge.steering import Steering

from .programs import Clock

_SURE = 1e9  # trials, so that an acceptance counts as known


class Bare:
    """Decodes of both models as the engine makes them, with no fusion, no sampling and no text.

    Args:
        drift: whose models and settings are used, in contexts of their own.
        prompts: that the sequences hold.
        clock: seconds; `time.process_time` counts work alone, which other programs disturb less.
    """

    def __init__(self, drift: Drift, prompts: Prompts, clock: Clock = time.perf_counter) -> None:
        self._clock = clock
        pair, settings = drift.pair, drift.settings
        self.k = len(prompts.attributes)
        self._token = pair.llm.tokenize(" the", special=False)[0]
        self._prompt, self._n_vocab = prompts.llm, pair.n_vocab
        self._llm = settings.make(pair.llm, 1, MOST_DRAFTED + 1)
        self._slm = Steering(pair.slm, settings, self.k + 1)
        self._llm.prefill({0: prompts.llm})
        self._slm.prefill(prompts.base, prompts.attributes, None)
        self._seconds: dict[tuple[str, int], list[float]] = {}

    def close(self) -> None:
        """Free the contexts."""
        self._llm.close()
        self._slm.close()

    def measure(self, most: int = MOST_DRAFTED) -> None:
        """Decode once in every shape that a draft of 0 to `most` tokens needs."""
        seqs = list(range(self.k + 1))
        for rows in range(1, most + 2):
            tokens = [self._token] * rows
            self._time("llm", rows, lambda tokens=tokens: self._llm.feed([(0, tokens)]), self._llm.logits)  # type: ignore[misc]
            self._llm.truncate(0, len(self._prompt))
        for n in {1, self.k + 1}:
            self._time("slm", n, lambda n=n: self._slm.context.extend([self._token] * n, seqs[:n]), self._slm.logits)  # type: ignore[misc]
            self._slm.keep(0)
        for positions in range(2, most + 2):
            self._time("slm", self.k * positions, lambda n=positions: self._attributes([self._token] * n))  # type: ignore[misc]
            self._slm.keep(0)

    def _attributes(self, tokens: Sequence[int]) -> None:
        """As `Steering.extend_attributes`, whose rows are not copied."""
        context = self._slm.context
        most = max(1, context.n_outputs // len(tokens))
        for at in range(1, self.k + 1, most):
            context.feed([(seq, tokens) for seq in range(at, min(at + most, self.k + 1))])
            context.logits()

    def _time(self, model: str, rows: int, *steps: Callable[[], object]) -> None:
        start = self._clock()
        for step in steps:
            step()
        self._seconds.setdefault((model, rows), []).append(self._clock() - start)

    def costs(self, acceptance: dict[DraftKind, float] | None = None) -> Costs:
        """Medians, as the engine's own costs.

        Args:
            acceptance: by kind of draft.
        """
        prices = {
            model: {str(rows): median(s) for (which, rows), s in self._seconds.items() if which == model}
            for model in ("llm", "slm")
        }
        costs = Costs(Prices.from_dict(prices["llm"]), Prices.from_dict(prices["slm"]))
        for kind, rate in (acceptance or {}).items():
            costs.acceptance[kind] = Acceptance(rate * _SURE, _SURE)
        return costs

    def best(self, costs: Costs) -> Iterator[tuple[float, DraftKind, int]]:
        """Seconds a token of every choice at the decodes' bare costs, soonest first; 0 drafted is without a draft."""
        plan = Plan(costs, self.k, KINDS, None)
        choices = [("base", 0), *((kind, g) for kind in KINDS for g in range(1, MOST_DRAFTED + 1))]
        yield from sorted((plan.seconds(kind, g, MOST_DRAFTED), kind, g) for kind, g in choices)


def rate_of(accepted: float, drafted: float, g: int) -> float:
    """The acceptance a of which blocks of `g` drafted tokens have `accepted` out of `drafted`: (a + a^2 .. a^g) / g."""
    low, high, share = 0.0, 1.0, accepted / drafted if drafted else 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(middle**i for i in range(1, g + 1)) < share * g else (low, middle)
    return low
