"""What a reader makes of files that are as they should be, however rare."""

import hashlib
import io
import struct

import numpy as np
import pytest
from PIL import Image
from tests.unit.imaging.builders import chunk, exif_block, noise, png, ramp, saved, tiff

from srcli.errors import PictureError
from srcli.imaging.formats import FORMATS
from srcli.imaging.read import read_picture, read_size

EXACT = [("PNG", {}), ("TIFF", {}), ("BMP", {}), ("PPM", {}), ("WEBP", {"lossless": True}), ("JPEG2000", {})]


@pytest.mark.parametrize(("kind", "options"), EXACT)
def test_exact_formats(kind, options):
    pixels = noise(9, 13)
    found = read_picture(saved(pixels, kind, **options))
    assert (found.pixels == pixels).all()
    assert (found.width, found.height, found.depth, found.format) == (13, 9, 8, kind)
    assert (found.grey, found.alpha, found.notes) == (False, None, ())


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95, "subsampling": 0}), ("AVIF", {"quality": 95})])
def test_lossy_formats(kind, options):
    pixels = ramp(64, 96)
    found = read_picture(saved(pixels, kind, **options))
    assert np.abs(found.pixels.astype(int) - pixels).mean() < 2
    assert found.format == kind
    assert not found.lossless


def test_png_gamma_and_primaries_are_ignored():
    pixels = noise(9, 13)
    linear = chunk(b"gAMA", struct.pack(">L", 100_000))
    wide = chunk(b"cHRM", struct.pack(">8L", 31270, 32900, 73500, 26500, 11500, 82600, 15700, 1800))
    assert (read_picture(png(pixels, linear, wide)).pixels == pixels).all()


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_damaged_pixels_of_a_png_are_noticed(dtype):
    data = bytearray(png(noise(24, 24, np.dtype(dtype))))
    for at in range(data.index(b"IDAT") + 8, len(data) - 20, 97):
        data[at] ^= 0x55
        with pytest.raises(PictureError) as error:
            read_picture(bytes(data))
        assert error.value.kind in ("damaged", "truncated")
        data[at] ^= 0x55


def test_the_extension_does_not_matter_and_the_file_is_named_by_its_hash(tmp_path):
    data = saved(noise(4, 4), "PNG")
    path = tmp_path / "liar.jpg"
    path.write_bytes(data)
    found = read_picture(path)
    assert found.format == "PNG"
    assert found.sha256 == hashlib.sha256(data).hexdigest()


UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("turn", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF", "deep PNG", "deep TIFF", "alpha"])
def test_every_orientation_is_applied_once(kind, turn):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :16] = 255
    pixels[:8, 16:] = 128
    exif = exif_block(turn)
    if kind == "deep PNG":
        data = png(pixels.astype(np.uint16) * 257, chunk(b"eXIf", exif))
    elif kind == "deep TIFF":
        data = tiff(pixels.astype(np.uint16) * 257, more={0x112: (3, 1, struct.pack("<H", turn))})
    elif kind == "alpha":
        data = saved(np.dstack([pixels, pixels[..., 0] | 1]), "PNG", exif=exif)
    elif kind == "TIFF":
        tags = Image.Exif()
        tags[0x112] = turn
        data = saved(pixels, kind, exif=tags)
    else:
        data = saved(pixels, kind, exif=b"Exif\x00\x00" + exif, quality=100)
    found = read_picture(data)
    want = UPRIGHT[turn](pixels)
    level = found.pixels // (257 if found.depth == 16 else 1)
    assert level.shape == want.shape
    assert np.abs(level.astype(int) - want).max() <= 8
    if kind == "alpha":
        assert (found.alpha == (want[..., 0] | 1)).all()


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
def test_the_size_is_known_from_the_headers(kind, turn):
    tags = Image.Exif()
    tags[0x112] = turn
    data = saved(ramp(64, 256), kind, exif=tags)
    found = read_picture(data)
    assert read_size(data) == (found.width, found.height) == ((64, 256) if turn > 4 else (256, 64))
    if kind in ("JPEG", "PNG"):
        assert read_size(data[: len(data) * 3 // 4]) == read_size(data)


def test_sizes_have_the_same_limits():
    with pytest.raises(PictureError, match="`max_pixels`"):
        read_size(saved(ramp(8, 8), "PNG"), max_pixels=63)
    with pytest.raises(PictureError, match="text file"):
        read_size(b"words")


@pytest.mark.parametrize("turn", [0, 9, 255])
def test_an_orientation_that_does_not_exist_is_none(turn):
    pixels = noise(4, 6)
    assert (read_picture(saved(pixels, "PNG", exif=exif_block(turn))).pixels == pixels).all()


def test_damaged_exif_does_not_stop_a_picture():
    data = saved(ramp(8, 8), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")
    assert read_picture(data).width == 8


# --- modes -------------------------------------------------------------------------------------------------------


def palette(grey: bool = False) -> Image.Image:
    picture = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) % 4, "P")
    picture.putpalette([0, 0, 0, 255, 255, 255, 9, 9, 9, 7, 7, 7] if grey else [0, 0, 0, 255, 0, 0, 0, 255, 0, 1, 2, 3])
    return picture


def test_palette():
    found = read_picture(saved(palette(), "PNG"))
    assert (found.pixels == np.asarray(palette().convert("RGB"))).all()
    assert not found.grey
    assert "palette" in " ".join(found.notes)


def test_grey_palette_is_grey():
    assert read_picture(saved(palette(grey=True), "PNG")).grey


def test_palette_with_transparency():
    found = read_picture(saved(palette(), "PNG", transparency=1))
    assert found.alpha is not None
    assert (found.alpha == np.where(np.asarray(palette()) == 1, 0, 255)).all()


def test_one_bit_is_grey_and_never_dithered():
    pixels = noise(8, 11, channels=1) > 127
    found = read_picture(saved(Image.fromarray(pixels), "PNG"))
    assert found.grey
    assert (found.pixels == pixels[..., None] * 255).all()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
def test_grey_and_alpha(mode):
    channels = noise(8, 9, channels=len(mode)) | 1
    data = saved(Image.fromarray(channels, mode), "PNG")
    found = read_picture(data)
    assert found.grey == (mode in ("L", "LA"))
    assert (found.alpha is None) == (mode == "L")
    planes = channels if mode != "L" else channels[..., None]
    assert (found.pixels == (planes[..., :3] if mode == "RGBA" else planes[..., :1])).all()
    if found.alpha is not None:
        assert (found.alpha == channels[..., -1]).all()


def test_transparent_colour_of_rgb_and_grey():
    rgb = read_picture(png(np.full((2, 2, 3), 9, np.uint8), chunk(b"tRNS", struct.pack(">3H", 9, 9, 9))))
    grey = read_picture(png(np.array([[5, 6]], np.uint16), chunk(b"tRNS", struct.pack(">H", 6))))
    deep = read_picture(png(np.full((2, 2, 3), 999, np.uint16), chunk(b"tRNS", struct.pack(">3H", 999, 999, 999))))
    assert (rgb.alpha == 0).all()
    assert grey.alpha.tolist() == [[65535, 0]]
    assert (deep.alpha == 0).all()


def test_hidden_colours_do_not_reach_the_visible():
    """Under alpha 0 stands the nearest visible colour, so that no enlargement draws a dark fringe."""
    pixels = np.zeros((5, 5, 4), np.uint8)
    pixels[2:, :] = (200, 100, 50, 255)
    found = read_picture(saved(pixels, "PNG"))
    assert (found.pixels == (200, 100, 50)).all()
    assert (found.alpha[:2] == 0).all()


# --- sixteen bits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("interlaced", [False, True])
def test_deep_png(channels, interlaced):
    pixels = noise(11, 14, np.uint16, channels) | 1
    found = read_picture(png(pixels, interlaced=interlaced))
    check_deep(found, pixels, channels)


def check_deep(found, pixels, channels):
    assert found.depth == 16
    assert found.grey == (channels < 3)
    planes = pixels.reshape(*pixels.shape[:2], -1)
    assert (found.pixels == (planes[..., :1] if channels < 3 else planes[..., :3])).all()
    if channels in (2, 4):
        assert (found.alpha == planes[..., -1]).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("how", [{}, {"deflate": True}, {"planar": True}])
def test_deep_tiff(channels, order, how):
    if channels == 1 and how.get("planar"):
        how = {}
    pixels = noise(11, 14, np.uint16, channels) | 1
    check_deep(read_picture(tiff(pixels, order=order, **how)), pixels, channels)


def test_deep_tiff_where_white_is_zero():
    pixels = noise(4, 5, np.uint16, 1)
    assert (read_picture(tiff(pixels, photometric=0)).pixels[..., 0] == 65535 - pixels).all()


def test_deep_tiff_with_multiplied_alpha():
    pixels = np.full((2, 2, 4), 20000, np.uint16)
    pixels[..., 3] = 40000
    found = read_picture(tiff(pixels, extra_samples=1))
    assert (found.pixels == 20000 * 65535 // 40000).all()


def test_deep_grey_ppm():
    pixels = noise(3, 5, np.uint16, 1)
    found = read_picture(b"P5 5 3 65535\n" + pixels.astype(">u2").tobytes())
    assert found.depth == 16
    assert (found.pixels[..., 0] == pixels).all()


# --- several pictures in one file --------------------------------------------------------------------------------


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (6, 5), colour) for colour in ("red", "green", "blue")]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_animations_and_pages_are_refused_with_their_number(kind):
    with pytest.raises(PictureError, match="3 (frames|pages)") as caught:
        read_picture(animated(kind))
    assert caught.value.kind == "frames"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_frame_can_be_taken(kind):
    found = read_picture(animated(kind), frames="first")
    assert np.abs(found.pixels[2, 2].astype(int) - (255, 0, 0)).max() <= 3
    assert "first of 3" in " ".join(found.notes)


def test_previews_in_a_tiff_are_no_pages():
    found = read_picture(tiff(noise(8, 8), pages=3, subfile=1))
    assert found.notes == ()


def test_mpo_gives_the_picture_that_viewers_show():
    first, second = Image.fromarray(ramp(16, 16)), Image.new("RGB", (16, 16))
    found = read_picture(saved(first, "MPO", save_all=True, append_images=[second]))
    assert found.pixels.mean() > 60
    assert found.format == "JPEG"
    assert "holds 2 pictures" in " ".join(found.notes)


# --- optional and other ------------------------------------------------------------------------------------------


def test_heic():
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(ramp(64, 64))).save(stream, quality=95)
    found = read_picture(stream.getvalue())
    assert found.format == "HEIF"
    assert np.abs(found.pixels.astype(int) - ramp(64, 64)).mean() < 3


def test_heic_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(PictureError, match=r"srcli\[heif\]"):
        read_picture(b"\x00\x00\x00\x18ftypheic" + bytes(100))


def test_lab_tiff():
    lab = Image.new("LAB", (4, 4), (128, 128, 128))
    found = read_picture(saved(lab, "TIFF"))
    assert np.ptp(found.pixels.astype(int), axis=-1).max() <= 2
    assert "Lab" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("mark", "word"),
    [(b"c2pa\x00\x11\x00\x10\x80\x00\x00\xaa", "C2PA"), (b"http://ns.adobe.com/hdr-gain-map/1.0/", "gain map")],
)
def test_what_does_not_survive_is_said(mark, word):
    data = png(noise(2, 2), chunk(b"caBX", mark))
    assert word in " ".join(read_picture(data).notes)


def test_more_bits_than_are_read_are_said():
    ten = bytearray(saved(ramp(16, 16), "AVIF"))
    ten[ten.index(b"av1C") + 6] |= 0x40
    assert FORMATS["AVIF"].bits(bytes(ten)) == 10
    deep = saved(Image.fromarray(noise(8, 8, np.uint16, 1)), "JPEG2000")
    assert FORMATS["JPEG2000"].bits(saved(noise(8, 8), "JPEG2000")) == 8
    assert FORMATS["JPEG2000"].bits(deep) == 16


def test_memory_is_not_shared_with_the_decoder():
    found = read_picture(saved(noise(4, 4), "PNG"))
    found.pixels[0, 0] = 1
    assert (found.pixels[0, 0] == 1).all()
