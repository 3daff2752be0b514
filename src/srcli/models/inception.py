"""Inception-v3 (Szegedy et al. 2015) as FID uses it: TensorFlow's network of 2015-12-05, up to its last pooling."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, relu

INPUT_SIDE = 299
Kernel = int | tuple[int, int]
Branch = tuple[tuple[str, int, Kernel], ...]  # name, width and kernel of each convolution

_average = partial(avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_largest = partial(max_pool2d, kernel_size=3, stride=1, padding=1)
_halve = partial(max_pool2d, kernel_size=3, stride=2)


class ConvNorm(nn.Module):
    """Convolution, normalisation by stored statistics, ReLU."""

    def __init__(self, before: int, width: int, kernel: Kernel, stride: int = 1, *, pad: bool = True) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if pad else (0, 0)
        self.conv = nn.Conv2d(before, width, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv(x)), inplace=True)


class Mixed(nn.Module):
    """Branches side by side; the last pools. Branches that begin alike share those convolutions' weights."""

    def __init__(self, before: int, *branches: Branch, pooled: int = 0, largest: bool = False) -> None:
        """Without `pooled`, the width of the pooled branch, each branch ends by halving the picture."""
        super().__init__()
        self.paths = tuple(tuple(name for name, _, _ in branch) for branch in branches)
        self.pooled = pooled > 0
        self.pool = (_largest if largest else _average) if pooled else _halve
        for branch in branches:
            width = before
            for step, (name, after, kernel) in enumerate(branch, 1):
                halves = not pooled and step == len(branch)
                if not hasattr(self, name):
                    self.add_module(name, ConvNorm(width, after, kernel, 2 if halves else 1, pad=not halves))
                width = after
        if pooled:
            self.branch_pool = ConvNorm(before, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for path in self.paths:
            y = x
            for name in path:
                y = self.get_submodule(name)(y)
            found.append(y)
        y = self.pool(x)
        return torch.cat([*found, self.branch_pool(y) if self.pooled else y], 1)


def _mixed_5(before: int, pooled: int) -> Mixed:
    return Mixed(
        before,
        (("branch1x1", 64, 1),),
        (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
        (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
        pooled=pooled,
    )


def _mixed_6a() -> Mixed:
    double: Branch = (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3))
    return Mixed(288, (("branch3x3", 384, 3),), double)


def _mixed_6(inner: int) -> Mixed:
    wide, high = (1, 7), (7, 1)
    return Mixed(
        768,
        (("branch1x1", 192, 1),),
        (("branch7x7_1", inner, 1), ("branch7x7_2", inner, wide), ("branch7x7_3", 192, high)),
        (
            ("branch7x7dbl_1", inner, 1),
            ("branch7x7dbl_2", inner, high),
            ("branch7x7dbl_3", inner, wide),
            ("branch7x7dbl_4", inner, high),
            ("branch7x7dbl_5", 192, wide),
        ),
        pooled=192,
    )


def _mixed_7a() -> Mixed:
    seven: Branch = (
        ("branch7x7x3_1", 192, 1),
        ("branch7x7x3_2", 192, (1, 7)),
        ("branch7x7x3_3", 192, (7, 1)),
        ("branch7x7x3_4", 192, 3),
    )
    return Mixed(768, (("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)), seven)


def _mixed_7(before: int, *, largest: bool) -> Mixed:
    one: Branch = (("branch3x3_1", 384, 1),)
    two: Branch = (("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3))
    return Mixed(
        before,
        (("branch1x1", 320, 1),),
        (*one, ("branch3x3_2a", 384, (1, 3))),
        (*one, ("branch3x3_2b", 384, (3, 1))),
        (*two, ("branch3x3dbl_3a", 384, (1, 3))),
        (*two, ("branch3x3dbl_3b", 384, (3, 1))),
        pooled=192,
        largest=largest,
    )


class Inception(nn.Module):
    """Key names are those of the published checkpoint. It differs from other Inception-v3 in its pooled branches."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, 2, pad=False)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3, pad=False)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3, pad=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _mixed_5(192, 32), _mixed_5(256, 64), _mixed_5(288, 64)
        self.Mixed_6a = _mixed_6a()
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (_mixed_6(n) for n in (128, 160, 160, 192))
        self.Mixed_7a = _mixed_7a()
        self.Mixed_7b, self.Mixed_7c = _mixed_7(1280, largest=False), _mixed_7(2048, largest=True)

    def forward(self, rgb: Tensor) -> Tensor:
        """The 2048 features, (n, 2048), of RGB in 0..1, (n, 3, H, W), of any size."""
        size = (INPUT_SIDE, INPUT_SIDE)
        x = interpolate(rgb, size=size, mode="bilinear", align_corners=False) * 2 - 1
        for name, layer in self.named_children():
            x = layer(x)
            if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
                x = _halve(x)
        return x.mean((2, 3))
