"""The Llama architecture in plain torch, laid out for speed on a CPU with bfloat16 matrix units.

Weights and the residual stream are float32; matrix products and attention run in bfloat16. Rotary pairs are the two
halves of a head (`export` reorders the rows to the adjacent pairs that llama.cpp expects).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .tokenizer import VOCAB_SIZE

NORM_EPS = 1e-5
ROPE_BASE = 10_000.0
CONTEXT = 1_024


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of one model; every one is a multiple of 32, so that Q8_0 fits."""

    name: str
    dim: int
    layers: int
    heads: int
    ffn: int

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.heads


LLM = Shape("llm", dim=256, layers=6, heads=4, ffn=768)
SLM = Shape("slm", dim=128, layers=3, heads=4, ffn=288)
SHAPES = {shape.name: shape for shape in (LLM, SLM)}


class Block(nn.Module):
    """One layer: attention, then SwiGLU, each behind an RMS norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d, f = shape.dim, shape.ffn
        self.shape = shape
        self.attn_norm = nn.Parameter(torch.ones(d))
        self.ffn_norm = nn.Parameter(torch.ones(d))
        self.q, self.k, self.v = (_matrix(d, d) for _ in range(3))
        self.gate, self.up = (_matrix(f, d) for _ in range(2))
        # Both projections back to the residual stream start at zero: at first every block is the identity.
        self.o = nn.Parameter(torch.zeros(d, d))
        self.down = nn.Parameter(torch.zeros(d, f))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, half: torch.dtype) -> Tensor:
        """Add this layer to the stream `x`, float32 [batch, length, dim]."""
        batch, length, dim = x.shape
        heads, head_dim = self.shape.heads, self.shape.head_dim
        h = rms_norm(x, self.attn_norm).to(half)
        qkv = h @ torch.cat((self.q, self.k, self.v)).to(half).T
        q, k, v = qkv.view(batch, length, 3, heads, head_dim).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if x.is_cuda:
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:  # at ~100 tokens a row this is faster on a CPU than the fused kernel, above all backwards
            scores = (q @ k.transpose(-1, -2)).float() * head_dim**-0.5 + mask
            mixed = scores.softmax(-1).to(half) @ v
        x = x + mixed.transpose(1, 2).reshape(batch, length, dim) @ self.o.to(half).T
        h = rms_norm(x, self.ffn_norm).to(half)
        gate, up = (h @ torch.cat((self.gate, self.up)).to(half).T).chunk(2, -1)
        return x + (functional.silu(gate) * up) @ self.down.to(half).T


class Nano(nn.Module):
    """A Llama with tied embeddings. `forward` gives hidden states; `logits` the whole way, for checks."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.randn(VOCAB_SIZE, shape.dim) * 0.02)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.ones(shape.dim))

    def forward(self, ids: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """Hidden states before the head.

        Args:
            ids: int64 [batch, length].
            cos, sin: [length, head_dim / 2] of `rotation`; their dtype is that of the matrix products.
            mask: float32 [length, length] of `causal_mask`.

        Returns:
            [batch, length, dim], of the dtype of `cos`.
        """
        x = self.embedding[ids]
        for block in self.blocks:
            x = block(x, cos, sin, mask, cos.dtype)
        return rms_norm(x, self.norm).to(cos.dtype)

    @torch.no_grad()
    def logits(self, ids: Tensor) -> Tensor:
        """Float32 logits [batch, length, vocabulary], computed in float32 throughout."""
        cos, sin = rotation(ids.shape[1], self.shape.head_dim, torch.float32, ids.device)
        return self(ids, cos, sin, causal_mask(ids.shape[1], ids.device)) @ self.embedding.T


def _matrix(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns) * 0.5 * columns**-0.5)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """`x` over its root mean square along the last axis, times `weight`; float32."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS) * weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of [..., length, head_dim]; the pairs are (i, i + head_dim / 2)."""
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def rotation(length: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [length, head_dim / 2] for positions 0 to length - 1."""
    frequency = ROPE_BASE ** (-torch.arange(0, head_dim, 2, device=device) / head_dim)
    angle = torch.arange(length, device=device)[:, None] * frequency
    return angle.cos().to(dtype), angle.sin().to(dtype)


def causal_mask(length: int, device: torch.device) -> Tensor:
    """Float32 [length, length]: 0 where a position may look, -inf where it may not."""
    return torch.full((length, length), float("-inf"), device=device).triu(1)


class WeightedCrossEntropy(torch.autograd.Function):
    """Sum of weighted cross entropies; the gradient is made on the way, so no chunk of logits is kept.

    `apply(x, embedding, targets, weights)`: x [n, dim] and embedding [vocabulary, dim] of one dtype, targets int64
    [n], weights float32 [n]; the result is a float32 scalar.
    """

    CHUNK = 512

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, x: Tensor, embedding: Tensor, targets: Tensor, weights: Tensor
    ) -> Tensor:
        size = WeightedCrossEntropy.CHUNK
        x_grad = torch.empty_like(x)
        embedding_grad = torch.zeros_like(embedding, dtype=torch.float32)
        total = torch.zeros((), device=x.device)
        for start in range(0, x.shape[0], size):
            rows = slice(start, start + size)
            target, weight = targets[rows, None], weights[rows, None]
            p = (x[rows] @ embedding.T).float()
            lse = p.logsumexp(1, keepdim=True)
            total += ((lse - p.gather(1, target)) * weight).sum()
            p.sub_(lse).exp_()
            p.scatter_add_(1, target, torch.full_like(weight, -1.0))
            grad = p.mul_(weight).to(x.dtype)
            x_grad[rows] = grad @ embedding
            embedding_grad += grad.T @ x[rows]
        ctx.save_for_backward(x_grad, embedding_grad)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, scale: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        x_grad, embedding_grad = ctx.saved_tensors  # type: ignore[attr-defined]
        return x_grad * scale.to(x_grad.dtype), (embedding_grad * scale).to(x_grad.dtype), None, None
