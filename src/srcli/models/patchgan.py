"""The PatchGAN discriminator (Isola et al. 2017), with its usual key names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 64


class PatchGan(nn.Module):
    """One logit per patch of a picture in -1..1, high if it looks real. Batch norm uses batch statistics."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for times, stride in ((2, 2), (4, 2), (8, 1)):
            conv = nn.Conv2d(width * times // 2, width * times, 4, stride, 1, bias=False)
            layers += [conv, nn.BatchNorm2d(width * times), nn.LeakyReLU(0.2)]
        self.main = nn.Sequential(*layers, nn.Conv2d(width * 8, 1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)  # type: ignore[no-any-return]


@torch.no_grad()
def initialize_weights(net: PatchGan, generator: torch.Generator | None = None) -> PatchGan:
    """Normal weights with standard deviation 0.02, mean 0 for convolutions and 1 for norms. Conv biases are kept."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.normal_(0.0, 0.02, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.normal_(1.0, 0.02, generator=generator)
            module.bias.zero_()
    return net
