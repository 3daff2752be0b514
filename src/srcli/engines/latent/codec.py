"""What the engines over latents share: the VAE, guidance, and the choice of a scheduler."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from diffusers import (
    AutoencoderKL,
)
from torch import Tensor

from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import AMPLE, Placement
from srcli.engines.runtime.oom_fallback import MemorySavings
from srcli.engines.runtime.placement import on_device, place_network, vae_dtype
from srcli.errors import PictureError
from srcli.memory import is_out_of_memory, measure_memory, release_memory
from srcli.models.banded_vae import After, decode_in_bands, encode_in_bands
from srcli.models.row_bands import Bands, Spilling
from srcli.sampling.hint import to_unit_float

VALUES_A_PIXEL = 160  # of whole maps, at most at once, for each pixel of the result; encoding keeps most
ROOMY = Bands(area=1 << 18, lean=False)
SPARING = Bands(store=torch.device("cpu"))


@dataclass(frozen=True)
class Codec:
    """A VAE between pictures in 0..1 and scaled latents."""

    net: AutoencoderKL
    device: Device
    bands: Bands = Bands()
    placement: Placement = AMPLE

    @classmethod
    def of(cls, net: AutoencoderKL, device: Device, placement: Placement = AMPLE) -> Codec:
        """On the device."""
        bands = SPARING if placement.by_stage else ROOMY if device.accelerated else Bands()
        with on_device(place_network(net, device, vae_dtype(device.dtype)), device, placement):
            return cls(net, device, bands, placement)

    def with_less(self, savings: MemorySavings) -> Codec:
        """This one, at work on less at a time."""
        bands = replace(SPARING, area=int(SPARING.area * savings.band)) if savings.band < 1 else self.bands
        return replace(self, bands=bands, placement=self.placement.with_less(savings))

    @property
    def factor(self) -> int:
        """Pixels of a side per latent."""
        return int(2 ** (len(self.net.config.block_out_channels) - 1))

    def posterior(self, picture: Tensor, after: After | None = None) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the unscaled latents of a picture, in levels or in 0..1."""

        def run(bands: Bands) -> Tensor:
            return encode_in_bands(
                self.net, picture, bands, after, lambda part: self._here(to_unit_float(part) * 2 - 1)
            )

        mean, log_variance = self._sound(run, "encoding", picture[0, 0].numel()).float().chunk(2, dim=1)
        return mean, (0.5 * log_variance.clamp(-30, 20)).exp()

    def encode(self, picture: Tensor, noise: Tensor, after: After | None = None) -> Tensor:
        """Scaled latents: a draw of the posterior, by `noise`. fp32."""
        mean, deviation = self.posterior(picture, after)
        latents: Tensor = self.net.config.scaling_factor * (mean + deviation * noise.to(mean))
        return latents

    def decode(self, latents: Tensor, after: After | None = None) -> Tensor:
        """The picture in 0..1, fp32, before it is clamped."""

        def run(bands: Bands) -> Tensor:
            return decode_in_bands(self.net, self._here(latents / self.net.config.scaling_factor), bands, after)

        return self._sound(run, "decoding", latents[0, 0].numel() * self.factor**2).float().div_(2).add_(0.5)

    def _here(self, x: Tensor) -> Tensor:
        return x.to(self.device.torch, self.net.dtype)

    def _memory(self) -> float:
        """Bytes of host memory that maps may take; an accelerator's own come first, and give way when they are full."""
        if self.device.accelerated:
            return math.inf
        return self.device.memory or (measure_memory() or math.inf) / 2

    def _sound(self, run: Callable[[Bands], Tensor], what: str, pixels: int) -> Tensor:
        """What `run` gives; where half precision overflows, in full. The next picture starts as this one did."""
        found, dtype = self._roomy(run, pixels), self.net.dtype
        if not is_valid_picture(found) and dtype is not torch.float32:
            self.net.float()
            found = self._roomy(run, pixels)
            self.net.to(dtype)
        if not is_valid_picture(found):
            raise PictureError(f"{what} gave no picture, even in float32: choose another base model", "not-finite")
        return found

    def _roomy(self, run: Callable[[Bands], Tensor], pixels: int) -> Tensor:
        """With whole maps on the device; where it has no room for them, in host memory, and else on the disk."""
        bands = Spilling() if pixels * VALUES_A_PIXEL * self.net.dtype.itemsize > self._memory() else self.bands
        with on_device(self.net, self.device, self.placement):
            try:
                return run(bands)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if self.bands.store is not None or not is_out_of_memory(error):
                    raise
            release_memory()
            return run(SPARING)


def is_valid_picture(x: Tensor) -> bool:
    """Whether these can be a picture: finite, and not all one number, as an overflow leaves them."""
    low, high = x.aminmax()
    return bool(torch.isfinite(low) & torch.isfinite(high) & (low < high))
