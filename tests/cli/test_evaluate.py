"""`srcli degrade` and `srcli evaluate` from the command line, on real files."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from srcli.cli import app, complete
from srcli.metrics.matlab import matlab_bicubic, reduce_bicubic
from srcli.metrics.registry import METRICS


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def put(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def scene(tmp_path):
    """Two true pictures, their quarters, and two ways to enlarge those."""
    for index, picture in enumerate((data.astronaut()[:202, :303], data.coffee()[:240, :200])):
        name = f"p{index}"
        put(tmp_path / "hr" / f"{name}.png", picture)
        small = reduce_bicubic(picture, 4)
        put(tmp_path / "lr" / f"{name}.png", small)
        size = (small.shape[1] * 4, small.shape[0] * 4)
        put(tmp_path / "cubic" / f"{name}_x4.png", matlab_bicubic(small, size))
        put(tmp_path / "blocks" / f"{name}_x4.png", np.asarray(Image.fromarray(small).resize(size, 0)))
    return tmp_path


def test_all_that_can_be_found_as_json(scene):
    done = call(
        "evaluate",
        scene / "cubic",
        "--against",
        scene / "blocks",
        "-r",
        scene / "hr",
        "--input",
        scene / "lr",
        "--json",
    )
    found = json.loads(done.stdout)
    assert done.exit_code == 0
    assert set(METRICS) <= set(found["methods"][0]["pictures"][0])
    assert found["methods"][0]["mean"]["niqe"] is not None
    assert found["protocol"]["border"] == [4]
    cubic, blocks = found["methods"]
    assert (cubic["method"], blocks["method"]) == ("cubic", "blocks")
    assert cubic["mean"]["psnr-y"] > blocks["mean"]["psnr-y"]
    assert found["differences"][0]["psnr-y"]["low"] > 0
    assert "2 pictures" not in done.stderr
    assert "p0: compared over the size that both pictures have" in done.stderr  # 202x303 is no multiple of 4


def test_the_limit_of_pixels_can_be_set(scene):
    words = "evaluate", scene / "cubic", "-r", scene / "hr", "--metric", "psnr-y", "--max-pixels"
    done = call(*words, 50_000)
    assert done.exit_code != 0
    assert "raise --max-pixels" in done.stderr
    assert call(*words, 62_000).exit_code == 0


def test_without_a_measured_picture_no_border_is_told(tmp_path):
    put(tmp_path / "dot.png", np.zeros((1, 1, 3), np.uint8))
    done = call("evaluate", tmp_path / "dot.png", "--metric", "niqe")
    assert (done.exit_code, "pictures: 0\n" in done.stdout) == (1, True), done.stdout


def test_csv_holds_numbers_in_full_and_its_protocol(scene):
    done = call("evaluate", scene / "cubic", "-r", scene / "hr", "--csv", "--metric", "psnr-y", "--border", "4")
    lines = done.stdout.splitlines()
    assert any(line.startswith("# PSNR-Y: ") and "rgb2ycbcr" in line for line in lines)
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert [row["picture"] for row in rows] == ["p0", "p1"]
    as_json = json.loads(call("evaluate", scene / "cubic", "-r", scene / "hr", "--json", "--metric", "psnr-y").stdout)
    assert float(rows[0]["psnr-y"]) == as_json["methods"][0]["pictures"][0]["psnr-y"]


def test_tables_name_the_protocol_and_every_picture(scene):
    plain = call("evaluate", scene / "cubic", "--input", scene / "lr", "--per-picture").stdout
    assert "consistency" in plain
    assert "PSNR-Y" not in plain
    assert "p1" in plain
    table = call("evaluate", scene / "cubic", "-r", scene / "hr", "--markdown").stdout
    head, rule, *rows = table.splitlines()
    assert head == "| metric | cubic, mean | cubic, median |"
    assert rule == "|---|---|---|"
    assert rows[0].startswith("| PSNR-Y ↑ | ")


def test_a_picture_that_cannot_be_read_fails_alone(scene):
    (scene / "cubic" / "p0_x4.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    done = call("evaluate", scene / "cubic", "-r", scene / "hr", "--json")
    assert done.exit_code == 3
    assert [row["picture"] for row in json.loads(done.stdout)["methods"][0]["pictures"]] == ["p1"]
    assert "p0_x4.png" in done.stderr


def test_pictures_of_other_sizes_fail(scene):
    done = call("evaluate", scene / "lr", "-r", scene / "hr")
    assert done.exit_code == 1
    assert done.stderr.count("compare pictures of one size") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--metric", "psnr"), "psnr needs the reference: give --reference"),
        (("--json", "--csv", "-r", "hr"), "exclude each other"),
        (("-r", "cubic"), "is its own reference"),
        (("-r", "none"), "does not exist"),
        (("-r", "hr", "--border", "-1"), "--border -1 is out of range"),
        (("-r", "hr", "--metric", "beauty"), "--metric 'beauty' is unknown"),
    ],
)
def test_mistakes_are_usage_errors(scene, monkeypatch, words, message):
    monkeypatch.chdir(scene)
    done = call("evaluate", "cubic", *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_sixteen_bits_and_transparency_and_grey_are_measured(tmp_path):
    grey = data.camera()[:128, :128]
    put(tmp_path / "hr" / "a.png", grey)
    put(tmp_path / "out" / "a.png", grey.astype(np.uint16) * 257)
    put(tmp_path / "hr" / "b.png", np.repeat(grey[..., None], 3, -1))
    put(tmp_path / "out" / "b.png", np.dstack([np.repeat(grey[..., None], 3, -1), np.full_like(grey, 200)]))
    done = call("evaluate", tmp_path / "out", "-r", tmp_path / "hr", "--json", "--metric", "ssim")
    assert [row["ssim"] for row in json.loads(done.stdout)["methods"][0]["pictures"]] == pytest.approx([1, 1])
    assert "b: transparency is ignored" in done.stderr


def test_degrade_writes_what_matlab_would(scene):
    done = call("degrade", scene / "hr", "-o", scene / "small", "--preset", "bicubic-x4")
    assert done.exit_code == 0
    assert done.stdout.split() == [str(scene / "small" / f"p{index}.png") for index in (0, 1)]
    for index in (0, 1):
        made, want = (np.asarray(Image.open(scene / f / f"p{index}.png")) for f in ("small", "lr"))
        assert np.array_equal(made, want)


@pytest.mark.parametrize(("preset", "scale"), [("pasd", 4), ("stablesr", 4), ("realesrgan", 4), ("old-photo", 2)])
def test_degrade_by_the_chains_of_training(scene, preset, scale):
    (scene / "hr" / "p1.png").unlink()
    for folder, seed in (("one", 1), ("same", 1), ("other", 2)):
        done = call("degrade", scene / "hr", "-o", scene / folder, "--preset", preset, "--seed", seed)
        assert done.exit_code == 0, done.stderr
    one, same, other = (np.asarray(Image.open(scene / f / "p0.png")) for f in ("one", "same", "other"))
    assert one.shape == (202 // scale, 303 // scale, 3)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_what_a_picture_becomes_does_not_depend_on_the_others(scene):
    call("degrade", scene / "hr", "-o", scene / "both", "--preset", "pasd")
    (scene / "hr" / "p0.png").unlink()
    call("degrade", scene / "hr", "-o", scene / "alone", "--preset", "pasd")
    both, alone = ((scene / folder / "p1.png").read_bytes() for folder in ("both", "alone"))
    assert both == alone


def test_degrade_keeps_what_is_there_and_says_so(scene):
    call("degrade", scene / "hr", "-o", scene / "small")
    (scene / "small" / "p0.png").unlink()
    again = call("degrade", scene / "hr", "-o", scene / "small")
    assert again.exit_code == 3
    assert "p1.png exists: give --overwrite" in again.stderr
    assert call("degrade", scene / "hr", "-o", scene / "small", "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("hr", "-o", "hr"), 2, "is the folder of the sharp pictures"),
        (("hr", "-o", "-"), 2, "-o - is not a folder"),
        (("hr", "-o", "hr/p0.png"), 2, "p0.png is not a folder"),
        (("hr", "-o", "out", "--preset", "bicubic-4"), 2, "no preset 'bicubic-4'"),
        (("hr", "-o", "out", "--preset", "bicubic-x0"), 2, "no preset"),
        (("hr", "-o", "out", "--preset", "mist"), 2, "no degradation 'mist': choose one of bicubic-xN, pasd, stablesr"),
        (("lr", "-o", "out", "--preset", "pasd"), 1, "below 64 pixels a side"),
        (("hr", "-o", "out", "--preset", "bicubic-x99"), 0, ""),
        (("lr", "-o", "out", "--preset", "bicubic-x99"), 1, "too small to be reduced"),
        (("lr", "-o", "lr/p0.png/out"), 5, "cannot be created (Not a directory)"),
    ],
)
def test_degrade_refuses_what_makes_no_sense(scene, monkeypatch, words, code, message):
    monkeypatch.chdir(scene)
    done = call("degrade", *words)
    assert done.exit_code == code
    assert message in done.stderr


def test_a_picture_too_small_for_a_metric_comes_with_the_reason(scene, tmp_path):
    for folder in ("few", "true"):
        put(tmp_path / folder / "a.png", data.coffee()[:100, :120])
        put(tmp_path / folder / "b.png", data.coffee()[:240, :240])
    words = ("evaluate", tmp_path / "few", "-r", tmp_path / "true", "--metric", "niqe", "--metric", "ms-ssim")
    lines = [
        "NIQE: 1 of 2 without a value: it is for pictures with two textured blocks of 96x96 pixels within the border",
        "MS-SSIM: 1 of 2 without a value: it is for pictures of at least 176 pixels a side within the border",
    ]
    assert call(*words).stdout.splitlines()[-2:] == lines
    assert json.loads(call(*words, "--json").stdout)["gaps"] == lines
    assert json.loads(call(*words[:-2], "--json", "--metric", "psnr").stdout)["gaps"] == lines[:1]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user whose cache holds no weights."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_metrics_whose_weights_are_not_here_say_how_to_get_them(scene, home):
    done = call("evaluate", scene / "cubic", "-r", scene / "hr", "--json")
    assert json.loads(done.stdout)["absent"] == [
        "lpips-alex: not measured, needs srcli models pull alexnet",
        "lpips-vgg, dists: not measured, needs srcli models pull vgg16",
        "fid, kid: not measured, needs srcli models pull inception",
    ]
    asked = call("evaluate", scene / "cubic", "-r", scene / "hr", "--metric", "dists")
    assert (asked.exit_code, asked.stdout) == (4, "")
    assert asked.stderr == "srcli: dists needs srcli models pull vgg16\n"


def test_metrics_with_weights_are_measured_where_these_are_here(scene, monkeypatch):
    import torch
    from safetensors.torch import save_file

    from srcli.evaluate import weighted
    from srcli.models.vgg16 import Vgg16

    torch.manual_seed(0)
    save_file(Vgg16().state_dict(), scene / "model.safetensors")
    here = SimpleNamespace(files={"model.safetensors": scene / "model.safetensors"})
    store = SimpleNamespace(
        has=lambda name: name != "inception",
        can_open=lambda name, allow_pickle: name == "vgg16",
        resolve=lambda name, allow_pickle: here,
    )
    monkeypatch.setattr(weighted, "Store", lambda offline: store)
    done = call("evaluate", scene / "blocks", "--against", scene / "cubic", "-r", scene / "hr", "--json")
    found = json.loads(done.stdout)
    assert found["absent"] == [
        "lpips-alex: not measured, needs --allow-pickle once: its weights are a pickle",
        "fid, kid: not measured, needs srcli models pull inception",
    ]
    assert all(0 < row[name] < 1 for row in found["methods"][0]["pictures"] for name in ("lpips-vgg", "dists"))
    alone = call("evaluate", scene / "blocks", "-r", scene / "hr", "--json", "--metric", "dists", "--metric", "psnr")
    assert set(json.loads(alone.stdout)["methods"][0]["mean"]) == {"psnr", "dists"}


def test_metrics_of_sets_have_one_number_each(scene, monkeypatch):
    """With the mean and spread of the channels for features: Inception's are compared where it is tested."""
    from srcli.evaluate import weighted

    def describe(rgb):
        return np.concatenate([f(rgb / 255, axis=(0, 1)) for f in (np.mean, np.std)]).astype(np.float32)

    file = SimpleNamespace(files={"inception.pth": scene / "inception.pth"})
    store = SimpleNamespace(
        has=lambda name: True, can_open=lambda name, allow_pickle: True, resolve=lambda name, allow_pickle: file
    )
    monkeypatch.setattr(weighted, "Store", lambda offline: store)
    monkeypatch.setattr(weighted, "load_extractor", lambda path: lambda s: (describe(s.result), describe(s.truth)))
    words = ["evaluate", scene / "cubic", "--against", scene / "blocks", "-r", scene / "hr", "--metric", "fid"]
    done = call(*words, "--metric", "kid", "--metric", "psnr", "--json")
    cubic, blocks = json.loads(done.stdout)["methods"]
    assert set(cubic["set"]) == {"fid", "kid"}
    assert set(cubic["mean"]) == {"psnr"}
    assert 0 < cubic["set"]["fid"] != blocks["set"]["fid"] > 0
    assert "FID of fewer than 2,048 pictures is biased, and these are 2\n" in done.stderr
    assert f"# fid of cubic: {cubic['set']['fid']!r}" in call(*words, "--csv").stdout.splitlines()
    shown = call(*words, "--markdown").stdout
    assert shown.startswith("| whole set | cubic | blocks |\n|---|---|---|\n| FID ↓ | ")
    assert "- FID: Inception of 2015-12-05" in shown


def test_all_metrics_complete():
    assert complete.complete_metrics("lpips") == ["lpips-alex", "lpips-vgg"]
    assert {"niqe", "dists"} <= set(complete.complete_metrics(""))
