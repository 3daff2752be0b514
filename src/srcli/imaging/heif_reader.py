"""Read HEIC and HEIF by pillow-heif (`pip install 'srcli[heif]'`), which applies the orientation itself."""

from __future__ import annotations

from typing import IO

import numpy as np

from srcli.errors import PictureError
from srcli.imaging.decode import Decoded, MissingPackage, ReadOptions, widen_levels
from srcli.imaging.format_base import Format
from srcli.imaging.pillow_reader import count_with_pillow, measure_with_pillow, read_with_pillow


def read_heif(file: IO[bytes], row: Format, options: ReadOptions) -> Decoded:
    _register_plugin()
    return read_with_pillow(file, row, options)


def measure_heif(file: IO[bytes], row: Format, max_pixels: int | None) -> tuple[int, int]:
    _register_plugin()
    return measure_with_pillow(file, row, max_pixels)


def count_heif(file: IO[bytes], row: Format) -> int:
    _register_plugin()
    return count_with_pillow(file, row)


def read_heif_deep(file: IO[bytes], row: Format, options: ReadOptions) -> Decoded:
    """The pixels of a file with 10 or 12 bits that Pillow has opened. Raises PictureError."""
    from pillow_heif import open_heif

    file.seek(0)
    opened = open_heif(file, convert_hdr_to_8bit=False)[options.place]
    levels, bits = np.asarray(opened), int(opened.info["bit_depth"])
    if levels.dtype != np.uint16:
        raise PictureError("it has 8 bits after all", "unsupported")
    levels = widen_levels(np.atleast_3d(levels) >> (16 - bits), bits)
    alpha = np.ascontiguousarray(levels[..., -1]) if levels.shape[2] in (2, 4) else None
    grey = levels.shape[2] < 3
    pixels = levels[..., 0] if grey else levels[..., :3]
    return Decoded(np.ascontiguousarray(pixels), "L" if grey else "RGB", alpha)


def _register_plugin() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise MissingPackage("it is a HEIC picture, which", "heif") from error
    register_heif_opener()
