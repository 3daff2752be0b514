"""Statistics over many pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE = 0.95
_CELLS = 1 << 20  # resampled numbers held at a time


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean difference of two methods over the same pictures, with its bootstrap interval."""

    mean: float
    low: float
    high: float
    pictures: int


def mean_of_known(values: Sequence[float]) -> float:
    """The mean without NaN; NaN if there is no other value."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def median_of_known(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.median(known)) if known else math.nan


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """First minus second, picture by picture; percentile bootstrap. None below two pictures with finite numbers."""
    gaps = np.array([a - b for a, b in zip(first, second, strict=True) if math.isfinite(a) and math.isfinite(b)])
    if len(gaps) < 2:
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(_resampled_means(gaps), [tail, 1 - tail])
    return Difference(float(gaps.mean()), float(low), float(high), len(gaps))


def _resampled_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    at_once = max(1, _CELLS // len(values))
    counts = [min(at_once, RESAMPLES - start) for start in range(0, RESAMPLES, at_once)]
    return np.concatenate([values[rng.integers(len(values), size=(n, len(values)))].mean(1) for n in counts])
