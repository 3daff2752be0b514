"""FLOP and memory of a run of DDColor."""

from __future__ import annotations

from dataclasses import replace

from srcli.engines.base import PixelSize
from srcli.engines.ddcolor.spec import NETWORK_SIDE, TINY_VARIANT
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.forecast import Forecast
from srcli.engines.runtime.memory_budget import PixelMemoryNeed
from srcli.settings import ModelChoice
from srcli.tasks import Job

# FLOP per pixel of the network's input, and parameters; True: the tiny variant.
DDCOLOR_FLOP = {True: 193.0e9 / NETWORK_SIDE**2, False: 524.4e9 / NETWORK_SIDE**2}
PARAMETERS = {True: 55_006_640, False: 227_869_328}
VALUES_PER_INPUT_PIXEL = 1200  # feature-map values, in the network's precision
DDCOLOR_CANVAS_BYTES = 30  # per pixel of the result: the picture, RGB in fp32, and the result as integers


def forecast_ddcolor(choice: ModelChoice, job: Job, size: PixelSize, device: Device) -> Forecast:
    """The plan for a picture of this size."""
    tiny, target = choice.variant in (None, TINY_VARIANT), job.target(*size)
    side = job.sampling.process_size or NETWORK_SIDE
    weights = PARAMETERS[tiny] * device.dtype.itemsize
    memory = PixelMemoryNeed("DDColor", VALUES_PER_INPUT_PIXEL * device.dtype.itemsize, weights).bytes(side**2)
    canvas = DDCOLOR_CANVAS_BYTES * target[0] * target[1]
    plan = Forecast("ddcolor", target, 1, 1, None, 1, DDCOLOR_FLOP[tiny] * side**2, memory)
    return replace(plan, host=canvas) if device.accelerated else replace(plan, memory=memory + canvas)
