"""PASD's training step: the diffusion loss, and an L1 loss for the degradation removal of the ControlNet's embedding.

The ControlNet and PACA are trained; UNet, VAE and text encoder are frozen.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import Tensor
from torch.nn.functional import interpolate, l1_loss, mse_loss

from srcli.models.patches.paca import PixelAware
from srcli.train.systems.base import StepModule
from srcli.train.systems.diffusion import add_noise, prediction_target, sample_latents

COLOR_WEIGHT = 0.003
SPREAD_WEIGHT = 0.3


class PasdInputs(NamedTuple):
    """Targets in -1..1, conditions in 0..1, embedded prompts, noise and timesteps."""

    target: Tensor
    condition: Tensor
    text: Tensor
    posterior_noise: Tensor
    noise: Tensor
    timesteps: Tensor


class PasdStep(StepModule):
    """The loss terms of a batch. Frozen networks are not among the module's parameters."""

    def __init__(
        self,
        control: ControlNetModel,
        paca: PixelAware,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        alphas: Tensor,
        prediction: str,
        color_weight: float = 0.0,
    ) -> None:
        """`paca` is already installed in `unet`. A `color_weight` above 0 rewards colourful predictions."""
        super().__init__()
        self.control, self.paca = control, paca
        self._frozen = (unet, vae)
        self._alphas, self._prediction, self._color_weight = alphas, prediction, color_weight
        self._attending = ExitStack()

    def forward(self, inputs: PasdInputs) -> dict[str, Tensor]:
        unet, vae = self._frozen
        latents = sample_latents(vae, inputs.target, inputs.posterior_noise)
        alphas = self._alphas.to(latents.device)[inputs.timesteps]
        noisy = add_noise(latents, inputs.noise, alphas)
        predicted, pictures = self.predict(noisy, inputs)
        target = prediction_target(latents, inputs.noise, alphas, self._prediction)
        terms = {"diffusion": mse_loss(predicted.float(), target.float())}
        for index, picture in enumerate(pictures):
            clean = interpolate(inputs.target.float(), picture.shape[-2:], mode="bilinear")
            terms[f"l1_{2 << index}"] = l1_loss(picture.float(), clean)
        if self._color_weight:
            lack = [measure_colorlessness(picture.float()).mean() for picture in pictures]
            terms["color"] = self._color_weight * torch.stack(lack).sum()
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def predict(self, noisy: Tensor, inputs: PasdInputs) -> tuple[Tensor, list[Tensor]]:
        """The UNet's prediction, and the embedding's restored pictures at three sizes."""
        unet = self._frozen[0]
        embedding, pictures = self.control.controlnet_cond_embedding.predictions(inputs.condition)
        down, middle = self.control(noisy, inputs.timesteps, inputs.text, embedding, return_dict=False)
        # Active until `close`, since gradient checkpointing runs the layers again in the backward pass.
        self.close()
        self._attending.enter_context(self.paca.attending(down))
        predicted: Tensor = unet(
            noisy,
            inputs.timesteps,
            inputs.text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        return predicted, pictures

    def close(self) -> None:
        self._attending.close()


def measure_colorlessness(pictures: Tensor) -> Tensor:
    """1 minus the colourfulness (Hasler and Suesstrunk 2003) of each picture."""
    red, green, blue = pictures.flatten(2).unbind(1)
    red_green, yellow_blue = (red - green).abs(), ((red + green) / 2 - blue).abs()
    spread = (red_green.std(1) ** 2 + yellow_blue.std(1) ** 2).sqrt()
    shift = (red_green.mean(1) ** 2 + yellow_blue.mean(1) ** 2).sqrt()
    return 1 - (spread + SPREAD_WEIGHT * shift)
