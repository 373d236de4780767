"""Planner: how the tokens of a call are come by, one at a time or drafted."""

from __future__ import annotations

import platform
from pathlib import Path

from drift_edge import __version__
from drift_edge.contexts import Contexts
from drift_edge.costs import MOST_DRAFTED, Costs, Plan
from drift_edge.decoding import InStep
from drift_edge.draws import Draws
from drift_edge.events import Speculated
from drift_edge.llama import library
from drift_edge.request import Request
from drift_edge.speculation import Speculation
from drift_edge.steering import Steering


class Planner:
    """Plans of calls, made from what decodes were seen to cost.

    Args:
        contexts: where they decode.
        cache: folder where measured speeds are remembered; None measures them anew.
    """

    def __init__(self, contexts: Contexts, cache: Path | None) -> None:
        self._contexts, self._cache = contexts, cache
        self._known_costs: Costs | None = None

    def plan(self, request: Request) -> Plan | None:
        """How tokens are drafted in this call; None is not at all."""
        if request.drafted == 0 or not self._contexts.can_roll_back:
            return None
        auto = request.drafted is None
        k = len(request.weights) if request.fuses else 0
        plan = Plan(self.costs(), k, request.kinds, request.drafted, request.seeded)
        # Without steering, nothing is seen of drafts that are not made: an answer goes without, the next one may try.
        settled = (
            auto and not k and plan.measured() and not plan.choose(MOST_DRAFTED, self._contexts.settings.n_ctx, 0)[1]
        )
        if settled:
            plan.acceptance("base").fade()
        return None if settled else plan

    def steps(
        self, request: Request, plan: Plan | None, plain: InStep, slm: Steering | None, draws: Draws, most: int
    ) -> InStep:
        """Where a call's rows of logits come from.

        Args:
            plain: one decode of each model a token.
            slm: the sLM's sequences, which draft.
            draws: of the answer.
            most: tokens that there is room for.
        """
        if plan is None or slm is None:
            return plain
        return Speculation(plain.llm, slm, request.fusion, plain.n_vocab, draws, plan, most)

    def costs(self) -> Costs:
        """What decodes cost with these models, settings, versions and machine, as far as is known."""
        if self._known_costs is None:
            contexts = self._contexts
            settings = contexts.settings
            models = [
                (model.fingerprint, model.offloaded, settings.threads or library.default_threads(model.n_bytes))
                for model in (contexts.pair.llm, contexts.pair.slm)
            ]
            versions = __version__, library.version(), library.system_info()
            how = settings.flash_attn, settings.cache_type
            self._known_costs = Costs.open(self._cache, models, how, versions, platform.uname())
        return self._known_costs

    def save(self) -> None:
        """Remember what was measured."""
        if self._known_costs is not None:
            self._known_costs.save()


def speculated(request: Request, steps: InStep | None) -> Speculated:
    """What speculation did for a call."""
    auto = request.drafted is None
    if not isinstance(steps, Speculation):
        return Speculated(auto=auto)
    kind, g = steps.choice()
    return Speculated(kind if g else "off", g, steps.drafted, steps.accepted, auto, steps.same)
