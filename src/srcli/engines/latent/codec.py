"""The VAE between pictures and scaled latents, in bands that fit into memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from diffusers import AutoencoderKL
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

VALUES_PER_PIXEL = 160  # peak number of feature-map values per pixel of the result; the peak is while encoding
ACCELERATOR_BANDS = Bands(area=1 << 18, lean=False)
HOST_BANDS = Bands(store=torch.device("cpu"))  # feature maps in host memory


@dataclass(frozen=True)
class Codec:
    """A VAE between pictures in 0..1 and scaled latents (fp32)."""

    net: AutoencoderKL
    device: Device
    bands: Bands = Bands()
    placement: Placement = AMPLE

    @classmethod
    def of(cls, net: AutoencoderKL, device: Device, placement: Placement = AMPLE) -> Codec:
        """The codec with its network on the device."""
        bands = HOST_BANDS if placement.by_stage else ACCELERATOR_BANDS if device.accelerated else Bands()
        with on_device(place_network(net, device, vae_dtype(device.dtype)), device, placement):
            return cls(net, device, bands, placement)

    def with_less(self, savings: MemorySavings) -> Codec:
        """The same codec with these savings applied."""
        bands = replace(HOST_BANDS, area=int(HOST_BANDS.area * savings.band)) if savings.band < 1 else self.bands
        return replace(self, bands=bands, placement=self.placement.with_less(savings))

    @property
    def factor(self) -> int:
        """Side of the picture per side of the latents: 8 for Stable Diffusion."""
        return int(2 ** (len(self.net.config.block_out_channels) - 1))

    def posterior(self, picture: Tensor, after: After | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the unscaled latents of a picture (integers, or floats in 0..1)."""

        def run(bands: Bands) -> Tensor:
            return encode_in_bands(
                self.net, picture, bands, after, lambda part: self._to_device(to_unit_float(part) * 2 - 1)
            )

        mean, log_variance = self._run_until_finite(run, "encoding", picture[0, 0].numel()).float().chunk(2, dim=1)
        return mean, (0.5 * log_variance.clamp(-30, 20)).exp()

    def encode(self, picture: Tensor, noise: Tensor, after: After | None = None) -> Tensor:
        """Scaled latents, fp32: a sample of the posterior, with this noise."""
        mean, deviation = self.posterior(picture, after)
        latents: Tensor = self.net.config.scaling_factor * (mean + deviation * noise.to(mean))
        return latents

    def decode(self, latents: Tensor, after: After | None = None) -> Tensor:
        """The picture in about 0..1, fp32, not clamped."""

        def run(bands: Bands) -> Tensor:
            return decode_in_bands(self.net, self._to_device(latents / self.net.config.scaling_factor), bands, after)

        pixels = latents[0, 0].numel() * self.factor**2
        return self._run_until_finite(run, "decoding", pixels).float().div_(2).add_(0.5)

    def _to_device(self, x: Tensor) -> Tensor:
        return x.to(self.device.torch, self.net.dtype)

    def _limit_host_memory(self) -> float:
        """Bytes of host memory for feature maps. No limit beside an accelerator, whose own memory is tried first."""
        if self.device.accelerated:
            return math.inf
        return self.device.memory or (measure_memory() or math.inf) / 2

    def _run_until_finite(self, run: Callable[[Bands], Tensor], what: str, pixels: int) -> Tensor:
        """The result of `run`, repeated in fp32 if half precision overflows. The network keeps its precision."""
        result, dtype = self._run_in_memory(run, pixels), self.net.dtype
        if not is_valid_picture(result) and dtype is not torch.float32:
            self.net.float()
            result = self._run_in_memory(run, pixels)
            self.net.to(dtype)
        if not is_valid_picture(result):
            raise PictureError(f"{what} gave no picture, even in float32: choose another base model", "not-finite")
        return result

    def _run_in_memory(self, run: Callable[[Bands], Tensor], pixels: int) -> Tensor:
        """The result of `run` with feature maps on the device, in host memory, or on the disk, as they fit."""
        large = pixels * VALUES_PER_PIXEL * self.net.dtype.itemsize > self._limit_host_memory()
        bands = Spilling() if large else self.bands
        with on_device(self.net, self.device, self.placement):
            try:
                return run(bands)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if self.bands.store is not None or not is_out_of_memory(error):
                    raise
            release_memory()
            return run(HOST_BANDS)


def is_valid_picture(x: Tensor) -> bool:
    """Whether the values are finite and not all equal; after an overflow they are not."""
    low, high = x.aminmax()
    return bool(torch.isfinite(low) & torch.isfinite(high) & (low < high))
