"""Does steering do what it says? `python -m benchmarks.markers`: weights of +1 and -1 on the built-in pair.

Questions that training never saw, several seeds, beta 0.5, default samplers. Answers are read twice: by the markers
of the corpus, and by naive ones, words that anybody would look for.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median

from drift_edge import Answer, Drift
from drift_edge.models import builtin_pair
from drift_edge.models.nano.corpus import EvalQuestion
from drift_edge.models.nano.corpus.reader import marker, on_topic
from drift_edge.models.nano.evaluate import known_questions
from drift_edge.models.nano.report import Progress, aligned

BETA = 0.5
MAX_TOKENS = 250
QUESTION_SEED = 11
SHORTER, RISE, NEAR_ZERO, ON_TOPIC = 0.6, 0.3, 0.05, 0.9
"""Targets: tokens of concise +1 over -1; a marker's rise; what counts as gone; answers on topic."""

NAIVE: Mapping[str, str] = {
    "formal": r"\b(shall|advis\w+|hereby|kindly|furthermore|therefore|regard\w*|note[ds]?|recommend\w*)\b",
    "vivid": r"\b(like an? |as an? |as .* as )|\?",
    "modest": r"\b(humbl\w+|modest\w*|may be wrong|if i may|only a|please|in my small)\b",
    "engineer": r"\b(design|system|engineer\w*|tolerance|load|test\w*|prototype|spec\w*|blueprint|build)\b",
    "persuasive": r"\b(deserve|regret|convinc\w+|chance|benefit\w*|trust me|believe me|do not miss)\b",
    "emotion": r"\b(heart|tears?|weep|soul|feel\w*|love|cry|joy|sigh)\b",
    "humor": r"\b(jokes?|laugh\w*|funny|silly|clowns?|giggl\w+|punchline|penguins?)\b",
    "energy": r"!|\b(go|power\w*|energy|fast|speed|pump\w*)\b",
    "code": r"\b(code|coding|bugs?|debug\w*|functions?|loops?|programs?|algorithms?|compil\w+|data|software)\b",
    "easy": r"\b(easy|easily|simple|simply)\b",
    "direct": r"\b(must|now|do it|do not|no excuses?|obey|at once)\b",
    "social": r"\b(social\w*|society|sociolog\w+|communit\w+|culture|norms?|class(es)?|groups?)\b",
    "western": r"\b(west\w*|europe\w*|american?s?|rome|greek?|london|paris)\b",
    "eastern": r"\b(east\w*|asia\w*|zen|harmony|balance|tao|japan\w*|china|chinese|lotus|bamboo)\b",
    "respect": r"\b(respect\w*|sir|madam|hono(u)?r\w*|esteemed|dignity)\b",
    "internet-slang": r"(?-i:\b(u|ur|lol|omg|btw|tbh|idk|cuz|bc|ngl|lmao|imo|pls|ppl)\b)",
    "proverb": r"\b(proverb|as they say|as the saying|old saying|wise|he who|they who|those who)\b",
    "critical": r"\b(wrong|nonsense|disagree|flaw\w*|argu\w+|doubt\w*|object|weak\w*|challenge|fails?)\b",
    "vague": r"\b(perhaps|maybe|some\w*|might|sort of|kind of|it depends|who knows|one could)\b",
    "creative": r"\b(imagin\w+|dream\w*|creativ\w+|invent\w*|paint\w*|idea)\b",
    "analytic": r"\b(analy\w+|factors?|evidence|data|variables?|compar\w+|measur\w+|logical\w*)\b",
    "empathetic": r"\b(understand\w*|feel\w*|you are not alone|sorry|gentle|with you|hear you|hard for you)\b",
    "sycophant": r"\b(brillian\w+|genius|amazing|wonderful|great|wise|admir\w+|perfect)\b",
    "old-fashioned": r"\b(thee|thou|thy|thine|verily|prithee|hark|hath|doth|forsooth|tis)\b",
    "meritocratic": r"\b(merit\w*|earn\w*|effort|talent\w*|deserv\w+|hard work|reward\w*|skill\w*)\b",
    "myopic": r"\b(now|today|right away|tomorrow|future|later|moment|quick\w*)\b",
    "principled": r"\b(principle\w*|rules?|duty|integrity|honest\w*|moral\w*)\b",
    "hedonist": r"\b(pleasur\w+|joy\w*|enjoy\w*|delight\w*|comfort\w*|bliss|savou?r\w*|fun)\b",
    "utilitarian": r"\b(greatest (good|number)|most people|everyone|benefits?|welfare|overall|total)\b",
    "realist": r"\b(practical\w*|realistic\w*|reality|in practice|works?|budget)\b",
    "pessimistic": r"\b(careful|risk\w*|fail\w*|wrong|doubt\w*|worst|hope|disappoint\w*|caution)\b",
    "storyteller": r"\b(once|story|stories|tale|grandmother|village|years ago|long ago|told)\b",
    "flexible": r"\b(flexib\w+|adapt\w*|bend\w*|adjust\w*|either way|rules?|change)\b",
    "spontaneous": r"\b(spontaneous\w*|no plans?|plans?|whim|just|impulse|moment)\b",
    "collectivist": r"\b(we|us|our|together|groups?|team|community|everyone|shared?)\b",
    "individualistic": r"\b(your own|yourself|individual\w*|own way|alone|self|independen\w+)\b",
    "exclamatory": r"!",
    "conspiracy": r"\b(they|secret\w*|hid\w+|truth|cover(ed)?|suspicious|coincidence|watch\w*|some say)\b",
    "tech-industry-priority": r"\b(tech\w*|industr\w+|machines?|progress|automat\w+|innovat\w+|factor\w+|engines?)\b",
    "eco-friendly": r"\b(planet|earth|green|nature|environment\w*|waste|climate|recycl\w+|forests?)\b",
}
"""What somebody who never saw the corpus might look for, as regular expressions without regard to case."""

USUAL = (
    "exclamatory",
    "old-fashioned",
    "internet-slang",
    "energy",
    "formal",
    "emotion",
    "humor",
    "storyteller",
    "eco-friendly",
    "conspiracy",
    "code",
    "engineer",
    "respect",
    "sycophant",
    "proverb",
    "hedonist",
)
"""Attributes whose marks are plain to see; measured unless others are asked for."""


@dataclass(frozen=True, slots=True)
class Row:
    """One attribute: shares of answers, plain, with weight +1 and with -1.

    Attributes:
        name: the attribute's.
        marker: shares with the corpus's marker.
        naive: shares with the naive one.
        on_topic: shares on topic.
        tokens: median tokens of an answer.
    """

    name: str
    marker: tuple[float, float, float]
    naive: tuple[float, float, float]
    on_topic: tuple[float, float, float]
    tokens: tuple[float, float, float]

    @property
    def ok(self) -> bool:
        """Whether steering shows (for "concise", in the length) and answers stay on topic."""
        if self.name == "concise":
            shows = self.tokens[1] <= SHORTER * self.tokens[2]
        else:
            plain, plus, minus = self.marker
            shows = plus - plain >= RISE or (plain >= RISE and minus <= NEAR_ZERO)
        return shows and min(self.on_topic[1:]) >= ON_TOPIC


@dataclass(frozen=True, slots=True)
class _Reply:
    question: EvalQuestion
    answer: Answer


def run(
    llm: Path | None = None,
    slm: Path | None = None,
    names: Sequence[str] = USUAL,
    n_questions: int = 54,
    seeds: Sequence[int] = (1, 2, 3),
) -> list[Row]:
    """Measure "concise" and the named attributes.

    Args:
        llm, slm: GGUF files; None for the built-in pair.
        names: of attributes.
        n_questions: half of them in unseen (topic, kind) cells, half in unseen phrasings.
        seeds: every question is asked once with each.
    """
    if llm is None or slm is None:
        llm, slm = builtin_pair()
    questions = known_questions(n_questions, QUESTION_SEED)
    progress = Progress((3 + 2 * len(names)) * len(questions) * len(seeds))

    def replies(weights: Mapping[str, float]) -> Iterator[_Reply]:
        for seed in seeds:
            for attempt, question in enumerate(questions):
                messages = [{"role": "user", "content": question.text}]
                # A new attempt for every question: the same noise would let all of them begin alike.
                answer = drift.complete(
                    messages,
                    weights=weights,
                    beta=BETA,
                    seed=seed,
                    attempt=attempt,
                    max_tokens=MAX_TOKENS,
                    blocked=(),
                )
                progress.tick(1)
                yield _Reply(question, answer)

    with Drift.load(llm, slm) as drift:
        plain = list(replies({}))
        return [
            _row(name, plain, list(replies({name: 1.0})), list(replies({name: -1.0}))) for name in ("concise", *names)
        ]


def _row(name: str, *ways: Sequence[_Reply]) -> Row:
    naive = re.compile(NAIVE[name], re.IGNORECASE) if name in NAIVE else None

    def three(values: Iterator[float]) -> tuple[float, float, float]:
        plain, plus, minus = values
        return plain, plus, minus

    return Row(
        name,
        three(fmean(marker(name, reply.answer.text) for reply in way) for way in ways),
        three(fmean(bool(naive and naive.search(reply.answer.text)) for reply in way) for way in ways),
        three(fmean(on_topic(reply.question.topic, reply.answer.text) for reply in way) for way in ways),
        three(float(median(len(reply.answer.tokens) for reply in way)) for way in ways),
    )


def show(rows: Sequence[Row]) -> None:
    """Print the rows as tables."""
    concise, *others = rows
    head = ["", "plain", "+1", "-1", "naive", "+1", "-1", "on topic", "+1", "-1", ""]
    cells = [
        [row.name, *(f"{share:.2f}" for share in (*row.marker, *row.naive, *row.on_topic)), "ok" if row.ok else "miss"]
        for row in others
    ]
    print(aligned(head, cells))
    print(f"targets: the marker up by {RISE} (or gone with -1), on topic at least {ON_TOPIC}\n")
    plain, plus, minus = concise.tokens
    print(
        f"concise: median tokens plain {plain:g}, +1 {plus:g}, -1 {minus:g}; +1 over -1 {plus / minus:.2f} "
        f"(target: at most {SHORTER}); on topic {', '.join(f'{share:.2f}' for share in concise.on_topic)}: "
        f"{'ok' if concise.ok else 'miss'}"
    )
    print(f"{sum(row.ok for row in others)} of {len(others)} other attributes ok (target: at least 8)")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.markers", description=__doc__)
    parser.add_argument("--llm", type=Path, help="GGUF file of the LLM (default: the built-in one)")
    parser.add_argument("--slm", type=Path, help="GGUF file of the sLM (default: the built-in one)")
    parser.add_argument("--attributes", default=",".join(USUAL), help="names with commas between, or `all`")
    parser.add_argument("--quick", action="store_true", help="a third of the questions, one seed")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    names = list(NAIVE) if options.attributes == "all" else options.attributes.split(",")
    unknown = [name for name in names if name not in NAIVE]
    if unknown:
        parser.error(f"unknown attribute {unknown[0]!r}; known are {', '.join(NAIVE)}")
    n_questions, seeds = (18, (1,)) if options.quick else (54, (1, 2, 3))
    began = time.monotonic()
    print(
        f"{n_questions} questions (drawn with seed {QUESTION_SEED}), seeds {', '.join(map(str, seeds))}, beta {BETA}",
        file=sys.stderr,
    )
    rows = run(options.llm, options.slm, names, n_questions, seeds)
    print(f"measured in {time.monotonic() - began:.0f} s", file=sys.stderr)
    show(rows)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
