"""What the person sees: answers on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from drift_edge.events import Answer

#: Styles that tell attributes apart.
PALETTE = ("yellow", "cyan", "magenta", "green", "blue", "bright magenta", "bright cyan")
_STYLES = {"dim": "2", "bold": "1", "red": "31", "yellow": "33", "cyan": "36", "magenta": "35", "green": "32"}
_STYLES |= {"blue": "34", "bright magenta": "95", "bright cyan": "96"}
# A model's output could otherwise drive the terminal: C0 and C1 controls, but for newline and tab.
_CONTROLS = {c: None for c in (*range(0x20), *range(0x7F, 0xA0)) if c not in (0x09, 0x0A)}


def visible(text: str) -> str:
    """`text` without control characters, newline and tab apart."""
    return text.translate(_CONTROLS)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether `stream` is a terminal; a closed one is not."""
    return stream is not None and not stream.closed and stream.isatty()


def wants_color(color: str, stream: TextIO | None) -> bool:
    """Whether to colour what is written to `stream`, by a setting as `Screen` takes it."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return color == "always" or (color == "auto" and not plain and is_terminal(stream))


def styled(text: str, style: str) -> str:
    """`text` in a style."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def show_log(wanted: bool) -> None:
    """Show the engine's and llama.cpp's log on stderr, if that is wanted."""
    if wanted:
        logger = logging.getLogger("drift_edge")
        logger.addHandler(logging.StreamHandler(sys.stderr))
        logger.setLevel(logging.DEBUG)


class Screen:
    """Writes answers, notices and headings.

    Args:
        color: `auto` colours a terminal, unless `NO_COLOR` is set or the terminal is dumb; `always`; `never`.
        quiet: answers are not written (for `--json`).
    """

    def __init__(self, color: str = "auto", *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._clean = is_terminal(sys.stdout)
        self.color = wants_color(color, sys.stderr)
        self._at_line_start = True

    # -- the answer, on stdout

    def answer(self, text: str) -> None:
        """Write a piece of the answer at once."""
        if self.quiet or not text or sys.stdout is None:
            return
        text = visible(text) if self._clean else text
        sys.stdout.write(text)
        sys.stdout.flush()
        self._at_line_start = text.endswith("\n") if text else self._at_line_start

    def end_answer(self) -> None:
        """End the answer's last line."""
        if not self._at_line_start:
            self.answer("\n")

    def json(self, data: object) -> None:
        """Write one JSON object on a line of its own."""
        if sys.stdout is not None:
            utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
            sys.stdout.write(json.dumps(data, ensure_ascii=not utf8, allow_nan=False) + "\n")
            sys.stdout.flush()

    # -- the rest, on stderr

    def style(self, text: str, style: str) -> str:
        """`text` in a style, where colour is on."""
        return styled(text, style) if self.color else text

    def say(self, text: str, style: str | None = None) -> None:
        """Write lines for the person."""
        if sys.stderr is not None:
            text = visible(text)
            print(self.style(text, style) if style else text, file=sys.stderr, flush=True)

    def say_spans(self, spans: Iterable[tuple[str, str | None]]) -> None:
        """Write a line whose parts have styles of their own."""
        if sys.stderr is not None:
            parts = [self.style(visible(text), style) if style else visible(text) for text, style in spans]
            print("".join(parts), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Write something worth knowing."""
        self.say(f"note: {text}", "dim")

    def error(self, text: str) -> None:
        """Write what went wrong."""
        self.say(f"Error: {text}", "red")

    def stats(self, answer: Answer) -> None:
        """Write what an answer cost."""
        self.say(stats_line(answer), "dim")


def stats_line(answer: Answer) -> str:
    """Speed, work and steering of an answer, in one line."""
    t = answer.timings
    parts = [
        f"first token {t.ttft_s:.3f} s",
        f"{t.generated_tokens} tokens at {t.tokens_per_second:.1f}/s",
        f"prefilled {t.prefilled_tokens}",
        f"decodes {t.llm_decodes} LLM + {t.slm_decodes} sLM",
    ]
    if said := _speculation(answer):
        parts.append(said)
    if answer.entropy_llm_bits is not None and answer.entropy_steered_bits is not None:
        parts.append(f"entropy {answer.entropy_llm_bits:.2f} -> {answer.entropy_steered_bits:.2f} bits")
    if answer.kl_per_token is not None:
        parts.append(f"KL {answer.kl_per_token:.3f} nats/token")
    return f"[{'; '.join(parts)}; seed {answer.seed}]"


def _speculation(answer: Answer) -> str:
    """What speculation was chosen, and what it won."""
    s, t = answer.speculation, answer.timings
    if s.draft == "off":
        return "auto speculates not" if s.auto else ""
    won = f"{s.accepted} of {s.drafted} drafted tokens kept, {t.generated_tokens / max(1, t.llm_decodes):.1f} a decode"
    promise = "" if s.same_text is not False else " (of the same distribution as without, but not the same text)"
    return f"{'auto: ' if s.auto else ''}{s.draft} drafts of {s.g}, {won}{promise}"


def weights_text(weights: Mapping[str, float]) -> str:
    """Weights as they are typed: `concise=0.8,vivid=-0.3`."""
    return ",".join(f"{name}={weight:.3g}" for name, weight in weights.items())
