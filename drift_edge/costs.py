"""What was measured of a pair on this machine, and how many tokens are worth drafting.

A decode's price depends on its rows of logits, and how it does differs from machine to machine: more rows cost next to
nothing where memory is the bottleneck, and nearly in proportion where arithmetic is. So nothing is assumed: a shape not
yet seen counts as somewhat cheaper than its neighbours suggest, is tried where that would pay, and then has its own
price. Trying costs time, too: so nothing is tried twice that its first decode has ruled out, and what is known of the
acceptance of drafts fades slowly.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from drift_edge.errors import UsageError
from drift_edge.storage import make_private, write_private

DraftKind = Literal["steered", "base"]
Draft = Literal["auto", "steered", "base"]
Speculate = int | Literal["auto", "off"]
KINDS: tuple[DraftKind, ...] = ("steered", "base")
DRAFTS: tuple[Draft, ...] = ("auto", *KINDS)
MOST_DRAFTED = 7  # tokens drafted at once; one decode verifies them and gives the token after: 8 rows
WORTH = 0.97  # a draft is taken when it needs less than this share of the time without one

_FOUR = 4  # rows that a matrix product on a CPU takes at once
_BETWEEN = 0.97  # of the line between two shapes seen: what one between them is hoped to cost
_BEYOND = 0.15  # of the price in proportion: what rows beyond the only shape seen are hoped to add
_BEND = 0.5  # of the slope so far: what rows beyond several shapes seen are hoped to add
_TRY = 0.98  # a draft is tried when it can be hoped to need less than this share of the best one's time
_DOUBT = 1.2  # halved with every sample: the share that a price may be too high
_SEEN, _SAMPLES = 2, 5  # samples that make a price, for the first pays for memory and graphs; most that are kept
_QUICK = 0.02  # seconds a token; where it takes less, thinking about drafts shows
_PRIOR, _PRIOR_WEIGHT = 0.8, 4.0  # acceptance before anything is known, and how many trials that belief counts for
_KEEP = 0.99  # of the trials so far, with every trial
_ACCEPTANCES = (*KINDS, "plain")
_SCHEMA = 2
_MOST_BYTES = 1 << 16
_MOST_AGE = 7 * 86_400.0  # seconds; prices taken in a busy hour are not believed for ever
_logger = logging.getLogger(__name__)


def check_speculate(value: object) -> int | None:
    """How many tokens to draft: None is `auto`, 0 is `off`.

    Raises:
        UsageError: anything but `auto`, `off` or 1 to `MOST_DRAFTED`.
    """
    if value == "auto":
        return None
    if value == "off":
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_DRAFTED:
        raise UsageError(f"speculate: expected auto, off, or 1 to {MOST_DRAFTED} tokens, got {value!r}")
    return value


def check_draft(value: object) -> tuple[DraftKind, ...]:
    """The kinds of draft to choose from.

    Raises:
        UsageError: anything but `auto`, `steered` or `base`.
    """
    kinds = KINDS if value == "auto" else tuple(kind for kind in KINDS if kind == value)
    if not kinds:
        raise UsageError(f"draft: expected one of {', '.join(DRAFTS)}, got {value!r}")
    return kinds


@dataclass(slots=True)
class Acceptance:
    """How often the target's own draw was the drafted token; old trials fade."""

    hits: float = 0.0
    trials: float = 0.0

    def fade(self) -> None:
        """Trust what is known half as much, since nothing new is learned."""
        self.hits, self.trials = self.hits / 2, self.trials / 2

    def add(self, hits: int, trials: int) -> None:
        """Count the trials of one block."""
        keep = _KEEP**trials
        self.hits, self.trials = self.hits * keep + hits, self.trials * keep + trials

    def rate(self, prior: float = _PRIOR) -> float:
        """Probability that a drafted token is accepted; `prior` is what is believed before there are trials."""
        return (self.hits + prior * _PRIOR_WEIGHT) / (self.trials + _PRIOR_WEIGHT)


def expected_tokens(rate: float, g: int) -> float:
    """Tokens that a block of `g` drafted ones gives: (1 - a^(g+1)) / (1 - a) (Leviathan et al., Eq. 1)."""
    return (1 - rate ** (g + 1)) / (1 - rate) if rate < 1 else g + 1


class Prices:
    """Seconds of one decode by its rows of logits, for one model."""

    def __init__(self) -> None:
        self._samples: dict[int, deque[float]] = {}
        self._worked_out: dict[int, float] = {}

    def add(self, rows: int, seconds: float) -> bool:
        """Count one decode; returns whether its shape has a price only now."""
        samples = self._samples.setdefault(rows, deque(maxlen=_SAMPLES))
        samples.append(seconds)
        self._worked_out.clear()
        return len(samples) == _SEEN

    def known(self, rows: int) -> bool:
        """Whether decodes of this shape have been seen."""
        return len(self._samples.get(rows, ())) >= _SEEN

    def firm(self, rows: int) -> bool:
        """Whether they have been seen often enough."""
        return len(self._samples.get(rows, ())) == _SAMPLES

    def of(self, rows: int) -> float:
        """The price of a shape; of one not seen, what it can be hoped to cost; 0 where nothing is known."""
        if rows not in self._worked_out:
            samples = self._samples.get(rows)
            self._worked_out[rows] = sorted(samples)[(len(samples) - 1) // 4] if samples else self._hoped(rows)
        return self._worked_out[rows]

    def least(self, rows: int) -> float:
        """What the price of a shape may turn out to be at best, the fewer samples the less."""
        n = len(self._samples.get(rows, ()))
        return self.of(rows) * (1 - _DOUBT * 0.5**n if 0 < n < _SAMPLES else 1)

    def _hoped(self, rows: int) -> float:
        """Rows in fours are the cheap ones on a CPU, so that three may cost more than four: a shape is held against
        smaller ones of fours, and those that lie between the same fours."""
        whole, seen = rows // _FOUR * _FOUR, [r for r in sorted(self._samples) if self.known(r)]
        below = [r for r in seen if r < rows and (r >= whole or r == 1 or r % _FOUR == 0)]
        above = [r for r in seen if r > rows]
        if not below:
            return _BETWEEN * self.of(above[0]) * rows / above[0] if above else 0.0
        nearest, least = below[-1], self.of(below[-1])
        if above:
            rise = (self.of(above[0]) - least) / (above[0] - nearest)
            return max(least, _BETWEEN * (least + rise * (rows - nearest)))
        if len(below) == 1:
            return least * (1 + _BEYOND * (rows / nearest - 1))
        rise = (least - self.of(below[0])) / (nearest - below[0])
        return least + max(0.0, _BEND * rise * (rows - nearest))

    def scale(self, factor: float) -> None:
        """Multiply every price."""
        self._samples = {
            rows: deque((factor * seconds for seconds in samples), maxlen=_SAMPLES)
            for rows, samples in self._samples.items()
        }
        self._worked_out.clear()

    def to_dict(self) -> dict[str, float]:
        """The prices as JSON values."""
        return {str(rows): self.of(rows) for rows in sorted(self._samples) if self.known(rows)}

    @classmethod
    def from_dict(cls, data: dict[str, float]) -> Prices:
        """Prices as `to_dict` wrote them.

        Raises:
            ValueError, TypeError, AttributeError: not what `to_dict` writes.
        """
        prices = cls()
        for rows, seconds in data.items():
            if not (math.isfinite(seconds) and seconds > 0 and int(rows) >= 0):
                raise ValueError(f"{seconds} s for {rows} rows")
            prices._samples[int(rows)] = deque([float(seconds)] * (_SAMPLES - 1), maxlen=_SAMPLES)
        return prices


@dataclass(slots=True)
class Costs:
    """Everything measured of a pair with its settings on this machine.

    Attributes:
        llm, slm: prices of their decodes.
        steps: prices of a whole token without a draft, by k: both models may decode at once.
        acceptance: by kind of draft, and as `plain` where the sLM drafts for the LLM alone.
        same: whether logits are the same bits whatever the number of rows, by `shape_names`.
        file: where all this is remembered, or None.
        changed: whether there is something to remember.
        remembered: whether prices are those of another time, when the machine may have been busier, or less so: they
            are scaled by what one row of the LLM takes now, before anything else is counted.
    """

    llm: Prices = field(default_factory=Prices)
    slm: Prices = field(default_factory=Prices)
    steps: Prices = field(default_factory=Prices)
    acceptance: dict[str, Acceptance] = field(default_factory=lambda: {name: Acceptance() for name in _ACCEPTANCES})
    same: dict[str, bool] = field(default_factory=dict)
    file: Path | None = None
    changed: bool = False
    remembered: bool = False
    _now: Prices = field(default_factory=Prices)

    @classmethod
    def open(cls, folder: Path | None, *facts: object) -> Costs:
        """What is remembered of a pair; of a file that is missing, damaged or a week old, nothing.

        Args:
            folder: the cache folder; None remembers nothing.
            facts: all that prices depend on: models, settings, versions, machine.
        """
        if folder is None:
            return cls()
        key = hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        file = folder / f"speculation-{key}.json"
        try:
            if time.time() - file.stat().st_mtime > _MOST_AGE:
                return cls(file=file)
            with file.open("rb") as opened:
                data = json.loads(opened.read(_MOST_BYTES))
            if data["schema"] != _SCHEMA:
                return cls(file=file)
            acceptance = {name: Acceptance(*map(float, data["acceptance"][name])) for name in _ACCEPTANCES}
            same = {str(name): bool(value) for name, value in data["same"].items()}
            llm, slm, steps = (Prices.from_dict(data[name]) for name in ("llm", "slm", "steps"))
        except FileNotFoundError:
            return cls(file=file)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            _logger.warning("%s: cannot be used, measuring anew: %s", file, error)
            return cls(file=file)
        return cls(llm, slm, steps, acceptance, same, file, remembered=llm.known(1))

    def save(self) -> None:
        """Remember what changed. A folder that cannot be written to costs new measurements next time and no more."""
        if self.file is None or not self.changed:
            return
        data: dict[str, Any] = {
            "schema": _SCHEMA,
            "llm": self.llm.to_dict(),
            "slm": self.slm.to_dict(),
            "steps": self.steps.to_dict(),
            "acceptance": {kind: [a.hits, a.trials] for kind, a in self.acceptance.items()},
            "same": self.same,
        }
        try:
            make_private(self.file.parent)
            write_private(self.file, json.dumps(data, allow_nan=False).encode())
            self.changed = False
        except OSError as error:
            _logger.warning("%s: cannot be written: %s", self.file, error)

    def add(self, prices: Prices, rows: int, seconds: float) -> None:
        """Count one decode of `rows` rows."""
        if not self.remembered:
            self.changed |= prices.add(rows, seconds)
        elif prices is self.llm and rows == 1 and self._now.add(1, seconds):
            factor = self._now.of(1) / self.llm.of(1)
            for known in (self.llm, self.slm, self.steps):
                known.scale(factor)
            self.remembered, self.changed = False, True


def shape_names(kind: DraftKind, k: int, g: int, held: int) -> tuple[str, ...]:
    """Names the decodes of a draft that could give other bits than single rows do, by what decides it: their shapes,
    and whether the cache is so long (256 tokens, which llama.cpp rounds up to 512) that attention splits a single
    row's work among threads. The LLM's comes first."""
    length = "long" if held + g + 1 > 256 else "short"
    attributes = (f"slm k={k} g={g} {length}",) if k and kind == "base" else ()
    return f"llm g={g} {length}", *attributes


@dataclass(slots=True)
class Plan:
    """How many tokens to draft next, and by which draft.

    Attributes:
        costs: of the pair.
        k: attributes that steer.
        kinds: drafts to choose from; without attributes they are one and the same.
        fixed: tokens to draft, or None to choose by costs.
        seeded: whether a seed was asked for, so that the text is to be the one without drafts: of the choices, those
            are left out that depend on the number of rows.
    """

    costs: Costs
    k: int
    kinds: tuple[DraftKind, ...]
    fixed: int | None
    seeded: bool = False

    def __post_init__(self) -> None:
        if not self.k:
            self.kinds = ("base",)

    def acceptance(self, kind: DraftKind) -> Acceptance:
        """How often this draft's tokens are accepted, as far as tried."""
        return self.costs.acceptance[kind if self.k else "plain"]

    def rate(self, kind: DraftKind) -> float:
        """Probability that a token of this draft is accepted; before it is tried, that of the other drafts."""
        own = self.acceptance(kind)
        others = [known for known in self.costs.acceptance.values() if known is not own]
        together = Acceptance(sum(known.hits for known in others), sum(known.trials for known in others))
        return own.rate(together.rate())

    def same(self, kind: DraftKind, g: int, held: int) -> bool | None:
        """Whether this draft's decodes give the bits of single rows; None where that is not known."""
        found = [self.costs.same.get(name) for name in shape_names(kind, self.k, g, held)]
        return False if False in found else None if None in found else True

    def decoded(self) -> bool:
        """Whether the prices of each model's decode in a step without a draft are known, as they are now."""
        return (
            not self.costs.remembered and self.costs.llm.known(1) and (not self.k or self.costs.slm.known(self.k + 1))
        )

    def measured(self) -> bool:
        """Whether the price of a step without a draft is known, and firmly: while drafts are made, it is not taken
        again, so that two disturbed steps would let drafts go on that do not pay."""
        return self.decoded() and self.costs.steps.firm(self.k)

    def quick(self) -> bool:
        """Whether a token takes so little time that a choice is worth fewer thoughts."""
        return self.measured() and self.costs.steps.of(self.k) < _QUICK

    def choose(self, most: int, room: int, held: int) -> tuple[DraftKind, int]:
        """The draft that gives tokens soonest, and its length; 0 where none pays.

        Args:
            most: tokens that the answer can still take behind the drafted ones' first; fewer are drafted then, but the
                decodes keep their shape.
            room: tokens that the contexts can take.
            held: tokens that the longest sequence holds.
        """
        if self.fixed is not None:
            g = self.fixed if most > 0 and self.fixed < room else 0
            return min(self.kinds, key=lambda kind: self.seconds(kind, g, most)), g
        best, best_seconds = (self.kinds[0], 0), WORTH * self.seconds(self.kinds[0], 0, 0)
        if not self.measured() or most < 1:
            return best
        choices = [(kind, g) for kind in self.kinds for g in range(1, min(MOST_DRAFTED, room - 1) + 1)]
        if self.seeded:
            choices = [(kind, g) for kind, g in choices if self.same(kind, g, held) is not False]
        rates = {kind: self.rate(kind) for kind in self.kinds}
        for kind, g in choices:
            if self.tried(kind, g) and (seconds := self._seconds(kind, g, most, rates[kind])) < best_seconds:
                best, best_seconds = (kind, g), seconds
        if most < MOST_DRAFTED:  # the last tokens of an answer are no place to try anything
            return best
        hopes = (
            (self._seconds(kind, g, most, rates[kind], hoped=True), kind, g) for kind, g in choices if self._is_next(g)
        )
        hoped, kind, g = min(hopes, default=(best_seconds, *best))
        return (kind, g) if hoped < _TRY * best_seconds else best

    def _is_next(self, g: int) -> bool:
        """Whether a draft not tried may be: of two or four rows first, then of eight, then of what lies between."""
        rows, known = g + 1, self.costs.llm.known
        more = 1 << g.bit_length()  # the least power of two that is not below
        return known(more // 2) and known(more) if rows != more else rows <= _FOUR or known(_FOUR)

    def seconds(self, kind: DraftKind, g: int, most: int) -> float:
        """Expected seconds a token, up to `most` tokens being drafted for decodes of `g` + 1; 0 is without a draft."""
        if not g:
            k, costs = self.k, self.costs
            return costs.steps.of(k) if costs.steps.known(k) else costs.llm.of(1) + (costs.slm.of(k + 1) if k else 0.0)
        return self._seconds(kind, g, most, self.rate(kind))

    def _seconds(self, kind: DraftKind, g: int, most: int, rate: float, *, hoped: bool = False) -> float:
        llm, slm = (prices.least if hoped else prices.of for prices in (self.costs.llm, self.costs.slm))
        k, drafted = self.k, min(g, most)
        if not k:
            draft = drafted * slm(1)
        elif kind == "steered":
            draft = (drafted + 1) * slm(k + 1)
        else:
            draft = (drafted + 1) * slm(1) + slm(k * (g + 1))
        return (draft + llm(g + 1)) / expected_tokens(rate, drafted)

    def tried(self, kind: DraftKind, g: int) -> bool:
        """Whether all prices of a draft are known."""
        return all(prices.known(rows) for prices, rows in self._decodes(kind, g))

    def firm(self, kind: DraftKind, g: int) -> bool:
        """Whether they rest on as many decodes as are kept."""
        return all(prices.firm(rows) for prices, rows in self._decodes(kind, g))

    def _decodes(self, kind: DraftKind, g: int) -> Iterator[tuple[Prices, int]]:
        yield self.costs.llm, g + 1
        if self.k:
            yield self.costs.slm, self.k + 1 if kind == "steered" else self.k * (g + 1)
