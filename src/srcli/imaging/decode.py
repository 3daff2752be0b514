"""Decodes a picture that Pillow has opened into arrays, in its own colour space and full bit depth."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin

from srcli.errors import PictureError
from srcli.imaging.bands import Array, split_rows
from srcli.imaging.picture import Metadata
from srcli.imaging.resize import pillow_to_array
from srcli.settings import Frames

SNIFFED_BYTES = 1 << 16  # bytes from which the format is detected

Reopen = Callable[[], ImageFile.ImageFile]

FLOATS = "it holds floating-point numbers without a defined range: save it with 8 or 16 bits"

_LITTLE = sys.byteorder == "little"
_DIRECT = ("L", "LA", "RGB", "RGBA", "CMYK")
# Pillow keeps the high byte of 16-bit colour. Read once more with the other byte order, it keeps the low one.
_OTHER = {"B": "L", "L": "B", "N": "B" if _LITTLE else "L"}
_BITS, _PHOTOMETRIC, _PLANAR, _EXTRA = 258, 262, 284, 338


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Limits and options for reading a file."""

    max_pixels: int
    frames: Frames = "refuse"
    lenient: bool = False  # return the readable part of a truncated file
    frame: int = 0  # frame or page to read, from 1; 0: the file has one
    place: int = 0  # its index in the file, from 0; a TIFF also holds thumbnails and masks


@dataclass
class Decoded:
    """Stored channels, 8 or 16 bits: (H, W) grey, (H, W, 3) RGB or (H, W, 4) CMYK, and alpha."""

    pixels: NDArray[Any]
    space: str  # L, RGB or CMYK
    alpha: NDArray[Any] | None = None
    profile: bytes = b""
    metadata: Metadata = Metadata()
    orientation: int = 1  # EXIF orientation that is not applied to the pixels yet
    notes: list[str] = field(default_factory=list)


class BeyondPillow(PictureError):
    """A valid picture of a pixel type that Pillow does not support; OpenImageIO may read it."""


class MissingPackage(PictureError):
    """A picture needs a package that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs one more package: pip install 'srcli[{extra}]'", "unsupported")
        self.extra = extra


def decode_channels(picture: ImageFile.ImageFile, reopen: Reopen) -> Decoded:
    """Decode all channels. `reopen` opens the file again, for the low bytes of 16-bit colour."""
    if picture.mode in ("I", "F"):
        return _wide(picture)
    if _is_deep(picture):
        return _deep(picture, reopen)
    picture.load()
    if picture.mode.startswith("I;16"):
        return _grey16(picture)
    return _shallow(picture)


def _shallow(picture: Image.Image) -> Decoded:
    notes = []
    if picture.mode == "LAB":
        picture = _from_lab(picture)
        notes.append("Lab colours were converted to sRGB")
    elif picture.mode in ("P", "PA"):
        notes.append("the palette was replaced by full colour")
    grey = _is_grey(picture)
    if picture.mode == "1":
        picture = picture.convert("L")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
    elif picture.mode not in _DIRECT:
        picture = picture.convert("RGB")
    if picture.mode == "CMYK":
        return Decoded(pillow_to_array(picture), "CMYK", notes=notes)
    return _split(pillow_to_array(picture), grey, notes)


def _is_grey(picture: Image.Image) -> bool:
    if picture.mode in ("1", "L", "LA", "La"):
        return True
    if picture.mode not in ("P", "PA") or picture.palette is None:
        return False
    colours = np.array(picture.getpalette() or (), np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _split(channels: Array, grey: bool, notes: list[str]) -> Decoded:
    """Split the colour channels and alpha."""
    if channels.ndim == 2:
        return Decoded(channels, "L", notes=notes)
    alpha = np.ascontiguousarray(channels[..., -1]) if channels.shape[2] in (2, 4) else None
    if grey:
        return Decoded(np.ascontiguousarray(channels[..., 0]), "L", alpha, notes=notes)
    return Decoded(np.ascontiguousarray(channels[..., :3]), "RGB", alpha, notes=notes)


def _from_lab(picture: Image.Image) -> Image.Image:
    lab, srgb = (ImageCms.createProfile(space) for space in ("LAB", "sRGB"))
    way = ImageCms.buildTransform(lab, srgb, "LAB", "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
    turned = ImageCms.applyTransform(picture, way)
    if turned is None:
        raise ValueError("Lab colours could not be converted")
    return turned


def _wide(picture: Image.Image) -> Decoded:
    """Decode 32-bit modes, of which only 16-bit grey PPM is a picture."""
    if picture.mode == "F":
        raise BeyondPillow(FLOATS, "unsupported")
    if picture.format != "PPM":
        raise BeyondPillow("it holds signed or 32-bit numbers: save it with 8 or 16 bits", "unsupported")
    picture.load()
    return Decoded(pillow_to_array(picture).astype(np.uint16), "L")


def _grey16(picture: Image.Image) -> Decoded:
    pixels: Array = np.asarray(picture).astype(np.uint16)
    alpha = None
    key = picture.info.get("transparency")
    if isinstance(key, int):
        alpha = np.where(pixels == key, 0, 65535).astype(np.uint16)
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        if picture.tag_v2.get(_BITS) == (12,):
            pixels = (pixels << 4) | (pixels >> 8)
        if picture.tag_v2.get(_PHOTOMETRIC) == 0:
            np.invert(pixels, out=pixels)
    return Decoded(pixels, "L", alpha)


def _is_deep(picture: ImageFile.ImageFile) -> bool:
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        return picture.mode in ("RGB", "RGBA") and set(picture.tag_v2.get(_BITS, ())) == {16}
    if picture.format != "PNG" or picture.tell():  # Pillow blends frames in 8 bits
        return False
    return any(";16" in str(tile.args) for tile in picture.tile) and picture.mode != "I;16"


def _deep(picture: ImageFile.ImageFile, reopen: Reopen) -> Decoded:
    """Combine two readings of a file into 16-bit colour."""
    low = reopen()
    if picture.tile[0].args == "LA;16B":
        return _grey_alpha16(low)
    order = _order(picture)
    picture.tile = [_with_raw(tile, lambda raw: _byte(raw, order, True)) for tile in picture.tile]
    low.tile = [_with_raw(tile, lambda raw: _byte(raw, order, False)) for tile in low.tile]
    key = picture.info.get("transparency")
    picture.load()
    low.load()
    channels = pillow_to_array(picture).astype(np.uint16)
    channels <<= 8
    channels |= pillow_to_array(low)
    found = _split(channels, False, [])
    if isinstance(key, tuple):
        found.alpha = np.where((found.pixels == np.array(key, np.uint16)).all(-1), 0, 65535).astype(np.uint16)
    elif _premultiplied(picture):
        divide_by_alpha(found)
    return found


def _order(picture: ImageFile.ImageFile) -> str:
    """Byte order of the stored channels in the notation of Pillow's raw modes."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return "B"
    if picture.tag_v2.get(_PLANAR) == 2 and picture.tile[0].codec_name != "raw":
        raise BeyondPillow("its 16-bit channels are compressed one by one: save it interleaved", "unsupported")
    return "L" if picture.tag_v2.prefix == b"II" else "B"


def _with_raw(tile: Any, change: Callable[[str], str]) -> Any:
    args = tile.args
    return tile._replace(args=change(args) if isinstance(args, str) else (change(args[0]), *args[1:]))


def _byte(raw: str, order: str, high: bool) -> str:
    """The raw mode that reads the high or the low byte of each 16-bit channel."""
    raw = f"{raw};16{order}" if len(raw) == 1 else raw.replace("RGBa", "RGBA")
    return raw if high else raw[:-1] + _OTHER[raw[-1]]


def _grey_alpha16(picture: ImageFile.ImageFile) -> Decoded:
    """Both bytes of both channels are as wide as eight-bit RGBA, and are filtered the same way."""
    picture.tile = [_with_raw(tile, lambda raw: "RGBA") for tile in picture.tile]
    picture.load()
    both = pillow_to_array(picture).view(">u2").astype(np.uint16)
    return Decoded(np.ascontiguousarray(both[..., 0]), "L", np.ascontiguousarray(both[..., 1]))


def _premultiplied(picture: Image.Image) -> bool:
    return isinstance(picture, TiffImagePlugin.TiffImageFile) and picture.tag_v2.get(_EXTRA) == (1,)


def widen_levels(levels: Array, bits: int) -> Array:
    """Scale levels of `bits` bits to the full 16-bit range."""
    out = np.empty(levels.shape, np.uint16)
    for rows in split_rows(*levels.shape[:2]):
        out[rows] = (levels[rows].astype(np.uint32) * 65535 + (1 << (bits - 1))) // ((1 << bits) - 1)
    return out


def divide_by_alpha(found: Decoded) -> None:
    """Convert premultiplied colour to straight alpha."""
    if found.alpha is None:
        return
    for rows in split_rows(*found.pixels.shape[:2]):
        part, alpha = found.pixels[rows], found.alpha[rows, :, None]
        part[:] = np.minimum(part.astype(np.uint64) * 65535 // np.maximum(alpha, 1), 65535)
