"""Read AVIF with 10 and 12 bits per channel by OpenCV, because Pillow reads 8 bits only."""

from __future__ import annotations

from typing import IO

import cv2
import numpy as np

from srcli.errors import PictureError
from srcli.imaging.decode import SNIFFED_BYTES, Decoded, ReadOptions, widen_levels
from srcli.imaging.format_base import Format


def read_avif_deep(file: IO[bytes], row: Format, options: ReadOptions) -> Decoded:
    """Read the pixels of a file that Pillow has opened, so that its size is checked. Raises PictureError."""
    if options.place:
        raise PictureError("OpenCV reads only the first frame", "unsupported")
    file.seek(0)
    data = np.frombuffer(file.read(), np.uint8)
    try:
        levels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)  # noqa: TID251  # nothing else gives all the bits
    except cv2.error as error:
        raise PictureError("OpenCV cannot read it", "damaged") from error
    if levels is None or levels.dtype != np.uint16:
        raise PictureError("this OpenCV cannot read its bit depth", "unsupported")
    bits = row.bits(data[:SNIFFED_BYTES].tobytes())
    if levels.ndim == 2:
        return Decoded(widen_levels(levels, bits), "L")
    alpha = widen_levels(levels[..., 3], bits) if levels.shape[2] == 4 else None
    return Decoded(widen_levels(levels[..., 2::-1], bits), "RGB", alpha)
