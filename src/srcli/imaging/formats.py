"""The formats that results are written in: their names and their limits."""

from __future__ import annotations

from pathlib import PurePath

from srcli.errors import InputError, PictureError

_SUFFIXES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".ppm", ".pgm", ".pnm"), "PPM"),
    ".png": "PNG",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".bmp": "BMP",
}
_NAMES = {"JPG": "JPEG", "TIF": "TIFF", **{name: name for name in _SUFFIXES.values()}}
# What pictures become that cannot be written again as they came: photographs JPEG, all others PNG.
_INSTEAD = {
    **dict.fromkeys((".heic", ".heif", ".hif", ".mpo"), ".jpg"),
    **dict.fromkeys((".gif", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm"), ".png"),
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".apng"), ".png"),
}
_LONGEST = {"JPEG": 65_500, "WEBP": 16_383, "AVIF": 65_536, "PNG": 2**31 - 1, "TIFF": 2**31 - 1, "BMP": 2**31 - 1}
_UNPACKED = {"BMP": 2**32 - 2**16}
WRITABLE = tuple(sorted(set(_SUFFIXES.values())))


def format_of_name(target: PurePath | str) -> str:
    """The format that a name's suffix stands for. Raises InputError."""
    suffix = PurePath(target).suffix.lower()
    if suffix not in _SUFFIXES:
        known = ", ".join(sorted(_SUFFIXES))
        raise InputError(f"srcli does not write {suffix or 'files without a suffix'!r}: choose one of {known}")
    return _SUFFIXES[suffix]


def parse_format(text: str) -> str:
    """The format that a user's word stands for. Raises InputError."""
    name = _NAMES.get(text.upper().removeprefix("."))
    if name is None:
        raise InputError(f"--format {text!r} is unknown: choose one of {', '.join(n.lower() for n in WRITABLE)}")
    return name


def suffix_for(source: PurePath | str) -> str:
    """The suffix of a result whose format nobody named: the source's own, or what can hold it."""
    suffix = PurePath(source).suffix
    if suffix.lower() in _INSTEAD:
        return _INSTEAD[suffix.lower()]
    return suffix if suffix.lower() in _SUFFIXES else ".png"


def check_target(kind: str, width: int, height: int) -> None:
    """Refuse a size that the format cannot hold, before the work. Raises PictureError."""
    longest = _LONGEST.get(kind, 2**31 - 1)
    if max(width, height) > longest or width * height * 3 > _UNPACKED.get(kind, 2**62):
        raise PictureError(
            f"{kind} cannot hold {width}x{height} pixels (at most {longest} a side): write PNG or TIFF", "format-limit"
        )
