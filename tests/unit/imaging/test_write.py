"""A path holds the whole result or what it held before; limits are known before the work."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.unit.imaging.builders import noise

from srcli.errors import InputError, MachineError, PictureError
from srcli.imaging import icc, write
from srcli.imaging.formats import FORMATS, check_format_limits, format_of_name, parse_format, suffix_for
from srcli.imaging.picture import Picture
from srcli.imaging.prepare_output import SaveOptions
from srcli.imaging.read import read_picture
from srcli.imaging.write import write_picture

SUFFIXES = [".png", ".jpg", ".webp", ".tif", ".avif", ".bmp", ".ppm"]
PICTURE = Picture(pixels=noise(20, 30))
DEEP = Picture(pixels=noise(20, 30, np.uint16))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_but_the_result_is_left(suffix, tmp_path):
    write_picture(PICTURE, tmp_path / f"a{suffix}")
    assert names(tmp_path) == [f"a{suffix}"]
    assert read_picture(tmp_path / f"a{suffix}").pixels.shape == (20, 30, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_streams_get_the_same_bytes_as_files(kind, tmp_path):
    stream = io.BytesIO()
    write_picture(PICTURE, stream, format=kind)
    write_picture(PICTURE, tmp_path / "a", format=kind)
    assert stream.getvalue() == (tmp_path / "a").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_picture_gives_the_same_bytes(suffix, tmp_path):
    for name in ("a", "b"):
        write_picture(PICTURE, tmp_path / f"{name}{suffix}", provenance={"tool": "srcli"})
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("error", [OSError(28, "full"), ValueError("encoder"), MemoryError(), KeyboardInterrupt()])
@pytest.mark.parametrize("existed", [True, False])
def test_whatever_happens_the_old_file_stays(error, existed, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    if existed:
        path.write_bytes(b"what was there")

    def fail(picture, prepared, kind, saving, file):
        file.write(b"half")
        raise error

    monkeypatch.setattr(write, "_encode", fail)
    with pytest.raises((MachineError, PictureError, KeyboardInterrupt)):
        write_picture(PICTURE, path)
    assert names(tmp_path) == (["a.png"] if existed else [])
    if existed:
        assert path.read_bytes() == b"what was there"


FULL_DISK = """
import resource, sys
from pathlib import Path
from srcli.errors import MachineError
from srcli.imaging.picture import Picture
from srcli.imaging.write import write_picture
import numpy as np
pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for path in map(Path, sys.argv[1:]):
    try:
        write_picture(Picture(pixels=pixels), path)
    except MachineError as error:
        print(type(error).__name__, "space" in str(error))
"""


def test_a_full_disk_leaves_the_old_files(tmp_path):
    """Measured with the system's own limit on a file's size, for every format."""
    paths = [tmp_path / f"a{suffix}" for suffix in SUFFIXES]
    for path in paths:
        path.write_bytes(b"old")
    code = [sys.executable, "-c", FULL_DISK, *map(str, paths)]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["MachineError True"] * len(SUFFIXES), done.stderr
    assert names(tmp_path) == sorted(p.name for p in paths)
    assert all(p.read_bytes() == b"old" for p in paths)


def test_a_file_that_does_not_open_again_is_not_put_in_place(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "_encode", lambda picture, prepared, kind, saving, file: file.write(b"no picture"))
    with pytest.raises(PictureError):
        write_picture(PICTURE, tmp_path / "a.png")
    assert names(tmp_path) == []


def test_a_link_is_replaced_not_followed(tmp_path):
    (tmp_path / "original").write_bytes(b"precious")
    (tmp_path / "a.png").symlink_to("original")
    write_picture(PICTURE, tmp_path / "a.png")
    assert (tmp_path / "original").read_bytes() == b"precious"
    assert not (tmp_path / "a.png").is_symlink()


def test_missing_folder(tmp_path):
    with pytest.raises(MachineError, match="check the folder"):
        write_picture(PICTURE, tmp_path / "none" / "a.png")


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(PictureError):
        write_picture(PICTURE, tmp_path / "a.png")
    assert names(tmp_path) == ["a.png"]


def test_a_name_as_long_as_names_may_be(tmp_path):
    name = "x" * 251 + ".png"
    write_picture(PICTURE, tmp_path / name)
    assert names(tmp_path) == [name]
    with pytest.raises(PictureError, match="another name"):
        write_picture(PICTURE, tmp_path / ("x" * 252 + ".png"))


def test_a_name_that_is_no_text(tmp_path):
    path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"\xff\xe9.jpg")))
    write_picture(PICTURE, path)
    assert read_picture(path).width == 30


def test_a_closed_pipe_is_left_to_the_caller():
    class Closed(io.BytesIO):
        def write(self, data):
            raise BrokenPipeError(32, "closed")

    with pytest.raises(BrokenPipeError):
        write_picture(PICTURE, Closed())


# --- limits and names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "longest"), [("JPEG", 65_500), ("WEBP", 16_383), ("AVIF", 65_536)])
def test_limits(kind, longest):
    check_format_limits(FORMATS[kind], longest, 1)
    for size in ((longest + 1, 1), (1, longest + 1)):
        with pytest.raises(PictureError, match=str(longest)) as caught:
            check_format_limits(FORMATS[kind], *size)
        assert caught.value.kind == "format-limit"


@pytest.mark.parametrize(("kind", "suffix"), [("JPEG", ".jpg"), ("WEBP", ".webp")])
def test_the_limits_are_the_encoders_own(kind, suffix, tmp_path):
    longest = {"JPEG": 65_500, "WEBP": 16_383}[kind]
    write_picture(Picture(pixels=np.zeros((1, longest, 3), np.uint8)), tmp_path / f"a{suffix}")
    assert read_picture(tmp_path / f"a{suffix}").width == longest


def test_a_limit_is_met_before_anything_is_written(tmp_path):
    with pytest.raises(PictureError, match="16383"):
        write_picture(Picture(pixels=np.zeros((1, 16_384, 3), np.uint8)), tmp_path / "a.webp")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "kind"), [("a.JPG", "JPEG"), ("a.b.tiff", "TIFF"), ("a.png", "PNG"), ("a.jfif", "JPEG")]
)
def test_formats_by_name(name, kind):
    assert format_of_name(Path(name)).name == kind


@pytest.mark.parametrize("name", ["a.gif", "a", "a.heic", "a.xyz"])
def test_names_of_formats_that_are_not_written(name):
    with pytest.raises(InputError, match="choose one of"):
        format_of_name(Path(name))


def test_words_for_formats():
    assert [parse_format(word).name for word in ("jpg", "JPEG", "tif", "webp", ".png")] == [
        "JPEG",
        "JPEG",
        "TIFF",
        "WEBP",
        "PNG",
    ]
    with pytest.raises(InputError):
        parse_format("gif")


@pytest.mark.parametrize(
    ("source", "suffix"),
    [("a.JPG", ".JPG"), ("a.gif", ".png"), ("a.heic", ".jpg"), ("a.bmp", ".png"), ("a", ".png"), ("a.weird", ".png")],
)
def test_suffix_of_a_result(source, suffix):
    assert suffix_for(source) == suffix
    assert format_of_name(f"a{suffix_for(source)}")


# --- quality -----------------------------------------------------------------------------------------------------


def test_jpeg_keeps_full_colour_resolution(tmp_path):
    write_picture(PICTURE, tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as opened:
        assert [layer[1:3] for layer in opened.layer] == [(1, 1)] * 3


def test_quality_is_heeded(tmp_path):
    sizes = []
    for quality in (20, 60, 100):
        write_picture(PICTURE, tmp_path / "a.jpg", saving=SaveOptions(quality=quality))
        sizes.append((tmp_path / "a.jpg").stat().st_size)
    assert sizes == sorted(set(sizes))


def test_deep_png_is_filtered(tmp_path):
    """A ramp without filters would hardly deflate."""
    pixels = np.broadcast_to(np.arange(60_000, dtype=np.uint16).reshape(200, 300, 1), (200, 300, 3))
    write_picture(Picture(pixels=np.ascontiguousarray(pixels)), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size < pixels.nbytes / 50


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_pictures_larger_than_a_band(suffix, tmp_path, monkeypatch):
    """Filters and differences reach from one band into the next."""
    from srcli.imaging import bands, png_writer, tiff_writer

    small = lambda height, width, pixels=0: bands.split_rows(height, width, 90)  # noqa: E731
    monkeypatch.setattr(png_writer, "split_rows", small)
    monkeypatch.setattr(tiff_writer, "split_rows", small)
    pixels = np.cumsum(noise(31, 30, np.uint16), axis=0, dtype=np.uint16)
    write_picture(Picture(pixels=pixels, alpha=noise(31, 30, np.uint16, 1) | 1), tmp_path / f"a{suffix}")
    assert (read_picture(tmp_path / f"a{suffix}").pixels == pixels).all()


MEMORY = """
import sys
import numpy as np
from benchmarks.tables import peak
from srcli.imaging.picture import Picture
from srcli.imaging.write import write_picture
from pathlib import Path
pixels = np.zeros((3000, 8000, 3), np.uint8)
pixels[::2] = 200
before = peak()
write_picture(Picture(pixels=pixels), Path(sys.argv[1]))
print((peak() - before) / pixels.size)
"""


@pytest.mark.parametrize(("suffix", "bytes_each"), [(".jpg", 2.2), (".tif", 0.8)])
def test_memory_while_writing(suffix, bytes_each, tmp_path):
    """Per level: Pillow's own copy is 4 bytes for 3 levels; TIFF goes strip by strip."""
    code = [sys.executable, "-c", MEMORY, str(tmp_path / f"a{suffix}")]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    assert float(done.stdout) < bytes_each


def test_a_link_planted_under_the_temporary_name_is_not_written_through(tmp_path, monkeypatch):
    monkeypatch.setattr(write.secrets, "token_hex", lambda size: "known")
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / write.TEMPORARY.replace("*", "known")).symlink_to(victim)
    with pytest.raises((PictureError, MachineError)):
        write_picture(PICTURE, tmp_path / "a.png")
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "a.png").exists()


def test_bytes_reach_the_disk_before_the_name_does(tmp_path, monkeypatch):
    seen = []
    real = os.fsync

    def fsync(number):
        seen.append((tmp_path / "a.png").exists())
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    write_picture(PICTURE, tmp_path / "a.png")
    assert seen == [False, True]  # the file, then its folder


def test_our_own_profile_has_no_date():
    from PIL import ImageCms

    assert icc.srgb_profile()[24:36] == b"\x07\xea\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00"
    assert ImageCms.getProfileName(io.BytesIO(icc.srgb_profile())).startswith("sRGB")
