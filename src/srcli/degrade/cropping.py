"""Random flips and crops of training pictures."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad

from srcli.degrade.draws import Draws


def flip_half(picture: Tensor, draws: Draws, name: str = "u_hflip") -> Tensor:
    """Mirror left to right with a probability of 0.5."""
    return picture.flip(-1) if draws.uniform(name) < 0.5 else picture


def crop_randomly(picture: Tensor, side: int, draws: Draws, name: str = "") -> Tensor:
    """A random square; sides that are too short are first padded by reflection. Draws nothing if there is no choice."""
    height, width = picture.shape[-2:]
    right, below = max(0, side - width), max(0, side - height)
    if right or below:
        picture = pad(picture, (0, right, 0, below), mode="reflect")
        height, width = picture.shape[-2:]
    if height == width == side:
        return picture
    top = draws.integer(f"{name}top", height - side)
    left = draws.integer(f"{name}left", width - side)
    return picture[..., top : top + side, left : left + side]
