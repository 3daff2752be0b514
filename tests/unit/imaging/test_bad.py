"""Bad input: each gets one line with its reason, and nothing hangs, crashes or passes silently."""

import os
import socket
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image
from tests.unit.imaging.builders import chunk, noise, png, ramp, saved, tiff

from srcli import messages
from srcli.errors import PictureError, SrcliError
from srcli.imaging.read import read_picture

PNG = saved(noise(40, 40), "PNG")
JPEG = saved(noise(64, 64), "JPEG")
BROKEN_CRC = PNG[:29] + bytes(b ^ 0xFF for b in PNG[29:33]) + PNG[33:]
BROKEN_PIXELS = PNG[:200] + bytes(b ^ 0xFF for b in PNG[200:240]) + PNG[240:]
FLOATS = np.full((3, 3), 0.5, np.float32)

AVIF = saved(noise(9, 9), "AVIF")
HUGE_AVIF = AVIF.replace(b"ispe\0\0\0\0" + struct.pack(">LL", 9, 9), b"ispe\0\0\0\0" + struct.pack(">LL", 17000, 17000))
PALETTE = saved(Image.fromarray(noise(6, 5)).convert("P"), "PNG")
NO_PALETTE = PALETTE[:33] + PALETTE[PALETTE.index(b"IDAT") - 4 :]

ROWS = {
    "png without its palette": (NO_PALETTE, "damaged", r"damaged \(its parts contradict each other\)"),
    "avif of too many pixels": (HUGE_AVIF, "too-large", "17000x17000"),
    "truncated gif": (saved(noise(64, 64), "GIF")[:2000], "truncated", "is cut off: fetch it again"),
    "empty": (b"", "empty", "empty"),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], "truncated", "`allow_truncated`"),
    "truncated png": (PNG[: len(PNG) // 2], "truncated", "`allow_truncated`"),
    "png with a wrong checksum": (BROKEN_CRC, "damaged", "header"),
    "png with wrong pixels": (BROKEN_PIXELS, "damaged", "broken data"),
    "png of nothing": (PNG[:8], "damaged", "damaged"),
    "png without size": (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">LLBBBBB", 0, 0, 8, 2, 0, 0, 0)),
        "damaged",
        "header",
    ),
    "png text bomb": (
        png(noise(2, 2), chunk(b"zTXt", b"x\x00\x00" + zlib.compress(bytes(1 << 22)))),
        "damaged",
        "large",
    ),
    "text": (b"these are words\n" * 9, "not-a-picture", "text file"),
    "web page": (b"\n<!DOCTYPE html><html>404</html>", "not-a-picture", "web page"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "not-a-picture", "git lfs pull"),
    "appledouble": (b"\x00\x05\x16\x07" + bytes(90), "not-a-picture", "AppleDouble"),
    "random bytes": (bytes(range(1, 200)), "unsupported", "no picture that srcli knows"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported", "PostScript"),
    "pdf": (b"%PDF-1.7\n", "unsupported", "PDF"),
    "svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported", "SVG"),
    "psd": (b"8BPS" + bytes(30), "unsupported", "Photoshop"),
    "jxl": (b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(30), "damaged", "damaged"),
    "jxl stream": (b"\xff\x0a" + bytes(30), "damaged", "damaged"),
    "exr": (b"\x76\x2f\x31\x01" + bytes(30), "damaged", "damaged"),
    "pfm": (b"PF\n2 2\n-1.0\n" + bytes(48), "unsupported", "high dynamic range"),
    "zip": (b"PK\x03\x04" + bytes(30), "unsupported", "archive"),
    "video": (b"\x00\x00\x00\x18ftypmp42" + bytes(30), "unsupported", "video"),
    "cr2": (b"II*\x00\x10\x00\x00\x00CR\x02\x00" + bytes(30), "unsupported", "raw"),
    "cr3": (b"\x00\x00\x00\x18ftypcrx " + bytes(30), "unsupported", "raw"),
    "dng": (tiff(noise(4, 4), more={50706: (1, 4, b"\x01\x04\x00\x00")}), "unsupported", "raw"),
    "sensor data": (tiff(noise(4, 4, np.uint16, 1), photometric=32803), "unsupported", "raw"),
    "float tiff of other units": (tiff(FLOATS * 500, sample_format=3), "unsupported", "from 250 to 250: bring them"),
    "not-a-number tiff": (tiff(FLOATS * np.float32("nan"), sample_format=3), "unsupported", "NaN or infinite"),
    "signed tiff": (tiff(noise(3, 3, np.uint16, 1), sample_format=2), "unsupported", "signed"),
    "32-bit tiff": (tiff(noise(3, 3, np.uint32, 1)), "unsupported", "uint numbers"),
    "two bytes of tiff": (b"II*\x00", "unsupported", "damaged TIFF"),
    "half an avif": (saved(noise(32, 32), "AVIF")[:200], "damaged", "damaged"),
    "half a webp": (saved(noise(32, 32), "WEBP")[:200], "damaged", "damaged"),
    "half a gif": (saved(noise(32, 32), "GIF")[:-300], "truncated", "cut off"),
    "half a bmp": (saved(noise(32, 32), "BMP")[:300], "truncated", "`allow_truncated`"),
}


@pytest.mark.parametrize("row", ROWS)
def test_bad_content(row, tmp_path):
    data, kind, words = ROWS[row]
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with pytest.raises(PictureError, match=words) as caught:
        read_picture(path)
    text = str(caught.value)
    assert "bad.png" in text
    assert "\n" not in text
    assert ":" in text
    assert caught.value.kind == kind
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("step", range(1, 12))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF", "GIF", "BMP", "PPM"])
def test_flipped_bytes_give_a_picture_or_a_reason(kind, step):
    """A decoder may not notice; it must not let a foreign exception through."""
    data = bytearray(saved(ramp(24, 24), kind))
    rng = np.random.default_rng(step)
    for at in rng.integers(0, len(data), 6):
        data[at] = int(rng.integers(0, 256))
    try:
        assert read_picture(bytes(data), max_pixels=10**6, frames="first").pixels.ndim == 3
    except SrcliError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("suffix", [".nef", ".CR2", ".dng", ".arw"])
def test_raw_files_that_open_as_their_thumbnail(suffix, tmp_path):
    path = tmp_path / f"raw{suffix}"
    path.write_bytes(tiff(noise(4, 4)))
    with pytest.raises(PictureError, match="raw"):
        read_picture(path)


def test_truncated_files_can_be_taken_as_they_are():
    whole = saved(noise(64, 64), "JPEG")
    found = read_picture(whole[: len(whole) * 2 // 3], allow_truncated=True)
    assert found.pixels.shape == (64, 64, 3)
    assert "truncated" in " ".join(found.notes)
    assert "truncated" not in " ".join(read_picture(whole, allow_truncated=True).notes)
    with pytest.raises(PictureError, match="nothing of it is there to take"):
        read_picture(whole[:200], allow_truncated=True)


def test_pixel_limit():
    data = saved(noise(20, 20), "PNG")
    with pytest.raises(PictureError, match="more than 399 pixels: raise `max_pixels`") as caught:
        read_picture(data, max_pixels=399)
    assert caught.value.kind == "too-large"
    assert read_picture(data, max_pixels=400).width == 20


def test_a_bomb_costs_nothing():
    header = struct.pack(">LLBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    with pytest.raises(PictureError, match="million pixels"):
        read_picture(bomb)


def test_pillows_own_limits_are_left_as_they_were():
    from PIL import Image, ImageFile

    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    with pytest.raises(PictureError):
        read_picture(JPEG[:300], allow_truncated=True, max_pixels=5)
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_decoders_write_no_lines_of_their_own(capfd, tmp_path, monkeypatch):
    """libtiff writes to the file descriptor itself; the program may silence it."""
    monkeypatch.setattr(messages, "owns_stderr", True)
    data = bytearray(saved(ramp(64, 64), "TIFF", compression="tiff_lzw"))
    data[200:400] = bytes(200)
    with pytest.raises(PictureError):
        read_picture(bytes(data))
    with pytest.raises(PictureError):
        read_picture(tiff(noise(4, 4), more={277: (3, 1, b"\xff\xff")}))
    assert capfd.readouterr().err == ""
    os.write(2, b"still there")
    assert capfd.readouterr().err == "still there"


# --- what is no regular file -------------------------------------------------------------------------------------


def refused(path, kind, words=None):
    with pytest.raises(PictureError, match=words) as caught:
        read_picture(path)
    assert caught.value.kind == kind


def test_folder(tmp_path):
    refused(tmp_path, "not-a-file", "folder")


def test_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    thread = threading.Thread(target=refused, args=(tmp_path / "pipe", "not-a-file", "pipe"), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_socket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("s")
        refused(tmp_path / "s", "not-a-file", "socket")


def test_device():
    refused(__import__("pathlib").Path("/dev/null"), "not-a-file", "device")


def test_vanished(tmp_path):
    refused(tmp_path / "gone.png", "vanished")
    (tmp_path / "file").write_bytes(PNG)
    refused(tmp_path / "file" / "below.png", "vanished")


def test_link_to_itself(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    refused(tmp_path / "loop", "unreadable")


def test_name_that_is_too_long(tmp_path):
    refused(tmp_path / ("x" * 300 + ".png"), "unreadable", "too long")


def test_null_in_a_name(tmp_path):
    refused(tmp_path / "a\x00b.png", "unreadable")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_unreadable(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(PNG)
    path.chmod(0)
    refused(path, "unreadable", "permission")


def test_changed_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "growing.png"
    path.write_bytes(PNG)
    from srcli.imaging import read

    real = read._read

    def slow(*args, **options):
        result = real(*args, **options)
        with path.open("ab") as file:
            file.write(b"more")
        return result

    monkeypatch.setattr(read, "_read", slow)
    refused(path, "changed")


@pytest.mark.parametrize(
    "name", [b"\xff\xfe.png", b"[red]x.png", b"a\nb.png", b"\x1b[31m.png", b"-x.png", b" :smile:.png"]
)
def test_strange_names_are_read(name, tmp_path):
    path = type(tmp_path)(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
    path.write_bytes(PNG)
    assert read_picture(path).width == 40
    path.write_bytes(b"")
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    assert str(caught.value).isprintable()


def test_a_gain_map_of_a_second_picture_in_a_jpeg_is_said():
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/"/>'
    gain = Image.fromarray(noise(8, 8))
    whole = saved(Image.fromarray(noise(16, 16)), "MPO", save_all=True, append_images=[gain], xmp=packet)
    notes = " ".join(read_picture(whole).notes)
    assert "gain map was left out" in notes and "holds 2 pictures" in notes


@pytest.mark.parametrize("mark", [b"http://ns.apple.com/HDRGainMap/1.0/", b"urn:com:apple:photo:2020:aux:hdrgainmap\0"])
def test_a_gain_map_that_is_left_out_is_said(mark):
    whole = JPEG[:2] + b"\xff\xfe" + struct.pack(">H", len(mark) + 2) + mark + JPEG[2:]
    assert "gain map was left out" in " ".join(read_picture(whole).notes)
