"""The product around SR3's network (sizes, levels, metrics, the engine's chain) against the official numbers."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tests.golden.cases import Case, each, off_by
from tests.golden.sr3_tiny import condition, model_of, network, schedule
from torch import Tensor

from srcli.engines.base import Request
from srcli.engines.runtime.device import Device
from srcli.engines.sr3.engine import SR3Engine
from srcli.imaging.resize import resize_array
from srcli.metrics.similarity import compute_psnr, compute_ssim
from srcli.pipeline import _to_levels
from srcli.sampling.sampler import run_sampler
from srcli.sampling.tiling import Tile
from srcli.settings import Prompt, Sampling
from srcli.tasks import UPSCALE

CPU = Device(torch.device("cpu"), torch.float32)
END = 1e-4


@each("sr3", "s09*")
def test_sizes_are_pillows(case: Case) -> None:
    for small, large in (("lr16_u8", "bicubic128_u8"), ("hr96_u8", "lr16_from_hr_u8")):
        source, want = (case.tensors[key].numpy() for key in (small, large))
        assert np.array_equal(resize_array(source, want.shape[1::-1]), want), large


@each("sr3", "s09*")
def test_levels_are_rounded_as_officially(case: Case) -> None:
    picture = case.tensors["tensor"][None] / 2 + 0.5
    got = _to_levels(Tile(0, 0, *picture.shape[2:]), lambda rows: picture[:, :, rows], np.dtype(np.uint8))
    assert np.array_equal(got, case.tensors["tensor2img_u8"].numpy())


@each("sr3", "s09*")
def test_metrics(case: Case) -> None:
    first, second = (case.tensors[key].double().numpy() for key in ("hr96_u8", "metric_b_u8"))
    assert compute_psnr(first, second) == pytest.approx(case.notes["psnr"], rel=1e-6)
    assert compute_ssim(first, second) == pytest.approx(case.notes["ssim"], rel=1e-4)


@dataclass(frozen=True)
class Given:
    """The noise of one picture of a case, in the place of a noise field."""

    start: Tensor
    steps: Tensor

    def draw(self, shape: tuple[int, ...], step: int = 0) -> Tensor:
        if step > len(self.steps):  # the last step, which adds none
            return torch.zeros(shape)
        return self.steps[step - 1] if step else self.start


@each("sr3", "s07*")
@torch.inference_mode()
def test_the_engine_runs_the_official_chain(case: Case) -> None:
    cond = condition(case)
    if cond is None:
        pytest.skip("the product enlarges: it has no use for a network without condition")
    engine = SR3Engine(network(model_of(case)), schedule(case.notes["schedule"]), 8, CPU, {})
    for row in range(len(cond)):
        of_row = slice(row, row + 1)
        noise = Given(case.tensors["x_T"][of_row], case.tensors["step_noise"][:, of_row])
        request = Request(UPSCALE, Sampling(steps=case.notes["T"]), Prompt(), noise)
        canvas = engine.prepare(cond[of_row] / 2 + 0.5, request)
        x = run_sampler(canvas.denoiser, canvas.scheduler, canvas.start, canvas.hint, noise)
        assert off_by(canvas.finish(x) * 2 - 1, case.tensors["final"][of_row]) < END
