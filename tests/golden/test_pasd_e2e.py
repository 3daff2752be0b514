"""The official program's runs from file to file, through the pipeline."""

import ast
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tests.golden.cases import Case, each, each_group
from tests.golden.pasd_models import unet_folder
from torch import Tensor

from srcli.engines.latent.captions import Describer
from srcli.engines.latent.schedulers import build_scheduler
from srcli.engines.pasd.engine import PasdEngine
from srcli.engines.pasd.sampling import draw_initial_latents
from srcli.engines.pasd.weights import open_pasd
from srcli.engines.runtime.device import Device
from srcli.imaging.color import compute_luminance, transplant_luma
from srcli.imaging.picture import Picture
from srcli.imaging.resize import resize_array
from srcli.pipeline import EnginePipeline
from srcli.sampling.noise import EXTRA_NOISE, POSTERIOR_NOISE, START_NOISE, NoiseField
from srcli.settings import ModelChoice, Prompt, Sampling, TargetSize
from srcli.tasks import COLORIZE, UPSCALE, Job
from srcli.weights.store import Store

FP32 = Device(torch.device("cpu"), torch.float32)


@dataclass(frozen=True)
class Recorded(NoiseField):
    """The draws that a vector file holds, in place of a seed's."""

    draws: tuple[tuple[int, Tensor], ...] = ()

    def draw(self, shape: tuple[int, ...], step: int = 0) -> Tensor:
        return dict(self.draws)[step]


def grey(case: Case) -> bool:
    return case.notes["control_type"] == "grayscale"


def option(case: Case, name: str) -> object:
    text = case.notes[name]
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def choice(case: Case, folder: Path) -> ModelChoice:
    """The model folders as they lie on the Hub: a checkpoint, for colours with a scheduler beside it."""
    root = case.root / "tiny"
    run = Path(case.notes["pasd_model_path"]).parent.name
    usual = "pasd_light" if option(case, "use_pasd_light") else "pasd"
    kind = run if (root / run / "controlnet").exists() else usual
    shutil.copytree(root / kind / "controlnet", folder / "checkpoint-1" / "controlnet")
    shutil.copytree(unet_folder(case.root, kind), folder / "checkpoint-1" / "unet")
    if (root / run / "scheduler").exists():
        shutil.copytree(root / run / "scheduler", folder / "scheduler")
    return ModelChoice(engine="pasd", base=str(root / "base"), adapter=str(folder), blend=0.0)


@pytest.fixture
def pipeline(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EnginePipeline:
    """The official program's own models, and the draws that it made."""
    names = {POSTERIOR_NOISE: "posterior_noise", START_NOISE: "noise1", EXTRA_NOISE: "noise2"}
    draws = tuple((step, case.tensors[name]) for step, name in names.items() if name in case.tensors)
    if option(case, "init_latent_with_noise"):  # then nothing else is drawn, and the input's latents are not used
        draws = ((POSTERIOR_NOISE, torch.zeros_like(case.tensors["noise1"])), *draws)
        pure = lambda z, made, noise, level: draw_initial_latents(z, made, noise, None)  # noqa: E731
        monkeypatch.setattr("srcli.engines.pasd.engine.draw_initial_latents", pure)
    monkeypatch.setattr("srcli.pipeline.NoiseField", lambda seed: Recorded(seed, draws=draws))
    store = Store(offline=True)
    loaded = open_pasd(choice(case, tmp_path / "adapter"), store)
    return EnginePipeline(PasdEngine.of(loaded, FP32, Describer(store, FP32)), FP32, print)


def job(case: Case, pipeline: EnginePipeline, color_fix: str, scale: float) -> Job:
    level, steps = option(case, "added_noise_level"), option(case, "num_inference_steps")
    timesteps = [int(t) for t in build_scheduler("unipc", pipeline.engine.schedule, steps).timesteps]
    size, overlap = option(case, "latent_tiled_size"), option(case, "latent_tiled_overlap")
    tiled = case.tensors["noise1"][0, 0].numel() > size**2  # the official test looks at the area alone
    sampling = Sampling(
        steps=steps,
        guidance=option(case, "guidance_scale"),
        conditioning_scale=option(case, "conditioning_scale"),
        noise_level=level if level in timesteps else timesteps[-1],  # as newer diffusers does, and says nothing
        color_fix=color_fix,
        process_size=option(case, "process_size"),
        tile=size if tiled else None,
        overlap=overlap if tiled else None,
    )
    text = case.notes["prompt"]
    if not grey(case):
        prompt = Prompt(text=text, negative=case.notes["negative_prompt"], caption="none")
        return Job(task=UPSCALE, size=TargetSize(scale=scale), sampling=sampling, prompt=prompt)
    prompt = Prompt(text=text and f"{text},", caption="none")  # the official prompt ends in a comma
    task = replace(COLORIZE, keep_luma=False)
    return Job(task=task, size=TargetSize(scale=1), sampling=sampling, prompt=prompt)


@each("pasd", "i_e2e*")
def test_the_models_part(case: Case, pipeline: EnginePipeline) -> None:
    """From the prepared input to the network's picture, and to that with its colours fixed."""
    given = case.tensors
    source = Picture(pixels=given["processed_u8"].numpy())
    got = pipeline.run(source, job(case, pipeline, "none", 1))
    assert off(got.pixels, given["pipeline_out_u8"]) < 1e-3
    if "after_color_fix_u8" in given:
        fixed = pipeline.run(source, job(case, pipeline, "wavelet", 1))
        # There the fix starts from rounded levels and ends in truncated ones, both at most one level off.
        assert np.abs(fixed.pixels.astype(int) - given["after_color_fix_u8"].numpy()).max() <= 2


@each("pasd", "i_e2e*")
def test_sizes_on_the_way(case: Case, pipeline: EnginePipeline) -> None:
    height, width = case.tensors["input_u8"].shape[:2]
    asked = job(case, pipeline, "none", float(option(case, "upscale")))
    target = asked.target(width, height)
    size = pipeline.engine.working_size((width, height), target, pipeline._make_request(asked))
    assert size == tuple(reversed(case.tensors["processed_u8"].shape[:2]))
    assert target == tuple(reversed(case.tensors["output_u8"].shape[:2]))


@each("pasd", "i_e2e*")
def test_pictures_before_and_after_the_model(case: Case) -> None:
    """The official chain of resizes, with our resize, bit for bit; ours takes its steps in one."""
    given = {name: value.numpy() for name, value in case.tensors.items() if name.endswith("_u8")}
    height, width = given["input_u8"].shape[:2]
    processed = tuple(reversed(given["processed_u8"].shape[:2]))
    if not grey(case):
        up, short = option(case, "upscale"), option(case, "process_size")
        picture = resize_array(given["input_u8"], (width * up, height * up))
        if min(picture.shape[:2]) < short:
            ratio = short / min(picture.shape[:2])
            long = int(short * max(picture.shape[:2]) / min(picture.shape[:2]))
            wide = picture.shape[1] > picture.shape[0]
            picture = resize_array(picture, (long, short) if wide else (short, long), "bilinear")
            assert ratio > 1
        assert np.array_equal(resize_array(picture, processed), given["processed_u8"])
        assert np.array_equal(resize_array(given["after_color_fix_u8"], (width * up, height * up)), given["output_u8"])


@each("pasd", "i_e2e*")
def test_from_the_input_to_the_output(case: Case, pipeline: EnginePipeline) -> None:
    """The whole way. The input is resized once, not three times, so only its look is held."""
    given = case.tensors
    asked = job(case, pipeline, "none" if grey(case) else "wavelet", float(option(case, "upscale")))
    got = pipeline.run(Picture(pixels=given["input_u8"].numpy()), asked).pixels
    assert got.shape == tuple(given["output_u8"].shape)
    if not grey(case):
        assert np.corrcoef(got.ravel(), given["output_u8"].numpy().ravel())[0, 1] > 0.8


@each_group("pasd", "i_color_post*", lambda case: case.groups("generated_u8"))
def test_luminance_of_the_original(case: Case, part: str) -> None:
    """Ours keeps it to the last bit. Where the official way does too, the colours are the same."""
    given = {name: value.numpy() for name, value in case.under(part).items()}
    original, official = given["original_gray_u8"], given["output_u8"].astype(int)
    height, width = original.shape[:2]
    colour = cv2.resize(given["generated_u8"], (width, height), interpolation=cv2.INTER_LINEAR)
    got = transplant_luma(colour, original)
    assert np.array_equal(compute_luminance(got), compute_luminance(original))
    inside = ((official > 0) & (official < 255)).all(-1)
    assert np.abs(got.astype(int) - official)[inside].max() <= 3


def off(got: np.ndarray, want: Tensor) -> float:
    """Share of levels that differ, none by more than one."""
    wrong = np.abs(got.astype(int) - want.numpy().astype(int))
    assert wrong.max() <= 1
    return float((wrong != 0).mean())
