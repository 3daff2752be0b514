"""Whether a result, reduced again, equals its input."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from srcli.metrics.matlab import matlab_bicubic
from srcli.metrics.similarity import compute_psnr


class Deviation(NamedTuple):
    """How much a reduced result differs from its input."""

    psnr: float  # dB
    worst: float  # levels
    place: tuple[int, int]  # (x, y) of the worst pixel, in the input


def measure_deviation(result: NDArray[Any], source: NDArray[Any]) -> Deviation:
    """Reduce the result to the source's size as MATLAB does, and compare. Both are RGB levels 0..255."""
    size = (source.shape[1], source.shape[0])
    reduced = matlab_bicubic(result.astype(np.float32), size).clip(0, 255)
    off = np.abs(reduced - source).max(-1)
    y, x = np.unravel_index(int(off.argmax()), off.shape)
    return Deviation(compute_psnr(reduced, source), float(off[y, x]), (int(x), int(y)))
