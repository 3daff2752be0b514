"""A single step from a latent to the clean one, as a scheduler; in fp32, whatever the network computes in.

diffusers' own schedulers do not do it: in late versions a last timestep is not in a list of one.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from srcli.sampling.ancestral import scaled_linear


def alpha_bar(timestep: int) -> Tensor:
    """Stable Diffusion's alphas_cumprod at this timestep; the table is fp32, as the official programs make it."""
    return (1 - scaled_linear().float()).cumprod(0)[timestep]


class OneStep:
    """The step: of predicted noise at its timestep, or (`residual`) of what is to be taken away."""

    def __init__(self, timestep: int, residual: bool = False) -> None:
        self.timesteps: Any = torch.tensor([timestep])
        self._timestep, self._residual = timestep, residual

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:
        return sample

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **extra: Any) -> Any:
        """The clean latent, which is all that is left to do."""
        clean = self.clean(sample.float(), model_output.float())
        return SimpleNamespace(prev_sample=clean, pred_original_sample=clean)

    def clean(self, latent: Tensor, predicted: Tensor) -> Tensor:
        if self._residual:
            return latent - predicted
        kept = alpha_bar(self._timestep).to(latent)
        return (latent - (1 - kept).sqrt() * predicted) / kept.sqrt()
