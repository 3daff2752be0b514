"""PASD at full size with random weights, to measure memory by: the text encoder's are there, its work is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from benchmarks.pasd_step import SD15, fill, networks
from srcli.engines.latent.captions import Describer
from srcli.engines.latent.codec import Codec
from srcli.engines.pasd.engine import Pasd
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import plan_placement
from srcli.engines.runtime.oom_fallback import MemorySavings
from srcli.engines.runtime.placement import network_memory_need, place_step_networks, vae_dtype
from srcli.weights.store import Store

VAE = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2}
WIDTH = 768
TEXT = 123_060_480  # values of the text encoder
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


@dataclass(frozen=True)
class Texts:
    """A text encoder's weights, and embeddings of no text."""

    net: nn.Module
    length: int = 75

    def with_less(self, savings: MemorySavings) -> Texts:
        return self

    def pieces(self, text: str) -> list[str]:
        return [text]

    def encode(self, texts: Sequence[str]) -> Tensor:
        return torch.randn(len(texts), 77, WIDTH)


def engine(device: Device) -> Pasd:
    nets = networks(SD15, device)
    with torch.device("meta"):
        vae = AutoencoderKL(down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, **VAE)
        text = nn.Linear(TEXT // WIDTH, WIDTH, bias=False)
    fill(vae, Device(device.torch, vae_dtype(device.dtype)))
    fill(text, device)
    steps = nets.unet, nets.paca, nets.control
    need = network_memory_need("PASD", steps, (vae, text), device.dtype)
    placement = plan_placement(need, device)
    place_step_networks(steps, device, placement)
    texts: Any = Texts(text)
    describer = Describer(Store(offline=True), device)
    return Pasd(nets, Codec.of(vae.eval(), device, placement), texts, SCHEDULE, {}, describer, need, placement)
