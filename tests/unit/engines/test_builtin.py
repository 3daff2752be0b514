"""The built-in engine over a tiny random model: blocks agree, the ends are exact, foreign weights are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from srcli.engines.base import Request
from srcli.engines.builtin import engine as builtin
from srcli.engines.builtin.engine import BuiltinEngine, check_packaged
from srcli.engines.builtin.weights import read_model, refold_model, write_model
from srcli.engines.runtime.device import Device
from srcli.errors import WeightsError
from srcli.files import hash_file
from srcli.imaging.picture import Picture
from srcli.imaging.read import read_picture
from srcli.metrics.matlab import reduce_bicubic
from srcli.models.builtin import DAMAGES, MOST_DAMAGE, UPSCALE_FACTOR, Builtin, BuiltinShape
from srcli.pipeline import EnginePipeline
from srcli.sampling.blocks import cut_blocks
from srcli.sampling.hint import pixels_to_tensor
from srcli.sampling.noise import NoiseField
from srcli.settings import DeviceChoice, ModelChoice, Prompt, Sampling
from srcli.tasks import RESTORE, Job
from srcli.tasks import UPSCALE as ENLARGE

CPU = Device(torch.device("cpu"), torch.float32)
TINY = BuiltinShape(width=8, blocks=2, faithful_blocks=1, crisp_blocks=2, estimator=4)


def make_engine(fold: int = 1) -> BuiltinEngine:
    torch.manual_seed(3)
    model = Builtin(replace(TINY, fold=fold)).requires_grad_(False).eval()
    return BuiltinEngine(model, CPU, "none")


def make_request(layer: int = 0, **more) -> Request:
    given = {"fidelity": 0.5, "damage": "auto", **more}
    return Request(ENLARGE, Sampling(**given), Prompt(), NoiseField(5, layer=layer))


def draw(engine: BuiltinEngine, hint: torch.Tensor, request: Request) -> torch.Tensor:
    canvas = engine.prepare(hint, request)
    assert canvas.denoiser is None
    return canvas.finish(canvas.start)


def to_levels(picture: torch.Tensor) -> np.ndarray:
    return (picture[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)


@pytest.mark.parametrize("fold", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 24), (33, 18)])
def test_any_size_gives_exactly_the_factor(fold, size):
    engine, picture = make_engine(fold), torch.rand(1, 3, *size)
    rgb = draw(engine, picture, engine.survey(to_levels(picture), make_request()))
    assert rgb.shape == (1, 3, size[0] * engine.factor, size[1] * engine.factor)
    assert engine.factor == UPSCALE_FACTOR // fold
    assert rgb.min() >= 0 and rgb.max() <= 1


@pytest.mark.parametrize("fold", [1, 2])
def test_blocks_agree_with_the_whole(fold):
    """Also with the halo that the network of full depth needs: nothing beyond it bears on a result."""
    torch.manual_seed(3)
    model = Builtin(replace(BuiltinShape(width=8, estimator=4), fold=fold)).requires_grad_(False).eval()
    engine, picture = BuiltinEngine(model, CPU, "none"), torch.rand(1, 3, 230, 190)
    request = engine.survey(to_levels(picture), make_request())
    whole = draw(engine, picture, request)
    joined = torch.zeros_like(whole)
    for block in cut_blocks(230, 190, 164, engine.halo):
        here = replace(request, noise=request.noise.at(block.outer.top, block.outer.left))
        part = draw(engine, block.outer.crop(picture), here)
        block.inner.crop(joined, engine.factor)[:] = block.inside.crop(part, engine.factor)
    assert (joined - whole).abs().max() < 1e-5


def test_fidelity_moves_evenly_from_the_crisp_to_the_faithful_end():
    engine, picture = make_engine(), torch.rand(1, 3, 12, 12) * 0.2 + 0.4
    request = engine.survey(to_levels(picture), make_request())
    damage = torch.tensor([list(request.findings.values())])
    ends = engine.model(picture, damage)
    at = {f: draw(engine, picture, replace(request, sampling=Sampling(fidelity=f))) for f in (0.0, 0.25, 1.0)}
    torch.testing.assert_close(at[1.0], ends.faithful.clamp(0, 1))
    torch.testing.assert_close(at[0.0], ends.crisp.clamp(0, 1))
    torch.testing.assert_close(at[0.25], (0.25 * ends.faithful + 0.75 * ends.crisp).clamp(0, 1))
    assert (ends.faithful - ends.crisp).abs().max() > 0


@pytest.mark.parametrize("variant", [None, "restore"])
def test_dots_of_black_and_white_stay_grey_and_as_light_as_they_were(variant):
    """They look like more noise than the packaged models were trained with."""
    engine = builtin.load_builtin(ModelChoice(variant=variant), CPU)
    noise = np.random.default_rng(0).integers(0, 2, (48, 48), np.uint8)
    for dots in (noise, np.indices((48, 48), np.uint8).sum(0) % 2):
        pixels = np.repeat(dots[..., None].astype(np.uint8) * 255, 3, axis=2)
        request = engine.survey(pixels, make_request())
        assert 0 < max(request.findings.values()) <= MOST_DAMAGE
        result = draw(engine, pixels_to_tensor(pixels), request)
        assert abs(float(result.mean()) - pixels.mean() / 255) < 0.06
        assert float((result.amax(1) - result.amin(1)).mean()) < 0.06


def test_damage_is_estimated_from_the_whole_picture_and_can_be_told():
    engine, picture = make_engine(), to_levels(torch.rand(1, 3, 600, 300))
    found = engine.survey(picture, make_request()).findings
    assert tuple(found) == DAMAGES
    assert all(value >= 0 for value in found.values())
    assert engine.survey(picture, make_request()).findings == found
    told = engine.survey(picture, make_request(damage="none"))
    assert set(told.findings.values()) == {0.0}
    # A second pass works on a result, whose damage nobody told.
    assert engine.survey(picture, make_request(layer=1, damage="none")).findings == found
    hint = torch.rand(1, 3, 20, 20)
    heavy = engine.survey(picture, make_request(damage="heavy"))
    assert not torch.equal(draw(engine, hint, told), draw(engine, hint, heavy))


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
    assert make_engine().passes(size, target) == wanted


def test_a_folded_network_begins_as_the_one_it_was_made_from():
    """On a picture that does not change within a cell it gives what the other gives for the cells."""
    model = make_engine().model
    folded = refold_model(model, 2)
    small = torch.rand(1, 3, 9, 7)
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    film = model.modulation(torch.zeros(1, 4))
    torch.testing.assert_close(folded.encode(large, film), model.encode(small, film))


def test_a_changed_file_is_refused(tmp_path):
    path = tmp_path / "builtin-upscale.safetensors"
    path.write_bytes(b"other weights")
    with pytest.raises(WeightsError, match="not the packaged"):
        check_packaged(path, "0" * 64)
    with pytest.raises(WeightsError, match="missing"):
        check_packaged(tmp_path / "gone", "0" * 64)


def test_a_file_of_another_model_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="not a model of the built-in engine"):
        read_model(tmp_path / "x.safetensors")


def test_a_trained_file_is_an_adapter(tmp_path):
    path = tmp_path / "mine.safetensors"
    write_model(path, TINY, Builtin(TINY).state_dict(), "upscale")
    engine = builtin.load_builtin(ModelChoice(engine="builtin", adapter=str(path)), CPU)
    assert engine.model.shape == TINY
    assert engine.provenance()["model"].endswith(engine.digest)


@pytest.mark.parametrize("name", ["upscale", "restore"])
def test_the_packaged_weights_are_the_ones_named(name):
    path, digest = builtin.find_packaged(f"builtin-{name}")
    assert hash_file(path) == digest
    variant = None if name == "upscale" else name
    engine = builtin.load_builtin(ModelChoice(engine="builtin", variant=variant), CPU)
    assert engine.factor == (4 if name == "upscale" else 2)


def test_the_packaged_weights_are_small():
    folder = Path(builtin.__file__).parents[2] / "data"
    files = list(folder.glob("builtin-*.safetensors"))
    assert len(files) == 2
    assert sum(f.stat().st_size for f in files) <= 6_000_000


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("task", [ENLARGE, RESTORE])
def test_the_packaged_weights_take_noise_out_that_was_never_stored_as_jpeg(task, channels):
    down, across = np.mgrid[:96, :96]
    smooth = np.stack([60 + across, 90 + down, 200 - across], -1)
    noise = np.random.default_rng(0).normal(0, 20, (96, 96, channels))
    noisy = np.clip(np.rint(smooth + noise), 0, 255).astype(np.uint8)
    engine = builtin.load_builtin(ModelChoice(variant="restore" if task is RESTORE else None), CPU)
    result = EnginePipeline(engine, CPU).run(Picture(pixels=noisy), Job(task=task)).pixels
    again = reduce_bicubic(np.asarray(result, np.uint8), 4) if task is ENLARGE else result
    assert np.std(again.astype(float) - smooth) < 0.5 * np.std(noisy - smooth)


@pytest.fixture(scope="module")
def packaged() -> EnginePipeline:
    return EnginePipeline.load(ModelChoice(engine="builtin"), DeviceChoice(device="cpu", dtype="float32"))


def make_test_pictures() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:48, :64]
    waves = 128 + 60 * np.sin(x / 5.0) + 40 * np.cos((x + 2 * y) / 7.0)
    pictures = {
        "flat": np.full((48, 64, 3), (90, 140, 200)),
        "black": np.zeros((48, 64, 3)),
        "white": np.full((48, 64, 3), 255),
        "ramp": np.repeat((x * 4)[..., None], 3, axis=2),
        "waves": np.stack((waves, waves * 0.7, 255 - waves), -1),
        "checks": np.repeat((((x // 6 + y // 6) % 2) * 255)[..., None], 3, axis=2),
        "one pixel high": rng.integers(0, 256, (1, 64, 3)).repeat(3, 1),
        "noise": rng.normal(128, 20, (48, 64, 3)),
        "noisy ramp": np.repeat((x * 3)[..., None], 3, axis=2) + rng.normal(0, 9, (48, 64, 3)),
        "stripes": np.repeat(((x % 8 < 4) * 200 + 20)[..., None], 3, axis=2),
    }
    return {name: np.clip(np.rint(p), 0, 255).astype(np.uint8) for name, p in pictures.items()}


def enlarge(pipeline: EnginePipeline, pixels: np.ndarray, **sampling) -> np.ndarray:
    job = Job(task=ENLARGE, sampling=Sampling(**sampling))
    return pipeline.run(Picture(pixels=pixels), job).pixels.astype(float)


@pytest.mark.parametrize("name", ["flat", "black", "white", "ramp", "waves", "checks", "noise", "noisy ramp"])
@pytest.mark.parametrize("fidelity", [0.0, 0.5, 1.0])
def test_no_colour_shifts(packaged, name, fidelity):
    pixels = make_test_pictures()[name]
    shift = enlarge(packaged, pixels, fidelity=fidelity).mean((0, 1)) - pixels.mean((0, 1))
    assert np.abs(shift).max() <= 1  # levels


@pytest.mark.parametrize("name", ["flat", "black", "white"])
def test_nothing_is_invented_on_flat_areas(packaged, name):
    pixels = make_test_pictures()[name]
    result = enlarge(packaged, pixels)
    assert np.abs(result - pixels[0, 0]).max() <= 3


def test_no_mark_repeats_from_picture_to_picture(packaged):
    """What the default adds to fidelity 1, high-passed, is another in each of ten pictures."""
    import cv2

    added = []
    for pixels in make_test_pictures().values():
        apart = (enlarge(packaged, pixels) - enlarge(packaged, pixels, fidelity=1.0)).mean(2)
        apart = np.resize(apart, (192, 256)) if apart.shape != (192, 256) else apart
        added.append((apart - cv2.GaussianBlur(apart, (0, 0), 3)).ravel())
    found = [
        abs(float(np.corrcoef(a, b)[0, 1]))
        for i, a in enumerate(added)
        for b in added[i + 1 :]
        if a.std() > 0.05 and b.std() > 0.05
    ]
    assert len(found) > 10
    assert np.mean(found) < 0.05


def test_restoration_keeps_the_contrast_of_eyes():
    """Of a small face in grey: local contrast around both eyes is not below the scan's own."""
    cat = read_picture(Path(__file__).parents[3] / "examples" / "cat.jpg").pixels
    pixels = np.repeat(cat.mean(2, keepdims=True), 3, 2).astype(np.uint8)
    choice = ModelChoice(engine="builtin", variant="restore")
    restorer = EnginePipeline.load(choice, DeviceChoice(device="cpu", dtype="float32"))
    result = restorer.run(Picture(pixels=pixels), Job(task=RESTORE)).pixels
    assert result.shape == pixels.shape
    for eye in (np.s_[36:66, 32:66], np.s_[46:74, 104:128]):
        assert result[eye].std() >= pixels[eye].std()
