"""AVIF and HEIC of 10 and 12 bits a channel are read at 16."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import ImageCms
from tests.unit.imaging.builders import exif_block, ramp, saved

from srcli.imaging import avif_reader
from srcli.imaging.read import read_picture

needs_avif = pytest.mark.skipif(not cv2.haveImageWriter(".avif"), reason="this OpenCV has no AVIF")


def deep_avif(levels: np.ndarray, bits: int) -> bytes:
    options = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 100]
    return cv2.imencode(".avif", levels, options)[1].tobytes()  # noqa: TID251


def levels_of(bits: int, channels: int) -> np.ndarray:
    return (ramp(32, 48, np.uint16, channels).astype(np.uint32) * ((1 << bits) - 1) // 65535).astype(np.uint16)


@needs_avif
@pytest.mark.parametrize(("bits", "channels"), [(10, 3), (12, 3), (10, 4), (10, 1)])
def test_all_bits_of_an_avif_are_read(bits, channels):
    levels = levels_of(bits, channels)
    found = read_picture(deep_avif(levels if channels > 1 else levels[..., 0], bits))
    want = np.rint(levels * (65535 / ((1 << bits) - 1)))
    assert (found.pixels.dtype, found.notes, found.grey) == (np.uint16, (), channels == 1)
    assert np.array_equal(found.pixels, np.broadcast_to(want[..., 2::-1] if channels > 1 else want, (32, 48, 3)))
    assert found.alpha is None if channels < 4 else np.array_equal(found.alpha, want[..., 3])


@needs_avif
def test_an_opencv_without_avif_leaves_eight_bits_and_that_is_said(monkeypatch):
    monkeypatch.setattr(avif_reader.cv2, "imdecode", lambda data, flags: None)
    found = read_picture(deep_avif(levels_of(10, 3), 10))
    assert found.depth == 8 and "its 10 bits a channel were read as 8" in found.notes


@needs_avif
def test_metadata_orientation_and_profile_of_a_deep_avif_stay():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    parts = [np.frombuffer(part, np.uint8) for part in (exif_block(6), profile)]
    kinds, options = [cv2.IMAGE_METADATA_EXIF, cv2.IMAGE_METADATA_ICCP], [cv2.IMWRITE_AVIF_DEPTH, 10]
    _, data = cv2.imencodeWithMetadata(".avif", levels_of(10, 3), kinds, parts, options)
    found = read_picture(data.tobytes())
    assert (found.depth, found.pixels.shape) == (16, (48, 32, 3))
    assert found.metadata.exif == exif_block(6)
    assert found.profile is not None and found.profile.data == profile


def test_all_bits_of_a_heic_are_read():
    pillow_heif = pytest.importorskip("pillow_heif")
    levels, file = levels_of(10, 3), io.BytesIO()
    pillow_heif.encode("RGB;16", (48, 32), (levels << 6).tobytes(), file, quality=-1)
    found = read_picture(file.getvalue())
    assert found.depth == 16 and len(np.unique(found.pixels)) > 256 and found.notes == ()
    error = np.abs(found.pixels.astype(int) - np.rint(levels * (65535 / 1023)).astype(int))
    assert error.mean() < 400, "HEIC stores luminance and colour, not RGB"


def test_light_by_pq_is_said():
    data = saved(ramp(16, 16), "AVIF").replace(b"colrnclx\0\x01\0\x0d", b"colrnclx\0\x01\0\x10")
    assert "HDR colour signal" in " ".join(read_picture(data).notes)
