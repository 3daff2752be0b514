"""What Pillow has no form for: read exactly through OpenImageIO, and refused with the package's name without it."""

from __future__ import annotations

import io
import os
import struct
import sys

import numpy as np
import OpenImageIO as oiio
import pytest
from tests.unit.imaging.builders import exif_block, ramp, saved, tiff

from srcli.errors import PictureError
from srcli.imaging.read import read_picture, read_size
from srcli.imaging.write import write_picture

DEEP = ramp(80, 64, np.uint16)


def written(path, pixels, kind="uint16", **attributes) -> bytes:
    """A file by OpenImageIO itself."""
    spec = oiio.ImageSpec(pixels.shape[1], pixels.shape[0], pixels.shape[2], kind)
    for name, value in attributes.items():
        spec.attribute(name.replace("__", ":"), value)
    out = oiio.ImageOutput.create(str(path))
    assert out.open(str(path), spec) and out.write_image(np.ascontiguousarray(pixels)) and out.close(), out.geterror()
    return path.read_bytes()


SUFFIXES = {"jpeg xl": "jxl", "jpeg 2000": "jp2", "ppm": "ppm", "planar tiff": "tif"}


@pytest.mark.parametrize(("row", "channels"), [*((row, 3) for row in SUFFIXES), ("jpeg xl", 4), ("planar tiff", 4)])
def test_sixteen_bits_are_read_exactly(row, channels, tmp_path):
    options = {"compression": "lossless"} if row == "jpeg 2000" else {"jpegxl__distance": 0.0}
    options = (
        {"planarconfig": "separate", "compression": "zip", "oiio__UnassociatedAlpha": 1} if "tiff" in row else options
    )
    pixels = ramp(80, 64, np.uint16, channels)
    path = tmp_path / f"a.{SUFFIXES[row]}"
    written(path, pixels, **options)
    found = read_picture(path)
    assert found.pixels.dtype == np.uint16 and found.notes == ()
    assert np.array_equal(found.pixels, pixels[..., :3])
    assert found.alpha is None if channels == 3 else np.array_equal(found.alpha, pixels[..., 3])
    assert read_size(path) == (64, 80)
    assert np.array_equal(read_picture(path.read_bytes()).pixels, found.pixels)


def test_light_becomes_levels(tmp_path):
    light = np.array([[[0.0, 0.0031308, 0.18], [0.5, 1.0, 2.0]]], np.float32)
    found = read_picture(written(tmp_path / "a.exr", light, "float"))
    want = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055).clip(0, 1) * 65535
    assert np.abs(found.pixels.astype(float) - want).max() <= 1
    assert "16.7% of its numbers are outside" in " ".join(found.notes)


def test_light_is_freed_of_its_transparency(tmp_path):
    light = np.array([[[0.25, 0.25, 0.25, 0.5]]], np.float32)
    found = read_picture(written(tmp_path / "a.exr", light, "float"))
    assert found.alpha.tolist() == [[32768]] and abs(int(found.pixels[0, 0, 0]) - 48192) <= 1  # sRGB's 0.5


@pytest.mark.parametrize("bands", [1, 3])
def test_a_float_tiff_of_a_screens_values_is_read(bands):
    values = np.linspace(0, 1, 12 * bands, dtype=np.float32).reshape(3, 4, bands)
    found = read_picture(tiff(values if bands > 1 else values[..., 0], sample_format=3))
    assert found.grey == (bands == 1)
    assert np.array_equal(found.pixels[..., :bands], np.rint(values * 65535).astype(np.uint16))


def test_planes_stored_multiplied_by_their_transparency_are_freed_of_it():
    pixels = np.full((2, 2, 4), 20000, np.uint16)
    pixels[..., 3] = 40000
    found = read_picture(tiff(pixels, planar=True, deflate=True, extra_samples=1))
    assert (found.pixels == 20000 * 65535 // 40000).all() and (found.alpha == 40000).all()


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(number, tmp_path):
    pixels = np.full((2, 2, 3), number, np.float32)
    with pytest.raises(PictureError, match="NaN or infinite"):
        read_picture(written(tmp_path / "a.exr", pixels, "float"))


def test_metadata_of_a_planar_tiff_and_a_jpeg_xl_stays(tmp_path):
    data = tiff(DEEP, deflate=True, planar=True, more={305: (2, 7, b"camera\0")})
    assert b"camera" in read_picture(data).metadata.exif
    stream = written(tmp_path / "a.jxl", DEEP, jpegxl__distance=0.0)
    boxes = [
        (b"JXL ", b"\r\n\x87\n"),
        (b"ftyp", b"jxl \0\0\0\0jxl "),
        (b"Exif", bytes(4) + exif_block()),
        (b"xml ", b"<x/>"),
    ]
    if stream[:2] == b"\xff\x0a":
        container = b"".join(struct.pack(">L4s", len(b) + 8, k) + b for k, b in [*boxes, (b"jxlc", stream)])
        found = read_picture(container)
        assert found.metadata.exif == exif_block() and found.metadata.xmp == b"<x/>"
        assert np.array_equal(found.pixels, DEEP)


def test_what_is_too_large_is_refused_by_its_header(tmp_path):
    path = tmp_path / "a.exr"
    written(path, np.zeros((64, 64, 3), np.float32), "half")
    for read in (read_picture, read_size):
        with pytest.raises(PictureError, match="64x64 pixels: raise `max_pixels`") as caught:
            read(path, max_pixels=1000)
        assert caught.value.kind == "too-large"


def test_channels_that_are_no_colours_are_refused(tmp_path):
    with pytest.raises(PictureError, match="5 channels"):
        read_picture(written(tmp_path / "a.exr", np.zeros((4, 4, 5), np.float32), "half"))


@pytest.mark.parametrize("suffix", ["jxl", "exr", "tif"])
@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_refused(suffix, keep, tmp_path):
    options = {"planarconfig": "separate", "compression": "zip"} if suffix == "tif" else {}
    rng = np.random.default_rng(1)
    data = written(tmp_path / f"a.{suffix}", rng.integers(0, 65535, (64, 64, 3)).astype(np.uint16), **options)
    with pytest.raises(PictureError) as caught:
        read_picture(data[: int(len(data) * keep)])
    assert "\n" not in str(caught.value)


WITHOUT = {
    "jxl": b"\xff\x0a" + bytes(30),
    "exr": b"\x76\x2f\x31\x01" + bytes(30),
    "float tiff": tiff(np.full((3, 3), 0.5, np.float32), sample_format=3),
    "float rgb tiff": tiff(np.full((3, 3, 3), 0.5, np.float32), sample_format=3),
    "planar tiff": tiff(DEEP, deflate=True, planar=True),
}


@pytest.mark.parametrize("row", WITHOUT)
def test_without_the_package_its_name_is_told(row, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenImageIO", None)
    with pytest.raises(PictureError, match=r"pip install 'srcli\[formats\]'") as caught:
        read_picture(WITHOUT[row])
    assert caught.value.kind == "unsupported"


def test_without_the_package_sixteen_bits_are_read_as_eight_and_that_is_said(tmp_path, monkeypatch):
    data = written(tmp_path / "a.ppm", DEEP)
    monkeypatch.setitem(sys.modules, "OpenImageIO", None)
    found = read_picture(data)
    assert found.pixels.dtype == np.uint8 and "srcli[formats]" in " ".join(found.notes)


def test_the_file_that_was_opened_is_read_and_no_other(tmp_path, monkeypatch):
    """Between the check and the reading, another file takes the path's place."""
    path, other = tmp_path / "a.exr", tmp_path / "b.exr"
    written(path, np.zeros((4, 4, 3), np.float32), "half")
    written(other, np.ones((4, 4, 3), np.float32), "half")
    real = oiio.ImageInput.open

    def swap(name, config):
        os.replace(other, path)
        return real(name, config)

    monkeypatch.setattr(oiio, "ImageInput", type("Swapped", (), {"open": staticmethod(swap)}))
    assert read_picture(path.read_bytes()).pixels.max() == 0


def test_a_deep_picture_is_written_as_deep(tmp_path):
    out = io.BytesIO()
    write_picture(read_picture(written(tmp_path / "a.ppm", DEEP)), out, format="PNG")
    assert np.array_equal(read_picture(out.getvalue()).pixels, DEEP)
    assert saved(DEEP[..., 0], "PNG")
