"""`/why`: which attributes pushed which tokens of an answer, as a table and as the answer's text in colours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from .render import PALETTE, Screen

if TYPE_CHECKING:
    from drift_edge.explanation import Explanation

_ROWS = 8  # tokens shown
_NAMED = 3  # attributes named beside a token
_LEAST = 0.1  # nats; a smaller push is not worth a name or a colour


def show_why(explanation: Explanation, screen: Screen) -> None:
    """Write the tokens where steering mattered most, what each attribute did in all, and the coloured text."""
    totals = dict(zip(explanation.attributes, explanation.pushes.sum(axis=0).tolist(), strict=True))
    order = sorted(totals, key=lambda name: -abs(totals[name]))
    screen.say("where steering mattered most, in nats (gain: log-probability, steered less plain):", "dim")
    for line in _table(explanation):
        screen.say(line)
    screen.say("in the whole answer: " + ", ".join(f"{name} {totals[name]:+.1f}" for name in order), "dim")
    if not screen.color:
        return
    colors = dict(zip(order, PALETTE, strict=False))
    screen.say("each token in the colour of what pushed it most:", "dim")
    screen.say_spans([(f"{name} ", color) for name, color in colors.items()])
    screen.say_spans(_colored(explanation, colors))


def _table(explanation: Explanation) -> list[str]:
    """The tokens with the largest |gain|, in the order of the answer."""
    gains, n = explanation.gains, len(explanation.texts)
    ranked = sorted((t for t in range(n) if abs(gains[t]) >= _LEAST), key=lambda t: -abs(gains[t]))
    most = sorted(ranked[:_ROWS])
    names = [_name(explanation.texts, t) for t in most]
    width = max(map(len, names), default=0)
    rows = []
    for t, name in zip(most, names, strict=True):
        pushes = dict(zip(explanation.attributes, explanation.pushes[t].tolist(), strict=True))
        top = sorted((who for who in pushes if abs(pushes[who]) >= _LEAST), key=lambda who: -abs(pushes[who]))
        pushed = ", ".join(f"{who} {pushes[who]:+.1f}" for who in top[:_NAMED])
        rows.append(f"  {name:<{width}}  {gains[t]:+6.2f}  {pushed or 'no attribute alone'}")
    return rows


def _name(texts: tuple[str, ...], t: int) -> str:
    if texts[t]:
        return repr(texts[t])
    return "(part of a character)" if any(texts[t + 1 :]) else "(the end)"


def _colored(explanation: Explanation, colors: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    """Each token's text, and the colour of the attribute with the largest push."""
    for text, pushes in zip(explanation.texts, explanation.pushes, strict=True):
        most = int(pushes.argmax())
        yield text, colors.get(explanation.attributes[most]) if pushes[most] >= _LEAST else None
