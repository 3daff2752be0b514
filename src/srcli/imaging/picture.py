"""A decoded picture: pixels in sRGB, and everything that its result keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.icc import IccProfile

Pixels8 = NDArray[np.uint8]
PixelArray = Pixels8 | NDArray[np.uint16]
AnyPixels = NDArray[Any]  # 8 or 16 bits, where type inference loses the type


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Metadata of a file. Blocks are kept as raw bytes so that other programs find them unchanged."""

    exif: bytes = b""  # a TIFF block, without the "Exif" prefix that JPEG puts before it
    xmp: bytes = b""
    iptc: bytes = b""  # IPTC-IIM records, without the Photoshop wrapping
    dpi: tuple[float, float] | None = None
    comment: bytes = b""
    text: Mapping[str, str] = field(default_factory=dict)  # PNG text fields


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An upright picture in sRGB, with the metadata of its file."""

    pixels: PixelArray  # (H, W, 3), also for a grey source
    alpha: PixelArray | None = None  # (H, W)
    grey: bool = False  # the source had no colour
    profile: IccProfile | None = None  # colour space of the source; the result is converted back to it
    damage: NDArray[np.uint8] | None = None  # (H, W): 255 where it is damaged, 0 elsewhere
    repairs: Mapping[str, object] = field(default_factory=dict)  # provenance of repairs before the engine
    strokes: NDArray[np.uint8] | None = None  # (h, w, 4) on a small grid: colours, and 255 where there are strokes
    reference: NDArray[np.uint8] | None = None  # (h, w, 3): reduced picture to take colours from
    gamut: NDArray[np.uint16] | None = None  # out-of-gamut remainder in the source's size, see `imaging/icc.py`
    metadata: Metadata = Metadata()
    format: str = "PNG"  # of the source, detected from its content
    lossless: bool = False  # the source was compressed without loss
    sha256: str = ""
    name: str = ""  # shown in messages
    notes: tuple[str, ...] = ()  # messages for the user

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def depth(self) -> int:
        """Bits of one channel, 8 or 16."""
        return self.pixels.dtype.itemsize * 8
