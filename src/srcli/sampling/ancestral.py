"""Ancestral sampling (DDPM, Ho et al. 2020) with the small posterior variance, and SR3's beta schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput
from torch import Tensor

from srcli.errors import InputError, check_range
from srcli.weights.families import EPSILON, VELOCITY

VARIANCE_MINIMUM = 1e-20  # keeps the logarithm of the last step's variance finite


def make_betas(kind: str, steps: int, start: float = 1e-6, end: float = 1e-2) -> Tensor:
    """SR3's beta schedules, float64. (A seventh, "jsd", is left out: it ends in beta = 1, which divides by zero.)"""
    if kind == "linear":
        return torch.linspace(start, end, steps, dtype=torch.float64)
    if kind == "quad":
        return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64).square()
    if kind in ("const", "warmup10", "warmup50"):
        betas = torch.full((steps,), end, dtype=torch.float64)
        rising = int(steps * {"const": 0.0, "warmup10": 0.1, "warmup50": 0.5}[kind])
        betas[:rising] = torch.linspace(start, end, rising, dtype=torch.float64)
        return betas
    if kind == "cosine":
        angle = (torch.arange(steps + 1, dtype=torch.float64) / steps + 8e-3) / 1.008 * (math.pi / 2)
        alpha_bar = angle.cos().square()
        return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)
    raise InputError(f"beta schedule {kind!r} is unknown: use linear, quad, const, warmup10, warmup50 or cosine")


def compute_sqrt_alpha_bar(betas: Tensor) -> Tensor:
    """The square root of alpha bar (the cumulative product of alphas) after 0, 1, ... steps, float64."""
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas.double()).cumprod(0)]).sqrt()


def make_scaled_linear_betas() -> Tensor:
    """Stable Diffusion's beta schedule, linear in the square root of beta; float64."""
    return make_betas("quad", 1000, 0.00085, 0.012)


@dataclass(frozen=True, slots=True)
class Posterior:
    """The posterior q(x_prev | x, x0): its mean is mean_clean * x0 + mean_now * x."""

    mean_clean: float
    mean_now: float
    variance: float


class Ancestral(DDPMScheduler):  # type: ignore[misc]
    """diffusers' DDPM scheduler with float64 tables, and with each step's noise passed in.

    In fp32 SR3's smallest betas (1e-6) are lost in 1 - alpha. Noise drawn inside would not depend on the position on
    the canvas, so tiles and blocks would not match.
    """

    def __init__(self, betas: Tensor, prediction_type: str = EPSILON, clip: bool = False) -> None:
        super().__init__(
            num_train_timesteps=len(betas),
            trained_betas=betas.tolist(),
            variance_type="fixed_small",
            clip_sample=clip,
            prediction_type=prediction_type,
            timestep_spacing="linspace",
        )
        self.betas = betas.double()
        self.alphas = 1 - self.betas
        self.alphas_cumprod = self.alphas.cumprod(0)

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Evenly spaced timesteps from the last to the first.

        The stride is summed up in floating point as in the official StableSR; a rounded linspace would differ for
        some numbers of steps.
        """
        last = self.config.num_train_timesteps - 1
        check_range("`steps`", num_inference_steps, 2, last + 1)
        steps, now = [0], 0.0
        for _ in range(num_inference_steps - 1):
            now += last / (num_inference_steps - 1)
            steps.append(round(now))
        super().set_timesteps(timesteps=steps[::-1], device=device)

    def posterior(self, t: int) -> Posterior:
        """The posterior at timestep `t`, for the timesteps that are set."""
        previous = int(self.previous_timestep(t))
        alpha_bar = float(self.alphas_cumprod[t])
        alpha_bar_prev = float(self.alphas_cumprod[previous]) if previous >= 0 else 1.0
        alpha, beta_bar = alpha_bar / alpha_bar_prev, 1 - alpha_bar
        return Posterior(
            mean_clean=alpha_bar_prev**0.5 * (1 - alpha) / beta_bar,
            mean_now=alpha**0.5 * (1 - alpha_bar_prev) / beta_bar,
            variance=max((1 - alpha) * (1 - alpha_bar_prev) / beta_bar, VARIANCE_MINIMUM),
        )

    def clean(self, prediction: Tensor, t: int, x: Tensor) -> Tensor:
        """The estimate of x0 from a prediction."""
        alpha_bar = float(self.alphas_cumprod[t])
        if self.config.prediction_type == VELOCITY:
            x0 = alpha_bar**0.5 * x - (1 - alpha_bar) ** 0.5 * prediction
        else:
            x0 = (1 / alpha_bar) ** 0.5 * x - (1 / alpha_bar - 1) ** 0.5 * prediction
        return torch.clamp(x0, -1, 1) if self.config.clip_sample else x0

    def step(
        self, model_output: Tensor, timestep: int | Tensor, sample: Tensor, variance_noise: Tensor | None = None
    ) -> DDPMSchedulerOutput:
        """One step. The last one, t = 0, adds no noise."""
        t = int(timestep)
        clean, posterior = self.clean(model_output, t, sample), self.posterior(t)
        previous = posterior.mean_clean * clean + posterior.mean_now * sample
        if t > 0:
            if variance_noise is None:
                raise ValueError(f"step {t} needs noise")
            previous = previous + posterior.variance**0.5 * variance_noise
        return DDPMSchedulerOutput(prev_sample=previous, pred_original_sample=clean)
