"""Train one model of the pair.

The gradient of a step comes from two streams of documents. On a CPU each stream has a worker process of its own, with
half of the cores: at this size two processes get 1.5 times the work done that one with all the cores does. With CUDA
one process takes both streams in turn. The workers share nothing but the gradient.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Barrier

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

from .batches import Batch, batches
from .corpus import documents
from .model import SHAPES, Nano, Shape, WeightedCrossEntropy, causal_mask, rotation
from .muon import Muon
from .tokenizer import ChatEncoder, load_tokenizer

STREAMS = 2
VALIDATION_DOCUMENTS = 256
WARM_UP = 100
HOLD = 0.25
"""Share of the run at the full learning rate; from there it falls linearly to zero."""
REPORT_SECONDS, VALIDATE_SECONDS = 10.0, 240.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how to train.

    Attributes:
        tokens: ids to train on, padding left out.
        minutes: the most to spend; the schedule ends at whichever of the two comes first.
        base_share: share of documents under a base prompt.
        made_up_share: as in `corpus.documents`.
        matrix_rate, other_rate: peak learning rates of Muon (matrices) and AdamW (embedding, norms).
        batch_tokens: ids of one stream's batch, padding included.
        seed: of weights and documents.
    """

    tokens: int
    minutes: float
    base_share: float
    made_up_share: float = 0.0
    matrix_rate: float = 0.02
    other_rate: float = 0.003
    batch_tokens: int = 8_192
    seed: int = 1


@dataclass(slots=True)
class State:
    """How far a run has come."""

    step: int = 0
    tokens: float = 0.0
    seconds: float = 0.0
    loss: float = float("nan")
    validation: float = float("nan")


def train(shape: Shape, recipe: Recipe, folder: Path, resume: bool = False) -> Path:
    """Train a model and keep it in `folder`, where `tokenizer.json` is.

    Args:
        shape: which model.
        recipe: how.
        folder: `{name}.pt`, the checkpoint, is written there every few minutes and at the end.
        resume: go on from that checkpoint if there is one; a resumed run draws documents anew.

    Returns:
        The checkpoint's path: a dict with `weights` (float32 tensors by name), `optimizers`, `state` (None where it
        holds weights to begin from and no run) and `done`.
    """
    workers = 1 if torch.cuda.is_available() or _cores() < STREAMS else STREAMS
    threads = _cores() // workers
    # Read when a worker starts: waiting threads sleep, so that other load on the machine does not stall them.
    os.environ.update(OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0")
    os.environ.update(TOKENIZERS_PARALLELISM="false")
    size = sum(p.numel() for p in Nano(shape).parameters())
    shared = torch.zeros(workers, size + len(_Sums.__annotations__)).share_memory_()
    barrier = mp.get_context("spawn").Barrier(workers)
    mp.spawn(_work, (shape.name, recipe, folder, resume, shared, barrier), nprocs=workers)
    return folder / f"{shape.name}.pt"


def _cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(slots=True)
class _Sums:
    """What workers add up besides gradients; it travels at the end of the gradient's vector."""

    loss: float
    tokens: float
    seconds: float


def matmul_dtype(device: torch.device) -> torch.dtype:
    """The dtype of matrix products that is faster here: processors without bfloat16 arithmetic take 30 times as long.

    Args:
        device: where training runs; CUDA is taken to be fast at bfloat16.
    """
    if device.type == "cuda":
        return torch.bfloat16

    def seconds(dtype: torch.dtype) -> float:
        a, b = torch.ones(512, 256, dtype=dtype), torch.ones(256, 256, dtype=dtype)
        taken = []
        for _ in range(5):
            began = time.perf_counter()
            a @ b
            taken.append(time.perf_counter() - began)
        return min(taken)

    return min((torch.bfloat16, torch.float32), key=seconds)


class _Run:
    """One worker's side of a run."""

    def __init__(
        self, rank: int, shape: Shape, recipe: Recipe, folder: Path, resume: bool, shared: Tensor, barrier: Barrier
    ) -> None:
        self.rank, self.shape, self.recipe, self.shared, self.barrier = rank, shape, recipe, shared, barrier
        self.path = folder / f"{shape.name}.pt"
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = matmul_dtype(self.device)
        torch.manual_seed(recipe.seed)
        self.model = Nano(shape).to(self.device)
        self.state = State()
        self.clock = 0.0
        named = list(self.model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and name != "embedding"]
        others = [p for name, p in named if p.ndim != 2 or name == "embedding"]
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=recipe.matrix_rate, weight_decay=0.01, dtype=self.dtype),
            torch.optim.AdamW(others, lr=recipe.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.rates = [group["lr"] for optimizer in self.optimizers for group in optimizer.param_groups]
        self.gradient = self._flat_gradient()
        if resume and self.path.is_file():
            self._load()
        self.encoder = ChatEncoder(load_tokenizer(folder / "tokenizer.json"))
        workers = len(shared)
        self.streams = [self._stream(index) for index in range(rank, STREAMS, workers)]
        compiler = self.device.type == "cpu" and any(map(shutil.which, ("g++", "clang++", "cl")))
        self.forward = torch.compile(self.model, dynamic=True) if compiler else self.model

    def _flat_gradient(self) -> Tensor:
        """One vector whose slices are the parameters' gradients, with room for `_Sums`; zero."""
        flat = self.shared[self.rank].to(self.device)
        start = 0
        for p in self.model.parameters():
            p.grad = flat[start : start + p.numel()].view_as(p)
            start += p.numel()
        return flat

    def _stream(self, index: int) -> Iterator[Batch]:
        # A resumed run starts at another step, and so with documents not seen before.
        seed = (self.recipe.seed * 1_000 + index) * 1_000_000 + self.state.step
        recipe = self.recipe
        source = documents(split="train", seed=seed, base_share=recipe.base_share, made_up_share=recipe.made_up_share)
        return batches(source, self.encoder, self.recipe.batch_tokens, seed)

    def loss(self, batch: Batch, forward: nn.Module) -> Tensor:
        """Weighted mean loss of a batch in nats a token."""
        ids = batch.ids.to(self.device)
        cos, sin = rotation(ids.shape[1], self.shape.head_dim, self.dtype, self.device)
        hidden = forward(ids, cos, sin, causal_mask(ids.shape[1], self.device))
        picked = hidden.flatten(0, 1)[batch.where.to(self.device)]
        embedding = self.model.embedding.to(self.dtype)
        result: Tensor = WeightedCrossEntropy.apply(
            picked, embedding, batch.targets.to(self.device), batch.weights.to(self.device)
        )
        return result

    def progress(self) -> float:
        """How much of the run is behind, 0 to 1."""
        done = max(self.state.tokens / self.recipe.tokens, self.state.seconds / (60 * self.recipe.minutes))
        return min(1.0, done)

    def step(self) -> None:
        """One update of the weights, from a batch of every stream."""
        self.gradient.zero_()
        loss = tokens = 0.0
        for stream in self.streams:
            batch = next(stream)
            batch_loss = self.loss(batch, self.forward) / STREAMS
            batch_loss.backward()  # type: ignore[no-untyped-call]
            loss += float(batch_loss.detach())
            tokens += batch.tokens
        now = time.perf_counter()
        sums = self._add_up(_Sums(loss, tokens, (now - self.clock) / len(self.shared)))
        self.clock = now
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        scale = min(1.0, (self.state.step + 1) / WARM_UP, (1 - self.progress()) / (1 - HOLD))
        groups = (group for optimizer in self.optimizers for group in optimizer.param_groups)
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate * scale
        for optimizer in self.optimizers:
            optimizer.step()
        state = self.state
        state.step += 1
        state.tokens += sums.tokens
        state.seconds += sums.seconds
        state.loss = sums.loss if state.step == 1 else 0.95 * state.loss + 0.05 * sums.loss

    def _add_up(self, own: _Sums) -> _Sums:
        """Replace the gradient by the sum over the workers; returns the other sums."""
        extra = torch.tensor([own.loss, own.tokens, own.seconds])
        self.gradient[-len(extra) :] = extra.to(self.device)
        if len(self.shared) > 1:
            self.barrier.wait()
            total = self.shared.sum(0)
            self.barrier.wait()
            self.gradient.copy_(total)
        loss, tokens, seconds = self.gradient[-len(extra) :].tolist()
        return _Sums(loss, tokens, seconds)

    @torch.no_grad()
    def validate(self) -> float:
        """Mean loss in nats of an answer's id, on documents that training never draws."""
        encoder = ChatEncoder(self.encoder.tokenizer, question_weight=0.0)
        source = documents(split="test", seed=7, base_share=self.recipe.base_share)
        sample = batches(islice(source, VALIDATION_DOCUMENTS), encoder, 4_096, 0)
        sums = [(len(batch.where), float(self.loss(batch, self.model))) for batch in sample]
        return sum(n * loss for n, loss in sums) / sum(n for n, _ in sums)

    def save(self, done: bool) -> None:
        """Write the checkpoint; a reader never sees half of one."""
        new = self.path.with_suffix(".new")
        weights = {name: p.detach().cpu() for name, p in self.model.named_parameters()}
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        state = {name: getattr(self.state, name) for name in State.__annotations__}
        torch.save({"weights": weights, "optimizers": optimizers, "state": state, "done": done}, new)
        new.replace(self.path)

    def _load(self) -> None:
        kept = torch.load(self.path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(kept["weights"])
        if kept["state"] is None:  # weights alone, to begin from
            return
        for optimizer, state in zip(self.optimizers, kept["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.state = State(**kept["state"])

    def run(self) -> None:
        """Train to the end of the recipe."""
        for _ in range(2):  # compiles for one length, then for any; the recipe's minutes do not count it
            self.loss(next(self.streams[0]), self.forward).backward()  # type: ignore[no-untyped-call]
        self.barrier.wait()
        self.clock = reported = validated = time.perf_counter()
        while self.progress() < 1:
            self.step()
            if self.rank:
                continue
            if self.clock - validated > VALIDATE_SECONDS:
                self.state.validation = self.validate()
                self.save(done=False)
                validated = self.clock
            if self.clock - reported > REPORT_SECONDS:
                self._report()
                reported = self.clock
        if self.rank == 0:
            self.state.validation = self.validate()
            self.save(done=True)
            self._report()

    def _report(self) -> None:
        state, progress = self.state, self.progress()
        left = state.seconds * (1 - progress) / max(progress, 1e-9)
        print(
            f"{self.shape.name}: {progress:4.0%}  step {state.step:,}  {state.tokens / 1e6:.2f} M tokens  "
            f"loss {state.loss:.3f}  held out {state.validation:.3f}  {state.tokens / state.seconds:,.0f} tok/s  "
            f"{state.seconds / 60:.1f} min, {left / 60:.1f} to go",
            file=sys.stderr,
            flush=True,
        )


def _work(rank: int, name: str, recipe: Recipe, folder: Path, resume: bool, shared: Tensor, barrier: Barrier) -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    _Run(rank, SHAPES[name], recipe, folder, resume, shared, barrier).run()
