"""StableSR: Stable Diffusion 2.1 led by a time-aware encoder, decoded with the picture's own features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from srcli.models.spade import Modulation
from srcli.models.time_encoder import TimeEncoder
from srcli.sampling.tiling import Tile


@dataclass(frozen=True)
class Led:
    """The modulated UNet as a denoiser. Its hint is the degraded picture's latent, which the encoder sees."""

    unet: UNet2DConditionModel
    encoder: TimeEncoder
    modulation: Modulation
    text: Tensor
    stride: int = 1

    def __call__(self, x: Tensor, t: Tensor, hint: Tensor, where: Sequence[Tile] | None = None) -> Tensor:
        dtype, step = self.unet.dtype, torch.as_tensor(t, device=x.device).expand(len(x))
        text = self.text.to(dtype).expand(len(x), -1, -1)
        with self.modulation.leading(self.encoder(hint.to(dtype), step)):
            found: Tensor = self.unet(x.to(dtype), step, encoder_hidden_states=text).sample
        return found.to(x.dtype)
