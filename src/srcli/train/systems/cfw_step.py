"""The two steps of training StableSR's feature wrapping: the fusion layers, then a discriminator against them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from srcli.models.cfw import Wrapping, decode_with_features, encoder_features
from srcli.models.lpips import Lpips
from srcli.models.patchgan import PatchGan

GAN_WEIGHT, GAN_START = 0.025, 501
LEAST_WEIGHT, MOST_WEIGHT = 1e-4, 1e4


class CfwInputs(NamedTuple):
    """Targets and degraded pictures in -1..1, scaled latents of what the engine made of those, and the step."""

    target: Tensor
    degraded: Tensor
    latent: Tensor
    step: int


def reconstruct_picture(vae: AutoencoderKL, wrapping: Wrapping, inputs: CfwInputs) -> Tensor:
    """The decoder's picture, -1..1, with everything that the encoder saw mixed in."""
    with torch.no_grad():
        seen = encoder_features(vae, inputs.degraded.to(vae.dtype))
    return decode_with_features(vae, wrapping, (inputs.latent / vae.config.scaling_factor).to(vae.dtype), seen).float()


class CfwGeneratorStep(nn.Module):
    """Absolute error and LPIPS, and from step 501 the discriminator's judgement. Only the fusion layers learn."""

    def __init__(
        self,
        wrapping: Wrapping,
        vae: AutoencoderKL,
        lpips: Lpips,
        discriminator: PatchGan,
        adaptive: bool = False,
        reconstruction_weight: float = 1.0,
    ) -> None:
        """`adaptive` weighs the discriminator by the ratio of both losses' gradients at the decoder's last layer."""
        super().__init__()
        self.wrapping = wrapping
        self._others = (vae, lpips.eval(), discriminator)
        self._adaptive, self._weight = adaptive, reconstruction_weight

    def forward(self, inputs: CfwInputs) -> dict[str, Tensor]:
        vae, lpips, discriminator = self._others
        last = vae.decoder.conv_out.weight
        with _gradients_of(last, self._adaptive), _frozen(discriminator):
            made = reconstruct_picture(vae, self.wrapping, inputs)
            error = (inputs.target - made).abs() + lpips(inputs.target, made)
            reconstruction = self._weight * error.mean()
            judged = -discriminator(made).mean()
            weight = made.new_tensor(GAN_WEIGHT)
            if self._adaptive:
                weight = adaptive_weight(*(_gradient(loss, last) for loss in (reconstruction, judged)))
        loss = reconstruction + weight * gan_factor(inputs.step) * judged
        return {"loss": loss, "reconstruction": reconstruction, "g": judged, "d_weight": weight}

    def close(self) -> None:
        """Nothing outlives a batch."""


class CfwDiscriminatorStep(nn.Module):
    """The hinge loss between targets and what the fusion layers make now."""

    def __init__(self, discriminator: PatchGan, wrapping: Wrapping, vae: AutoencoderKL) -> None:
        super().__init__()
        self.discriminator = discriminator
        self._others = (wrapping, vae)

    def forward(self, inputs: CfwInputs) -> dict[str, Tensor]:
        wrapping, vae = self._others
        with torch.no_grad():
            made = reconstruct_picture(vae, wrapping, inputs)
        real, fake = self.discriminator(inputs.target), self.discriminator(made)
        return {"loss": gan_factor(inputs.step) * hinge_loss(real, fake), "real": real.mean(), "fake": fake.mean()}

    def close(self) -> None:
        """Nothing outlives a batch."""


def gan_factor(step: int) -> float:
    """The discriminator has no say before step 501."""
    return 0.0 if step < GAN_START else 1.0


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    return (torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()) / 2


def adaptive_weight(reconstruction: Tensor, judged: Tensor) -> Tensor:
    """From both losses' gradients at the same weight."""
    ratio: Tensor = reconstruction.norm() / (judged.norm() + LEAST_WEIGHT)
    return GAN_WEIGHT * ratio.clamp(0.0, MOST_WEIGHT)


def _gradient(loss: Tensor, weight: Tensor) -> Tensor:
    return torch.autograd.grad(loss, weight, retain_graph=True)[0].detach()


@contextmanager
def _gradients_of(weight: Tensor, wanted: bool) -> Iterator[None]:
    """Within, a frozen weight's gradient can be taken; it is not trained."""
    weight.requires_grad_(wanted)
    try:
        yield
    finally:
        weight.requires_grad_(False)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Within, what is computed leaves no gradient in the module's weights."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
