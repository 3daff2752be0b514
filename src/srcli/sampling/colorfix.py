"""Colour fixes: keep the detail of the result and take the colours of its source.

They work on bands of rows, so that no whole picture beside the result is in memory as floats.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

ReadRows = Callable[[slice], Tensor]  # rows of a picture -> (1, 3, rows, W) in 0..1
Moments = tuple[Tensor, Tensor]  # mean and standard deviation of each channel

WAVELET_LEVELS = 5
WAVELET_REACH = 2**WAVELET_LEVELS - 1  # distance of the rows that influence a row's coarsest band
BINOMIAL = (0.25, 0.5, 0.25)
VARIANCE_FLOOR = 1e-5  # added to the variance, so that flat pictures cause no division by zero


def fix_colors(kind: str | None, result: Tensor, source: ReadRows) -> ReadRows:
    """The result (1, 3, H, W) with the colours of `source`, by rows."""
    if kind in (None, "none"):
        return lambda rows: result[:, :, rows]
    height = result.shape[2]
    if kind == "adain":
        own, target = _measure_moments(result), _measure_moments(source(slice(0, height)))
        return lambda rows: _match_moments(result[:, :, rows], own, target).clamp(0, 1)

    def rows_of_wavelet(rows: slice) -> Tensor:
        needed = slice(max(0, rows.start - WAVELET_REACH), min(height, rows.stop + WAVELET_REACH))
        fixed = fix_colors_by_wavelet(result[:, :, needed], source(needed)).clamp(0, 1)
        return fixed[:, :, rows.start - needed.start : rows.stop - needed.start]

    return rows_of_wavelet


def fix_colors_by_wavelet(result: Tensor, source: Tensor) -> Tensor:
    """The result with its coarsest wavelet band replaced by that of the source."""
    return result - blur_coarsest(result) + blur_coarsest(source)


def fix_colors_by_adain(result: Tensor, source: Tensor) -> Tensor:
    """The result with each channel's mean and standard deviation matched to the source's (AdaIN)."""
    return _match_moments(result, _measure_moments(result), _measure_moments(source))


def blur_coarsest(picture: Tensor) -> Tensor:
    """The coarsest band: WAVELET_LEVELS binomial blurs, each twice as wide as the one before."""
    taps = torch.tensor(BINOMIAL, dtype=picture.dtype, device=picture.device)
    kernel = (taps[:, None] * taps).expand(picture.shape[1], 1, 3, 3).contiguous()
    for level in range(WAVELET_LEVELS):
        reach = 2**level
        edged = pad(picture, (reach, reach, reach, reach), mode="replicate")
        picture = conv2d(edged, kernel, groups=picture.shape[1], dilation=reach)
    return picture


def _match_moments(result: Tensor, own: Moments, target: Moments) -> Tensor:
    return (result - own[0]) / own[1] * target[1] + target[0]


def _measure_moments(picture: Tensor) -> Moments:
    variance, mean = torch.var_mean(picture, dim=(2, 3), keepdim=True)
    return mean, (variance + VARIANCE_FLOOR).sqrt()
