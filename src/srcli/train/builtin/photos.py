"""Sharp patches from photographs, which are kept on the training device as 8-bit integers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from srcli.degrade.draws import SeededDraws
from srcli.errors import PictureError
from srcli.imaging.picture import Pixels8
from srcli.imaging.read import read_picture
from srcli.train.builtin.lettering import draw_patch

DRAWN_SIDE = 384
DRAWN_SHARE = 0.1
"""Share of drawn patches, since lines and lettering are rare in a few hundred photographs."""


def is_held_out(path: Path) -> bool:
    """Whether a picture is in the tenth, chosen by a hash of the name, that is never trained on."""
    return hashlib.sha256(path.name.encode()).digest()[0] % 10 == 0


def decode_photo(path: Path) -> Pixels8 | PictureError:
    """The picture as 8-bit sRGB, upright; the error if it cannot be read."""
    try:
        pixels = read_picture(path, frames="first").pixels
    except PictureError as error:
        return error
    return pixels.astype(np.uint8) if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def draw_lettering(seed: int) -> Pixels8:
    """A drawn patch of lines, polygons, stripes or words."""
    return draw_patch(DRAWN_SIDE, np.random.default_rng((5, seed)))


@dataclass(frozen=True)
class Photographs:
    """Pictures (3, H, W) as 8-bit integers, all at least as large as a patch."""

    pictures: Sequence[Tensor]
    drawn: Sequence[Tensor]

    @classmethod
    def place(cls, photos: Sequence[Pixels8], drawings: Sequence[Pixels8], device: torch.device) -> Photographs:
        """Copy pictures to a device."""
        return cls([_planes(p, device) for p in photos], [_planes(p, device) for p in drawings])

    def cut_patches(self, count: int, side: int, draws: SeededDraws) -> Tensor:
        """Random sharp patches (count, 3, side, side) in 0..1; patches with detail are preferred."""
        zoom = 1.0 if draws.uniform("zoom.u") < 0.55 else draws.uniform("zoom", 1.0, 1.7)
        wide = min(round(side * zoom), min(min(p.shape[1:]) for p in self.pictures))
        wanted = round(count * (1 - DRAWN_SHARE)) if self.drawn else count
        candidates = _cut(self.pictures, round(count * 1.4), wide, draws)
        patches = _to_side(candidates[_pick_busy(candidates, wanted, draws)], side)
        if wanted == count:
            return patches
        lettering = _cut(self.drawn, count - wanted, min(wide, DRAWN_SIDE), draws)
        return torch.cat((patches, _to_side(lettering, side)))


def _cut(pictures: Sequence[Tensor], count: int, side: int, draws: SeededDraws) -> Tensor:
    areas = {index: math.sqrt(p.shape[1] * p.shape[2]) for index, p in enumerate(pictures)}
    cut = []
    for index in [draws.choice("patch.picture", areas) for _ in range(count)]:
        _, height, width = pictures[index].shape
        top, left = draws.integer("patch.top", height - side), draws.integer("patch.left", width - side)
        cut.append(pictures[index][:, top : top + side, left : left + side])
    return torch.stack(cut).float() / 255


def _planes(pixels: Pixels8, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).to(device)


def _to_side(patches: Tensor, side: int) -> Tensor:
    if patches.shape[-1] == side:
        return patches
    return F.interpolate(patches, size=(side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def _pick_busy(patches: Tensor, count: int, draws: SeededDraws) -> Tensor:
    """Indices of `count` patches, preferring those with detail to flat ones such as sky."""
    grey = patches[..., ::2, ::2].mean(1)
    detail = grey.diff(dim=1).abs().mean((1, 2)) + grey.diff(dim=2).abs().mean((1, 2))
    liking = detail.clamp(max=0.04) + draws.uniforms("patch.liking", len(patches), 0, 0.04)
    return liking.topk(count).indices


def rotate_and_flip(number: int, *batches: Tensor) -> list[Tensor]:
    """Apply the same of the eight rotations and flips to all batches."""
    rotated = [torch.rot90(batch, number % 4, (-2, -1)) for batch in batches]
    return [batch.flip(-1) for batch in rotated] if number >= 4 else rotated
