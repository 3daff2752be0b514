"""SR3's training step: the absolute error of the predicted noise at a random noise level."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from srcli.models.sr3_unet import SR3UNet, noise_loss
from srcli.train.systems.base import StepModule


class SR3Inputs(NamedTuple):
    """Targets and conditions in -1..1, the noise, the square root of alpha bar, and the network's level input."""

    target: Tensor
    condition: Tensor
    noise: Tensor
    keep: Tensor
    when: Tensor


class SR3Step(StepModule):
    """The loss of a batch; the whole network is trained."""

    def __init__(self, unet: SR3UNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, inputs: SR3Inputs) -> dict[str, Tensor]:
        loss = noise_loss(self.unet, inputs.target, inputs.condition, inputs.noise, inputs.keep, inputs.when)
        return {"loss": loss, "noise": loss}


@torch.no_grad()
def initialize_orthogonally(unet: SR3UNet) -> SR3UNet:
    """Orthogonal weights and zero biases; norms keep their default, the identity."""
    for module in unet.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(module.weight)
            if module.bias is not None:
                module.bias.zero_()
    return unet
