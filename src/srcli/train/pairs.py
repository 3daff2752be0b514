"""Turn pictures into training pairs: enlarge small ones, mirror, crop, and degrade or desaturate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from srcli.degrade.chain import TrainingPair, degrade_pictures
from srcli.degrade.cropping import crop_randomly, flip_half
from srcli.degrade.draws import Draws
from srcli.degrade.settings import Degradation
from srcli.train.pictures import to_levels, to_unit

MARGIN = 0.02  # small pictures are enlarged to a crop's side plus this share
PairMaker = Callable[[Tensor, Draws], TrainingPair]
"""Maps a whole picture (1, 3, h, w) in 0..1 to a target and the model's input."""


@dataclass(frozen=True)
class DegradedPairs:
    """A randomly mirrored crop, and a degraded version of it."""

    side: int
    degradation: Degradation

    def __call__(self, picture: Tensor, draws: Draws) -> TrainingPair:
        return degrade_pictures(_crop(picture, self.side, draws), self.degradation, draws)


@dataclass(frozen=True)
class GrayPairs:
    """A randomly mirrored crop in colour, and in grey: for colorizing."""

    side: int

    def __call__(self, picture: Tensor, draws: Draws) -> TrainingPair:
        target = _crop(picture, self.side, draws)
        return TrainingPair(target, grey_condition(target))


@dataclass(frozen=True)
class EnlargedPairs:
    """A randomly mirrored crop, and the same reduced and enlarged again by bicubic resizes: SR3's pairs."""

    side: int
    scale: int

    def __call__(self, picture: Tensor, draws: Draws) -> TrainingPair:
        target = _crop(picture, self.side, draws)
        image = Image.fromarray(to_levels(target[0]))
        small = image.resize([self.side // self.scale] * 2, Image.Resampling.BICUBIC)
        large = small.resize(image.size, Image.Resampling.BICUBIC)
        return TrainingPair(target, to_unit(np.asarray(large))[None])


def _crop(picture: Tensor, side: int, draws: Draws) -> Tensor:
    if min(picture.shape[-2:]) < side:
        picture = to_unit(np.asarray(enlarge_small(Image.fromarray(to_levels(picture[0])), side)))[None]
    return flip_half(crop_randomly(picture, side, draws, "crop."), draws).contiguous()


def enlarge_small(image: Image.Image, side: int) -> Image.Image:
    """Enlarge a picture whose short side is less than `side` to slightly more than that."""
    short = min(image.size)
    if short >= side:
        return image
    factor = side / short + MARGIN
    return image.resize([math.ceil(length * factor) for length in image.size], Image.Resampling.BICUBIC)


def grey_condition(pictures: Tensor) -> Tensor:
    """Pillow's 8-bit luma in all three channels."""
    grey = [np.asarray(Image.fromarray(to_levels(picture)).convert("L").convert("RGB")) for picture in pictures]
    return torch.stack([to_unit(picture) for picture in grey])
