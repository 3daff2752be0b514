"""Residual in residual dense blocks (ESRGAN's RRDB): PASD cleans its input with them, StableSR mixes features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

INITIAL_GAIN = 0.1  # of Kaiming's weights


class Dense(nn.Module):
    """Five convolutions, each reading all before it; a fifth of the last is added."""

    conv5: nn.Conv2d

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for index in range(1, 5):
            self.add_module(f"conv{index}", nn.Conv2d(width + (index - 1) * growth, growth, 3, padding=1))
        self.conv5 = nn.Conv2d(width + 4 * growth, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for index in range(1, 5):
            new = leaky_relu(self.get_submodule(f"conv{index}")(seen), 0.2)
            seen = torch.cat([seen, new], dim=1)
        deep: Tensor = self.conv5(seen)
        return deep * 0.2 + x


class Rrdb(nn.Module):
    """Three dense blocks in a residual of their own."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (Dense(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        deep: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return deep * 0.2 + x


@torch.no_grad()
def initialize_rrdb(module: nn.Module) -> None:
    """ESRGAN's start for all blocks inside: Kaiming's, a tenth as large, so that they begin near the identity."""
    for block in (part for part in module.modules() if isinstance(part, Dense)):
        for conv in (part for part in block.modules() if isinstance(part, nn.Conv2d)):
            nn.init.kaiming_normal_(conv.weight).mul_(INITIAL_GAIN)
            if conv.bias is not None:
                conv.bias.zero_()
