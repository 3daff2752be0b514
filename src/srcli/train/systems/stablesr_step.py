"""StableSR's training step: the diffusion loss of a frozen UNet, led by an encoder and modulation that learn."""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from srcli.models.patches.spade import Modulation
from srcli.models.time_encoder import TimeAttention, TimeEncoder, TimeResidualBlock
from srcli.train.systems.diffusion import add_noise, prediction_target, sample_latents


class StableSRInputs(NamedTuple):
    """Targets and degraded pictures in -1..1, the encoded prompt (one row, or one a sample), and all that is random."""

    target: Tensor
    degraded: Tensor
    text: Tensor
    noise_degraded: Tensor
    noise_target: Tensor
    timesteps: Tensor
    noise: Tensor


class StableSRStep(nn.Module):
    """The loss of a batch. Frozen networks are kept outside of the module's own parameters."""

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
        seen = sample_latents(vae, inputs.degraded, inputs.noise_degraded)
        latents = sample_latents(vae, inputs.target, inputs.noise_target)
        alphas = self._alphas.to(latents.device)[inputs.timesteps]
        predicted = self.predict(add_noise(latents, inputs.noise, alphas), seen, inputs)
        loss = mse_loss(predicted.float(), prediction_target(latents, inputs.noise, alphas, self._prediction))
        return {"loss": loss, "diffusion": loss}

    def predict(self, noisy: Tensor, seen: Tensor, inputs: StableSRInputs) -> Tensor:
        maps = self.encoder(seen, inputs.timesteps)
        # Gradient checkpointing calls the modulation again during the backward pass, so it is led until `close`.
        self.close()
        self._leading.enter_context(self.modulation.leading(maps))
        text = inputs.text.expand(len(noisy), -1, -1)
        predicted: Tensor = self._frozen[0](noisy, inputs.timesteps, text, return_dict=False)[0]
        return predicted

    def close(self) -> None:
        """Forget the batch, after its backward pass."""
        self._leading.close()


@torch.no_grad()
def initialize_encoder(encoder: TimeEncoder) -> TimeEncoder:
    """As guided diffusion begins: residual blocks and attention add nothing yet."""
    for module in encoder.modules():
        last = module.out_layers[-1] if isinstance(module, TimeResidualBlock) else None
        if isinstance(module, TimeAttention):
            last = module.proj_out
        for parameter in last.parameters() if last is not None else ():
            parameter.zero_()
    return encoder
