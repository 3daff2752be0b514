"""Losses of the two heads, and the discriminator (critic) of the crisp head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


def gradient_distance(result: Tensor, target: Tensor) -> Tensor:
    """L1 of horizontal and vertical differences."""
    difference = result - target
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()


def pixel_distance(result: Tensor, target: Tensor, edges: float) -> Tensor:
    """L1 of pixels, of their gradients (times `edges`), and of means over 16x16 pixels against colour drift."""
    drift = F.avg_pool2d(result - target, 16).abs().mean()
    return (result - target).abs().mean() + edges * gradient_distance(result, target) + drift


def colour_drift(result: Tensor, truth: Tensor) -> Tensor:
    """L1 of means over 48x48 pixels, against the truth, since teachers' outputs drift in colour."""
    return F.avg_pool2d(result - truth, min(48, truth.shape[-1])).abs().mean()


class Critic(nn.Module):
    """A patch discriminator with spectral norm, conditioned on the input picture."""

    def __init__(self) -> None:
        super().__init__()
        widths = (6, 48, 96, 192)
        layers: list[nn.Module] = []
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, 2, 1)), nn.LeakyReLU(0.2)]
        layers += [spectral_norm(nn.Conv2d(192, 192, 3, 1, 1)), nn.LeakyReLU(0.2)]
        layers += [spectral_norm(nn.Conv2d(192, 1, 3, 1, 1))]
        self.layers = nn.Sequential(*layers)

    def forward(self, picture: Tensor, small: Tensor) -> Tensor:
        condition = F.interpolate(small, size=picture.shape[-2:], mode="bilinear", align_corners=False)
        logits: Tensor = self.layers(torch.cat((picture, condition), 1) * 2 - 1)
        return logits.float()


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The relativistic loss of the critic: real pictures should score higher than results of the same input."""
    return F.softplus(fake - real).mean()


def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The relativistic loss of the crisp head."""
    return F.softplus(real.detach() - fake).mean()


def balanced_gradient(result: Tensor, parts: list[tuple[float, Tensor]]) -> Tensor:
    """The sum of the losses' gradients at `result`, each scaled to its weight times the norm of the first."""
    grads = [torch.autograd.grad(loss, result, retain_graph=True)[0] for _, loss in parts]
    norm = grads[0].norm()
    total = grads[0] * parts[0][0]
    for (weight, _), grad in zip(parts[1:], grads[1:], strict=True):
        total = total + grad * (weight * norm / (grad.norm() + 1e-12))
    return total
