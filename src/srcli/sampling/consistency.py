"""`--consistent`: change a result so that reducing it gives the input again, and sampling only adds missing detail."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.bands import split_rows
from srcli.imaging.picture import AnyPixels
from srcli.metrics.matlab import matlab_rows, matlab_rows_of_part, round_levels, rows_needed

Correction = NDArray[np.float32]
TOLERANCE = 1.0  # in 8-bit or 16-bit levels
MAX_ROUNDS = 40
VISIBLE = 1.5  # levels: above this the rounded, reduced result differs by more than one level


def make_consistent(result: AnyPixels, source: AnyPixels) -> float:
    """Change the result, in place, to the closest picture (in squared error) that MATLAB's bicubic reduces to `source`.

    Returns the largest remaining deviation, in levels. It is at most TOLERANCE unless no picture in the range of
    levels reduces to the source, as with alternating black and white pixels.

    This minimizes the squared change under the constraints on the reduced picture and on the range of levels, by dual
    ascent: residuals are summed up in a correction of the source's size, which is enlarged and added to the result.
    Nesterov momentum halves the number of rounds.
    """
    correction = np.zeros(source.shape, np.float32)
    extrapolated, worst = correction, np.inf
    for turn in range(MAX_ROUNDS):
        residual = _find_residual(result, extrapolated, source)
        worst = float(np.abs(residual).max())
        if worst <= TOLERANCE:
            break
        previous, correction = correction, extrapolated + residual
        extrapolated = correction + turn / (turn + 3) * (correction - previous)
    for rows in split_rows(result.shape[0], result.shape[1]):
        result[rows] = _correct_rows(result, extrapolated, rows)
    return worst


def _find_residual(result: AnyPixels, correction: Correction, source: AnyPixels) -> Correction:
    """The source minus the corrected and reduced result."""
    size, height = (source.shape[1], source.shape[0]), result.shape[0]
    residual = np.empty(source.shape, np.float32)
    for rows in split_rows(source.shape[0], result.shape[1] * height // source.shape[0]):
        needed = rows_needed(height, source.shape[0], rows)
        part = _correct_rows(result, correction, needed)
        residual[rows] = source[rows] - matlab_rows_of_part(part, needed.start, height, size, rows)
    return residual


def _correct_rows(result: AnyPixels, correction: Correction, rows: slice) -> AnyPixels:
    """Rows of the result plus the enlarged correction, rounded to levels."""
    added = matlab_rows(correction, (result.shape[1], result.shape[0]), rows)
    return round_levels(result[rows] + added, result.dtype)
