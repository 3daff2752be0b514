"""LPIPS (Zhang et al. 2018): a perceptual distance from features of VGG16. Key names are the official ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
LPIPS_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Indices of the convolutions in VGG16's list of layers, by stage. ReLUs are between them, pools between stages."""
NORM_FLOOR = 1e-10


class Lpips(nn.Module):
    """The distance of pictures in -1..1, (n, 1, 1, 1). Without dropout, which only adds noise in training."""

    scaling_layer: Any
    net: Any

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256, 512, 512)) -> None:
        super().__init__()
        self.scaling_layer = nn.Module()
        self.scaling_layer.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.scaling_layer.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        self.net, before = nn.Module(), 3
        for index, (places, width) in enumerate(zip(LPIPS_STAGES, widths, strict=True)):
            self.net.add_module(f"slice{index + 1}", _stage(places, before, width, pool=index > 0))
            before = width
            weigh = nn.Module()
            weigh.model = nn.ModuleDict({"1": nn.Conv2d(width, 1, 1, bias=False)})
            self.add_module(f"lin{index}", weigh)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        total = one.new_zeros(len(one), 1, 1, 1)
        for index, (a, b) in enumerate(zip(self._features(one), self._features(other), strict=True)):
            weigh = self.get_submodule(f"lin{index}.model.1")
            total = total + weigh((_normalize(a) - _normalize(b)) ** 2).mean((2, 3), keepdim=True)
        return total

    def _features(self, x: Tensor) -> list[Tensor]:
        x, features = (x - self.scaling_layer.shift) / self.scaling_layer.scale, []
        for stage in self.net.children():
            x = stage(x)
            features.append(x)
        return features


def _stage(places: tuple[int, ...], before: int, width: int, pool: bool) -> nn.Sequential:
    stage = nn.Sequential()
    if pool:
        stage.add_module(str(places[0] - 1), nn.MaxPool2d(2, 2))
    for place in places:
        stage.add_module(str(place), nn.Conv2d(before, width, 3, padding=1))
        stage.add_module(str(place + 1), nn.ReLU())
        before = width
    return stage


def _normalize(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + NORM_FLOOR)


def build_lpips(state: Mapping[str, Tensor]) -> Lpips:
    """The network for a state dict, on the meta device."""
    widths = tuple(state[f"lin{index}.model.1.weight"].shape[1] for index in range(len(LPIPS_STAGES)))
    with torch.device("meta"):
        return Lpips(widths).eval()
