"""Write formats by Pillow, with the options and metadata of each."""

from __future__ import annotations

from typing import IO

import numpy as np
from PIL import Image

from srcli.imaging import iptc, png_writer
from srcli.imaging.bands import split_rows
from srcli.imaging.metadata import EXIF_PREFIX
from srcli.imaging.prepare_output import PreparedOutput
from srcli.imaging.spill import SPILL_BYTES, evict_pages
from srcli.imaging.tiff_writer import interleave_rows

_SEGMENT = 65_533
_XMP_OVERHEAD = 29


def write_png(prepared: PreparedOutput, file: IO[bytes], quality: int | None) -> None:
    """Write small 8-bit files by Pillow, which is faster but needs the whole file in memory; others by `stream_png`."""
    if prepared.pixels.dtype == np.uint16 or prepared.pixels.nbytes >= SPILL_BYTES:
        png_writer.stream_png(prepared, file)
        return
    info, level = png_writer.collect_text(prepared), png_writer.LEVEL
    _save(prepared, file, "PNG", pnginfo=info, exif=prepared.exif, compress_level=level, **_profile(prepared))


def write_jpeg(prepared: PreparedOutput, file: IO[bytes], quality: int | None) -> None:
    metadata, notes = prepared.metadata, prepared.notes
    block, packet, records = prepared.exif, metadata.xmp, iptc.pack_segment(metadata.iptc)
    if len(block) > _SEGMENT - len(EXIF_PREFIX):
        block = b""
        notes.append("its EXIF data is too long for JPEG and was left out")
    if len(packet) > _SEGMENT - _XMP_OVERHEAD:
        packet = b""
        notes.append("its XMP packet is too long for JPEG and was left out")
    if metadata.iptc and not records:
        notes.append("its IPTC records are too long for JPEG and were left out")
    if metadata.text:
        notes.append("JPEG has no place for the source's text fields: they were left out")
    _save(
        prepared,
        file,
        "JPEG",
        quality=quality,
        subsampling="4:4:4",
        exif=EXIF_PREFIX + block if block else b"",
        xmp=packet,
        extra=records,
        comment=metadata.comment,
        **_profile(prepared),
    )


def write_webp(prepared: PreparedOutput, file: IO[bytes], quality: int | None) -> None:
    options = {"lossless": True, "exact": True, "quality": 70} if quality is None else {"quality": quality}
    _save(prepared, file, "WEBP", exif=prepared.exif, xmp=prepared.metadata.xmp, **options, **_profile(prepared))


def write_avif(prepared: PreparedOutput, file: IO[bytes], quality: int | None) -> None:
    colour = {"subsampling": "4:4:4"} if prepared.pixels.ndim == 3 else {}
    packet = prepared.metadata.xmp
    _save(prepared, file, "AVIF", quality=quality, exif=prepared.exif, xmp=packet, **colour, **_profile(prepared))


def write_bmp(prepared: PreparedOutput, file: IO[bytes], quality: int | None) -> None:
    _save(prepared, file, "BMP")


def write_ppm(prepared: PreparedOutput, file: IO[bytes], quality: int | None) -> None:
    _save(prepared, file, "PPM")


def to_pillow(prepared: PreparedOutput) -> Image.Image:
    """Convert the channels to a Pillow image, by groups of rows."""
    colours = 1 if prepared.pixels.ndim == 2 else prepared.pixels.shape[2]
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[colours] if prepared.alpha is None else {1: "LA", 3: "RGBA"}[colours]
    picture = Image.new(mode, prepared.size)
    for rows in split_rows(*prepared.pixels.shape[:2]):
        part = np.ascontiguousarray(interleave_rows(prepared, rows))
        size = (part.shape[1], part.shape[0])
        picture.paste(Image.frombuffer(mode, size, part, "raw", mode, 0, 1), (0, rows.start))
        evict_pages(prepared.pixels)
    return picture


def _save(prepared: PreparedOutput, file: IO[bytes], kind: str, **options: object) -> None:
    dpi = prepared.metadata.dpi
    to_pillow(prepared).save(file, kind, **options, **({} if dpi is None else {"dpi": dpi}))


def _profile(prepared: PreparedOutput) -> dict[str, object]:
    return {"icc_profile": prepared.profile or None}
