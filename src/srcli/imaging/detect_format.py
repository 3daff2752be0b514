"""What a file is, by its first bytes. What is not on the list never meets a decoder."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from srcli.errors import PictureError

HEAD = 1 << 16

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"GIF8[79]a", "GIF"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"BM", "BMP"),
    (rb"P[1-6][\s#]", "PPM"),
    (rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG2000"),
    (rb"\x76\x2f\x31\x01", "OPENEXR"),
    (rb"#\?(?:RADIANCE|RGBE)", "RADIANCE"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEGXL"),
    (rb".{4}ftyp(?:avif|avis)|.{4}ftyp(?:mif1|msf1).{0,64}?avi[fs]", "AVIF"),
    (rb".{4}ftyp(?:hei[csxm]|hev[cmsx]|mif1|msf1)", "HEIF"),
)

_CONVERT = "convert it to PNG, TIFF or JPEG first"
_RAW = "is a camera raw file: develop it to TIFF, PNG or JPEG first"
_REFUSED: tuple[tuple[bytes, str, str], ...] = (
    (rb"version https://git-lfs", "is a Git LFS pointer, not the picture itself: run `git lfs pull`", "not-a-picture"),
    (
        rb"(?i)(?:\xef\xbb\xbf)?\s*(?:<!doctype html|<html|<head|<body)",
        "is a web page, not a picture (often a failed download): fetch it again",
        "not-a-picture",
    ),
    (rb"(?is)(?:\xef\xbb\xbf)?\s*(?:<\?xml.*?|<!--.*?)?<svg", f"is an SVG drawing: {_CONVERT}", "unsupported"),
    (rb"%PDF", f"is a PDF document: {_CONVERT}", "unsupported"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", f"is an EPS or PostScript document: {_CONVERT}", "unsupported"),
    (rb"8BPS", f"is a Photoshop document: {_CONVERT}", "unsupported"),
    (rb"P[Ff]\s", f"holds high dynamic range numbers: {_CONVERT}", "unsupported"),
    (rb".{4}ftypcrx |FUJIFILMCCD-RAW|IIU\x00|IIR[OS]|MMOR|FOVb", _RAW, "unsupported"),
    (rb"(?:II\*\x00|MM\x00\*).{4}CR", _RAW, "unsupported"),
    (rb"\x00\x05\x16\x07", "is a macOS side file (AppleDouble), not the picture: leave it out", "not-a-picture"),
    (rb"\x1f\x8b|PK\x03\x04|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!", "is an archive: unpack it first", "unsupported"),
    (rb".{4}ftyp|\x1a\x45\xdf\xa3", "is a video or an unknown kind of media file", "unsupported"),
)


def detect_format(head: bytes, name: str) -> str:
    """The format of a file that begins with `head`, in Pillow's word for it."""
    if not head:
        raise PictureError(f"{name} is empty (often a failed download): fetch it again", "empty")
    for pattern, sentence, kind in _REFUSED[:-1]:
        if re.match(pattern, head, re.DOTALL):
            raise PictureError(f"{name} {sentence}", kind)
    if re.match(rb"II[*+]\x00|MM\x00[*+]", head):
        return "TIFF"
    for pattern, kind in _MAGIC:
        if re.match(pattern, head, re.DOTALL):
            return kind
    raise PictureError(f"{name} {_stranger(head)}", "not-a-picture" if _is_text(head) else "unsupported")


def _stranger(head: bytes) -> str:
    pattern, sentence, _ = _REFUSED[-1]
    if re.match(pattern, head, re.DOTALL):
        return f"{sentence}: {_CONVERT}"
    if _is_text(head):
        return "is a text file, not a picture: leave it out"
    return "is no picture that srcli knows: give a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, PPM or HEIC file"


def _is_text(head: bytes) -> bool:
    return not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]", head)


@dataclass
class HeaderFacts:
    """What only the raw bytes tell of a picture."""

    lossless: bool = False
    bits: int = 8  # of a channel, where Pillow would read only 8
    notes: list[str] = field(default_factory=list)


_LEFT_OUT = (
    (b"c2pa\x00\x11\x00\x10", "its Content Credentials (C2PA) hold for the source alone and were left out"),
    (b"HDRGainMap", "its HDR gain map was left out: the result is the standard picture"),
    (b"aux:hdrgainmap", "its HDR gain map was left out: the result is the standard picture"),
    (b"hdr-gain-map/1.0", "its HDR gain map was left out: the result is the standard picture"),
    (b"urn:iso:std:iso:ts:21496", "its HDR gain map was left out: the result is the standard picture"),
)


def inspect_header(kind: str, head: bytes) -> HeaderFacts:
    """What will not survive, and whether the pixels were stored exactly."""
    notes = [sentence for mark, sentence in _LEFT_OUT if mark in head]
    if kind == "PNG" and b"cICP" in head[:HEAD]:
        notes.append("its HDR colour signal (cICP) was left out: colours were taken as sRGB")
    lossless = kind in ("PNG", "TIFF", "BMP", "GIF", "PPM") or (kind == "WEBP" and b"VP8L" in head)
    return HeaderFacts(lossless, read_bits(kind, head), list(dict.fromkeys(notes)))


def claimed_size(kind: str, head: bytes) -> tuple[int, int]:
    """The largest size that an AVIF says its pictures have; nothing for other formats."""
    sizes = (struct.unpack(">LL", found[1]) for found in re.finditer(rb"ispe\0{4}(.{8})", head, re.DOTALL))
    return max(sizes, key=lambda size: size[0] * size[1], default=(0, 0)) if kind == "AVIF" else (0, 0)


def read_bits(kind: str, head: bytes) -> int:
    """Bits a channel in formats that Pillow reads as 8."""
    if kind == "AVIF" and (at := head.find(b"av1C")) > 0:
        flags = head[at + 6] if at + 6 < len(head) else 0
        return 12 if flags & 0x20 else 10 if flags & 0x40 else 8
    if kind == "JPEG2000" and (at := head.find(b"\xff\x51")) >= 0 and at + 40 < len(head):
        return (head[at + 40] & 0x7F) + 1
    if kind == "PPM" and (found := re.match(rb"P[36]\s+(?:#[^\n]*\s+)*\d+\s+\d+\s+(\d{1,5})\s", head)):
        return int(found[1]).bit_length()
    return 8
