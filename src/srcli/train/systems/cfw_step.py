"""The two training steps of StableSR's CFW: the fusion layers, and a discriminator against them."""

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
from srcli.train.systems.base import StepModule

GAN_WEIGHT, GAN_START = 0.025, 501
LEAST_WEIGHT, MOST_WEIGHT = 1e-4, 1e4


class CfwInputs(NamedTuple):
    """Targets and degraded pictures in -1..1, the engine's scaled latents for the latter, and the step."""

    target: Tensor
    degraded: Tensor
    latent: Tensor
    step: int


def reconstruct_picture(vae: AutoencoderKL, wrapping: Wrapping, inputs: CfwInputs) -> Tensor:
    """Decode the latents, -1..1, with the encoder's features mixed in at weight 1."""
    with torch.no_grad():
        features = encoder_features(vae, inputs.degraded.to(vae.dtype))
    latents = (inputs.latent / vae.config.scaling_factor).to(vae.dtype)
    return decode_with_features(vae, wrapping, latents, features).float()


class CfwGeneratorStep(StepModule):
    """L1 and LPIPS losses, and from step GAN_START the GAN loss. Only the fusion layers are trained."""

    def __init__(
        self,
        wrapping: Wrapping,
        vae: AutoencoderKL,
        lpips: Lpips,
        discriminator: PatchGan,
        adaptive: bool = False,
        reconstruction_weight: float = 1.0,
    ) -> None:
        """`adaptive`: weigh the GAN loss by the ratio of both losses' gradients at the decoder's last layer (VQGAN)."""
        super().__init__()
        self.wrapping = wrapping
        self._others = (vae, lpips.eval(), discriminator)
        self._adaptive, self._weight = adaptive, reconstruction_weight

    def forward(self, inputs: CfwInputs) -> dict[str, Tensor]:
        vae, lpips, discriminator = self._others
        last = vae.decoder.conv_out.weight
        with _gradients_of(last, self._adaptive), _frozen(discriminator):
            result = reconstruct_picture(vae, self.wrapping, inputs)
            error = (inputs.target - result).abs() + lpips(inputs.target, result)
            reconstruction = self._weight * error.mean()
            gan = -discriminator(result).mean()
            weight = result.new_tensor(GAN_WEIGHT)
            if self._adaptive:
                weight = adaptive_weight(*(_gradient(loss, last) for loss in (reconstruction, gan)))
        loss = reconstruction + weight * gan_factor(inputs.step) * gan
        return {"loss": loss, "reconstruction": reconstruction, "g": gan, "d_weight": weight}


class CfwDiscriminatorStep(StepModule):
    """The hinge loss between targets and the current results of the fusion layers."""

    def __init__(self, discriminator: PatchGan, wrapping: Wrapping, vae: AutoencoderKL) -> None:
        super().__init__()
        self.discriminator = discriminator
        self._others = (wrapping, vae)

    def forward(self, inputs: CfwInputs) -> dict[str, Tensor]:
        wrapping, vae = self._others
        with torch.no_grad():
            result = reconstruct_picture(vae, wrapping, inputs)
        real, fake = self.discriminator(inputs.target), self.discriminator(result)
        return {"loss": gan_factor(inputs.step) * hinge_loss(real, fake), "real": real.mean(), "fake": fake.mean()}


def gan_factor(step: int) -> float:
    """The factor of the GAN losses: 0 before step GAN_START, then 1."""
    return 0.0 if step < GAN_START else 1.0


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    return (torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()) / 2


def adaptive_weight(reconstruction: Tensor, gan: Tensor) -> Tensor:
    """The weight of the GAN loss, from both losses' gradients at the same layer."""
    ratio: Tensor = reconstruction.norm() / (gan.norm() + LEAST_WEIGHT)
    return GAN_WEIGHT * ratio.clamp(0.0, MOST_WEIGHT)


def _gradient(loss: Tensor, weight: Tensor) -> Tensor:
    return torch.autograd.grad(loss, weight, retain_graph=True)[0].detach()


@contextmanager
def _gradients_of(weight: Tensor, wanted: bool) -> Iterator[None]:
    """A context in which the gradient of a frozen weight can be computed, if `wanted`."""
    weight.requires_grad_(wanted)
    try:
        yield
    finally:
        weight.requires_grad_(False)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """A context in which the module's weights get no gradient."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
