"""The scratch detector of Bringing Old Photos Back to Life (Wan et al. 2020): a U-Net with one logit per pixel.

Key names are the official ones. Every convolution uses reflection padding and keeps the size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

SCRATCH_SIDE_MULTIPLE = 16  # the input's sides must be multiples of it
LEVELS = 4
SLOPE = 0.2  # of the leaky ReLU
WEIGHT = "first.1.weight"  # its first size is the base width


@dataclass(frozen=True, slots=True)
class DetectorShape:
    """The width of the first level, which doubles at each of the four below it."""

    base: int = 64

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> DetectorShape:
        """From the official file's tensors. KeyError for another network's file."""
        return cls(state[WEIGHT].shape[0])


class ScratchDetector(nn.Module):
    """Logits of damage for a grey picture in -1..1 whose sides are multiples of SCRATCH_SIDE_MULTIPLE, at least two."""

    def __init__(self, shape: DetectorShape) -> None:
        super().__init__()
        widths = [shape.base << level for level in range(LEVELS + 1)]
        self.shape = shape
        self.first = nn.Sequential(*_convolution(1, widths[0], 7), nn.LeakyReLU(SLOPE))
        self.down_sample = nn.ModuleList(_build_reduction(width) for width in widths[:-1])
        self.down_path = nn.ModuleList(DoubleConvolution(width, 2 * width) for width in widths[:-1])
        self.up_path = nn.ModuleList(UpBlock(2 * width, width) for width in reversed(widths[:-1]))
        self.last = nn.Sequential(*_convolution(widths[0], 1, 3))

    def forward(self, grey: Tensor) -> Tensor:
        x, skips = self.first(grey), []
        for reduce, block in zip(self.down_sample, self.down_path, strict=True):
            skips.append(x)
            x = block(reduce(x))
        for block in self.up_path:
            x = block(x, skips.pop())
        out: Tensor = self.last(x)
        return out


class DoubleConvolution(nn.Module):
    """Two convolutions, each with norm and activation; the first changes the width."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *_convolution(inner, outer, 3),
            nn.BatchNorm2d(outer),
            nn.LeakyReLU(SLOPE),
            *_convolution(outer, outer, 3),
            nn.BatchNorm2d(outer),
            nn.LeakyReLU(SLOPE),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)
        return out


class UpBlock(nn.Module):
    """Upsampling by 2 to half the width, concatenated with the skip connection of that size."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        twice = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.up = nn.Sequential(twice, *_convolution(inner, outer, 3))
        self.conv_block = DoubleConvolution(inner, outer)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        out: Tensor = self.conv_block(torch.cat((self.up(x), skip), 1))
        return out


class BlurDown(nn.Module):
    """Downsampling by 2 after a blur, whose constant kernel is stored in the file."""

    filt: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("filt", torch.empty(width, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), self.filt, stride=2, groups=x.shape[1])


def _convolution(inner: int, outer: int, side: int) -> tuple[nn.Module, nn.Module]:
    return nn.ReflectionPad2d(side // 2), nn.Conv2d(inner, outer, side)


def _build_reduction(width: int) -> nn.Sequential:
    return nn.Sequential(*_convolution(width, width, 3), nn.BatchNorm2d(width), nn.LeakyReLU(SLOPE), BlurDown(width))


def fold_norms(network: ScratchDetector) -> ScratchDetector:
    """The same network with each batch norm folded into its convolution, which saves a third of the memory traffic."""
    for part in [part for part in network.modules() if isinstance(part, nn.Sequential)]:
        for index, norm in enumerate(part):
            if isinstance(norm, nn.BatchNorm2d):
                convolution = part[index - 1]
                assert isinstance(convolution, nn.Conv2d)
                part[index - 1], part[index] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return network
