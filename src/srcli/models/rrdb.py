"""Residual in residual dense blocks (RRDB, Wang et al. 2018), for PASD's ControlNet and StableSR's fusion."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

INITIAL_GAIN = 0.1  # scale of the Kaiming initialization


class Dense(nn.Module):
    """Five densely connected convolutions; their result is added with factor 0.2."""

    conv5: nn.Conv2d

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for index in range(1, 5):
            self.add_module(f"conv{index}", nn.Conv2d(width + (index - 1) * growth, growth, 3, padding=1))
        self.conv5 = nn.Conv2d(width + 4 * growth, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = x
        for index in range(1, 5):
            new = leaky_relu(self.get_submodule(f"conv{index}")(features), 0.2)
            features = torch.cat([features, new], dim=1)
        residual: Tensor = self.conv5(features)
        return residual * 0.2 + x


class Rrdb(nn.Module):
    """Three dense blocks with a residual connection around them."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (Dense(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return residual * 0.2 + x


@torch.no_grad()
def initialize_rrdb(module: nn.Module) -> None:
    """ESRGAN's initialization of all dense blocks inside: Kaiming times 0.1, so that they start near the identity."""
    for block in (part for part in module.modules() if isinstance(part, Dense)):
        for conv in (part for part in block.modules() if isinstance(part, nn.Conv2d)):
            nn.init.kaiming_normal_(conv.weight).mul_(INITIAL_GAIN)
            if conv.bias is not None:
                conv.bias.zero_()
