"""Drift in a program that uses llama-cpp-python already. `python examples/logits.py`"""

from __future__ import annotations

from llama_cpp import Llama, LogitsProcessorList

from drift_edge import DriftLogitsProcessor
from drift_edge.models import builtin_pair


def main() -> None:
    """The same question by `llama_cpp.Llama`, plain and steered."""
    llm, slm = builtin_pair()  # paths of two GGUF files that share a tokenizer
    messages = [{"role": "user", "content": "How do I make tea?"}]
    llama = Llama(str(llm), n_ctx=512, verbose=False)
    with DriftLogitsProcessor(llama, slm) as drift:
        for weights in ({}, {"exclamatory": 1.0}):
            # A processor serves one completion. The system message is the base prompt that the sLM has as well.
            steer = drift.for_chat(messages, weights=weights)
            said = llama.create_chat_completion(
                [{"role": "system", "content": drift.attributes.base}, *messages],
                logits_processor=LogitsProcessorList([steer]),
                max_tokens=60,
                seed=4,
            )
            print(weights, said["choices"][0]["message"]["content"], sep="\n", end="\n\n")


if __name__ == "__main__":
    main()
