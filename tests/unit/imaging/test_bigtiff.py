"""TIFF files above 4 GiB, on small pictures: the limit is lowered, the layout is the same."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image
from tests.unit.imaging.builders import IPTC, MAKER_NOTE, XMP, exif_block, noise

from srcli.imaging import bigtiff, exif, tiff_writer
from srcli.imaging.formats import FORMATS
from srcli.imaging.picture import Metadata, Picture
from srcli.imaging.prepare_output import SaveOptions, prepare_output
from srcli.imaging.provenance import read_provenance
from srcli.imaging.read import read_picture

DETAILS, GPS = 0x8769, 0x8825
PROVENANCE = {"tool": "srcli 9.9", "seed": 7}
META = Metadata(exif=exif_block(), xmp=XMP, iptc=IPTC, dpi=(300.0, 300.0))


def written(picture: Picture, limit: int = 0, provenance=PROVENANCE) -> bytes:
    file = io.BytesIO()
    tiff_writer.write_tiff(prepare_output(picture, FORMATS["TIFF"], SaveOptions(), provenance), file, limit=limit)
    return file.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("alpha", [False, True])
def test_pixels_come_back(dtype, alpha, monkeypatch):
    """In many strips: of one alone the offset lies in the field itself."""
    groups = tiff_writer.split_rows
    monkeypatch.setattr(tiff_writer, "split_rows", lambda height, width, pixels: groups(height, width, 90))
    picture = Picture(pixels=noise(31, 30, dtype), alpha=noise(31, 30, dtype, 1) | 1 if alpha else None)
    data = written(picture)
    assert data[:4] == b"II+\x00"
    found = read_picture(data)
    assert np.array_equal(found.pixels, picture.pixels)
    assert np.array_equal(found.alpha, picture.alpha) if alpha else found.alpha is None


@pytest.mark.parametrize("order", ["<", ">"])
def test_all_that_the_picture_says_comes_back(order):
    data = written(Picture(pixels=noise(8, 9), metadata=Metadata(exif=exif_block(1, order), xmp=XMP, iptc=IPTC)))
    with Image.open(io.BytesIO(data)) as out:
        tags = out.getexif()
        details, gps = tags.get_ifd(DETAILS), tags.get_ifd(GPS)
    assert tags[0x10F] == "Maker of Cameras"
    assert details[0x927C] == MAKER_NOTE
    assert (details[0xA002], details[0xA003]) == (9, 8)
    assert gps[2] == (52, 31, 12)
    found = read_picture(data)
    assert found.metadata.iptc == IPTC
    assert b"A caf\xc3\xa9" in found.metadata.xmp


def test_it_says_the_same_as_a_small_file(tmp_path):
    picture = Picture(pixels=noise(8, 9), metadata=META)
    small, large = written(picture, tiff_writer.LIMIT), written(picture)
    assert (small[2], large[2]) == (42, 43)
    assert read_picture(small).metadata == read_picture(large).metadata
    for data, name in ((small, "small.tif"), (large, "large.tif")):
        (tmp_path / name).write_bytes(data)
    assert read_provenance(tmp_path / "small.tif") == read_provenance(tmp_path / "large.tif") == PROVENANCE


def test_a_makers_note_stays_where_its_offsets_point():
    """Unless it lies right behind a small file's header, eight bytes before the place where a large one's ends."""
    block = exif.ExifBlock.parse(exif.EMPTY)
    block.data += bytes(8) + b"offsets count from the beginning of the block"
    fields = {0x927C: exif.Field(exif.UNDEFINED, 45, struct.pack("<L", 16))}
    data, offset = bigtiff.pack_directories(block, fields, 100)
    assert struct.unpack_from("<HHQQ", data, offset - 100 + 8) == (0x927C, exif.UNDEFINED, 45, 16)


def test_what_lay_under_the_longer_header_moves():
    text = b"twelve bytes"
    block = exif.ExifBlock.parse(exif.EMPTY)
    block.data += text
    data, _ = bigtiff.pack_directories(block, {0x10F: exif.Field(exif.ASCII, len(text), struct.pack("<L", 8))}, 100)
    tag, kind, count, place = struct.unpack_from("<HHQQ", data, 8)
    assert (tag, kind, count) == (0x10F, exif.ASCII, len(text))
    assert data[place - 100 :][: len(text)] == text


def test_a_damaged_directory_is_left_out():
    block = exif.ExifBlock.parse(exif.EMPTY)
    data, _ = bigtiff.pack_directories(block, {GPS: block.long(1 << 20)}, 16)
    assert struct.unpack_from("<Q", data) == (0,)


def test_offsets_beyond_32_bits():
    block = exif.ExifBlock.parse(exif.EMPTY)
    data, offset = bigtiff.pack_directories(block, {273: bigtiff.offset_field(16, 5 << 32)}, 6 << 32)
    assert offset == 6 << 32
    place = struct.unpack_from("<Q", data, 8 + 12)[0] - offset
    assert struct.unpack_from("<2Q", data, place) == (16, 5 << 32)
    assert struct.unpack("<2s3HQ", bigtiff.pack_header(offset)) == (b"II", 43, 8, 0, offset)


def test_a_directory_that_points_at_itself_ends_somewhere():
    block = exif.ExifBlock.parse(exif.EMPTY)
    place = len(block.data)
    block.put({DETAILS: block.long(place)})
    data, offset = bigtiff.pack_directories(block, {DETAILS: block.long(place)}, 64)
    assert struct.unpack_from("<QHHQ", data, offset - 64) == (1, DETAILS, bigtiff.LONG8, 1)
