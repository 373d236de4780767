"""Time to the first token, turn after turn: it should grow with the new tokens only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
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
        JSON values: `turns`; `rows`: {name, prompt_tokens, first_s}, a number for every turn.
    """
    with ExitStack() as stack:
        drift = stack.enter_context(Drift.load(llm, slm, ctx_size=N_CTX, active=len(weights)))
        threads = default_threads(llm.stat().st_size)
        programs: dict[str, Program] = {
            "plain llama_cpp.Llama": PlainLlama(plain_llama(llm, n_ctx=N_CTX, threads=threads)),
            "drift-edge, steered": Steered(drift, weights),
            "drift-edge, --steer off": Steered(drift, {}),
        }
        rows = []
        for name, program in programs.items():
            say(f"{turns} turns: {name}")
            messages: list[Message] = []
            prompts, first = [], []
            for turn in range(turns):
                messages.append({"role": "user", "content": TEXTS[turn % len(TEXTS)]})
                prompts.append(len(drift.pair.llm_format.encode(messages, drift.attributes.base, {})))
                answer = program.answer(messages, turn, _ANSWER)
                first.append(answer.first)
                messages.append({"role": "assistant", "content": answer.text})
            rows.append({"name": name, "prompt_tokens": prompts, "first_s": first})
        return {"turns": turns, "rows": rows}


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The result as a table."""
    shown = [turn for turn in SHOWN if turn <= result["turns"]]
    yield f"Time to the first token, ms, by turn (answers of {_ANSWER} tokens)"
    yield f"{'':28} " + " ".join(f"{turn:>8}" for turn in shown) + "   prompt tokens/s, turn 1"
    for row in result["rows"]:
        first = row["first_s"]
        rate = row["prompt_tokens"][0] / first[0] if first[0] else 0.0
        yield f"{row['name']:28} " + " ".join(f"{first[turn - 1] * 1e3:8.1f}" for turn in shown) + f"   {rate:23.0f}"
    row = result["rows"][1]
    yield "prompt tokens".ljust(28) + " " + " ".join(f"{row['prompt_tokens'][turn - 1]:8}" for turn in shown)
