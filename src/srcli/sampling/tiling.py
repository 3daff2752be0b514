"""Tiles: their positions on a canvas and the weights of their elements."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from srcli.settings import Tiling

VARIANCE = 0.01  # of the Gaussian weight, relative to the tile's side squared; as in PASD and StableSR


class Tile(NamedTuple):
    """A rectangle of the canvas, in canvas elements."""

    top: int
    left: int
    height: int
    width: int

    def crop(self, tensor: Tensor, stride: int = 1) -> Tensor:
        """A view of this part of `tensor`, whose sides are `stride` times the canvas's."""
        top, left = self.top * stride, self.left * stride
        return tensor[..., top : top + self.height * stride, left : left + self.width * stride]


def pad_to_multiple(picture: Tensor, unit: int) -> Tensor:
    """Repeat the right and bottom edge until both sides are multiples of `unit`."""
    height, width = picture.shape[2:]
    return pad(picture, (0, -width % unit, 0, -height % unit), mode="replicate")


def find_origins(length: int, tile: int, overlap: int) -> list[int]:
    """Tile origins along one side, in equal strides; the last tile is moved back to end at the edge."""
    if tile >= length:
        return [0]
    stride = tile - overlap
    count = math.ceil((length - tile) / stride) + 1
    return [min(i * stride, length - tile) for i in range(count)]


def spread_origins(length: int, tile: int, count: int) -> list[int]:
    """Origins of `count` tiles along one side, evenly spread from edge to edge."""
    if count == 1:
        return [0]
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def lay_grid(height: int, width: int, tiling: Tiling) -> list[Tile]:
    """Square tiles in the order of PASD and StableSR: column by column."""
    side = min(tiling.size, height, width)
    if tiling.overlap >= side:
        tiling = Tiling(size=side, overlap=side - 1 if side > 1 else 0)
    return [
        Tile(top, left, side, side)
        for left in find_origins(width, side, tiling.overlap)
        for top in find_origins(height, side, tiling.overlap)
    ]


def gaussian_weight(height: int, width: int, half_up: bool = True) -> Tensor:
    """The weight of each element of a tile, float64.

    x is centred on (w - 1) / 2. PASD, StableSR and OSEDiff centre y on h / 2 (`half_up`), half an element further down,
    which changes their results; the other engines centre y like x.
    """
    y = torch.arange(height, dtype=torch.float64) - (height / 2 if half_up else (height - 1) / 2)
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2

    def bell(offset: Tensor, side: int) -> Tensor:
        return torch.exp(-offset.square() / (2 * VARIANCE * side * side)) / math.sqrt(2 * math.pi * VARIANCE)

    return bell(y, height)[:, None] * bell(x, width)[None, :]
