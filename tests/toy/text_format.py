"""A format of another package: `TOY`, the size, and the levels as words. One row, and how it is read and written."""

from __future__ import annotations

import numpy as np

from srcli.imaging.decode import Decoded
from srcli.imaging.format_base import Format
from srcli.imaging.formats import FORMATS


def measure(file, row, max_pixels):
    file.seek(0)
    _, width, height = file.readline().split()
    return int(width), int(height)


def read(file, row, options):
    width, height = measure(file, row, options.max_pixels)
    levels = np.array(file.read().split(), np.uint8).reshape(height, width, 3)
    return Decoded(levels, "RGB", notes=["it was read as words"])


def write(prepared, file, quality):
    width, height = prepared.size
    file.write(f"TOY {width} {height}\n{' '.join(map(str, prepared.pixels.ravel()))}".encode())


ROW = Format("TOY", (".toy",), rb"TOY ", read=read, measure=measure, write=write, lossless=True, metadata=False)


def register() -> None:
    FORMATS[ROW.name] = ROW
