"""StableSR's training step: the diffusion loss of a frozen UNet with trained encoder and modulation."""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch.nn.functional import mse_loss

from srcli.models.patches.spade import Modulation
from srcli.models.time_encoder import TimeAttention, TimeEncoder, TimeResidualBlock
from srcli.train.systems.base import StepModule
from srcli.train.systems.diffusion import add_noise, prediction_target, sample_latents


class StableSRInputs(NamedTuple):
    """Targets and degraded pictures in -1..1, the embedded prompt (one row, or one per sample), noise and timesteps."""

    target: Tensor
    degraded: Tensor
    text: Tensor
    noise_degraded: Tensor
    noise_target: Tensor
    timesteps: Tensor
    noise: Tensor


class StableSRStep(StepModule):
    """The loss of a batch. Frozen networks are not among the module's parameters."""

    def __init__(
        self,
        encoder: TimeEncoder,
        modulation: Modulation,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        alphas: Tensor,
        prediction: str,
    ) -> None:
        super().__init__()
        self.encoder, self.modulation = encoder, modulation
        self._frozen = (unet, vae)
        self._alphas, self._prediction = alphas, prediction
        self._leading = ExitStack()

    def forward(self, inputs: StableSRInputs) -> dict[str, Tensor]:
        vae = self._frozen[1]
        condition = sample_latents(vae, inputs.degraded, inputs.noise_degraded)
        latents = sample_latents(vae, inputs.target, inputs.noise_target)
        alphas = self._alphas.to(latents.device)[inputs.timesteps]
        predicted = self.predict(add_noise(latents, inputs.noise, alphas), condition, inputs)
        loss = mse_loss(predicted.float(), prediction_target(latents, inputs.noise, alphas, self._prediction))
        return {"loss": loss, "diffusion": loss}

    def predict(self, noisy: Tensor, condition: Tensor, inputs: StableSRInputs) -> Tensor:
        maps = self.encoder(condition, inputs.timesteps)
        # Active until `close`, since gradient checkpointing runs the layers again in the backward pass.
        self.close()
        self._leading.enter_context(self.modulation.leading(maps))
        text = inputs.text.expand(len(noisy), -1, -1)
        predicted: Tensor = self._frozen[0](noisy, inputs.timesteps, text, return_dict=False)[0]
        return predicted

    def close(self) -> None:
        self._leading.close()


@torch.no_grad()
def initialize_encoder(encoder: TimeEncoder) -> TimeEncoder:
    """Guided diffusion's initialization: residual blocks and attention start as the identity."""
    for module in encoder.modules():
        last = module.out_layers[-1] if isinstance(module, TimeResidualBlock) else None
        if isinstance(module, TimeAttention):
            last = module.proj_out
        for parameter in last.parameters() if last is not None else ():
            parameter.zero_()
    return encoder
