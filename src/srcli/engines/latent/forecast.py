"""Work and memory of a run of an engine over latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from srcli.engines.base import PixelSize
from srcli.engines.latent.codec import VALUES_A_PIXEL
from srcli.engines.latent.schedulers import guided_steps
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.forecast import Forecast
from srcli.engines.runtime.memory_budget import MemoryNeed, Placement, plan_placement
from srcli.engines.runtime.placement import BYTES_A_LATENT, vae_dtype
from srcli.sampling.layout import Cost, Limits, lay_tiles
from srcli.sampling.tiling import Tile
from srcli.settings import Sampling

LATENT_SIDE = 8  # pixels of a latent's side
VAE_FLOP, VAE_ATTENTION_FLOP = 13.8e6, 4 * 512 * 2  # FLOP of encoding and decoding, a pixel; and a pair of latents
LATENT_CANVAS_BYTES = (
    21  # bytes of a canvas pixel: the result in fp32, its levels twice, and the picture that conditions
)

Kept = Callable[[list[Tile]], int]  # bytes on the device that stay from step to step


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentNetworks:
    """An engine's networks at full size: numbers of weights, and FLOP of one prediction for a tile of so many latents.

    `steps`: weights used at every step; `vae` and `others`: at both ends.
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
        return MemoryNeed(self.title, int(self.steps * width), ends, BYTES_A_LATENT * width // 2, kept)


def plan_tiles(networks: LatentNetworks, shown: PixelSize, sampling: Sampling, limits: Limits) -> list[Tile]:
    """Tiles of the canvas for a picture that the engine is shown in this size."""
    canvas = max(1, shown[1] // LATENT_SIDE), max(1, shown[0] // LATENT_SIDE)
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
    """The plan for these tiles. `cost`: mean FLOP of a prediction, where it differs from the networks' own."""
    need = networks.memory_need(device, kept)
    placement = plan_placement(need, device)
    latents, canvas = tiles[0].height * tiles[0].width, canvas_latents(tiles)
    at_once = max(1, min(len(tiles), placement.latents // latents))
    sampling_memory = need.bytes(Placement(at_once * latents, placement.by_stage, placement.weights_fp8))
    return Forecast(
        networks.name,
        target,
        int(sampling.steps or 1),
        len(tiles),
        (tiles[0].width, tiles[0].height),
        at_once,
        count_predictions(sampling) * len(tiles) * (cost or networks.cost)(latents) + vae_work(canvas),
        peak_memory(sampling_memory, canvas * LATENT_SIDE**2, need.fixed(placement), device),
    )


def canvas_latents(tiles: list[Tile]) -> int:
    """Latents of the canvas that these tiles cover."""
    return max(t.top + t.height for t in tiles) * max(t.left + t.width for t in tiles)


def count_predictions(sampling: Sampling) -> int:
    """Predictions for each tile: two at steps that are guided."""
    steps = int(sampling.steps or 1)
    guided = (sampling.guidance or 0) > 1
    return steps + (len(guided_steps(torch.arange(steps), sampling.guidance_interval)) if guided else 0)


def vae_work(latents: int) -> float:
    """FLOP of encoding and decoding a canvas of so many latents."""
    return VAE_FLOP * latents * LATENT_SIDE**2 + VAE_ATTENTION_FLOP * latents**2


def peak_memory(sampling: int, pixels: int, fixed: int, device: Device) -> int:
    """Bytes at the peak, on a CPU mostly while the VAE decodes in fp32. Maps beyond the limit lie on the disk."""
    if device.accelerated:
        return sampling
    peak = max(sampling, fixed + 4 * VALUES_A_PIXEL * pixels) + LATENT_CANVAS_BYTES * pixels
    return min(peak, max(sampling, device.memory or peak))
