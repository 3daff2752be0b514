"""The built-in engine over a tiny random model: layouts agree, fidelity is exact, foreign weights are refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from srcli.engines.base import Request
from srcli.engines.builtin import engine as builtin
from srcli.engines.builtin import weights as builtin_file
from srcli.engines.builtin.engine import BuiltinEngine, verified
from srcli.engines.runtime.device import Device
from srcli.errors import WeightsError
from srcli.files import hash_file
from srcli.models.builtin import UP, Builtin, Shape
from srcli.sampling.blocks import blocks
from srcli.sampling.cosine import Cosine, levels
from srcli.sampling.noise import NoiseField
from srcli.sampling.sampler import sample
from srcli.settings import ModelChoice, Prompt, Sampling
from srcli.tasks import UPSCALE

CPU = Device(torch.device("cpu"), torch.float32)
TINY = Shape(width=8, wide=8, before=1, deep=1, after=1, detail=(8, 8, 8), edge=4)


def engine(fold: int = 1) -> BuiltinEngine:
    torch.manual_seed(3)
    model = Builtin(replace(TINY, fold=fold)).requires_grad_(False).eval()
    torch.nn.init.normal_(model.edges.pixels.weight, std=0.05)
    return BuiltinEngine(model, CPU, "none")


FIELD = NoiseField(5)


def request(noise: NoiseField = FIELD, **more) -> Request:
    return Request(UPSCALE, Sampling(**{"steps": 3, "fidelity": 0.5, **more}), Prompt(), noise)


def result(made: BuiltinEngine, hint: torch.Tensor, asked: Request) -> torch.Tensor:
    canvas = made.prepare(hint, asked)
    return canvas.finish(sample(canvas.denoiser, canvas.scheduler, canvas.start, canvas.hint, asked.noise))


@pytest.mark.parametrize("fold", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 24), (33, 18)])
def test_any_size_gives_exactly_the_factor(fold, size):
    made = engine(fold)
    rgb = result(made, torch.rand(1, 3, *size), request())
    assert rgb.shape == (1, 3, size[0] * made.factor, size[1] * made.factor)
    assert made.factor == UP // fold
    assert rgb.min() >= 0 and rgb.max() <= 1


@pytest.mark.parametrize("fold", [1, 2])
def test_blocks_agree_with_the_whole(fold):
    made, picture = engine(fold), torch.rand(1, 3, 110, 90)
    whole = result(made, picture, request())
    joined = torch.zeros_like(whole)
    for block in blocks(110, 90, 60, made.halo):
        asked = request(NoiseField(5).at(block.outer.top, block.outer.left))
        part = result(made, block.outer.crop(picture), asked)
        block.inner.crop(joined, made.factor)[:] = block.inside.crop(part, made.factor)
    assert (joined - whole).abs().max() < 1 / 255 / 20


def test_edges_and_the_energy_of_detail_grow_evenly_away_from_the_mean():
    """At a fourth of the strength there is a fourth of the edges and half of the detail's contrast."""
    made, picture = engine(), torch.rand(1, 3, 12, 12) * 0.2 + 0.4
    smooth, less, some, more = (result(made, picture, request(fidelity=1 - s)) for s in (0, 0.04, 0.16, 0.64))
    torch.testing.assert_close(smooth, made.model.predictor(picture).mean)
    one, two, four = (rgb - smooth for rgb in (less, some, more))
    edges = (two - 2 * one) / 0.08
    detail = (one - 0.04 * edges) / 0.2
    torch.testing.assert_close(four, 0.64 * edges + 0.8 * detail)
    assert edges.abs().max() > 0 and detail.abs().max() > 0


def test_chosen_noise_decides_the_detail():
    made, picture = engine(), torch.rand(1, 3, 8, 8)
    assert torch.equal(result(made, picture, request()), result(made, picture, request()))
    assert not torch.equal(result(made, picture, request()), result(made, picture, request(NoiseField(6))))


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_ddim_finds_the_picture_when_v_is_right(steps):
    clean, noise = torch.randn(2, 1, 4, 3, 3).unbind()
    scheduler = Cosine(steps)
    signal, spoil = levels(scheduler.times[0])
    x = (signal * clean + spoil * noise).float()
    for t in scheduler.timesteps:
        signal, spoil = levels(t)
        x = scheduler.step((signal * noise - spoil * clean).float(), t, x).prev_sample
    torch.testing.assert_close(x, clean, atol=1e-5, rtol=1e-4)


def test_levels_keep_unit_variance():
    signal, spoil = levels(torch.linspace(0, 1, 9))
    torch.testing.assert_close(signal**2 + spoil**2, torch.ones(9))
    assert math.isclose(float(signal[0]), 1)


@pytest.mark.parametrize(
    ("size", "target", "wanted"),
    [
        ((100, 50), (400, 200), [(400, 200)]),
        ((100, 50), (250, 125), [(250, 125)]),
        ((100, 50), (100, 50), [(100, 50)]),
        ((100, 50), (800, 400), [(200, 100), (800, 400)]),
        ((10, 10), (640, 640), [(40, 40), (160, 160), (640, 640)]),
    ],
)
def test_passes_end_at_the_target_and_never_exceed_the_factor(size, target, wanted):
    assert engine().passes(size, target) == wanted


def test_a_changed_file_is_refused(tmp_path):
    path = tmp_path / "builtin-upscale.safetensors"
    path.write_bytes(b"other weights")
    with pytest.raises(WeightsError, match="not the packaged"):
        verified(path, "0" * 64)
    with pytest.raises(WeightsError, match="missing"):
        verified(tmp_path / "gone", "0" * 64)


def test_a_file_of_another_model_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="not a model of the built-in engine"):
        builtin.read_model(tmp_path / "x.safetensors", CPU)


def test_a_trained_file_is_an_adapter(tmp_path):
    path = tmp_path / "mine.safetensors"
    builtin_file.write(path, TINY, Builtin(TINY).state_dict(), "upscale")
    made = builtin.load(ModelChoice(engine="builtin", adapter=str(path)), CPU)
    assert made.model.shape == TINY
    assert made.provenance()["model"].endswith(made.digest)


@pytest.mark.parametrize("name", ["upscale", "restore"])
def test_the_packaged_weights_are_the_ones_named(name):
    path, digest = builtin.packaged(f"builtin-{name}")
    assert hash_file(path) == digest
    variant = None if name == "upscale" else name
    made = builtin.load(ModelChoice(engine="builtin", variant=variant), CPU)
    assert made.factor == (4 if name == "upscale" else 2)


def test_the_packaged_weights_are_small():
    folder = Path(builtin.__file__).parents[1] / "data"
    assert sum(f.stat().st_size for f in folder.glob("builtin-*.safetensors")) <= 12_000_000
