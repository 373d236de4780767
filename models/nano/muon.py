"""Muon, with its matrix products in a dtype that is fast on the machine at hand.

The rule is that of `torch.optim.Muon`, which always multiplies in bfloat16: on a processor without bfloat16 arithmetic
its step then takes three times as long as the gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum whose updates are orthogonalised (Jordan et al., 2024), with Nesterov's look ahead.

    Args:
        params: matrices.
        lr: learning rate; a matrix with more rows than columns gets sqrt(rows / columns) times as much.
        momentum: of the running mean of gradients.
        weight_decay: share of the learning rate by which weights shrink.
        dtype: of the matrix products.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, weight_decay: float, dtype: torch.dtype, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """One update of the weights from their gradients."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for p in group["params"]:
                mean = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p.grad))
                mean.lerp_(p.grad, 1 - momentum)
                update = orthogonal(p.grad.lerp(mean, momentum), self.dtype)
                p.mul_(1 - lr * group["weight_decay"])
                p.add_(update, alpha=-lr * sqrt(max(1.0, p.shape[0] / p.shape[1])))


def orthogonal(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """A matrix with the singular vectors of `matrix` and singular values near 1, by Newton and Schulz's iteration.

    Args:
        matrix: [rows, columns].
        dtype: of the products; the result has it too.
    """
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(dtype)
    x = x / x.norm().clamp(min=_EPS)
    for _ in range(_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
