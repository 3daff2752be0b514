"""Muon (momentum made orthogonal by Newton-Schulz iterations) for convolution weights, AdamW for the rest."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonal(matrix: Tensor, rounds: int = 5) -> Tensor:
    """Near to the closest matrix with equal singular values (of about 1)."""
    x = matrix.bfloat16()
    x = x.T if matrix.shape[0] > matrix.shape[1] else x
    x = x / (x.norm() + 1e-7)
    a, b, c = QUINTIC
    for _ in range(rounds):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).to(matrix.dtype)


class Muon(Optimizer):
    """One learning rate for both kinds: Muon's step is scaled to the size that Adam's would have."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "betas": (0.9, 0.99)})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                turn = _turned if param.ndim >= 2 and param.shape[0] > 1 else _adam
                param.add_(turn(param.grad, state, group), alpha=-group["lr"])


def _turned(grad: Tensor, state: dict[str, Tensor], group: dict[str, float]) -> Tensor:
    momentum = group["momentum"]
    mean = state.setdefault("mean", torch.zeros_like(grad))
    mean.lerp_(grad, 1 - momentum)
    flat = grad.lerp(mean, momentum).flatten(1)
    return (orthogonal(flat) * (0.2 * max(flat.shape) ** 0.5)).view_as(grad)


def _adam(grad: Tensor, state: dict[str, Tensor], group: dict[str, tuple[float, float]]) -> Tensor:
    first, second = group["betas"]
    mean, power = (state.setdefault(k, torch.zeros_like(grad)) for k in ("mean", "power"))
    count = state.setdefault("count", torch.zeros(()))
    count += 1
    mean.lerp_(grad, 1 - first)
    power.lerp_(grad * grad, 1 - second)
    scale = torch.sqrt(power / (1 - second**count)) + 1e-8
    return mean / (1 - first**count) / scale
