"""A result and the pictures it is compared with, with the planes that several metrics share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.errors import PictureError
from srcli.metrics.consistency import Deviation, measure_deviation
from srcli.metrics.edges import compute_full_range_luma
from srcli.metrics.matlab import matlab_y
from srcli.metrics.similarity import FloatArray, crop_border

CROPPED_AT_MOST = 8  # pixels of a side, as a picture loses when it is cropped to a multiple of the scale


@dataclass(frozen=True)
class Sample:
    """RGB levels 0..255, (H, W, 3). The result was made from the source."""

    result: NDArray[Any]
    truth: NDArray[Any] | None = None
    source: NDArray[Any] | None = None
    border: int = 0

    @cached_property
    def aligned(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Result and truth cropped to their common size, without the border."""
        if self.truth is None:
            raise ValueError("this metric needs a truth")
        result, truth = crop_to_common_size(self.result, self.truth)
        return crop_border(result, self.border), crop_border(truth, self.border)

    @cached_property
    def rgb(self) -> tuple[FloatArray, FloatArray]:
        result, truth = self.aligned
        return result.astype(np.float64), truth.astype(np.float64)

    @cached_property
    def y(self) -> tuple[FloatArray, FloatArray]:
        """MATLAB's luma of result and truth."""
        result, truth = self.aligned
        return matlab_y(result), matlab_y(truth)

    @cached_property
    def result_y(self) -> FloatArray:
        """MATLAB's luma of the result without the border, whether there is a truth or not."""
        return matlab_y(crop_border(self.result, self.border))

    @cached_property
    def luma(self) -> tuple[FloatArray, FloatArray]:
        """Full-range luma of result and truth."""
        result, truth = self.aligned
        return compute_full_range_luma(result), compute_full_range_luma(truth)

    @cached_property
    def deviation(self) -> Deviation:
        """How much the whole result, reduced again, differs from its source."""
        if self.source is None:
            raise ValueError("this metric needs a source")
        return measure_deviation(self.result, self.source)


def crop_to_common_size(result: NDArray[Any], truth: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Crop both, at the right and below, to their common size. Raises PictureError if that removes many pixels."""
    sizes = [picture.shape[1::-1] for picture in (result, truth)]
    if any(abs(a - b) > CROPPED_AT_MOST for a, b in zip(*sizes, strict=True)):
        one, other = (f"{width}x{height}" for width, height in sizes)
        message = f"the result has {one} pixels, the reference {other}: compare pictures of one size"
        raise PictureError(message, "size")
    width, height = (min(pair) for pair in zip(*sizes, strict=True))
    return result[:height, :width], truth[:height, :width]
