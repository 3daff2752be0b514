"""Seeded draws, presets, TOML files and the chain's own properties; the golden tests hold its numbers."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from srcli.cli.train import train_app
from srcli.degrade.chain import degrade_pictures
from srcli.degrade.cropping import crop_randomly
from srcli.degrade.draws import SeededDraws
from srcli.degrade.operations import poisson_levels
from srcli.degrade.presets import PASD, PRESETS, REALESRGAN, STABLESR, find_degradation
from srcli.errors import InputError


def photograph(height: int = 96, width: int = 80, count: int = 1) -> torch.Tensor:
    """Smooth shapes with an edge."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    shades = torch.stack([y, x, (y + x > 1).float()])
    return shades.expand(count, 3, height, width).contiguous()


@pytest.mark.parametrize("name", PRESETS)
def test_a_key_decides_everything(name: str) -> None:
    one, same, other = (degrade_pictures(photograph(), PRESETS[name], SeededDraws.of(7, key)) for key in (1, 1, 2))
    assert torch.equal(one.degraded, same.degraded)
    assert one.degraded.shape != other.degraded.shape or not torch.equal(one.degraded, other.degraded)
    assert 0 <= one.degraded.min() <= one.degraded.max() <= 1


@pytest.mark.parametrize("name", PRESETS)
def test_the_degraded_picture_is_of_the_target(name: str) -> None:
    """It resembles its target more than the target mirrored."""
    target = photograph(128, 128)
    for key in range(4):
        pair = degrade_pictures(target, PRESETS[name], SeededDraws.of(key))
        large = torch.nn.functional.interpolate(pair.degraded, (128, 128))
        assert (large - target).abs().mean() < (large - target.flip(-1)).abs().mean()


def test_sizes() -> None:
    assert degrade_pictures(photograph(), PASD, SeededDraws.of(1)).degraded.shape == (1, 3, 96, 80)
    assert degrade_pictures(photograph(), REALESRGAN, SeededDraws.of(1)).degraded.shape == (1, 3, 24, 20)
    cropped = degrade_pictures(photograph(count=2), replace(REALESRGAN, crop=64), SeededDraws.of(1))
    assert [tuple(part.shape) for part in cropped] == [(2, 3, 64, 64), (2, 3, 16, 16)]


def test_a_clean_pair_is_the_target() -> None:
    pair = degrade_pictures(photograph(), replace(STABLESR, clean=1.0), SeededDraws.of(1))
    assert torch.equal(pair.degraded, pair.target)


def test_samples_of_a_batch_have_lives_of_their_own() -> None:
    pair = degrade_pictures(photograph(count=3), PASD, SeededDraws.of(5))
    assert not torch.equal(pair.degraded[0], pair.degraded[1])


def test_pictures_too_small_are_refused() -> None:
    with pytest.raises(InputError, match="too small"):
        degrade_pictures(photograph(40, 96), PASD, SeededDraws.of(1))


def test_flat_pictures_count_as_having_more_levels() -> None:
    flat = torch.full((1, 3, 8, 8), 0.5)
    assert poisson_levels(flat)[1].item() == 1
    assert poisson_levels(flat, 32)[1].item() == 32
    many = torch.arange(192).view(1, 3, 8, 8) / 255
    assert poisson_levels(many)[1].item() == 256


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 90), (70, 64)])
def test_crops_have_the_side(height: int, width: int) -> None:
    assert crop_randomly(photograph(height, width), 64, SeededDraws.of(1)).shape == (1, 3, 64, 64)


def test_a_file_changes_a_preset(tmp_path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        'preset = "stablesr"\nscale = 2\n[first]\njpeg = [80, 98]\nresize = {keep = 1}\n'
        "[first.kernels]\nsizes = [7]\n[damage]\ndust = 0\n"
    )
    got = find_degradation(str(file))
    assert (got.scale, got.first.jpeg, got.first.kernels.sizes) == (2, (80.0, 98.0), (7,))
    assert (got.first.resize, got.damage.dust, got.second) == ({"keep": 1.0}, 0.0, STABLESR.second)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scale = 0", "scale 0 must lie"),
        ('scale = "4"', "scale must be a whole number"),
        ("[first]\njpeg = [90, 80]", "jpeg"),
        ("[first]\njpeg = [90]", "jpeg must be 2 numbers"),
        ("[first]\nfactor = [1.1, 1.5]", "factor"),
        ("[first]\nresize = {sideways = 1}", "sideways"),
        ("[first]\nblur = 2", "blur 2.0 must lie between 0 and 1"),
        ("[first.kernels]\nsizes = [8]", "odd"),
        ("[third]\nblur = 1", "no setting 'third'"),
        ('preset = "mine"', "no preset 'mine'"),
        ('back = "home"', "back 'home' is unknown"),
        ("scale = ", "TOML"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, text: str, said: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=said) as error:
        find_degradation(str(file))
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(InputError, match="no degradation 'psad'"):
        find_degradation("psad")


def test_preview_writes_a_sheet_and_names_what_it_left_out(tmp_path) -> None:
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.jpg"):
        Image.fromarray((photograph(100, 120)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(data / name)
    (data / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    sheet = tmp_path / "sheet.png"
    done = CliRunner().invoke(train_app, ["preview", "--data", str(data), "--out", str(sheet), "--side", "64"])
    assert done.exit_code == 0, done.output
    assert "broken.png" in done.stderr
    first = sheet.read_bytes()
    assert Image.open(io.BytesIO(first)).size == (2 * 64 + 4, 2 * 64 + 4)
    CliRunner().invoke(train_app, ["preview", "--data", str(data), "--out", str(sheet), "--side", "64"])
    assert sheet.read_bytes() == first


def test_preview_of_pictures_too_small_to_be_filled_by_reflection_is_refused(tmp_path) -> None:
    Image.new("RGB", (24, 16)).save(tmp_path / "tiny.png")
    done = CliRunner().invoke(train_app, ["preview", "--data", str(tmp_path), "--out", str(tmp_path / "s.png")])
    assert isinstance(done.exception, InputError) and "129" in str(done.exception)


def test_preview_of_an_empty_folder_is_refused(tmp_path) -> None:
    done = CliRunner().invoke(train_app, ["preview", "--data", str(tmp_path), "--out", str(tmp_path / "s.png")])
    assert isinstance(done.exception, InputError)
    assert "holds no pictures" in str(done.exception)
