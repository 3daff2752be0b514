"""diffusers' schedulers by name, and classifier-free guidance."""

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

# An all-dark last step (zero terminal SNR) would have an infinite sigma; this is diffusers' own floor.
DARKEST = 2**-24
CPU = torch.device("cpu")
NEARLY_NOTHING = 1e-4  # Stable Diffusion's own schedule ends at 0.0047


SCHEDULERS: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    "unipc": (UniPCMultistepScheduler, {"predict_x0": True}),
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "ddim": (DDIMScheduler, {"timestep_spacing": "trailing", "clip_sample": False}),
    "euler": (EulerDiscreteScheduler, {}),
    "lcm": (LCMScheduler, {"clip_sample": False}),
    "ddpm": (DDPMScheduler, {"timestep_spacing": "trailing", "clip_sample": False}),
}


def build_scheduler(name: str, config: Mapping[str, Any], steps: int) -> Any:
    """A diffusers scheduler of this kind over the noise schedule that a base or adapter was trained with."""
    silence_libraries()
    cls, extra = SCHEDULERS[name]
    made = cls.from_config(dict(config), **extra)
    made.alphas_cumprod = made.alphas_cumprod.clamp(min=DARKEST)
    try:
        made.set_timesteps(steps)
    except ValueError as error:
        raise InputError(f"`steps` {steps} does not suit the {name} scheduler ({error}): choose others") from error
    if hasattr(made, "set_begin_index"):  # spares a search on the device at the first step
        made.set_begin_index(0)
    made.step = _on_host(made.step)
    return made


def _on_host(step: Callable[..., Any]) -> Callable[..., Any]:
    """A scheduler's step in host memory. Latents are small, and a device would be waited for at each of its numbers;
    UniPC's two equations would also bring a solver's library and its memory there.
    """

    @wraps(step)
    def run(model_output: Tensor, timestep: Any, sample: Tensor, **extra: Any) -> Any:
        extra = {name: _moved(value, CPU) for name, value in extra.items()}
        stepped = step(model_output.cpu(), timestep, sample.cpu(), **extra)
        return type(stepped)(**{name: _moved(value, sample.device) for name, value in stepped.items()})

    return run


def _moved(value: Any, where: torch.device) -> Any:
    return value.to(where) if isinstance(value, Tensor) else value


STOCK = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def check_steps(name: str, steps: int) -> None:
    """Refuse a number of steps that a scheduler cannot take, on Stable Diffusion's own noise schedule."""
    build_scheduler(name, STOCK, steps)


def ends_in_noise(config: Mapping[str, Any]) -> bool:
    """Whether nothing is left of the picture at the schedule's last step (zero terminal SNR)."""
    silence_libraries()
    return bool(UniPCMultistepScheduler.from_config(dict(config)).alphas_cumprod[-1] < NEARLY_NOTHING)


def diffuse_latents(x: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """`x` diffused to where `alpha`, the schedule's alphas_cumprod, says."""
    alpha = alpha.to(x)
    return alpha.sqrt() * x + (1 - alpha).sqrt() * noise


def scale_initial_latents(made: Any, x: Tensor) -> Tensor:
    """Diffused latents in the scale that the scheduler's loop works in: Euler's is that of the noise."""
    if not isinstance(made, EulerDiscreteScheduler):
        return x
    scaled: Tensor = x * (1 + made.sigmas[0].to(x).square()).sqrt()
    return scaled


def apply_guidance(without: Tensor, with_prompt: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance."""
    return without + guidance * (with_prompt - without)


def guided_steps(timesteps: Tensor, interval: tuple[float, float] | None) -> frozenset[float]:
    """The timesteps that are guided: those in this share of the steps, 0..1; all of them without one."""
    low, high = interval or (0.0, 1.0)
    count = len(timesteps)
    return frozenset(float(t) for i, t in enumerate(timesteps) if low <= (i + 0.5) / count <= high)
