"""srcli as a library."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import srcli
from srcli.api import PictureOptions, Pipeline, Result, read_source
from srcli.errors import InputError, PictureError
from srcli.imaging.provenance import read_provenance
from srcli.settings import Repair, Sampling, TargetSize

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)
PIXELS = np.random.default_rng(5).integers(0, 256, (12, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load("builtin", device="cpu", dtype="float32")


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_each_example_of_the_documents_runs(block, tmp_path, monkeypatch):
    code = compile(block, "docs/api.md", "exec")
    if block.startswith("# needs"):
        return
    with Image.open(ROOT / "examples" / "cat.jpg") as image:
        image.resize((64, 48)).save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    exec(code, {})


def test_the_import_loads_no_heavy_library():
    code = "import sys, srcli; print(*{'torch', 'PIL', 'numpy', 'typer'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    assert srcli.Pipeline is Pipeline
    with pytest.raises(AttributeError, match="no attribute 'Pipelin'"):
        srcli.Pipelin  # noqa: B018


def test_every_kind_of_source_gives_the_same_result(pipeline, tmp_path):
    file, buffer = tmp_path / "a.png", io.BytesIO()
    image = Image.fromarray(PIXELS)
    image.save(file)
    image.save(buffer, "PNG")
    sources = (file, str(file), buffer.getvalue(), image, PIXELS)
    results = [pipeline.upscale(source, scale=2, seed=7).pixels for source in sources]
    assert results[0].shape == (24, 32, 3)
    assert all(np.array_equal(pixels, results[0]) for pixels in results)


def test_a_result_is_a_picture_and_a_file_that_tells_how_it_was_made(pipeline, tmp_path):
    alpha = np.full((12, 16, 1), 99, np.uint8)
    result = pipeline.upscale(np.concatenate([PIXELS, alpha], axis=2), scale=2)
    assert (result.image.mode, result.image.size) == ("RGBA", (32, 24))
    result.save(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as written:
        assert np.array_equal(np.asarray(written)[..., :3], result.pixels)
    made = read_provenance(tmp_path / "out.png")
    assert made is not None
    assert (made["engine"], made["task"]) == ("builtin", "upscale")


def test_a_deep_picture_stays_deep(pipeline):
    result = pipeline.upscale(PIXELS.astype(np.uint16) * 257, scale=1)
    assert result.pixels.dtype == np.uint16
    assert result.image.getextrema()[0][1] <= 255


def test_another_task_loads_what_it_needs(pipeline):
    assert pipeline.restore(PIXELS).provenance["models"] != pipeline.upscale(PIXELS).provenance["models"]
    damage = np.zeros((12, 16), np.uint8)
    damage[4:6] = 255
    told = []
    mended = pipeline.restore(PIXELS, mask=damage, on_progress=lambda *step: told.append(step)).pixels
    assert told[:2] == [("filling", 0, 1), ("filling", 1, 1)]
    assert not np.array_equal(mended, pipeline.restore(PIXELS).pixels)
    with pytest.raises(InputError, match="the builtin engine cannot colorize: choose one of pasd, ddcolor, manual"):
        pipeline.colorize(PIXELS)


def test_progress_is_told(pipeline):
    told = []
    pipeline.upscale(PIXELS, on_progress=lambda *step: told.append(step))
    assert told[0] == ("preparing", 0, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_level": 3}, "`noise_level` means nothing to the builtin engine"),
        ({"steps": 0}, "`steps` 0 is out of range"),
        ({"scale": -1.0}, "`scale` -1 must be greater than 0"),
        ({"stepz": 3}, "`stepz` is not an option: choose from scale, "),
        ({"seed": -1}, "`seed` -1 is out of range"),
    ],
)
def test_errors_name_parameters(pipeline, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        pipeline.upscale(PIXELS, **options)


@pytest.mark.parametrize("options", [{"task": "paint"}, {"engine": "none"}, {"max_memory": "much"}, {"dtype": "int8"}])
def test_a_pipeline_that_cannot_be_is_refused(options):
    with pytest.raises(InputError, match=f"`{next(iter(options))}`"):
        Pipeline.load(**options)


@pytest.mark.parametrize("pixels", [np.zeros((4, 4), float), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)])
def test_an_array_that_is_no_picture_is_refused(pixels):
    with pytest.raises(InputError, match="an array"):
        read_source(pixels)


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match="a.png"):
        read_source(tmp_path / "a.png")
    with pytest.raises(PictureError, match="the picture"):
        read_source(b"no picture")


def test_the_options_are_those_of_the_settings():
    repair = {*Repair.__dataclass_fields__} - {"mask_model"}  # a path, which a server's visitors may not name
    settings = {*Sampling.__dataclass_fields__, *TargetSize.__dataclass_fields__} | repair
    others = {"prompt", "negative_prompt", "caption", "seed", "consistent", "map", "map_seeds", "saturation"}
    assert set(PictureOptions.__annotations__) == settings | others


def test_nothing_is_changed_that_holds_for_the_whole_process(monkeypatch, tmp_path):
    def refuse(*given):
        raise AssertionError(given)

    before = dict(os.environ), torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    Image.fromarray(PIXELS).save(tmp_path / "a.tif")
    with monkeypatch.context() as patch:
        for thing in ("torch.set_num_threads", "ctypes.CDLL", "os.dup2"):
            patch.setattr(thing, refuse)
        result = Pipeline.load("builtin", offline=True).upscale(tmp_path / "a.tif")
    assert isinstance(result, Result)
    assert before == (dict(os.environ), torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
