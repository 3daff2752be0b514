"""StableSR and SR3 from the command line, on tiny weights: any size, tiled and untiled, and weights that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from tests.cli.conftest import TINY, Srcli
from tests.stablesr_folder import write_adapter, write_base

SR3 = TINY.parents[1] / "sr3" / "tiny"
QUICK = ("--steps", 2, "--process-size", 72, "--dtype", "float32", "--threads", 1, "--offline")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("models") / "adapter")


def picture(folder: Path, size: tuple[int, int]) -> Path:
    Image.linear_gradient("L").resize(size).convert("RGB").save(folder / "in.png")
    return folder / "in.png"


# Sizes that the official script pads wrongly or cannot do: one side a multiple of 32, one above its pixel tile.
@pytest.mark.parametrize("size", [(27, 36), (32, 9), (61, 11)])
@pytest.mark.parametrize("tiles", [(), ("--tile", 12, "--overlap", 5)])
def test_stablesr_upscales_any_size(srcli: Srcli, tmp_path: Path, base: Path, adapter: Path, size, tiles) -> None:
    words = ("--engine", "stablesr", "--base-model", base, "--adapter", adapter, "--fidelity", 0.3, *QUICK, *tiles)
    result = srcli("upscale", picture(tmp_path, size), "-o", tmp_path / "out.png", *words)
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "out.png") as out:
        assert out.size == (4 * size[0], 4 * size[1])
        made = json.loads(out.text["srcli"])
    assert made["engine"] == "stablesr"
    assert any("cfw" in name for name in made["models"])


def test_stablesr_restores_old_photographs(srcli: Srcli, tmp_path: Path, base: Path, adapter: Path) -> None:
    words = ("--engine", "stablesr", "--base-model", base, "--adapter", adapter, *QUICK)
    result = srcli("restore-old-photo", picture(tmp_path, (40, 30)), "-o", tmp_path / "out.png", *words)
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "out.png") as out:
        assert out.size == (40, 30)


@pytest.mark.parametrize("scale", [4, 16])
def test_sr3_upscales_in_one_pass_or_two(srcli: Srcli, tmp_path: Path, scale: int) -> None:
    words = ("--engine", "sr3", "--adapter", SR3 / "sr3_tiny.safetensors", "--steps", 2, "--scale", scale)
    result = srcli("upscale", picture(tmp_path, (5, 7)), "-o", tmp_path / "out.png", *words, "--threads", 1)
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "out.png") as out:
        assert out.size == (5 * scale, 7 * scale)


def test_adapters_of_one_system_are_refused_by_the_other(
    srcli: Srcli, tmp_path: Path, base: Path, adapter: Path
) -> None:
    source = picture(tmp_path, (9, 9))
    cases = (
        ("stablesr", base, TINY / "pasd", "not one StableSR model"),
        ("pasd", TINY / "base", adapter, "choose a PASD"),
        ("sr3", None, TINY / "pasd", "choose one of them"),
        ("sr3", None, adapter / "adapter.safetensors", "holds no SR3 network"),
    )
    for engine, under, given, said in cases:
        words = ("--engine", engine, "--adapter", given, "--offline", *(("--base-model", under) if under else ()))
        result = srcli("upscale", source, "-o", tmp_path / "out.png", *words)
        assert (result.exit_code, said in result.stderr) == (4, True), (engine, result.stderr, result.exception)
        assert len(result.stderr.strip().splitlines()) == 1


def test_what_lacks_is_said_with_what_to_pull(srcli: Srcli, tmp_path: Path, base: Path, adapter: Path) -> None:
    source, alone = picture(tmp_path, (9, 9)), adapter / "adapter.safetensors"
    words = ("--engine", "stablesr", "--base-model", base, "--adapter", alone, *QUICK)
    result = srcli("upscale", source, "-o", tmp_path / "out.png", *words)
    assert result.exit_code == 4
    assert "models pull stablesr-cfw" in result.stderr
    result = srcli("upscale", source, "-o", tmp_path / "out.png", *words, "--fidelity", 0)
    assert result.exit_code == 0, result.output
