"""FLOP and memory of a run of SR3, computed from its checkpoint."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from srcli.engines.base import PixelSize
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.forecast import Forecast
from srcli.engines.sr3.engine import SR3Engine, load_sr3, tile_memory_need
from srcli.models.sr3_unet import SR3UNet, build_sr3_unet
from srcli.sampling.tiling import Tile
from srcli.settings import ModelChoice
from srcli.tasks import Job
from srcli.weights.store import Store

SR3_CANVAS_BYTES = 130  # per pixel of the result, of everything that has the result's size


def forecast_sr3(choice: ModelChoice, job: Job, size: PixelSize, device: Device) -> Forecast:
    """The plan for a picture of this size."""
    engine, sampling, target = _load_once(choice, device), job.sampling, job.target(*size)
    steps, unit, flop = min(int(sampling.steps or 1), len(engine.betas)), engine.unet.shape.factor, 0.0
    for width, height in engine.passes(size, target):
        canvas = math.ceil(height / unit) * unit, math.ceil(width / unit) * unit
        tiles, at_once = engine.layout(*canvas, sampling) or ([Tile(0, 0, *canvas)], 1)
        tile = tiles[0]
        flop += steps * len(tiles) * count_sr3_flop(engine.unet, tile.height, tile.width)
    memory = tile_memory_need(engine.unet, device).bytes(tile.height * tile.width, SR3_CANVAS_BYTES * math.prod(canvas))
    return Forecast("sr3", target, steps, len(tiles), (tile.width, tile.height), at_once, flop, memory)


@lru_cache(maxsize=1)
def _load_once(choice: ModelChoice, device: Device) -> SR3Engine:
    return load_sr3(choice, device, Store(offline=True))


def count_sr3_flop(unet: SR3UNet, height: int, width: int) -> float:
    """FLOP of one prediction, counted on the meta device."""
    net, shape = build_sr3_unet(unet.shape), unet.shape
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net(torch.empty(1, shape.in_channel, height, width), torch.empty((1, 1) if shape.variant == "sr3" else 1))
    return float(counter.get_total_flops())
