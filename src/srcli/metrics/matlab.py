"""MATLAB's bicubic resize and luma, on which the published figures of super-resolution rest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Y_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255


def matlab_y(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """Y of BT.601 as rgb2ycbcr has it, 16..235, from RGB levels 0..255; not rounded."""
    return np.asarray(16 + rgb.astype(np.float64) @ _Y_WEIGHTS)


def matlab_bicubic(pixels: NDArray[Any], size: tuple[int, int], *, antialias: bool = True) -> NDArray[Any]:
    """What imresize(pixels, size, 'bicubic') computes, `size` being (width, height).

    Integer levels are computed in float32 and rounded once, at the end. Float arrays keep their dtype.
    """
    is_integer = pixels.dtype.kind in "ui"
    values = pixels.astype(np.float32) if is_integer else pixels
    for axis, length in ((0, size[1]), (1, size[0])):
        values = _resize_axis(values, axis, length, antialias)
    if not is_integer:
        return values
    top = np.iinfo(pixels.dtype).max
    return np.asarray(np.floor(values.clip(0, top) + 0.5), pixels.dtype)  # halves go up, as MATLAB rounds


def reduce_bicubic(pixels: NDArray[Any], scale: int) -> NDArray[Any]:
    """A test set's small picture: cropped at the right and below to a multiple of `scale`, then reduced."""
    width, height = pixels.shape[1] // scale, pixels.shape[0] // scale
    return matlab_bicubic(pixels[: height * scale, : width * scale], (width, height))


def bicubic_taps(length: int, new_length: int, antialias: bool) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each new sample the indices of the old ones it is made of and their weights, both (new_length, taps)."""
    scale = new_length / length
    stretch = min(scale, 1.0) if antialias else 1.0
    reach = 2 / stretch
    center = (np.arange(new_length) + 0.5) / scale - 0.5
    first = np.floor(center - reach).astype(np.int64)
    indices = first[:, None] + np.arange(math.ceil(2 * reach) + 2)
    weights = _cubic((center[:, None] - indices) * stretch)
    weights /= weights.sum(1, keepdims=True)
    used = (weights != 0).any(0)
    return _mirror(indices[:, used], length), weights[:, used]


def _resize_axis(values: NDArray[Any], axis: int, new_length: int, antialias: bool) -> NDArray[Any]:
    if values.shape[axis] == new_length:
        return values
    indices, weights = bicubic_taps(values.shape[axis], new_length, antialias)
    along = [1] * values.ndim
    along[axis] = new_length
    shape = list(values.shape)
    shape[axis] = new_length
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
    """Indices beyond an edge, reflected so that the edge sample comes twice."""
    indices = indices % (2 * length)
    return np.minimum(indices, 2 * length - 1 - indices)
