"""SR3's training step: the absolute error of the predicted noise at a random noise level."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from srcli.models.sr3_unet import SR3UNet, noise_loss


class SR3Inputs(NamedTuple):
    """Targets and enlarged conditions in -1..1, the noise, how much of the target is kept, and what the net is told."""

    target: Tensor
    condition: Tensor
    noise: Tensor
    keep: Tensor
    when: Tensor


class SR3Step(nn.Module):
    """The loss of a batch; the whole network learns."""

    def __init__(self, unet: SR3UNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, inputs: SR3Inputs) -> dict[str, Tensor]:
        loss = noise_loss(self.unet, inputs.target, inputs.condition, inputs.noise, inputs.keep, inputs.when)
        return {"loss": loss, "noise": loss}

    def close(self) -> None:
        """Nothing outlives a batch."""


@torch.no_grad()
def initialize_orthogonally(unet: SR3UNet) -> SR3UNet:
    """Orthogonal weights, zero biases; norms begin as the identity."""
    for module in unet.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(module.weight)
            if module.bias is not None:
                module.bias.zero_()
    return unet
