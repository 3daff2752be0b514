"""The noise is the canvas's own, and the loop runs any diffusers scheduler."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from hypothesis import given
from hypothesis import strategies as st

from srcli.sampling.noise import NoiseField
from srcli.sampling.sampler import run_sampler

PLACE = st.integers(0, 150)


@given(top=PLACE, left=PLACE, height=st.integers(1, 80), width=st.integers(1, 80))
def test_a_crop_of_the_noise_is_the_noise_of_the_crop(top, left, height, width):
    field = NoiseField(5)
    whole = field.draw((1, 2, 240, 240), step=3)
    crop = field.at(top, left).draw((1, 2, height, width), step=3)
    assert torch.equal(crop, whole[:, :, top : top + height, left : left + width])


def test_noise_is_gaussian_and_differs_by_seed_and_step():
    first = NoiseField(1).draw((1, 4, 256, 256))
    assert abs(first.mean()) < 0.01
    assert abs(first.std() - 1) < 0.01
    assert not torch.equal(first, NoiseField(2).draw(first.shape))
    assert not torch.equal(first, NoiseField(1).draw(first.shape, step=1))


class Knows:
    """A denoiser that knows the clean picture, and so predicts the very noise."""

    stride = 1

    def __init__(self, clean, alphas):
        self.clean, self.alphas = clean, alphas

    def __call__(self, x, t, hint, where=None):
        a = self.alphas[int(t)]
        return (x - a.sqrt() * self.clean) / (1 - a).sqrt()


@pytest.mark.parametrize("kind", [DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_every_scheduler_finds_the_picture_that_the_denoiser_knows(kind):
    scheduler = kind(clip_sample=False) if kind in (DDIMScheduler, DDPMScheduler) else kind()
    scheduler.set_timesteps(12)
    clean = torch.rand(1, 3, 8, 8) - 0.5
    noise = NoiseField(0)
    found = run_sampler(Knows(clean, scheduler.alphas_cumprod), scheduler, noise.draw(clean.shape), clean, noise)
    torch.testing.assert_close(found, clean, atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", [DDPMScheduler, EulerDiscreteScheduler])
def test_step_noise_comes_from_the_seed_alone(kind):
    def run(seed: int) -> torch.Tensor:
        scheduler = kind()
        scheduler.set_timesteps(4)
        x = NoiseField(9).draw((1, 1, 8, 8))
        return run_sampler(Pull(), scheduler, x, x, NoiseField(seed))

    torch.manual_seed(1)
    first = run(3)
    torch.manual_seed(2)
    assert torch.equal(first, run(3))


class Pull:
    stride = 1

    def __call__(self, x, t, hint, where=None):
        return 0.5 * x


def test_progress_counts_the_steps():
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(3)
    seen = []
    x = torch.zeros(1, 1, 8, 8)
    run_sampler(Pull(), scheduler, x, x, on_step=lambda done, total, x, expected: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
