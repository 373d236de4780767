"""The least an app needs: stream a steered answer, and learn from a choice. `python examples/minimal.py`"""

from __future__ import annotations

from drift_edge import Drift, PreferencePair, Token


def main() -> None:
    """Ask twice, and prefer the shorter answer."""
    messages = [{"role": "user", "content": "How do I make tea?"}]
    with Drift.builtin() as drift:  # or Drift.load("llm.gguf", "slm.gguf")
        learner = drift.learner("example")  # a profile of that name
        beta, strength = learner.profile.settings.steering

        for event in drift.chat(messages, weights={"concise": 0.8, "vivid": -0.3}):
            if isinstance(event, Token):
                print(event.text, end="", flush=True)
        print("\n")

        # One answer by what is known of the person, one that asks about something not known yet.
        own = drift.complete(messages, weights=learner.weights(), beta=beta, strength=strength)
        other = drift.complete(messages, weights=learner.probes()[0], beta=beta, strength=strength, attempt=1)
        chosen, rejected = sorted((own.text, other.text), key=len)
        print(f"better: {chosen}\nthan:   {rejected}\n")

        lesson = learner.learn(PreferencePair(messages, chosen, rejected))
        for name, weight in learner.weights().items():
            print(f"{name:>16} {lesson.before[name]:+.2f} -> {weight:+.2f}")


if __name__ == "__main__":
    main()
