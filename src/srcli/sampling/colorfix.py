"""Colour fixes: the result keeps its detail and takes its colours from the picture that it was made of."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

LEVELS = 5
BINOMIAL = (0.25, 0.5, 0.25)
EPSILON = 1e-5  # on the variance, so that a flat picture has a deviation to divide by


def apply(kind: str, result: Tensor, source: Tensor) -> Tensor:
    """The result with the colours of `source`; both (1, 3, H, W) in 0..1."""
    if kind == "none":
        return result
    fixed = wavelet(result, source) if kind == "wavelet" else adain(result, source)
    return fixed.clamp(0, 1)


def wavelet(result: Tensor, source: Tensor) -> Tensor:
    """All but the coarsest of the result's bands, upon the coarsest of the source's."""
    return result - blurred(result) + blurred(source)


def adain(result: Tensor, source: Tensor) -> Tensor:
    """The result with each channel's mean and deviation moved to the source's."""
    mean, deviation = _moments(result)
    wanted_mean, wanted_deviation = _moments(source)
    return (result - mean) / deviation * wanted_deviation + wanted_mean


def blurred(picture: Tensor) -> Tensor:
    """The coarsest band: five binomial blurs, each twice as wide as the one before."""
    taps = torch.tensor(BINOMIAL, dtype=picture.dtype, device=picture.device)
    kernel = (taps[:, None] * taps).expand(picture.shape[1], 1, 3, 3).contiguous()
    for level in range(LEVELS):
        reach = 2**level
        edged = pad(picture, (reach, reach, reach, reach), mode="replicate")
        picture = conv2d(edged, kernel, groups=picture.shape[1], dilation=reach)
    return picture


def _moments(picture: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(picture, dim=(2, 3), keepdim=True)
    return mean, (variance + EPSILON).sqrt()
