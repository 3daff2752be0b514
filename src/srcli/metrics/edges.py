"""Metrics of edges and fine detail. Arrays are luma (H, W), 0..255."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.metrics.similarity import FloatArray

_BT601 = np.array([0.299, 0.587, 0.114])
_PREWITT = np.array([[1.0, 0, -1]] * 3) / 3
_GMSD_C = 170
_LEAST = 1e-9  # so that a flat truth does not divide by zero


def compute_full_range_luma(rgb: NDArray[Any]) -> FloatArray:
    """Y of BT.601 over the full range, 0..255."""
    return np.asarray(rgb @ _BT601, np.float64)


def compute_gmsd(result: FloatArray, truth: FloatArray) -> float:
    """Gradient magnitude similarity deviation (Xue et al. 2014): how much the errors at edges vary."""
    a, b = _gradient_magnitude(result), _gradient_magnitude(truth)
    return float(np.std((2 * a * b + _GMSD_C) / (a**2 + b**2 + _GMSD_C), ddof=1))


def _gradient_magnitude(x: FloatArray) -> FloatArray:
    """Prewitt's operator at half the size; pixels outside count as 0, as in the authors' program."""
    outside = cv2.BORDER_CONSTANT
    half = cv2.blur(x, (2, 2), anchor=(0, 0), borderType=outside)[::2, ::2]
    dx, dy = (cv2.filter2D(half, -1, kernel, borderType=outside) for kernel in (_PREWITT, _PREWITT.T))
    return np.asarray(np.hypot(dx, dy))


def gradient_energy(x: FloatArray) -> float:
    """Mean squared difference of neighbouring pixels, in rows and in columns."""
    return float(np.mean(np.diff(x, axis=0) ** 2) + np.mean(np.diff(x, axis=1) ** 2)) + _LEAST
