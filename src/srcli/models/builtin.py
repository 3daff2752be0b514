"""The built-in network: convolutions at the input's resolution, two output heads, and a damage estimator.

A shared trunk is conditioned on the damage of the whole picture. The faithful head is trained with a pixel loss, so
that it predicts the mean of all sharp pictures that fit the input; the crisp head is trained on a large model's output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

UPSCALE_FACTOR = 4
"""Result pixels per cell. A cell is one input pixel, or `fold` x `fold` of them."""
DETAIL_GAIN = 8.0
DAMAGES = ("blur", "noise", "colour noise", "JPEG")
"""The outputs of the estimator, each from 0 (none) to about 1 (heavy)."""
MOST_DAMAGE = 2.0
"""The largest damage that the network was trained with."""


@dataclass(frozen=True, slots=True)
class BuiltinShape:
    """The sizes of the network."""

    fold: int = 1
    width: int = 48
    blocks: int = 10
    faithful_blocks: int = 2
    crisp_blocks: int = 3
    estimator: int = 24

    @property
    def scale(self) -> int:
        """Result pixels per input pixel."""
        return UPSCALE_FACTOR // self.fold


class Ends(NamedTuple):
    """The outputs of both heads, RGB in about 0..1."""

    faithful: Tensor
    crisp: Tensor


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class ModulatedBlock(nn.Module):
    """Residual block whose inner channels are scaled and shifted by the damage (FiLM)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)
        with torch.no_grad():
            self.second.weight.mul_(0.1)
            self.second.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        inner = self.first(x) * (1 + scale) + shift
        out: Tensor = x + self.second(F.silu(inner))
        return out


class End(nn.Module):
    """An output head: a few blocks, then a sub-pixel convolution."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ModulatedBlock(width) for _ in range(blocks))
        self.out = _conv(width, 3 * UPSCALE_FACTOR**2)

    def forward(self, x: Tensor, film: list[tuple[Tensor, Tensor]]) -> Tensor:
        for block, (scale, shift) in zip(self.blocks, film, strict=True):
            x = block(x, scale, shift)
        return F.pixel_shuffle(self.out(x), UPSCALE_FACTOR)


class DamageEstimator(nn.Module):
    """Estimates the four damages from the mean of local features, so that crops of a picture suffice."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.local = nn.Sequential(
            _conv(inputs, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.SiLU(),
        )
        self.judge = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, len(DAMAGES)))

    def observe(self, cells: Tensor) -> Tensor:
        """Mean local features (N, 2 * width) of a crop."""
        features: Tensor = self.local(cells)
        return features.mean((2, 3))

    def conclude(self, features: Tensor) -> Tensor:
        """The damage (N, 4) from mean local features."""
        damage: Tensor = F.softplus(self.judge(features))
        return damage


class Builtin(nn.Module):
    """Maps a picture (N, 3, H, W) in 0..1 to both outputs, `shape.scale` times as large."""

    def __init__(self, shape: BuiltinShape) -> None:
        super().__init__()
        self.shape = shape
        inputs, width = 3 * shape.fold**2, shape.width
        self.estimator = DamageEstimator(inputs, shape.estimator)
        modulated = shape.blocks + shape.faithful_blocks + shape.crisp_blocks
        self.film = nn.Sequential(nn.Linear(len(DAMAGES), 48), nn.SiLU(), nn.Linear(48, modulated * 2 * width))
        self.head = _conv(inputs, width)
        self.trunk = nn.ModuleList(ModulatedBlock(width) for _ in range(shape.blocks))
        self.fuse = _conv(width, width)
        self.faithful, self.crisp = End(width, shape.faithful_blocks), End(width, shape.crisp_blocks)

    def cells(self, picture: Tensor) -> Tensor:
        """The picture at the network's resolution, with `fold` x `fold` pixels as channels."""
        return F.pixel_unshuffle(picture, self.shape.fold) if self.shape.fold > 1 else picture

    def estimate(self, picture: Tensor) -> Tensor:
        """The damage (N, 4) of whole pictures."""
        return self.estimator.conclude(self.observe(picture))

    def observe(self, picture: Tensor) -> Tensor:
        """The estimator's features of a crop, computed from its high frequencies, where damage is visible."""
        smooth = F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="replicate"), 3, 1)
        return self.estimator.observe(self.cells(DETAIL_GAIN * (picture - smooth)))

    def modulation(self, damage: Tensor) -> list[tuple[Tensor, Tensor]]:
        """FiLM scale and shift (N, width, 1, 1) of each block, trunk first."""
        film: Tensor = self.film(damage)
        parts = film.view(len(film), -1, 2, self.shape.width, 1, 1)
        return [(parts[:, i, 0], parts[:, i, 1]) for i in range(parts.shape[1])]

    def encode(self, picture: Tensor, film: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The features that both heads share."""
        x = first = self.head(self.cells(picture))
        for block, (scale, shift) in zip(self.trunk, film, strict=False):
            x = block(x, scale, shift)
        return F.silu(self.fuse(x) + first)

    def draw_faithful(self, features: Tensor, film: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The faithful head's residual to the enlarged input."""
        first = self.shape.blocks
        added: Tensor = self.faithful(features, film[first : first + self.shape.faithful_blocks])
        return added

    def draw_crisp(self, features: Tensor, film: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The crisp head's residual to the enlarged input."""
        added: Tensor = self.crisp(features, film[self.shape.blocks + self.shape.faithful_blocks :])
        return added

    def enlarge(self, picture: Tensor) -> Tensor:
        return F.interpolate(picture, scale_factor=float(self.shape.scale), mode="bilinear", align_corners=False)

    def forward(self, picture: Tensor, damage: Tensor) -> Ends:
        film = self.modulation(damage)
        features, base = self.encode(picture, film), self.enlarge(picture)
        return Ends(base + self.draw_faithful(features, film), base + self.draw_crisp(features, film))
