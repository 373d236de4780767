"""Documents to batches: an endless stream of padded batches of nearly equal length, and of nearly equal cost."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from .tokenizer import END, ChatEncoder

MAX_LENGTH = 512
POOL = 4_096
_STEP = 8
"""Lengths are padded to a multiple of this."""


class Conversation(Protocol):
    """What is needed of a document of the corpus."""

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation, each message with `role` and `content`."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One padded batch.

    Attributes:
        ids: int64 [rows, length]; padding is at the end, where causal attention never looks back from.
        where: int64 [n], positions in the flattened batch whose next id counts.
        targets: int64 [n], those next ids.
        weights: float32 [n], their weights; the sum over the batch is 1.
        tokens: ids that are not padding.
    """

    ids: Tensor
    where: Tensor
    targets: Tensor
    weights: Tensor
    tokens: int


def make_batch(rows: list[tuple[list[int], list[float]]]) -> Batch:
    """Pad (ids, weights) pairs to one length."""
    length = -(-max(len(ids) for ids, _ in rows) // _STEP) * _STEP
    ids = torch.tensor([row + [END] * (length - len(row)) for row, _ in rows])
    # The weight of an id belongs to the position before it, which predicts it.
    weights = torch.tensor([row[1:] + [0.0] * (length + 1 - len(row)) for _, row in rows]).flatten()
    where = weights.nonzero()[:, 0]
    targets = ids.roll(-1, 1).flatten()[where]
    weights = weights[where]
    return Batch(ids, where, targets, weights / weights.sum(), sum(len(row) for row, _ in rows))


def batches(documents: Iterable[Conversation], encoder: ChatEncoder, batch_tokens: int, seed: int) -> Iterator[Batch]:
    """Batches of up to `batch_tokens` ids, padding included, for as long as there are documents.

    A pool of documents is sorted by length and cut into batches, which come in random order; what is left over
    joins the next pool. Documents of more than `MAX_LENGTH` ids are left out.
    """
    rng = random.Random(seed)
    source = iter(documents)
    pool: list[tuple[list[int], list[float]]] = []
    while fresh := list(islice(source, POOL)):
        pool += [row for row in encoder.encode([d.messages for d in fresh]) if len(row[0]) <= MAX_LENGTH]
        pool.sort(key=lambda row: len(row[0]), reverse=True)
        cuts = []
        while pool:
            size = max(1, batch_tokens // (-(-len(pool[0][0]) // _STEP) * _STEP))
            if len(pool) < size:
                break
            cuts.append(pool[:size])
            del pool[:size]
        rng.shuffle(cuts)
        for rows in cuts:
            yield make_batch(rows)
    if pool:
        yield make_batch(pool)
