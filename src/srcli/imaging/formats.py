"""The table of all file formats that are read or written, one row each."""

from __future__ import annotations

from pathlib import PurePath

from srcli.errors import InputError, PictureError, unknown_word
from srcli.imaging.avif_reader import read_avif_deep
from srcli.imaging.deep_formats import measure_deep, read_jpegxl, read_levels, read_light
from srcli.imaging.format_base import Format
from srcli.imaging.header_facts import (
    explain_large_avif,
    read_avif_bits,
    read_heif_bits,
    read_jpeg2000_bits,
    read_ppm_bits,
)
from srcli.imaging.heif_reader import count_heif, measure_heif, read_heif, read_heif_deep
from srcli.imaging.pillow_reader import count_with_pillow
from srcli.imaging.pillow_writer import write_avif, write_bmp, write_jpeg, write_png, write_ppm, write_webp
from srcli.imaging.tiff_reader_checks import RAW_SUFFIXES, explain_refusal
from srcli.imaging.tiff_writer import write_tiff

_ROWS = (
    Format(
        "TIFF",
        (".tif", ".tiff"),
        rb"II[*+]\x00|MM\x00[*+]",
        count=count_with_pillow,
        write=write_tiff,
        lossless=True,
        alpha=True,
        deep=True,
        cmyk=True,
        upright=True,
        chatty=True,
        read_deep=read_levels,
        explain=explain_refusal,
    ),
    Format(
        "JPEG",
        (".jpg", ".jpeg", ".jpe", ".jfif"),
        rb"\xff\xd8\xff",
        other_suffixes=(".mpo",),
        write=write_jpeg,
        longest=65_500,
        quality=95,
        cmyk=True,
    ),
    Format(
        "PNG",
        (".png",),
        rb"\x89PNG\r\n\x1a\n",
        other_suffixes=(".apng",),
        count=count_with_pillow,
        write=write_png,
        lossless=True,
        alpha=True,
        deep=True,
    ),
    Format("GIF", (".gif",), rb"GIF8[79]a", count=count_with_pillow, lossless=True),
    Format(
        "WEBP",
        (".webp",),
        rb"RIFF....WEBP",
        count=count_with_pillow,
        write=write_webp,
        longest=16_383,
        quality=95,
        lossless=b"VP8L",
        alpha=True,
    ),
    Format(
        "BMP",
        (".bmp",),
        rb"BM",
        other_suffixes=(".dib",),
        write=write_bmp,
        instead=".png",
        largest=2**32 - 2**16,
        lossless=True,
        metadata=False,
    ),
    Format(
        "PPM",
        (".ppm", ".pgm", ".pnm"),
        rb"P[1-6][\s#]",
        other_suffixes=(".pbm",),
        write=write_ppm,
        instead=".png",
        lossless=True,
        metadata=False,
        bits=read_ppm_bits,
        read_deep=read_levels,
    ),
    Format(
        "JPEG2000",
        (".jp2", ".j2k", ".jpx"),
        rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
        bits=read_jpeg2000_bits,
        read_deep=read_levels,
    ),
    Format("OPENEXR", (".exr",), rb"\x76\x2f\x31\x01", read=read_light, measure=measure_deep, extra="formats"),
    Format("RADIANCE", (".hdr",), rb"#\?(?:RADIANCE|RGBE)", read=read_light, measure=measure_deep, extra="formats"),
    Format(
        "JPEGXL",
        (".jxl",),
        rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n",
        read=read_jpegxl,
        measure=measure_deep,
        extra="formats",
    ),
    Format(
        "AVIF",
        (".avif",),
        rb".{4}ftyp(?:avif|avis)|.{4}ftyp(?:mif1|msf1).{0,64}?avi[fs]",
        count=count_with_pillow,
        write=write_avif,
        longest=65_536,
        quality=90,
        alpha=True,
        chatty=True,
        bits=read_avif_bits,
        read_deep=read_avif_deep,
        explain=explain_large_avif,
    ),
    Format(
        "HEIF",
        (".heic", ".heif", ".hif"),
        rb".{4}ftyp(?:hei[csxm]|hev[cmsx]|mif1|msf1)",
        read=read_heif,
        measure=measure_heif,
        count=count_heif,
        instead=".jpg",
        extra="heif",
        upright=True,
        bits=read_heif_bits,
        read_deep=read_heif_deep,
    ),
)
FORMATS = {row.name: row for row in _ROWS}
# Files that are never read but are taken from folders, so that each is reported.
_REFUSED_SUFFIXES = RAW_SUFFIXES | {".cr3", ".crw", ".raf", ".raw", ".eps", ".svg", ".wmf", ".psd"}


def writable_formats() -> list[Format]:
    """Formats that results can be written in, by name."""
    return sorted((row for row in FORMATS.values() if row.write), key=lambda row: row.name)


def is_format_suffix(suffix: str) -> bool:
    """Whether files with this suffix can be read, possibly with an extra package."""
    return _row_of(suffix) is not None


def is_picture_suffix(suffix: str) -> bool:
    """Whether files with this suffix are pictures, readable or not."""
    return suffix.lower() in _REFUSED_SUFFIXES or is_format_suffix(suffix)


def format_of_name(target: PurePath | str) -> Format:
    """The format of a result, by its name. Raises InputError."""
    suffix = PurePath(target).suffix
    row = _row_of(suffix)
    if row is None or row.write is None or suffix.lower() not in row.suffixes:
        known = ", ".join(sorted(suffix for row in writable_formats() for suffix in row.suffixes))
        raise InputError(f"srcli does not write {suffix.lower() or 'files without a suffix'!r}: choose one of {known}")
    return row


def parse_format(text: str) -> Format:
    """The format for a word of the user's: its name or one of its suffixes. Raises InputError."""
    word = text.lower().removeprefix(".")
    for row in writable_formats():
        if word == row.name.lower() or f".{word}" in row.suffixes:
            return row
    raise unknown_word("`format`", text, (row.name.lower() for row in writable_formats()))


def suffix_for(source: PurePath | str) -> str:
    """The default suffix of a source's result: its own, or that of a format that can store it."""
    suffix = PurePath(source).suffix
    row = _row_of(suffix)
    if row is None:
        return ".png"
    return suffix if suffix.lower() in row.suffixes and not row.instead and row.write else usual_suffix(row)


def usual_suffix(row: Format) -> str:
    """The default suffix for results of this format."""
    return row.instead or (row.suffixes[0] if row.write else ".png")


def check_format_limits(row: Format, width: int, height: int) -> None:
    """Raises PictureError for a size that the format cannot store."""
    if max(width, height) > row.longest or width * height * 3 > row.largest:
        raise PictureError(
            f"{row.name} cannot hold {width}x{height} pixels (at most {row.longest} a side): write PNG or TIFF",
            "format-limit",
        )


def _row_of(suffix: str) -> Format | None:
    lower = suffix.lower()
    return next((row for row in FORMATS.values() if lower in row.suffixes + row.other_suffixes), None)
