"""What was measured of a pair on this machine, and how many tokens are worth drafting.

A decode's price depends on its rows of logits, and how it does differs from machine to machine: more rows cost next to
nothing where memory is the bottleneck, and nearly in proportion where arithmetic is. So nothing is assumed: a shape not
yet seen counts as cheap as its neighbours allow, is tried, and then has its own price.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low
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
_SHARE = 0.85  # of a larger shape's price in proportion: the least that fewer rows were seen to cost
_SEEN = 2  # samples that make a price: the first of a shape pays for memory and graphs
_PRIOR, _PRIOR_WEIGHT = 0.8, 4.0  # acceptance before anything is known, and how many trials that belief counts for
_KEEP = 0.95  # of the trials so far, with every block
_ACCEPTANCES = (*KINDS, "plain")
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
        """Trust what is known half as much, since another answer begins."""
        self.hits, self.trials = self.hits / 2, self.trials / 2

    def add(self, hits: int, trials: int) -> None:
        """Count the trials of one block."""
        self.hits = self.hits * _KEEP + hits
        self.trials = self.trials * _KEEP + trials

    def rate(self) -> float:
        """Probability that a drafted token is accepted."""
        return (self.hits + _PRIOR * _PRIOR_WEIGHT) / (self.trials + _PRIOR_WEIGHT)


def expected_tokens(rate: float, g: int) -> float:
    """Tokens that a block of `g` drafted ones gives: (1 - a^(g+1)) / (1 - a) (Leviathan et al., Eq. 1)."""
    return sum(rate**i for i in range(g + 1))


class Prices:
    """Seconds of one decode by its rows of logits, for one model."""

    def __init__(self) -> None:
        self._samples: dict[int, deque[float]] = {}

    def add(self, rows: int, seconds: float) -> bool:
        """Count one decode; returns whether its shape has a price only now."""
        samples = self._samples.setdefault(rows, deque(maxlen=5))
        samples.append(seconds)
        return len(samples) == _SEEN

    def known(self, rows: int) -> bool:
        """Whether decodes of this shape have been seen."""
        return len(self._samples.get(rows, ())) >= _SEEN

    def of(self, rows: int) -> float:
        """The price of a shape; of one not seen, what it costs at best: no less than a smaller one, and little less
        than its share of the next larger one; 0 where nothing is known.

        Rows in fours are the cheap ones on a CPU, so that three may cost more than four: a shape is held against
        smaller ones of fours, and those that lie between the same fours."""
        if self.known(rows):
            return median_low(self._samples[rows])
        seen = [r for r in self._samples if self.known(r)]
        whole = rows // _FOUR * _FOUR
        below = [self.of(r) for r in seen if r < rows and (r >= whole or r == 1 or r % _FOUR == 0)]
        above = min((r for r in seen if r > rows), default=0)
        return max([*below, _SHARE * self.of(above) * rows / above if above else 0.0])

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
            if not (math.isfinite(seconds) and seconds > 0 and int(rows) > 0):
                raise ValueError(f"{seconds} s for {rows} rows")
            prices._samples[int(rows)] = deque([float(seconds)] * _SEEN, maxlen=5)
        return prices


@dataclass(slots=True)
class Costs:
    """Everything measured of a pair with its settings on this machine.

    Attributes:
        llm, slm: prices of their decodes.
        acceptance: by kind of draft, and as `plain` where the sLM drafts for the LLM alone.
        same: whether logits are the same bits whatever the number of rows, by `shape_name`.
        file: where all this is remembered, or None.
        changed: whether there is something to remember.
    """

    llm: Prices = field(default_factory=Prices)
    slm: Prices = field(default_factory=Prices)
    acceptance: dict[str, Acceptance] = field(default_factory=lambda: {name: Acceptance() for name in _ACCEPTANCES})
    same: dict[str, bool] = field(default_factory=dict)
    file: Path | None = None
    changed: bool = False

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
            acceptance = {name: Acceptance(*map(float, data["acceptance"][name])) for name in _ACCEPTANCES}
            same = {str(name): bool(value) for name, value in data["same"].items()}
            llm, slm = Prices.from_dict(data["llm"]), Prices.from_dict(data["slm"])
        except FileNotFoundError:
            return cls(file=file)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            _logger.warning("%s: cannot be used, measuring anew: %s", file, error)
            return cls(file=file)
        return cls(llm, slm, acceptance, same, file)

    def save(self) -> None:
        """Remember what changed. A folder that cannot be written to costs new measurements next time and no more."""
        if self.file is None or not self.changed:
            return
        data: dict[str, Any] = {
            "llm": self.llm.to_dict(),
            "slm": self.slm.to_dict(),
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
        self.changed |= prices.add(rows, seconds)


def shape_name(kind: DraftKind, k: int, g: int, held: int) -> str:
    """Names what decides whether logits depend on the number of rows: the decodes' shapes, and whether the cache is so
    long (256 tokens, which llama.cpp rounds up to 512) that attention splits a single row's work among threads."""
    return f"{kind} k={k} g={g} {'long' if held + g + 1 > 256 else 'short'}"


@dataclass(slots=True)
class Plan:
    """How many tokens to draft next, and by which draft.

    Attributes:
        costs: of the pair.
        k: attributes that steer.
        kinds: drafts to choose from; without attributes they are one and the same.
        fixed: tokens to draft, or None to choose by costs.
        only_same: leave out what is known to depend on the number of rows.
        at_once: whether both models decode at once where nothing is drafted.
    """

    costs: Costs
    k: int
    kinds: tuple[DraftKind, ...]
    fixed: int | None
    only_same: bool = False
    at_once: bool = False

    def __post_init__(self) -> None:
        if not self.k:
            self.kinds = ("base",)

    def acceptance(self, kind: DraftKind) -> Acceptance:
        """How often this draft's tokens are accepted."""
        return self.costs.acceptance[kind if self.k else "plain"]

    def measured(self) -> bool:
        """Whether the price of a step without a draft is known."""
        return self.costs.llm.known(1) and (not self.k or self.costs.slm.known(self.k + 1))

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
        for kind in self.kinds:
            for g in range(1, min(MOST_DRAFTED, room - 1) + 1):
                if self.only_same and self.costs.same.get(shape_name(kind, self.k, g, held)) is False:
                    continue
                seconds = self.seconds(kind, g, most)
                if seconds < best_seconds:
                    best, best_seconds = (kind, g), seconds
        return best

    def seconds(self, kind: DraftKind, g: int, most: int) -> float:
        """Expected seconds a token, up to `most` tokens being drafted for decodes of `g` + 1; 0 is without a draft."""
        llm, slm, k, drafted = self.costs.llm.of, self.costs.slm.of, self.k, min(g, most)
        if not g:
            both = llm(1), slm(k + 1) if k else 0.0
            return max(both) if self.at_once else sum(both)
        if not k:
            draft = drafted * slm(1)
        elif kind == "steered":
            draft = (drafted + 1) * slm(k + 1)
        else:
            draft = (drafted + 1) * slm(1) + slm(k * (g + 1))
        return (draft + llm(g + 1)) / expected_tokens(self.acceptance(kind).rate(), drafted)
