"""A picture that is read and written again, with nothing done to it, is the picture that it was."""

import numpy as np
import pytest
from PIL import Image
from tests.unit.imaging.builders import (
    ADOBE,
    P3,
    PROPHOTO,
    cmyk_profile,
    exif_block,
    grey_profile,
    noise,
    png,
    ramp,
    rgb_profile,
    saved,
    scanner_profile,
    srgb_profile,
    tiff,
)

from srcli.imaging import icc
from srcli.imaging.read import read_picture
from srcli.imaging.write import write_picture

MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
SUFFIX = {"PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "JPEG": ".jpg", "AVIF": ".avif", "BMP": ".bmp", "PPM": ".ppm"}


def again(data: bytes, kind: str, tmp_path, **options):
    """The picture as read, and as read from what was written of it."""
    first = read_picture(data)
    path = tmp_path / f"out{SUFFIX[kind]}"
    notes = write_picture(first, path, **options)
    return first, read_picture(path), path, notes


def source(mode: str, depth: int, kind: str) -> bytes:
    pixels = noise(17, 23, np.uint16 if depth == 16 else np.uint8, MODES[mode]) | 1
    if depth == 8:
        return saved(Image.fromarray(pixels, mode), kind, **({"lossless": True} if kind == "WEBP" else {}))
    return png(pixels) if kind == "PNG" else tiff(pixels)


@pytest.mark.parametrize(
    ("kind", "depth", "mode"),
    [(k, d, m) for k in ("PNG", "TIFF") for d in (8, 16) for m in MODES if (k, d, m) != ("TIFF", 16, "LA")]
    + [("WEBP", 8, "RGB"), ("WEBP", 8, "RGBA"), ("BMP", 8, "RGB"), ("BMP", 8, "L"), ("PPM", 8, "L"), ("PPM", 8, "RGB")],
)
def test_exact_formats_keep_every_bit(kind, depth, mode, tmp_path):
    first, second, _, notes = again(source(mode, depth, kind), kind, tmp_path)
    assert second.depth == depth
    assert second.grey == first.grey == (mode in ("L", "LA"))
    assert (second.pixels == first.pixels).all()
    assert (second.alpha is None) == (first.alpha is None)
    if first.alpha is not None:
        assert (second.alpha == first.alpha).all()
    assert notes == ()


@pytest.mark.parametrize("kind", ["JPEG", "AVIF"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_lossy_formats_stay_close(kind, mode, tmp_path):
    pixels = ramp(64, 96, channels=MODES[mode])
    data = saved(pixels[..., 0] if mode == "L" else pixels, kind, quality=100)
    first, second, _, _ = again(data, kind, tmp_path)
    assert second.grey == (mode == "L")
    assert np.abs(second.pixels.astype(int) - first.pixels).mean() < 1.5


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_no_orientation_is_applied_twice(kind, turn, tmp_path):
    data = saved(ramp(16, 32), "PNG", exif=exif_block(turn))
    first, second, path, _ = again(data, kind, tmp_path)
    assert second.pixels.shape == first.pixels.shape
    assert np.abs(second.pixels.astype(int) - first.pixels).mean() < 3
    with Image.open(path) as opened:  # and no other program turns it either
        assert opened.getexif().get(0x112, 1) == 1
        assert opened.size == (first.width, first.height)


# --- colour ------------------------------------------------------------------------------------------------------

WIDE = {"p3": (P3, 2.2), "adobe": (ADOBE, 2.19921875), "prophoto": (PROPHOTO, 1.8)}


def own_pixels(path) -> np.ndarray:
    """The file's numbers, unconverted."""
    with Image.open(path) as opened:
        return np.asarray(opened).astype(int)


@pytest.mark.parametrize("space", WIDE)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_wide_spaces_come_back_as_they_were(space, kind, tmp_path):
    profile = rgb_profile(*WIDE[space])
    data = saved(ramp(32, 48), "PNG", icc_profile=profile)
    first, _, path, _ = again(data, kind, tmp_path)
    assert np.abs(first.pixels.astype(int) - ramp(32, 48)).max() > 5  # the model saw converted colours
    with Image.open(path) as opened:
        assert opened.info["icc_profile"] == profile
    limit = 2 if kind in ("PNG", "TIFF") else 12
    assert np.abs(own_pixels(path) - ramp(32, 48)).max() <= limit


@pytest.mark.parametrize("space", WIDE)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_wide_spaces_at_sixteen_bits(space, kind, tmp_path):
    profile = rgb_profile(*WIDE[space])
    pixels = ramp(32, 48, np.uint16)
    data = tiff(pixels, more={34675: (7, len(profile), profile)})
    _, second, path, _ = again(data, kind, tmp_path)
    with Image.open(path) as opened:
        assert opened.info["icc_profile"] == profile
    own = read_picture(path).pixels
    assert second.depth == 16
    want = read_picture(data).pixels
    assert np.abs(own.astype(int) - want).max() <= 64  # of 65,535; ProPhoto's darks are steep


@pytest.mark.parametrize("deep", [False, True])
def test_colours_outside_srgb_survive(deep, tmp_path):
    """P3's own red is beyond sRGB: what the model sees is clipped, what is written is not."""
    pixels = ramp(32, 48, np.uint16 if deep else np.uint8)
    top = np.iinfo(pixels.dtype).max
    pixels[8:24, 8:40] = (top, 0, top // 16)
    profile = rgb_profile()
    data = tiff(pixels, more={34675: (7, len(profile), profile)})
    first, _, path, _ = again(data, "TIFF", tmp_path)
    bare = tmp_path / "bare.tif"
    write_picture(read_picture(path.read_bytes().replace(b"acsp", b"XXXX")), bare)
    got = read_picture(bare).pixels.astype(int)
    assert np.abs(got - pixels).max() <= top // 100
    clipped = icc.convert_from_srgb(first.pixels, first.profile).astype(int)
    assert np.abs(clipped - pixels).max() > top // 20


def test_a_tint_that_is_not_at_the_edge_of_srgb_is_left_alone():
    own = np.full((4, 4, 3), 100, np.uint8)
    icc.restore_gamut(own, np.full((4, 4, 3), 128, np.uint8), np.full((4, 4, 3), icc.MIDDLE + 50, np.uint16))
    assert (own == 100).all()


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_with_a_profile_goes_back_to_its_inks(kind, tmp_path):
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:8] = (200, 40, 10, 0)
    data = saved(
        Image.fromarray(inks, "CMYK"), kind, icc_profile=cmyk_profile(), **({"quality": 100} if kind == "JPEG" else {})
    )
    first, _, path, _ = again(data, kind, tmp_path)
    assert first.pixels[2, 2].argmax() == 2  # cyan's blue, not its negative
    assert (first.pixels[12, 12] > 245).all()
    with Image.open(path) as opened:
        assert opened.mode == "CMYK"
        assert opened.info["icc_profile"] == cmyk_profile()
        assert np.abs(np.asarray(opened).astype(int) - inks).max() < 14


def test_cmyk_in_formats_without_inks(tmp_path):
    data = saved(Image.new("CMYK", (8, 8), (0, 200, 200, 0)), "TIFF", icc_profile=cmyk_profile())
    _, second, path, notes = again(data, "PNG", tmp_path)
    assert "sRGB" in " ".join(notes)
    assert second.pixels[4, 4].argmax() == 0
    with Image.open(path) as opened:
        assert opened.info["icc_profile"] == icc.srgb_profile()


def test_cmyk_without_a_profile_says_so(tmp_path):
    found = read_picture(saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "TIFF"))
    assert found.pixels[0, 0].tolist() == [0, 255, 255]
    assert "rule of thumb" in " ".join(found.notes)


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_with_a_grey_profile(depth, tmp_path):
    dtype = np.uint8 if depth == 8 else np.uint16
    pixels = ramp(32, 32, dtype, 1)[..., 0]
    profile = grey_profile()
    data = tiff(pixels, more={34675: (7, len(profile), profile)})
    first, second, path, _ = again(data, "TIFF", tmp_path)
    assert second.grey
    assert np.abs(first.pixels[..., 0].astype(int) - pixels).max() > np.iinfo(dtype).max // 50
    assert np.abs(own_pixels(path) - pixels).max() <= (1 if depth == 8 else 32)


def test_a_grey_profile_does_not_go_with_a_colourful_result(tmp_path):
    from dataclasses import replace

    first = read_picture(saved(ramp(16, 16, channels=1)[..., 0], "PNG", icc_profile=grey_profile()))
    notes = write_picture(replace(first, pixels=noise(16, 16)), tmp_path / "a.png")
    assert "sRGB" in " ".join(notes)
    with Image.open(tmp_path / "a.png") as opened:
        assert (opened.mode, opened.info["icc_profile"]) == ("RGB", icc.srgb_profile())


def test_srgb_stays_bit_for_bit_with_its_profile(tmp_path):
    profile = srgb_profile()
    pixels = noise(20, 20)
    _, _, path, _ = again(saved(pixels, "PNG", icc_profile=profile), "PNG", tmp_path)
    assert (own_pixels(path) == pixels).all()
    with Image.open(path) as opened:
        assert opened.info["icc_profile"] == profile


BROKEN = {
    "garbage": (b"garbage" * 40, "RGB"),
    "cut off": (rgb_profile()[:300], "RGB"),
    "for ink": (cmyk_profile(), "RGB"),
    "for colour on grey": (rgb_profile(), "L"),
    "for grey on colour": (grey_profile(), "RGB"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_profiles_that_do_not_work_are_dropped_and_said(case, tmp_path):
    profile, mode = BROKEN[case]
    pixels = noise(8, 8, channels=MODES[mode])
    first, second, path, _ = again(saved(pixels, "PNG", icc_profile=profile), "PNG", tmp_path)
    assert "profile" in " ".join(first.notes)
    assert (second.pixels == first.pixels).all()
    with Image.open(path) as opened:
        assert "icc_profile" not in opened.info


def test_sixteen_bits_become_eight_where_they_must(tmp_path):
    _, second, _, notes = again(png(ramp(32, 32, np.uint16)), "JPEG", tmp_path)
    assert second.depth == 8
    assert np.abs(second.pixels.astype(int) * 257 - ramp(32, 32, np.uint16)).mean() < 400
    assert "8 bits" in " ".join(notes)


def test_transparency_goes_on_white_where_it_must(tmp_path):
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[8:] = (255, 0, 0, 255)
    _, second, _, notes = again(saved(pixels, "PNG"), "JPEG", tmp_path)
    assert (second.pixels[2, 2] > 250).all()
    assert np.abs(second.pixels[13, 13].astype(int) - (255, 0, 0)).max() < 5
    assert "white" in " ".join(notes)


def test_an_opaque_alpha_costs_no_note(tmp_path):
    data = saved(np.dstack([noise(8, 8), np.full((8, 8), 255, np.uint8)]), "PNG")
    assert again(data, "JPEG", tmp_path)[3] == ()


def test_grey_with_a_faint_tint_is_written_grey_and_a_colourful_one_is_not(tmp_path):
    from dataclasses import replace

    first = read_picture(saved(ramp(16, 16, channels=1)[..., 0], "PNG"))
    tinted = first.pixels.copy()
    tinted[..., 0] += 3
    for pixels, mode in ((tinted, "L"), (noise(16, 16), "RGB")):
        write_picture(replace(first, pixels=pixels), tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as opened:
            assert opened.mode == mode


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 7)])
@pytest.mark.parametrize("kind", SUFFIX)
@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_the_smallest_pictures_and_strips(size, kind, mode, tmp_path):
    data = saved(Image.fromarray(noise(*size, channels=MODES[mode]) | 1, mode), "PNG", icc_profile=b"")
    first, second, _, _ = again(data, kind, tmp_path)
    assert second.pixels.shape == first.pixels.shape == (*size, 3)


def test_the_gamut_follows_the_size_of_the_result(tmp_path):
    """What lies beyond sRGB is put where it belongs in an enlargement too."""
    from dataclasses import replace

    from srcli.imaging.resize import resize_array

    pixels = ramp(32, 48)
    pixels[8:24, 8:40] = (255, 0, 16)
    first = read_picture(saved(pixels, "PNG", icc_profile=rgb_profile()))
    big = replace(first, pixels=resize_array(first.pixels, (192, 128)))
    write_picture(big, tmp_path / "a.png")
    assert np.abs(own_pixels(tmp_path / "a.png")[48:80, 48:144] - (255, 0, 16)).max() <= 3


def test_a_scanners_profile_leads_to_srgb_and_is_replaced(tmp_path):
    first, second, path, _ = again(saved(ramp(16, 16), "PNG", icc_profile=scanner_profile()), "PNG", tmp_path)
    assert "a scanner's" in " ".join(first.notes)
    assert np.abs(first.pixels.astype(int) - ramp(16, 16)[..., ::-1]).mean() < 3
    assert (second.pixels == first.pixels).all()
    with Image.open(path) as opened:
        assert "icc_profile" not in opened.info


@pytest.mark.parametrize("kind", ["mft1", "mft2", "mAB "])
def test_sixteen_bits_come_out_of_a_scanners_space_by_its_tables(kind):
    """As LittleCMS brings out eight, and finer."""
    deep, profile = ramp(40, 40, np.uint16), scanner_profile(kind)
    found = read_picture(tiff(deep, more={34675: (7, len(profile), profile)}))
    eight = read_picture(saved(np.rint(deep / 257).astype(np.uint8), "PNG", icc_profile=profile))
    assert found.depth == 16 and "scanner's" in " ".join(found.notes) and found.notes == eight.notes
    error = np.abs(found.pixels / 257 - eight.pixels)
    assert error.mean() < 0.6 and error.max() < 4
    assert len(np.unique(found.pixels)) > 3 * len(np.unique(eight.pixels))


def test_broken_tables_of_a_profile_are_left_out_and_that_is_said():
    deep, profile = ramp(4, 4, np.uint16), scanner_profile()
    at = profile.index(b"mft2")
    for broken in (
        profile[: at + 10] + b"\xff" + profile[at + 11 :],
        profile[: at + 48] + bytes(4) + profile[at + 52 :],
    ):
        found = read_picture(tiff(deep, more={34675: (7, len(broken), broken)}))
        assert np.array_equal(found.pixels, deep) and "was left out" in " ".join(found.notes)
