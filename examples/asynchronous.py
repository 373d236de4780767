"""Several conversations in one event loop, and an answer that is given up. `python examples/asynchronous.py`"""

from __future__ import annotations

import asyncio

from drift_edge import AsyncDrift, Drift, Token


async def main() -> None:
    """Three questions take turns; a fourth is left after its first token."""
    async with AsyncDrift(await asyncio.to_thread(Drift.builtin)) as drift:

        async def ask(question: str) -> str:
            answer = await drift.complete([{"role": "user", "content": question}], weights={"concise": 1.0})
            return answer.text

        questions = ("How do I make tea?", "What is a bicycle?", "What is a map?")
        for question, text in zip(questions, await asyncio.gather(*map(ask, questions)), strict=True):
            print(f"{question}\n{text}\n")

        async for event in drift.chat([{"role": "user", "content": "What is a bicycle?"}], max_tokens=500):
            if isinstance(event, Token):
                print(f"{event.text} … (that will do)")
                break  # the engine stops within a token

        # Cancelling a task, as servers do when a client hangs up, stops the answer, too.
        task = asyncio.create_task(ask("How do I make tea?"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])


if __name__ == "__main__":
    asyncio.run(main())
