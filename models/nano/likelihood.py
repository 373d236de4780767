"""What the models' logits say about given texts: their log-probabilities, and how well the sLM drafts for the LLM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from drift_edge import Drift, kernel
from drift_edge.llama.chat import ChatFormat
from drift_edge.llama.context import Context
from drift_edge.llama.model import Model

Message = dict[str, str]
Ids = list[int]

N_CTX = 512


def user(text: str) -> Message:
    """A message of the user's."""
    return {"role": "user", "content": text}


def auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """The probability that a draw of the first (n,) is larger than one of the second (m,); ties count half."""
    larger = positive[:, None] > negative[None, :]
    equal = positive[:, None] == negative[None, :]
    return float(larger.mean() + 0.5 * equal.mean())


class Scorer:
    """Log-probabilities of answers under many prompts at once: one decode for each position of the answers.

    Args:
        model: scores.
        chat: its chat format.
        n_seq: how many (prompt, answer) pairs go through together.
        done: called with the number of pairs scored, after each such group.
    """

    def __init__(self, model: Model, chat: ChatFormat, n_seq: int, done: Callable[[int], None]) -> None:
        self.model, self.chat, self._done = model, chat, done
        self._context = Context(model, n_seq=n_seq, n_ctx=N_CTX)

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._context.close()

    def job(self, messages: Sequence[Message], sentence: str | None, answer: str) -> tuple[Ids, Ids]:
        """Ids of a prompt and of an answer with its end, which is scored too: it carries "concise"."""
        ids = self.model.tokenize(answer, special=False)
        return self.chat.encode(messages, sentence, {}), [*ids, self.model.special_ids["eot"]]

    def score(self, jobs: Sequence[tuple[Ids, Ids]]) -> NDArray[np.float64]:
        """log pi(answer | prompt) for each job: float64 (n,), nats, summed over the answer's ids."""
        total = np.zeros(len(jobs))
        by_length = sorted(range(len(jobs)), key=lambda j: len(jobs[j][1]))
        for start in range(0, len(jobs), self._context.n_seq):
            group = by_length[start : start + self._context.n_seq]
            self._context.prefill({seq: jobs[j][0] for seq, j in enumerate(group)})
            answers = [jobs[j][1] for j in group]
            seqs = list(range(len(group)))
            for position in range(len(answers[-1])):
                seqs = [seq for seq in seqs if len(answers[seq]) > position]
                if position:
                    self._context.extend([answers[seq][position - 1] for seq in seqs], seqs)
                targets = np.array([answers[seq][position] for seq in seqs], np.int32)
                total[[group[seq] for seq in seqs]] += kernel.logprobs(self._context.logits(), targets)
            self._done(len(group))
        return total


def drafting(
    drift: Drift,
    question: str,
    weights: Mapping[str, float],
    beta: float,
    rng: np.random.Generator,
    max_tokens: int,
) -> NDArray[np.float64]:
    """Draw an answer at temperature 1 and see, token by token, how well the sLM would have drafted it.

    With s_t the steering term of Eq. 15, the target is softmax(h_llm + s_t) and the draft softmax(h_base + s_t).

    Args:
        drift: the pair.
        question: the user's.
        weights: p_i by attribute; empty for no steering.
        beta: strength.
        rng: draws the tokens.
        max_tokens: most tokens to draw.

    Returns:
        float64 (2, tokens): the probability that a drafted token is accepted, sum_w min(target, draft), and the
        target's entropy in bits.
    """
    pair, n = drift.pair, drift.pair.n_vocab
    asked = [user(question)]
    sentences = [drift.attributes.base, *(drift.attributes[name].prompt for name in weights)]
    seqs = list(range(len(sentences)))
    p_over_beta = np.array(list(weights.values()), np.float64) / beta
    target_row, draft_row = np.empty(n, np.float32), np.empty(n, np.float32)
    found: list[tuple[float, float]] = []
    llm, slm = Context(pair.llm, n_seq=1, n_ctx=N_CTX), Context(pair.slm, n_seq=len(seqs), n_ctx=N_CTX)
    try:
        llm.prefill({0: pair.llm_format.encode(asked, sentences[0], {})})
        slm.prefill({seq: pair.slm_format.encode(asked, sentence, {}) for seq, sentence in enumerate(sentences)})
        for _ in range(max_tokens):
            H = slm.logits()[:, :n]
            kernel.fuse(target_row, llm.logits()[0, :n], H, p_over_beta)
            kernel.fuse(draft_row, H[0], H, p_over_beta)
            target, draft = _softmax(target_row), _softmax(draft_row)
            bits = -(target * np.log2(np.maximum(target, 1e-300))).sum()
            found.append((float(np.minimum(target, draft).sum()), float(bits)))
            token = int(rng.choice(n, p=target))
            if token in pair.llm.end_ids:
                break
            llm.extend([token], [0])
            slm.extend([token] * len(seqs), seqs)
    finally:
        llm.close()
        slm.close()
    return np.array(found).T


def _softmax(row: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(row.astype(np.float64) - row.max())
    result: NDArray[np.float64] = powers / powers.sum()
    return result
