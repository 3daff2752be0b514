"""What the engines over latents share: the VAE, guidance, and the choice of a scheduler."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from srcli.engines.base import Size
from srcli.engines.budget import AMPLE, Room
from srcli.engines.device import Device
from srcli.engines.placing import exact, place, visiting
from srcli.errors import InputError, PictureError
from srcli.memory import MemorySavings, is_out_of_memory, release_memory
from srcli.models.banded_vae import After, decode, encode
from srcli.models.streams import Bands, Spilling
from srcli.sampling.hint import lit
from srcli.weights.open import quiet

# An all-dark last step (zero terminal SNR) would have an infinite sigma; this is diffusers' own floor.
DARKEST = 2**-24
NEARLY_NOTHING = 1e-4  # Stable Diffusion's own schedule ends at 0.0047


SCHEDULERS: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    "unipc": (UniPCMultistepScheduler, {"predict_x0": True}),
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "ddim": (DDIMScheduler, {"timestep_spacing": "trailing", "clip_sample": False}),
    "euler": (EulerDiscreteScheduler, {}),
    "lcm": (LCMScheduler, {"clip_sample": False}),
    "ddpm": (DDPMScheduler, {"timestep_spacing": "trailing", "clip_sample": False}),
}

VALUES_A_PIXEL = 160  # of whole maps, at most at once, for each pixel of the result; encoding keeps most
ROOMY = Bands(area=1 << 18, lean=False)
SPARING = Bands(store=torch.device("cpu"))


def scheduler(name: str, config: Mapping[str, Any], steps: int) -> Any:
    """A diffusers scheduler of this kind over the noise schedule that a base or adapter was trained with."""
    quiet()
    cls, extra = SCHEDULERS[name]
    made = cls.from_config(dict(config), **extra)
    made.alphas_cumprod = made.alphas_cumprod.clamp(min=DARKEST)
    try:
        made.set_timesteps(steps)
    except ValueError as error:
        raise InputError(f"--steps {steps} does not suit the {name} scheduler ({error}): choose others") from error
    if hasattr(made, "set_begin_index"):  # spares a search on the device at the first step
        made.set_begin_index(0)
    return made


def ends_in_noise(config: Mapping[str, Any]) -> bool:
    """Whether nothing is left of the picture at the schedule's last step (zero terminal SNR)."""
    quiet()
    return bool(UniPCMultistepScheduler.from_config(dict(config)).alphas_cumprod[-1] < NEARLY_NOTHING)


def noised(x: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """`x` diffused to where `alpha`, the schedule's alphas_cumprod, says."""
    alpha = alpha.to(x)
    return alpha.sqrt() * x + (1 - alpha).sqrt() * noise


def entering(made: Any, x: Tensor) -> Tensor:
    """Diffused latents in the scale that the scheduler's loop works in: Euler's is that of the noise."""
    if not isinstance(made, EulerDiscreteScheduler):
        return x
    scaled: Tensor = x * (1 + made.sigmas[0].to(x).square()).sqrt()
    return scaled


def guided(without: Tensor, with_prompt: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance."""
    return without + guidance * (with_prompt - without)


def guided_steps(timesteps: Tensor, interval: tuple[float, float] | None) -> frozenset[float]:
    """The timesteps that are guided: those in this share of the steps, 0..1; all of them without one."""
    low, high = interval or (0.0, 1.0)
    count = len(timesteps)
    return frozenset(float(t) for i, t in enumerate(timesteps) if low <= (i + 0.5) / count <= high)


SLIMMEST = 16


def least(size: Size, short: int) -> Size:
    """At least `short` pixels on the short side, in the same shape."""
    if min(size) >= short:
        return size
    long = int(short * max(size) / min(size))
    # A strip has no short side worth filling: it is not blown up to a hint of megapixels for its sake.
    if long > (most := max(max(size), SLIMMEST * short)):
        short, long = max(min(size), int(most * min(size) / max(size))), most
    return (long, short) if size[0] > size[1] else (short, long)


@dataclass(frozen=True)
class Codec:
    """A VAE between pictures in 0..1 and scaled latents."""

    net: AutoencoderKL
    device: Device
    bands: Bands = Bands()
    room: Room = AMPLE

    @classmethod
    def of(cls, net: AutoencoderKL, device: Device, room: Room = AMPLE) -> Codec:
        """On the device."""
        bands = SPARING if room.by_stage else ROOMY if device.accelerated else Bands()
        with visiting(place(net, device, exact(device.dtype)), device, room):
            return cls(net, device, bands, room)

    def with_less(self, savings: MemorySavings) -> Codec:
        """This one, at work on less at a time."""
        bands = replace(SPARING, area=int(SPARING.area * savings.band)) if savings.band < 1 else self.bands
        return replace(self, bands=bands, room=self.room.with_less(savings))

    @property
    def factor(self) -> int:
        """Pixels of a side per latent."""
        return int(2 ** (len(self.net.config.block_out_channels) - 1))

    def posterior(self, picture: Tensor, after: After | None = None) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the unscaled latents of a picture, in levels or in 0..1."""

        def run(bands: Bands) -> Tensor:
            return encode(self.net, picture, bands, after, lambda part: self._here(lit(part) * 2 - 1))

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
            return decode(self.net, self._here(latents / self.net.config.scaling_factor), bands, after)

        return self._sound(run, "decoding", latents[0, 0].numel() * self.factor**2).float().div_(2).add_(0.5)

    def _here(self, x: Tensor) -> Tensor:
        return x.to(self.device.torch, self.net.dtype)

    def _memory(self) -> float:
        """Bytes of host memory that maps may take; an accelerator's own come first, and give way when they are full."""
        if self.device.accelerated:
            return math.inf
        return self.device.memory or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2

    def _sound(self, run: Callable[[Bands], Tensor], what: str, pixels: int) -> Tensor:
        """What `run` gives; where half precision overflows, in full. The next picture starts as this one did."""
        found, dtype = self._roomy(run, pixels), self.net.dtype
        if not sound(found) and dtype is not torch.float32:
            self.net.float()
            found = self._roomy(run, pixels)
            self.net.to(dtype)
        if not sound(found):
            raise PictureError(f"{what} gave no picture, even in float32: choose another base model", "not-finite")
        return found

    def _roomy(self, run: Callable[[Bands], Tensor], pixels: int) -> Tensor:
        """With whole maps on the device; where it has no room for them, in host memory, and else on the disk."""
        bands = Spilling() if pixels * VALUES_A_PIXEL * self.net.dtype.itemsize > self._memory() else self.bands
        with visiting(self.net, self.device, self.room):
            try:
                return run(bands)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if self.bands.store is not None or not is_out_of_memory(error):
                    raise
            release_memory()
            return run(SPARING)


def sound(x: Tensor) -> bool:
    """Whether these can be a picture: finite, and not all one number, as an overflow leaves them."""
    low, high = x.aminmax()
    return bool(torch.isfinite(low) & torch.isfinite(high) & (low < high))
