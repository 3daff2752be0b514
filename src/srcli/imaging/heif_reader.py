"""HEIC and HEIF, by pillow-heif (`pip install 'srcli[heif]'`), which turns pictures upright by itself."""

from __future__ import annotations

from typing import IO

from srcli.imaging.decode import Decoded, MissingPackage, ReadOptions
from srcli.imaging.format_base import Format
from srcli.imaging.pillow_reader import measure_with_pillow, read_with_pillow


def read_heif(file: IO[bytes], row: Format, options: ReadOptions) -> Decoded:
    _teach_pillow()
    return read_with_pillow(file, row, options)


def measure_heif(file: IO[bytes], row: Format, max_pixels: int | None) -> tuple[int, int]:
    _teach_pillow()
    return measure_with_pillow(file, row, max_pixels)


def _teach_pillow() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise MissingPackage("it is a HEIC picture, which", "heif") from error
    register_heif_opener()
