"""Ancestral sampling (Ho et al. 2020) with the small posterior variance, its tables, and SR3's beta schedules."""

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
    """SR3's schedules of beta, float64. (A seventh, "jsd", ends in beta = 1, where nothing is finite.)"""
    if kind == "linear":
        return torch.linspace(start, end, steps, dtype=torch.float64)
    if kind == "quad":
        return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64).square()
    if kind in ("const", "warmup10", "warmup50"):
        table = torch.full((steps,), end, dtype=torch.float64)
        rising = int(steps * {"const": 0.0, "warmup10": 0.1, "warmup50": 0.5}[kind])
        table[:rising] = torch.linspace(start, end, rising, dtype=torch.float64)
        return table
    if kind == "cosine":
        angle = (torch.arange(steps + 1, dtype=torch.float64) / steps + 8e-3) / 1.008 * (math.pi / 2)
        kept = angle.cos().square()
        return (1 - kept[1:] / kept[:-1]).clamp(max=0.999)
    raise InputError(f"beta schedule {kind!r} is unknown: use linear, quad, const, warmup10, warmup50 or cosine")


def compute_sqrt_alpha_bar(table: Tensor) -> Tensor:
    """The root of the cumulated alpha after 0, 1, ... steps of a table of betas."""
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - table.double()).cumprod(0)]).sqrt()


def scaled_linear(steps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Tensor:
    """The table of Stable Diffusion: linear in the root of beta."""
    return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64).square()


@dataclass(frozen=True, slots=True)
class Posterior:
    """The step before, given the clean estimate and the sample: mean_clean * x0 + mean_now * x, and its variance."""

    mean_clean: float
    mean_now: float
    variance: float


class Ancestral(DDPMScheduler):  # type: ignore[misc]
    """diffusers' DDPM scheduler in float64 tables, taking the noise of a step from outside.

    In fp32 the smallest betas of SR3 (1e-6) vanish in 1 - alpha; and noise drawn inside cannot follow the canvas.
    """

    def __init__(self, table: Tensor, prediction_type: str = EPSILON, clip: bool = False) -> None:
        super().__init__(
            num_train_timesteps=len(table),
            trained_betas=table.tolist(),
            variance_type="fixed_small",
            clip_sample=clip,
            prediction_type=prediction_type,
            timestep_spacing="linspace",
        )
        self.betas = table.double()
        self.alphas = 1 - self.betas
        self.alphas_cumprod = self.alphas.cumprod(0)

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Steps spread evenly from the last of the table to the first.

        The stride is added up, as the official StableSR does; a rounded linspace differs for some odd numbers.
        """
        last = self.config.num_train_timesteps - 1
        check_range("`steps`", num_inference_steps, 2, last + 1)
        steps, now = [0], 0.0
        for _ in range(num_inference_steps - 1):
            now += last / (num_inference_steps - 1)
            steps.append(round(now))
        super().set_timesteps(timesteps=steps[::-1], device=device)

    def posterior(self, t: int) -> Posterior:
        """For step `t` of the spacing that is set."""
        before = int(self.previous_timestep(t))
        kept = float(self.alphas_cumprod[t])
        kept_before = float(self.alphas_cumprod[before]) if before >= 0 else 1.0
        alpha, rest = kept / kept_before, 1 - kept
        return Posterior(
            mean_clean=kept_before**0.5 * (1 - alpha) / rest,
            mean_now=alpha**0.5 * (1 - kept_before) / rest,
            variance=max((1 - alpha) * (1 - kept_before) / rest, VARIANCE_MINIMUM),
        )

    def clean(self, prediction: Tensor, t: int, x: Tensor) -> Tensor:
        """The clean sample that a prediction speaks of."""
        kept = float(self.alphas_cumprod[t])
        if self.config.prediction_type == VELOCITY:
            found = kept**0.5 * x - (1 - kept) ** 0.5 * prediction
        else:
            found = (1 / kept) ** 0.5 * x - (1 / kept - 1) ** 0.5 * prediction
        return torch.clamp(found, -1, 1) if self.config.clip_sample else found

    def step(
        self, model_output: Tensor, timestep: int | Tensor, sample: Tensor, variance_noise: Tensor | None = None
    ) -> DDPMSchedulerOutput:
        """One step back. The last, t = 0, adds no noise, so it needs none."""
        t = int(timestep)
        clean, posterior = self.clean(model_output, t, sample), self.posterior(t)
        before = posterior.mean_clean * clean + posterior.mean_now * sample
        if t > 0:
            if variance_noise is None:
                raise ValueError(f"step {t} needs noise")
            before = before + posterior.variance**0.5 * variance_noise
        return DDPMSchedulerOutput(prev_sample=before, pred_original_sample=clean)
