"""What a run will take, before anything is loaded: tiles, calls, work, and memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from srcli.engines.base import PixelSize
from srcli.engines.registry import find_engine
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.forecast import Forecast
from srcli.settings import ModelChoice
from srcli.tasks import Job


def inspect_picture(choice: ModelChoice, job: Job, pixels: NDArray[Any], device: Device) -> Mapping[str, float]:
    """What the engine finds in a picture, by name; nothing where finding out would take a run."""
    inspect = find_engine(choice.engine).inspect
    return inspect(choice, job, device, pixels) if inspect else {}


def forecast_run(choice: ModelChoice, job: Job, size: PixelSize, device: Device) -> Forecast:
    """The plan for a picture of this size. TooLarge where no plan fits into the device's budget."""
    spec = find_engine(choice.engine)
    complete = spec.complete_sampling(job.sampling, choice.variant)
    cost = spec.forecast(choice, replace(job, sampling=complete), size, device)
    return replace(cost, flop=cost.flop * (1 + len(spec.other_versions(job).jobs))) if job.mapped else cost
