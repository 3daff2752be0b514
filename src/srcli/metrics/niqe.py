"""NIQE (Mittal et al. 2013): how far the statistics of a picture's blocks are from those of undamaged photographs.

The mean and covariance of those photographs' features are the authors' (`data/niqe.safetensors`, NOTICE).
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import load_file

from srcli.metrics.matlab import matlab_bicubic
from srcli.metrics.similarity import FloatArray

BLOCK = 96  # pixels of a side, at full size
_MODEL = Path(__file__).resolve().parent.parent / "data" / "niqe.safetensors"
_WINDOW, _SIGMA = (7, 7), 7 / 6
_ROUNDING = 1e-9  # levels
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # to a pixel's neighbours: right, below, and both diagonals


def compute_niqe(y: FloatArray) -> float:
    """Distance of levels 0..255 from the model of photographs. NaN if fewer than two blocks have any texture."""
    rows, columns = (side // BLOCK for side in y.shape)
    full = np.floor(y[: rows * BLOCK, : columns * BLOCK] + 0.5)
    if not full.size:
        return math.nan
    half = matlab_bicubic(full, (full.shape[1] // 2, full.shape[0] // 2))
    features = np.hstack([_describe_blocks(full, BLOCK), _describe_blocks(half, BLOCK // 2)])
    whole = features[~np.isnan(features).any(1)]
    if len(whole) < 2:
        return math.nan
    mean, covariance = load_model()
    off = mean - np.nanmean(features, axis=0)
    return float(np.sqrt(off @ np.linalg.pinv((covariance + np.cov(whole, rowvar=False)) / 2) @ off))


@cache
def load_model() -> tuple[FloatArray, FloatArray]:
    """Mean (36) and covariance (36, 36) of the features of undamaged photographs."""
    model = load_file(_MODEL)
    return model["mean"].astype(np.float64), model["covariance"].astype(np.float64)


def _describe_blocks(y: FloatArray, side: int) -> FloatArray:
    """18 features of each block: the shape and width of its coefficients, and four numbers of each of four products."""
    coefficients = _normalize_contrast(y)
    rows, columns = (length // side for length in y.shape)
    blocks = coefficients.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)
    shape, left, right = fit_aggd(blocks)
    features = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        shape, left, right = fit_aggd(blocks * np.roll(blocks, shift, axis=(1, 2)))
        features += [shape, (right - left) * _gamma(2 / shape) / _gamma(1 / shape), left, right]
    return np.stack(features, axis=1)


def _normalize_contrast(y: FloatArray) -> FloatArray:
    """Each level less the mean of its surroundings, in their deviations (MSCN coefficients).

    On flat ground that is 0: what rounding leaves there would have a sign, and be counted.
    """
    mean, energy = (cv2.GaussianBlur(x, _WINDOW, _SIGMA, borderType=cv2.BORDER_REPLICATE) for x in (y, y * y))
    off = np.where(np.abs(y - mean) < _ROUNDING, 0, y - mean)
    return np.asarray(off / (np.sqrt(np.abs(energy - mean**2)) + 1))


def fit_aggd(blocks: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Shape, left and right width of asymmetric generalised Gaussians (n, height, width), by moments.

    NaN where a block has not both signs.
    """
    flat = blocks.reshape(len(blocks), -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        left, right = (np.sqrt(((flat**2) * side).sum(1) / side.sum(1)) for side in (flat < 0, flat > 0))
        skew = left / right
        ratio = np.abs(flat).mean(1) ** 2 / (flat**2).mean(1) * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = np.where(np.isnan(ratio), np.nan, _find_shape(ratio))
    width = np.sqrt(_gamma(1 / shape) / _gamma(3 / shape))
    return shape, left * width, right * width


def _find_shape(ratio: FloatArray) -> FloatArray:
    """The shape whose ratio of moments is nearest, of those from 0.2 to 10 in steps of 0.001."""
    shapes, ratios = _tabulate_ratios()
    return np.asarray(shapes[np.searchsorted((ratios[1:] + ratios[:-1]) / 2, ratio)])


@cache
def _tabulate_ratios() -> tuple[FloatArray, FloatArray]:
    """Shapes and their squared mean magnitude as a share of the mean square; both ascend."""
    shapes = np.arange(200, 10001) / 1000
    return shapes, _gamma(2 / shapes) ** 2 / (_gamma(1 / shapes) * _gamma(3 / shapes))


def _gamma(x: FloatArray) -> FloatArray:
    return np.array([math.gamma(value) for value in x])
