"""A result that is its input when it is reduced again: what was sampled may only fill in what the input leaves open."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.bands import split_rows
from srcli.imaging.picture import AnyPixels
from srcli.metrics.matlab import matlab_rows, matlab_rows_of_part, round_levels, rows_needed

Correction = NDArray[np.float32]
NEAR_ENOUGH = 1.0  # level
MOST_ROUNDS = 40
VISIBLE = 1.5  # levels: from here on the reduced result, rounded, is off by more than one


def make_consistent(result: AnyPixels, source: AnyPixels) -> float:
    """Change the result, in place, to the nearest picture that MATLAB's bicubic reduces to the source.

    Returns the largest deviation left, in levels. It is below one where the source can be met at all: pixels of black
    and white in turn cannot, since no picture within the range of levels reduces to them.

    Nearest means by squared differences, under two conditions: the reduced picture, and the range of levels. So it is
    found by dual ascent: what the reduced result lacks adds up in a correction of the source's size, which is enlarged
    and added to the result. (Nesterov's momentum halves the number of rounds.)
    """
    correction = np.zeros(source.shape, np.float32)
    ahead, worst = correction, np.inf
    for turn in range(MOST_ROUNDS):
        lacking = _find_lacking(result, ahead, source)
        worst = float(np.abs(lacking).max())
        if worst <= NEAR_ENOUGH:
            break
        before, correction = correction, ahead + lacking
        ahead = correction + turn / (turn + 3) * (correction - before)
    for rows in split_rows(result.shape[0], result.shape[1]):
        result[rows] = _corrected(result, ahead, rows)
    return worst


def _find_lacking(result: AnyPixels, correction: Correction, source: AnyPixels) -> Correction:
    """How much the source is above the reduced, corrected result."""
    size, height = (source.shape[1], source.shape[0]), result.shape[0]
    lacking = np.empty(source.shape, np.float32)
    for rows in split_rows(source.shape[0], result.shape[1] * height // source.shape[0]):
        needed = rows_needed(height, source.shape[0], rows)
        part = _corrected(result, correction, needed)
        lacking[rows] = source[rows] - matlab_rows_of_part(part, needed.start, height, size, rows)
    return lacking


def _corrected(result: AnyPixels, correction: Correction, rows: slice) -> AnyPixels:
    """Rows of the result with the enlarged correction: levels, as they will be written."""
    added = matlab_rows(correction, (result.shape[1], result.shape[0]), rows)
    return round_levels(result[rows] + added, result.dtype)
