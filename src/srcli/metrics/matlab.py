"""MATLAB's bicubic resize and luma, which published figures of super-resolution use."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.bands import split_rows

_Y_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255


def matlab_y(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """Y of BT.601 as in rgb2ycbcr, 16..235, from RGB levels 0..255; not rounded."""
    return np.asarray(16 + rgb.astype(np.float64) @ _Y_WEIGHTS)


def matlab_bicubic(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """What imresize(pixels, size, 'bicubic') computes, `size` being (width, height).

    Integer levels are computed in float32 and rounded once, at the end. Float arrays keep their dtype.
    """
    out = np.empty((size[1], size[0], *pixels.shape[2:]), pixels.dtype)
    for rows in split_rows(size[1], max(size[0], pixels.shape[1])):
        out[rows] = round_levels(matlab_rows(pixels, size, rows), pixels.dtype)
    return out


def matlab_rows(pixels: NDArray[Any], size: tuple[int, int], rows: slice) -> NDArray[np.floating[Any]]:
    """Some rows of the resized picture, not rounded."""
    needed = rows_needed(pixels.shape[0], size[1], rows)
    return matlab_rows_of_part(pixels[needed], needed.start, pixels.shape[0], size, rows)


def rows_needed(height: int, new_height: int, rows: slice) -> slice:
    """The old rows that these new rows depend on."""
    indices = bicubic_taps(height, new_height)[0][rows]
    return slice(int(indices.min()), int(indices.max()) + 1)


def matlab_rows_of_part(
    part: NDArray[Any], first: int, height: int, size: tuple[int, int], rows: slice
) -> NDArray[np.floating[Any]]:
    """As `matlab_rows`, from a part of the old picture that begins at row `first` of `height`."""
    indices, weights = bicubic_taps(height, size[1])
    part = part if part.dtype.kind == "f" else part.astype(np.float32)
    tall = _weigh(part, 0, indices[rows] - first, weights[rows])
    return _weigh(tall, 1, *bicubic_taps(part.shape[1], size[0]))


def round_levels(values: NDArray[np.floating[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Integer levels, halves rounded up as in MATLAB; float values unchanged."""
    if dtype.kind not in "ui":
        return values.astype(dtype, copy=False)
    return np.asarray(np.floor(values.clip(0, np.iinfo(dtype).max) + 0.5), dtype)


def reduce_bicubic(pixels: NDArray[Any], scale: int) -> NDArray[Any]:
    """A test set's small picture: cropped at the right and below to a multiple of `scale`, then reduced."""
    width, height = pixels.shape[1] // scale, pixels.shape[0] // scale
    return matlab_bicubic(pixels[: height * scale, : width * scale], (width, height))


def bicubic_taps(length: int, new_length: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each new sample the indices and weights of the old samples, both (new_length, taps)."""
    scale = new_length / length
    stretch = min(scale, 1.0)
    reach = 2 / stretch
    center = (np.arange(new_length) + 0.5) / scale - 0.5
    first = np.floor(center - reach).astype(np.int64)
    indices = first[:, None] + np.arange(math.ceil(2 * reach) + 2)
    weights = _cubic((center[:, None] - indices) * stretch)
    weights /= weights.sum(1, keepdims=True)
    used = (weights != 0).any(0)
    return _mirror(indices[:, used], length), weights[:, used]


def _weigh(
    values: NDArray[np.floating[Any]], axis: int, indices: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.floating[Any]]:
    """Weighted sums of samples along an axis, tap by tap, which needs less memory than one matrix."""
    if indices.shape[1] == 1:  # the size does not change
        return values.take(indices[:, 0], axis)
    along = [1] * values.ndim
    along[axis] = len(indices)
    shape = list(values.shape)
    shape[axis] = len(indices)
    out = np.zeros(shape, values.dtype)
    for index, weight in zip(indices.T, weights.T.astype(values.dtype), strict=True):
        out += weight.reshape(along) * values.take(index, axis)
    return out


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -1/2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _mirror(indices: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Indices beyond an edge, reflected so that the edge sample is repeated."""
    indices = indices % (2 * length)
    return np.minimum(indices, 2 * length - 1 - indices)
