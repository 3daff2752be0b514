"""Colour fixes: the result keeps its detail and takes its colours from the picture that it was made of.

They work on some rows at a time, so that nothing beside the result is whole in floating point.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

ReadRows = Callable[[slice], Tensor]  # these rows of a picture, (1, 3, H, W) in 0..1
Moments = tuple[Tensor, Tensor]  # mean and deviation of each channel

WAVELET_LEVELS = 5
WAVELET_REACH = 2**WAVELET_LEVELS - 1  # rows around that bear on a row's coarsest band
BINOMIAL = (0.25, 0.5, 0.25)
VARIANCE_FLOOR = 1e-5  # on the variance, so that a flat picture has a deviation to divide by


def fix_colors(kind: str | None, result: Tensor, source: ReadRows) -> ReadRows:
    """The result (1, 3, H, W) with the colours of `source`."""
    if kind in (None, "none"):
        return lambda rows: result[:, :, rows]
    height = result.shape[2]
    if kind == "adain":
        own, wanted = _moments(result), _moments(source(slice(0, height)))
        return lambda rows: _moved(result[:, :, rows], own, wanted).clamp(0, 1)

    def rows_of_wavelet(rows: slice) -> Tensor:
        seen = slice(max(0, rows.start - WAVELET_REACH), min(height, rows.stop + WAVELET_REACH))
        found = fix_colors_by_wavelet(result[:, :, seen], source(seen)).clamp(0, 1)
        return found[:, :, rows.start - seen.start : rows.stop - seen.start]

    return rows_of_wavelet


def fix_colors_by_wavelet(result: Tensor, source: Tensor) -> Tensor:
    """All but the coarsest of the result's bands, upon the coarsest of the source's."""
    return result - blur_coarsest(result) + blur_coarsest(source)


def fix_colors_by_adain(result: Tensor, source: Tensor) -> Tensor:
    """The result with each channel's mean and deviation moved to the source's."""
    return _moved(result, _moments(result), _moments(source))


def blur_coarsest(picture: Tensor) -> Tensor:
    """The coarsest band: five binomial blurs, each twice as wide as the one before."""
    taps = torch.tensor(BINOMIAL, dtype=picture.dtype, device=picture.device)
    kernel = (taps[:, None] * taps).expand(picture.shape[1], 1, 3, 3).contiguous()
    for level in range(WAVELET_LEVELS):
        reach = 2**level
        edged = pad(picture, (reach, reach, reach, reach), mode="replicate")
        picture = conv2d(edged, kernel, groups=picture.shape[1], dilation=reach)
    return picture


def _moved(result: Tensor, own: Moments, wanted: Moments) -> Tensor:
    return (result - own[0]) / own[1] * wanted[1] + wanted[0]


def _moments(picture: Tensor) -> Moments:
    variance, mean = torch.var_mean(picture, dim=(2, 3), keepdim=True)
    return mean, (variance + VARIANCE_FLOOR).sqrt()
