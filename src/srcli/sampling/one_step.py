"""A scheduler with a single step, from latents to clean latents, in fp32.

diffusers' schedulers do not support this: recent versions cannot look up the timestep in a schedule of one.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from srcli.sampling.ancestral import make_scaled_linear_betas


def alpha_bar(timestep: int) -> Tensor:
    """Stable Diffusion's alphas_cumprod at this timestep, from an fp32 table as in the official code."""
    return (1 - make_scaled_linear_betas().float()).cumprod(0)[timestep]


class OneStep:
    """The step, for a network that predicts noise or, with `residual`, the difference to the clean latents."""

    def __init__(self, timestep: int, residual: bool = False) -> None:
        self.timesteps: Any = torch.tensor([timestep])
        self._timestep, self._residual = timestep, residual

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:
        return sample

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **extra: Any) -> Any:
        """The clean latents."""
        clean = self.clean(sample.float(), model_output.float())
        return SimpleNamespace(prev_sample=clean, pred_original_sample=clean)

    def clean(self, latent: Tensor, predicted: Tensor) -> Tensor:
        if self._residual:
            return latent - predicted
        kept = alpha_bar(self._timestep).to(latent)
        return (latent - (1 - kept).sqrt() * predicted) / kept.sqrt()
