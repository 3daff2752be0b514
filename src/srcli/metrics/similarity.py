"""PSNR, SSIM and MS-SSIM. Arrays are (H, W) or (H, W, C); channels are averaged."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_LEAST_SIDE = SSIM_WINDOW * 2 ** (len(_SCALE_WEIGHTS) - 1)


def crop_border(pixels: NDArray[Any], border: int) -> NDArray[Any]:
    """Crop `border` pixels at each edge; published protocols crop as many as the scale."""
    return pixels[border : pixels.shape[0] - border, border : pixels.shape[1] - border]


def compute_psnr(result: NDArray[Any], truth: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = float(np.mean((result.astype(np.float64) - truth) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def compute_ssim(result: NDArray[Any], truth: NDArray[Any]) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window of 11x11, sigma 1.5, inside the picture."""
    luminance, structure = _ssim_parts(result.astype(np.float64), truth.astype(np.float64))
    return float(np.mean(luminance * structure))


def ms_ssim(result: NDArray[Any], truth: NDArray[Any]) -> float:
    """Multi-scale structural similarity (Wang et al. 2003), five scales. NaN below 176 pixels a side."""
    if min(result.shape[:2]) < MS_SSIM_LEAST_SIDE:
        return math.nan
    one, other = result.astype(np.float64), truth.astype(np.float64)
    product = 1.0
    for scale, weight in enumerate(_SCALE_WEIGHTS, 1):
        luminance, structure = _ssim_parts(one, other)
        similar = structure if scale < len(_SCALE_WEIGHTS) else luminance * structure
        product *= max(float(np.mean(similar)), 0.0) ** weight
        one, other = _halved(one), _halved(other)
    return product


def _ssim_parts(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """SSIM's luminance term, and its contrast and structure terms multiplied."""
    mean_a, mean_b = _window_mean(a), _window_mean(b)
    var_a, var_b = _window_mean(a * a) - mean_a**2, _window_mean(b * b) - mean_b**2
    covariance = _window_mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    return luminance, (2 * covariance + _C2) / (var_a + var_b + _C2)


def _window_mean(x: FloatArray) -> FloatArray:
    return np.asarray(
        crop_border(cv2.GaussianBlur(x, (SSIM_WINDOW, SSIM_WINDOW), SSIM_SIGMA), SSIM_WINDOW // 2), np.float64
    )


def _halved(x: FloatArray) -> FloatArray:
    """Means of 2x2; an odd last row or column is left out."""
    height, width = (side // 2 * 2 for side in x.shape[:2])
    x = x[:height, :width]
    return np.asarray((x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4)
