"""Fuzz targets of imaging: metadata blocks, whole pictures, and pictures with any metadata through the writers."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from srcli.errors import PictureError
from srcli.imaging import exif, icc, iptc, xmp
from srcli.imaging.read import read_picture, read_size
from srcli.imaging.tiff_reader_checks import explain_refusal
from srcli.imaging.write import write_picture
from tests.fuzz.mutate import spoiled
from tests.unit.imaging.builders import chunk, png, ramp, saved, tiff

PROVENANCE = {"tool": "srcli", "seed": 1}
SIZE = (10, 20)
DEEP = Path(__file__).parent / "corpus" / "picture"
SMALL = 1 << 20  # pixels; a header may claim more, and is refused


def exif_block(order: str = "<") -> bytes:
    """A block with what srcli edits: orientation, size, comment, place and a thumbnail."""
    found = Image.Exif()
    found.endian = order
    found[exif.ORIENTATION_TAG], found[exif.SOFTWARE] = 6, "camera"
    found.get_ifd(exif.EXIF_IFD)[exif.COMMENT] = b"ASCII\0\0\0hello"
    found.get_ifd(exif.EXIF_IFD)[exif.PIXEL_WIDTH] = 20
    found.get_ifd(exif.GPS_IFD)[2] = (51.0, 30.0, 0.0)
    return found.tobytes().removeprefix(b"Exif\0\0")


PACKET = xmp.update_xmp(b"", SIZE, provenance=PROVENANCE)
GAIN = PACKET.replace(
    b"</rdf:RDF>", b'<rdf:Description xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/" h:V="1"/></rdf:RDF>'
)
RECORDS = b"".join(b"\x1c\x02" + bytes([kind]) + struct.pack(">H", 3) + b"abc" for kind in (5, 90, 101, 120))
PROFILE = icc.srgb_profile()
WIDE = PROFILE.replace(b"para", b"curv", 1)
XML = (b"<rdf:RDF>", b"</", b"<!DOCTYPE a>", b"<!ENTITY a 'b'>", b"&a;", b"xmlns:a=", b"<a>" * 50, b"]]>", b"<?xml ?>")
TAGS = (b"A2B0", b"B2A0", b"scnr", b"GRAY", b"rTRC", b"para", b"curv", b"mft2", b"\x00\x00\x00\x01")


def edit_exif(data: bytes) -> None:
    """A block is edited into one that can be read, or refused as no EXIF."""
    assert 1 <= exif.read_orientation(data) <= 8
    try:
        block = exif.update_exif(data, SIZE, gps=False, signature=("srcli", "provenance"))
    except (ValueError, struct.error, IndexError) as error:  # which prepare_output tells the user of
        raise PictureError("broken EXIF") from error
    packed = exif.pack_exif(block)
    assert exif.read_orientation(packed) == 1 and exif.GPS_IFD not in exif.ExifBlock.parse(packed).main


def edit_xmp(data: bytes) -> None:
    xmp.parse_provenance(data)
    try:
        packet = xmp.update_xmp(data, SIZE, gps=False, provenance=PROVENANCE)
    except ValueError as error:
        raise PictureError("broken XMP") from error
    assert xmp.parse_provenance(packet) == PROVENANCE


def edit_iptc(data: bytes) -> None:
    records = iptc.extract_records(data) or data
    kept = iptc.remove_place(records)
    assert len(kept) <= len(records) and iptc.remove_place(kept) == kept
    assert iptc.records_from_text(iptc.records_to_text(records)) == records or not records
    iptc.records_from_text(data.decode("latin-1"))


def use_profile(data: bytes) -> None:
    """A profile is refused with a reason, or takes pixels there and back."""
    for depth, kind in ((8, np.uint8), (16, np.uint16)):
        pixels = ramp(3, 4, kind)
        try:
            profile = icc.check_profile(data, "RGB", depth)
        except ValueError as error:
            raise PictureError("a profile that cannot be used") from error
        working = icc.convert_to_srgb(pixels, profile)
        assert working.shape == pixels.shape
        assert profile.one_way or icc.convert_from_srgb(working, profile).shape == pixels.shape


def check_tiff(data: bytes) -> None:
    assert explain_refusal(data)


def read_and_write(data: bytes) -> None:
    """What is read is written in three formats, and comes back with the same pixels where nothing is lost."""
    with suppress(PictureError):
        read_size(data, max_pixels=SMALL)
    picture = read_picture(data, max_pixels=SMALL)
    for kind in ("PNG", "TIFF", "JPEG"):
        out = io.BytesIO()
        write_picture(picture, out, format=kind, provenance=PROVENANCE)
        again = read_picture(out.getvalue())
        assert again.pixels.shape == picture.pixels.shape
        if kind != "JPEG" and picture.profile is None:
            assert np.array_equal(again.pixels, picture.pixels)


@st.composite
def labelled(draw: st.DrawFn) -> bytes:
    """A sound PNG of 8 or 16 bits with spoiled metadata in chunks that are whole."""
    said = [
        chunk(b"eXIf", draw(spoiled([exif_block(), exif_block(">")]))),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + draw(spoiled([PACKET, GAIN], XML))),
        chunk(b"iCCP", b"a\0\0" + zlib.compress(draw(spoiled([PROFILE, WIDE], TAGS)))),
        chunk(b"tEXt", draw(st.binary(min_size=1, max_size=9)) + b"\0" + draw(st.binary(max_size=9))),
        chunk(b"pHYs", draw(st.binary(min_size=9, max_size=9))),
        chunk(b"tRNS", draw(st.binary(max_size=6))),
    ]
    kinds = draw(st.lists(st.sampled_from(said), max_size=3, unique=True))
    return png(ramp(4, 5, draw(st.sampled_from([np.uint8, np.uint16])), draw(st.sampled_from([1, 2, 3, 4]))), *kinds)


def pictures() -> list[bytes]:
    """Small pictures of every format that is read."""
    small = Image.fromarray(ramp(6, 5))
    kinds = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "JPEG2000")
    plain = [saved(small.convert("P") if kind == "GIF" else small, kind) for kind in kinds]
    labels = {"exif": b"Exif\0\0" + exif_block(), "icc_profile": PROFILE}
    return [
        *plain,
        *(saved(small, kind, **labels) for kind in ("JPEG", "PNG", "WEBP")),
        saved(small.convert("CMYK"), "JPEG"),
        saved(small.convert("P"), "PNG"),
        tiff(ramp(4, 5, np.uint16)),
        tiff(ramp(4, 5, np.uint16), deflate=True, planar=True),
        tiff(ramp(4, 5), pages=2),
        tiff(np.full((4, 5, 3), 0.5, np.float32), sample_format=3),
        *(path.read_bytes() for path in sorted(DEEP.iterdir())),
    ]
