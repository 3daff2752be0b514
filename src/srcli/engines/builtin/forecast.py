"""FLOP and memory of a run of the built-in engine."""

from __future__ import annotations

from dataclasses import replace

from srcli.engines.base import PixelSize
from srcli.engines.builtin.engine import HALO, block_memory_need, block_side
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.forecast import Forecast
from srcli.engines.runtime.memory_budget import spare_host_memory
from srcli.sampling.blocks import cut_blocks
from srcli.tasks import Job

BUILTIN_FLOP = 1.3e6  # per pixel of the picture
OVERLAP_FACTOR = 1.5  # for the pixels that overlapping blocks process twice
CHANNELS = 3  # of the picture and its result, one byte each


def forecast_builtin(job: Job, size: PixelSize, device: Device) -> Forecast:
    """The plan for a picture of this size."""
    target = job.target(*size)
    (width, height), flop = size, 0.0
    factor = max(target[0] / size[0], target[1] / size[1])
    while True:
        flop += width * height * BUILTIN_FLOP
        if (factor := factor / 4) <= 1:
            break
        width, height = 4 * width, 4 * height
    levels, picture = CHANNELS * target[0] * target[1], CHANNELS * width * height
    kept = picture + (levels if levels < spare_host_memory(device) - picture else 0)
    pieces = list(cut_blocks(height, width, block_side(device), HALO))
    memory = block_memory_need(device).bytes(max(piece.outer.height * piece.outer.width for piece in pieces))
    overlap = OVERLAP_FACTOR if len(pieces) > 1 else 1
    plan = Forecast("builtin", target, 1, len(pieces), None, 1, flop * overlap, memory)
    return replace(plan, host=kept) if device.accelerated else replace(plan, memory=memory + kept)
