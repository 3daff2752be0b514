"""diffusers' schedulers by name, diffusion of latents, and classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from srcli.errors import InputError
from srcli.weights.open import silence_libraries

MIN_ALPHA_BAR = 2**-24  # diffusers' own floor: with zero terminal SNR the last sigma would be infinite
CPU = torch.device("cpu")
ZERO_SNR_ALPHA_BAR = 1e-4  # a schedule that ends below has zero terminal SNR; Stable Diffusion's ends at 0.0047

SCHEDULERS: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    "unipc": (UniPCMultistepScheduler, {"predict_x0": True}),
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "ddim": (DDIMScheduler, {"timestep_spacing": "trailing", "clip_sample": False}),
    "euler": (EulerDiscreteScheduler, {}),
    "lcm": (LCMScheduler, {"clip_sample": False}),
    "ddpm": (DDPMScheduler, {"timestep_spacing": "trailing", "clip_sample": False}),
}


def build_scheduler(name: str, config: Mapping[str, Any], steps: int) -> Any:
    """A diffusers scheduler with its timesteps set. `config`: the noise schedule of a base or adapter."""
    silence_libraries()
    cls, extra = SCHEDULERS[name]
    scheduler = cls.from_config(dict(config), **extra)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.clamp(min=MIN_ALPHA_BAR)
    try:
        scheduler.set_timesteps(steps)
    except ValueError as error:
        raise InputError(f"`steps` {steps} does not suit the {name} scheduler ({error}): choose others") from error
    if hasattr(scheduler, "set_begin_index"):  # avoids a search on the device at the first step
        scheduler.set_begin_index(0)
    scheduler.step = _on_host(scheduler.step)
    return scheduler


def _on_host(step: Callable[..., Any]) -> Callable[..., Any]:
    """Run a scheduler's step on the CPU. Latents are small, while on a device each scalar read synchronizes, and
    UniPC's linear solve would load a solver library with its memory.
    """

    @wraps(step)
    def run(model_output: Tensor, timestep: Any, sample: Tensor, **extra: Any) -> Any:
        extra = {name: _move(value, CPU) for name, value in extra.items()}
        output = step(model_output.cpu(), timestep, sample.cpu(), **extra)
        return type(output)(**{name: _move(value, sample.device) for name, value in output.items()})

    return run


def _move(value: Any, where: torch.device) -> Any:
    return value.to(where) if isinstance(value, Tensor) else value


SD_SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def check_steps(name: str, steps: int) -> None:
    """InputError for a number of steps that a scheduler cannot take with Stable Diffusion's noise schedule."""
    build_scheduler(name, SD_SCHEDULE, steps)


def ends_in_noise(config: Mapping[str, Any]) -> bool:
    """Whether the noise schedule has zero terminal SNR: nothing of the picture is left at the last step."""
    silence_libraries()
    return bool(UniPCMultistepScheduler.from_config(dict(config)).alphas_cumprod[-1] < ZERO_SNR_ALPHA_BAR)


def diffuse_latents(x: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """`x` diffused to the timestep whose alphas_cumprod is `alpha`."""
    alpha = alpha.to(x)
    return alpha.sqrt() * x + (1 - alpha).sqrt() * noise


def scale_initial_latents(scheduler: Any, x: Tensor) -> Tensor:
    """Diffused latents in the scheduler's own scale; Euler's is (1 + sigma^2)^0.5 times larger."""
    if not isinstance(scheduler, EulerDiscreteScheduler):
        return x
    scaled: Tensor = x * (1 + scheduler.sigmas[0].to(x).square()).sqrt()
    return scaled


def apply_guidance(negative: Tensor, positive: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022)."""
    return negative + guidance * (positive - negative)


def guided_steps(timesteps: Tensor, interval: tuple[float, float] | None) -> frozenset[float]:
    """The timesteps with guidance: those in this interval of the steps, as shares in 0..1; all if it is None."""
    low, high = interval or (0.0, 1.0)
    count = len(timesteps)
    return frozenset(float(t) for i, t in enumerate(timesteps) if low <= (i + 0.5) / count <= high)
