"""TAESD in place of the VAE, for drafts: a tenth of the FLOP, softer detail."""

from __future__ import annotations

from dataclasses import dataclass, replace

from diffusers import AutoencoderTiny
from torch import Tensor

from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import Placement
from srcli.engines.runtime.oom_fallback import MemorySavings
from srcli.engines.runtime.placement import on_device, place_network
from srcli.models.tiny_vae import LATENT_PIXELS, decode_tiny, encode_tiny
from srcli.sampling.hint import to_unit_float
from srcli.weights.open import load_component
from srcli.weights.store import Store

ENTRY = "taesd"


@dataclass(frozen=True)
class TinyCodec:
    """The tiny VAE between pictures in 0..1 and scaled latents."""

    net: AutoencoderTiny
    device: Device
    placement: Placement
    factor: int = LATENT_PIXELS

    @classmethod
    def open(cls, store: Store, device: Device, placement: Placement) -> TinyCodec:
        net = load_component(AutoencoderTiny, store.resolve(ENTRY, "preview").folder)
        with on_device(place_network(net, device), device, placement):
            return cls(net, device, placement)

    def with_less(self, savings: MemorySavings) -> TinyCodec:
        """The same codec with these savings applied."""
        return replace(self, placement=self.placement.with_less(savings))

    def encode(self, picture: Tensor) -> Tensor:
        """Scaled latents, fp32; deterministic."""
        with on_device(self.net, self.device, self.placement):
            latents = encode_tiny(self.net, self._to_device(to_unit_float(picture) * 2 - 1)).float()
        return latents * float(self.net.config.scaling_factor)

    def decode(self, latents: Tensor) -> Tensor:
        """The picture in about 0..1, fp32."""
        with on_device(self.net, self.device, self.placement):
            picture = decode_tiny(self.net, self._to_device(latents / self.net.config.scaling_factor))
            return picture.float().div_(2).add_(0.5)

    def _to_device(self, x: Tensor) -> Tensor:
        return x.to(self.device.torch, self.net.dtype)
