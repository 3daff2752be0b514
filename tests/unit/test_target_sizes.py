"""Sizes by purpose: screens, papers, prints, and boxes of pixels."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from srcli.errors import InputError
from srcli.imaging.exif import ExifBlock
from srcli.imaging.metadata import set_density
from srcli.imaging.picture import Metadata
from srcli.settings import TargetSize
from srcli.target_sizes import parse_box, parse_fit


@pytest.mark.parametrize(
    ("text", "picture", "result"),
    [
        ("4k", (960, 540), (3840, 2160)),
        ("4K", (540, 960), (2160, 3840)),
        ("8k", (1000, 1000), (4320, 4320)),
        ("a4@300", (1000, 500), (3508, 1754)),
        ("a4@300dpi", (500, 1000), (1754, 3508)),
        ("30x40cm@300dpi", (300, 400), (3543, 4724)),
        ("40x30cm@300dpi", (300, 400), (3543, 4724)),
        ("6x4in@200", (600, 400), (1200, 800)),
        ("4k", (7680, 4320), (3840, 2160)),
    ],
)
def test_a_result_fits_what_it_is_for(text, picture, result):
    assert TargetSize(to=text).of(*picture, default=4) == result


def test_a_print_has_a_density_and_a_screen_has_none():
    assert (TargetSize(to="a4@150").dpi, TargetSize(to="4k").dpi, TargetSize(scale=2).dpi) == (150, None, None)


@pytest.mark.parametrize("text", ["5k", "a4", "a4@", "a9@300", "30x40@300", "30x40cm", "0x0cm@300", "a4@5", "a4@9999"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="`to`"):
        parse_box(text)


def test_fit_keeps_the_form_and_does_not_turn():
    assert TargetSize(fit=(1920, 1080)).of(500, 1000, default=4) == (540, 1080)
    assert parse_fit("1920x1080") == (1920, 1080)
    for text in ("1920", "x", "0x5x5", "a x b"):
        with pytest.raises(InputError, match="`fit`"):
            parse_fit(text)
    with pytest.raises(InputError, match="greater than 0"):
        TargetSize(fit=(0, 5))


def test_two_sizes_exclude_each_other():
    with pytest.raises(InputError, match="exclude each other"):
        TargetSize(scale=2, to="4k")
    assert [
        size.is_scale for size in (TargetSize(), TargetSize(scale=2), TargetSize(to="4k"), TargetSize(fit=(1, 1)))
    ] == [1, 1, 0, 0]


def test_the_density_is_written_where_exif_names_one():
    exif = Image.Exif()
    exif[0x11A], exif[0x11B], exif[0x128], exif[0x10F] = 72.0, 72.0, 3, "maker"
    data = exif.tobytes().removeprefix(b"Exif\x00\x00")
    found = set_density(Metadata(exif=data, comment=b"kept"), 300)
    block = ExifBlock.parse(found.exif)
    assert block.number(block.value(block.main[0x11A])[:4]) == 300 * block.number(block.value(block.main[0x11A])[4:])
    assert block.number(block.value(block.main[0x128])) == 2
    assert replace(found, exif=data, dpi=None) == Metadata(exif=data, comment=b"kept")
    assert set_density(Metadata(), 300) == Metadata(dpi=(300, 300))
    assert set_density(Metadata(exif=b"broken"), 300).dpi == (300, 300)
