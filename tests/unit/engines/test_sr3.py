"""SR3's engine on a tiny checkpoint: sizes, cascades, tiles, checkpoints that do not fit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.golden.cases import HERE

from srcli.engines.runtime.device import Device
from srcli.engines.sr3.engine import SIDES, SR3Engine, load_sr3, tile_memory_need
from srcli.engines.sr3.weights import find_betas
from srcli.errors import MachineError, WeightsError
from srcli.imaging.picture import Picture
from srcli.models.sr3_unet import SR3Shape, SR3UNet
from srcli.pipeline import EnginePipeline
from srcli.sampling.ancestral import make_betas
from srcli.settings import ModelChoice, Sampling, TargetSize
from srcli.tasks import UPSCALE, Job
from srcli.weights.store import Store

CPU = Device(torch.device("cpu"), torch.float32)
TINY = HERE / "sr3" / "tiny"


def opened(path: Path, device: Device = CPU, **more) -> SR3Engine:
    choice = ModelChoice(engine="sr3", adapter=str(path), **more)
    return load_sr3(choice, device, Store(offline=True))


@pytest.fixture(params=["sr3", "ddpm"])
def engine(request) -> SR3Engine:
    return opened(TINY / f"{request.param}_tiny.safetensors")


def picture(height: int, width: int) -> Picture:
    rows, columns = np.mgrid[0:height, 0:width]
    return Picture(pixels=np.stack([rows * 9 % 256, columns * 7 % 256, rows + columns], axis=2).astype(np.uint8))


@pytest.mark.parametrize(("height", "width", "scale"), [(8, 8, 4), (7, 5, 3.3), (1, 9, 4), (6, 6, 16)])
def test_any_size_comes_out_exactly(engine, height, width, scale):
    job = Job(task=UPSCALE, size=TargetSize(scale=scale), sampling=Sampling(steps=2))
    result = EnginePipeline(engine, CPU).run(picture(height, width), job)
    assert (result.height, result.width) == (round(height * scale), round(width * scale))
    assert np.ptp(result.pixels) > 0


def test_tiles_shrink_with_memory_and_what_cannot_fit_is_refused(engine):
    wide = replace(engine.unet.shape, inner_channel=64)
    need = tile_memory_need(SimpleNamespace(shape=wide, parameters=engine.unet.parameters), CPU)
    sides = [need.largest(SIDES, 0, replace(CPU, memory=size << 20)) for size in (2500, 1200, 700)]
    assert sides == sorted(sides, reverse=True)
    assert len(set(sides)) == 3
    small = replace(engine, limits=replace(engine.limits, largest=sides[-1]))
    assert max(small.layout(400, 400, Sampling())[0][0][2:]) <= sides[-1]
    with pytest.raises(MachineError, match="SR3 does not fit into 0.3G"):
        opened(TINY / "sr3_tiny.safetensors", device=replace(CPU, memory=300 << 20))


@given(st.integers(1, 90), st.integers(1, 90), st.floats(0.3, 64))
def test_a_cascade_rises_to_the_target_in_steps_of_training(width, height, scale):
    target = (max(1, round(width * scale)), max(1, round(height * scale)))
    passes = SR3Engine(None, None, 8, CPU, {}).passes((width, height), target)
    assert passes[-1] == target
    rising = [(width, height), *passes]
    for before, after in zip(rising, rising[1:], strict=False):
        assert all(a <= 8 * b + 5 for a, b in zip(after, before, strict=True))
    assert len(passes) <= 3


def test_sixteen_times_takes_two_passes_and_eight_one():
    engine = SR3Engine(None, None, 8, CPU, {})
    assert engine.passes((16, 16), (128, 128)) == [(128, 128)]
    assert engine.passes((16, 16), (256, 256)) == [(64, 64), (256, 256)]


def test_tiles_are_whole_units_of_the_network(engine):
    tiles, _ = engine.layout(64, 96, Sampling(tile=35, overlap=34))
    assert tiles[0].height == tiles[0].width == 32
    job = Job(task=UPSCALE, sampling=Sampling(steps=2, tile=35, overlap=8))
    assert EnginePipeline(engine, CPU).run(picture(12, 20), job).width == 80


def test_a_large_canvas_is_tiled_by_itself(engine):
    tiles, _ = engine.layout(512, 2048, Sampling())
    assert len(tiles) > 1
    assert max(tile.left + tile.width for tile in tiles) == 2048
    assert engine.layout(512, 512, Sampling()) is None


def test_half_precision_stays_close(engine):
    half = replace(engine, device=Device(CPU.torch, torch.bfloat16))
    job = Job(task=UPSCALE, sampling=Sampling(steps=2))
    exact, rough = (EnginePipeline(e, CPU).run(picture(8, 8), job).pixels.astype(float) for e in (engine, half))
    assert np.abs(exact - rough).mean() < 4


def test_published_pickles_open_once_allowed(tmp_path):
    state = load_file(TINY / "sr3_tiny.safetensors")
    shutil.copy(TINY / "sr3_tiny_config.json", tmp_path / "I640000_E37_gen_config.json")
    path = tmp_path / "I640000_E37_gen.pth"
    torch.save({**state, "betas": make_betas("linear", 50, 1e-4, 0.05).float()}, path)
    with pytest.raises(WeightsError, match="`allow_pickle`"):
        opened(path)
    engine = opened(path, allow_pickle=True)
    assert torch.allclose(engine.betas, make_betas("linear", 50, 1e-4, 0.05), rtol=1e-6)
    assert engine.unet.shape.norm_groups == 8


def test_without_a_configuration_the_shape_is_read_off_the_weights(tmp_path):
    shape = SR3Shape(inner_channel=32, multiplier=(1, 2), res_blocks=1, attention=(False, True))
    state = {f"denoise_fn.{key}": value for key, value in SR3UNet(shape).state_dict().items()}
    save_file(state, tmp_path / "own.safetensors")
    engine = opened(tmp_path / "own.safetensors")
    assert engine.unet.shape == shape
    assert torch.equal(engine.betas, make_betas("linear", 2000))


def test_a_configured_schedule_goes_first():
    val = {"schedule": "quad", "n_timestep": 7, "linear_start": 1e-4, "linear_end": 0.1}
    config = {"model": {"beta_schedule": {"val": val}}}
    assert torch.equal(find_betas(config, {"betas": torch.ones(3)}, "sr3"), make_betas("quad", 7, 1e-4, 0.1))


def test_a_schedule_that_is_not_straight_is_kept():
    kept = make_betas("cosine", 20).float()
    assert torch.equal(find_betas({}, {"betas": kept}, "ddpm"), kept.double())


def test_there_is_nothing_to_pull():
    with pytest.raises(WeightsError, match="`adapter` FILE"):
        load_sr3(ModelChoice(engine="sr3"), CPU, Store(offline=True))


def test_other_models_are_refused(tmp_path):
    save_file({"unet.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="holds no SR3 network"):
        opened(tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="is a folder"):
        opened(HERE / "pasd" / "tiny" / "pasd")


def test_a_model_that_paints_from_nothing_is_refused(tmp_path):
    shape = SR3Shape(in_channel=3, inner_channel=32, multiplier=(1, 2), res_blocks=1, attention=(False, False))
    state = {f"denoise_fn.{key}": value for key, value in SR3UNet(shape).state_dict().items()}
    save_file(state, tmp_path / "sample.safetensors")
    with pytest.raises(WeightsError, match="is not a super-resolution network"):
        opened(tmp_path / "sample.safetensors")


@pytest.mark.parametrize("text", ["{", json.dumps({"model": {"unet": {}}})])
def test_a_broken_configuration_is_named(tmp_path, text):
    shutil.copy(TINY / "sr3_tiny.safetensors", tmp_path / "x.safetensors")
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(WeightsError, match=r"not a configuration|layout is not SR3's"):
        opened(tmp_path / "x.safetensors")


def test_missing_weights_are_named(tmp_path):
    state = load_file(TINY / "sr3_tiny.safetensors")
    state.pop("denoise_fn.mid.0.attn.out.bias")
    shutil.copy(TINY / "sr3_tiny_config.json", tmp_path / "x_config.json")
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"lacks mid\.0\.attn\.out\.bias"):
        opened(tmp_path / "x.safetensors")
