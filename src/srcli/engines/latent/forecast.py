"""FLOP and memory of a run of an engine over latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from srcli.engines.base import PixelSize
from srcli.engines.latent.codec import VALUES_PER_PIXEL
from srcli.engines.latent.schedulers import guided_steps
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.forecast import Forecast
from srcli.engines.runtime.memory_budget import MemoryNeed, Placement, plan_placement
from srcli.engines.runtime.placement import BYTES_PER_LATENT, vae_dtype
from srcli.sampling.layout import Cost, Limits, lay_tiles
from srcli.sampling.tiling import Tile
from srcli.settings import Sampling

LATENT_SIDE = 8  # side of one latent in pixels
VAE_FLOP, VAE_ATTENTION_FLOP = 13.8e6, 4 * 512 * 2  # to encode and decode: per pixel, and per pair of latents
LATENT_CANVAS_BYTES = 21  # per canvas pixel: the result in fp32, two copies as integers, and the input picture


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentNetworks:
    """An engine's networks at full size.

    `steps`: number of weights used at every step. `vae`, `others`: number of weights used before and after sampling.
    `cost`: FLOP of one prediction, by the latents of a tile.
    """

    name: str
    title: str
    steps: float
    vae: float
    others: float
    cost: Cost

    def memory_need(self, device: Device, kept: int) -> MemoryNeed:
        width = device.dtype.itemsize
        ends = int(self.vae * vae_dtype(device.dtype).itemsize + self.others * width)
        return MemoryNeed(self.title, int(self.steps * width), ends, BYTES_PER_LATENT * width // 2, kept)


def plan_tiles(networks: LatentNetworks, hint: PixelSize, sampling: Sampling, limits: Limits) -> list[Tile]:
    """Tiles of the canvas for a hint of this size."""
    canvas = max(1, hint[1] // LATENT_SIDE), max(1, hint[0] // LATENT_SIDE)
    return lay_tiles(*canvas, sampling, networks.cost, limits) or [Tile(0, 0, *canvas)]


def forecast_latent(
    networks: LatentNetworks,
    sampling: Sampling,
    target: PixelSize,
    tiles: list[Tile],
    device: Device,
    kept: int = 0,
    cost: Cost | None = None,
) -> Forecast:
    """The plan for these tiles. `cost`: mean FLOP of a prediction, if it differs from the networks' own."""
    need = networks.memory_need(device, kept)
    placement = plan_placement(need, device)
    latents, canvas = tiles[0].height * tiles[0].width, count_canvas_latents(tiles)
    at_once = max(1, min(len(tiles), placement.latents // latents))
    sampling_memory = need.bytes(Placement(at_once * latents, placement.by_stage, placement.weights_fp8))
    return Forecast(
        networks.name,
        target,
        int(sampling.steps or 1),
        len(tiles),
        (tiles[0].width, tiles[0].height),
        at_once,
        count_predictions(sampling) * len(tiles) * (cost or networks.cost)(latents) + count_vae_flop(canvas),
        find_peak_memory(sampling_memory, canvas * LATENT_SIDE**2, need.fixed(placement), device),
    )


def count_canvas_latents(tiles: list[Tile]) -> int:
    """Number of latents of the canvas that these tiles cover."""
    return max(t.top + t.height for t in tiles) * max(t.left + t.width for t in tiles)


def count_predictions(sampling: Sampling) -> int:
    """Predictions per tile: two at each guided step, one at others."""
    steps = int(sampling.steps or 1)
    guided = (sampling.guidance or 0) > 1
    return steps + (len(guided_steps(torch.arange(steps), sampling.guidance_interval)) if guided else 0)


def count_vae_flop(latents: int) -> float:
    """FLOP to encode and decode a canvas of this many latents."""
    return VAE_FLOP * latents * LATENT_SIDE**2 + VAE_ATTENTION_FLOP * latents**2


def find_peak_memory(sampling: int, pixels: int, fixed: int, device: Device) -> int:
    """Peak bytes; on a CPU usually while the VAE decodes in fp32. Maps beyond the memory limit are spilled to disk."""
    if device.accelerated:
        return sampling
    peak = max(sampling, fixed + 4 * VALUES_PER_PIXEL * pixels) + LATENT_CANVAS_BYTES * pixels
    return min(peak, max(sampling, device.memory or peak))
