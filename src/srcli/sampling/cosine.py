"""The cosine schedule of the built-in model in continuous time 0..1: v-prediction, DDIM without added noise."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

FIRST = 0.98
"""Time of the first step: at 1 there is nothing but noise, and v says nothing of the picture."""


def levels(time: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(alpha-bar) and sqrt(1 - alpha-bar)."""
    angle = time * (math.pi / 2)
    return angle.cos(), angle.sin()


class Step(NamedTuple):
    """What a scheduler's step returns."""

    prev_sample: Tensor
    pred_original_sample: Tensor


class Cosine:
    """A scheduler of even steps through continuous time, as diffusers' schedulers are called.

    diffusers' own DDIM counts discrete steps and clips; six of its steps cannot end at time 0 exactly.
    """

    def __init__(self, steps: int) -> None:
        self.times = torch.linspace(FIRST, 0, steps + 1, dtype=torch.float64)
        self.timesteps = self.times[:-1]

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:
        return sample

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **extra: Any) -> Step:
        """One step of DDIM: the same guess of picture and noise, at the next time's levels."""
        index = int(torch.argmin((self.timesteps - float(timestep)).abs()))
        signal, spoil = (float(v) for v in levels(self.times[index]))
        later, later_spoil = (float(v) for v in levels(self.times[index + 1]))
        clean = signal * sample - spoil * model_output
        noise = spoil * sample + signal * model_output
        return Step(later * clean + later_spoil * noise, clean)
