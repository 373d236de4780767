"""Time to the first token, turn after turn: only new tokens should cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from drift_edge import Drift
from drift_edge.llama.library import default_threads

from .peers import plain_llama
from .programs import Message, PlainLlama, Program, Steered
from .questions import TEXTS

SHOWN = (1, 2, 10, 20, 30)
N_CTX = 2_048
_ANSWER = 12  # tokens


def run(
    llm: Path, slm: Path, weights: Mapping[str, float], *, turns: int = 30, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Hold one conversation with each program.

    Args:
        llm, slm: GGUF files.
        weights: of the attributes that steer.
        turns: of the conversation.
        say: told what is done.

    Returns:
        JSON values: `turns`; `rows`: {name, prompt_tokens, prefilled, first_s}, a number for every turn; prefilled
        tokens are those of all sequences, 0 where they are not known.
    """
    rows = []
    for name, steer in (
        ("plain llama_cpp.Llama", None),
        ("drift-edge, steered", weights),
        ("drift-edge, --steer off", {}),
    ):
        say(f"{turns} turns: {name}")
        with Drift.load(llm, slm, ctx_size=N_CTX, active=len(weights)) as drift:  # whose caches are empty
            program: Program
            if steer is None:
                program = PlainLlama(plain_llama(llm, n_ctx=N_CTX, threads=default_threads(llm.stat().st_size)))
            else:
                program = Steered(drift, steer)
            rows.append({"name": name, **_converse(program, drift, turns)})
    return {"turns": turns, "rows": rows}


def _converse(program: Program, drift: Drift, turns: int) -> dict[str, list[Any]]:
    messages: list[Message] = []
    found: dict[str, list[Any]] = {"prompt_tokens": [], "prefilled": [], "first_s": []}
    for turn in range(turns):
        messages.append({"role": "user", "content": TEXTS[turn % len(TEXTS)]})
        found["prompt_tokens"].append(len(drift.pair.llm_format.encode(messages, drift.attributes.base, {})))
        answer = program.answer(messages, turn, _ANSWER)
        found["first_s"].append(answer.first)
        found["prefilled"].append(answer.prefilled)
        messages.append({"role": "assistant", "content": answer.text})
    return found


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The result as a table."""
    shown = [turn for turn in SHOWN if turn <= result["turns"]]
    yield f"Time to the first token, ms, by turn (answers of {_ANSWER} tokens)"
    yield f"{'':34} " + " ".join(f"{turn:>8}" for turn in shown) + "   prompt tokens/s, turn 1"
    for row in result["rows"]:
        first = row["first_s"]
        rate = row["prompt_tokens"][0] / first[0] if first[0] else 0.0
        yield f"{row['name']:34} " + " ".join(f"{first[turn - 1] * 1e3:8.1f}" for turn in shown) + f"   {rate:23.0f}"
    counts = {"prompt tokens": result["rows"][0]["prompt_tokens"]}
    counts |= {f"prefilled, {row['name']}": row["prefilled"] for row in result["rows"] if any(row["prefilled"])}
    for name, tokens in counts.items():
        yield f"{name:34} " + " ".join(f"{tokens[turn - 1]:8}" for turn in shown)
