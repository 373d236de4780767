"""What the benchmarks ask, by what samplers and weights: one set for all tables, so that their rows can be compared."""

from __future__ import annotations

from collections.abc import Mapping

from drift_edge.sampling import SamplerSettings

BETA = 0.5
SAMPLER = SamplerSettings(temperature=0.8, top_k=40, top_p=0.9, min_p=0.05)
SAMPLED = "temperature 0.8, top-k 40, top-p 0.9, min-p 0.05"
QUESTION = "Please tell me about making tea."
TEXTS = (
    QUESTION,
    "How do I grow tomatoes?",
    "What is a bicycle good for?",
    "Is chess worth it?",
    "Why should I bake bread?",
)
WEIGHTS: Mapping[str, float] = {  # of length 1, as those are that the paper's Algorithm 1 gives
    "concise": -0.44,
    "vivid": 0.44,
    "formal": 0.44,
    "humor": -0.33,
    "respect": 0.33,
    "emotion": 0.33,
    "energy": -0.29,
}
