"""Prepare a result for its format: colour space, depth, transparency and metadata."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from srcli.imaging import exif, icc, iptc, xmp
from srcli.imaging.bands import Array, split_rows
from srcli.imaging.color import compute_luminance
from srcli.imaging.picture import Metadata, Picture
from srcli.imaging.resize import resize_rows

if TYPE_CHECKING:
    from srcli.imaging.format_base import Format

Provenance = Mapping[str, object] | None

_PLACES = ("gps", "location")
GREY_TOLERANCE = 0.04  # mean difference of a pixel's channels, as a share of white


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveOptions:
    """Quality of the file, and which of the source's metadata it keeps."""

    quality: int | None = None  # of lossy formats, 1 to 100
    strip: bool = False  # drop the source's metadata except its resolution
    strip_gps: bool = False


@dataclass
class PreparedOutput:
    """The input of an encoder."""

    pixels: Array  # (H, W), (H, W, 3) or (H, W, 4) of CMYK
    alpha: Array | None
    profile: bytes
    metadata: Metadata  # exif: empty, see `block`
    block: exif.ExifBlock
    provenance: Provenance
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        return int(self.pixels.shape[1]), int(self.pixels.shape[0])

    @property
    def exif(self) -> bytes:
        return exif.pack_exif(self.block)


def prepare_output(picture: Picture, row: Format, saving: SaveOptions, provenance: Provenance) -> PreparedOutput:
    """Do everything but the encoding."""
    notes: list[str] = []
    bare = Metadata(dpi=picture.metadata.dpi)
    if not row.metadata and (provenance or picture.metadata != bare or picture.profile is not None):
        notes.append(f"{row.name} holds neither colour profile nor metadata: they were left out, colours are sRGB")
    pixels, profile = _own_space(picture, row, notes)
    alpha = picture.alpha
    if alpha is not None and not row.alpha:
        pixels, alpha = _flat(pixels, alpha, row, notes), None
    if not row.deep and pixels.dtype == np.uint16:
        notes.append(f"{row.name} holds 8 bits a channel: the picture's 16 were reduced")
        pixels, alpha = _shallow(pixels), None if alpha is None else _shallow(alpha)
    metadata = picture.metadata if row.metadata and not saving.strip else bare
    if saving.strip_gps:
        metadata = _remove_place(metadata)
    size = (picture.width, picture.height)
    gps = not saving.strip_gps
    signature = None if provenance is None else (str(provenance.get("tool", "srcli")), json.dumps(dict(provenance)))
    block = _block(metadata, row, size, gps, signature, notes)
    packet = _packet(metadata, size, gps, provenance, notes)
    return PreparedOutput(pixels, alpha, profile, replace(metadata, exif=b"", xmp=packet), block, provenance, notes)


def _own_space(picture: Picture, row: Format, notes: list[str]) -> tuple[Array, bytes]:
    """The pixels in the file's colour space, and its profile."""
    unreadable = row.name == "TIFF" and picture.depth == 16 and picture.alpha is not None  # to Pillow, if it were grey
    grey = picture.grey and not unreadable and is_grey(picture.pixels)
    plain = _luminance(picture.pixels) if grey else picture.pixels
    profile = picture.profile
    if profile is None or not row.metadata:
        return plain, b""
    inks = profile.space == "CMYK" and (not row.cmyk or picture.alpha is not None)
    if inks or (profile.space == "L" and not grey):
        notes.append("the source's colour profile does not fit the result: it is in sRGB")
        return plain, b"" if grey else icc.srgb_profile()
    if profile.same:
        return plain, profile.data
    own = icc.convert_from_srgb(picture.pixels, profile)
    if picture.gamut is not None:
        size = (picture.width, picture.height)
        for rows in split_rows(picture.height, picture.width):
            icc.restore_gamut(own[rows], picture.pixels[rows], resize_rows(picture.gamut, size, rows, "bilinear"))
    return own, profile.data


def _luminance(pixels: Array) -> Array:
    out = np.empty(pixels.shape[:2], pixels.dtype)
    for rows in split_rows(*pixels.shape[:2]):
        out[rows] = compute_luminance(pixels[rows])
    return out


def is_grey(pixels: Array) -> bool:
    """Whether a picture is grey, except for a faint tint."""
    total = 0.0
    for rows in split_rows(*pixels.shape[:2]):
        total += float(np.ptp(pixels[rows], axis=-1).sum(dtype=np.float64))
    return total / max(1, pixels[..., 0].size) <= GREY_TOLERANCE * np.iinfo(pixels.dtype).max


def _flat(pixels: Array, alpha: Array, row: Format, notes: list[str]) -> Array:
    """Blend with white, for formats without transparency."""
    top = int(np.iinfo(pixels.dtype).max)
    if alpha.min() == top:
        return pixels
    notes.append(f"{row.name} has no transparency: the picture was placed on white")
    out = np.empty_like(pixels)
    for rows in split_rows(*pixels.shape[:2]):
        share = alpha[rows].astype(np.uint32)
        share = share[..., None] if pixels.ndim == 3 else share
        out[rows] = (pixels[rows] * share + top * (top - share) + top // 2) // top
    return out


def _shallow(pixels: Array) -> Array:
    out = np.empty(pixels.shape, np.uint8)
    for rows in split_rows(*pixels.shape[:2]):
        out[rows] = (pixels[rows].astype(np.uint32) + 128) // 257
    return out


def _block(
    metadata: Metadata, row: Format, size: tuple[int, int], gps: bool, signature: exif.Signature, notes: list[str]
) -> exif.ExifBlock:
    turned = row.name != "AVIF"  # AVIF keeps the orientation in its own boxes
    try:
        return exif.update_exif(metadata.exif, size, gps=gps, signature=signature, turned=turned)
    except (ValueError, struct.error, IndexError):
        notes.append("its EXIF data is broken and was left out")
        return exif.update_exif(b"", size, signature=signature)


def _remove_place(metadata: Metadata) -> Metadata:
    """Remove the place from IPTC records and PNG text; that in EXIF and XMP is removed in their modules."""
    text = {key: value for key, value in metadata.text.items() if not any(word in key.lower() for word in _PLACES)}
    return replace(metadata, iptc=iptc.remove_place(metadata.iptc), text=text)


def _packet(metadata: Metadata, size: tuple[int, int], gps: bool, provenance: Provenance, notes: list[str]) -> bytes:
    try:
        return xmp.update_xmp(metadata.xmp, size, gps=gps, provenance=provenance)
    except ValueError:
        notes.append("its XMP packet is broken and was left out")
        return xmp.update_xmp(b"", size, provenance=provenance)
