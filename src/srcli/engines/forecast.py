"""Forecast of a run before anything is loaded: tiles, calls, FLOP and memory."""

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
    """What the engine measures in a picture, by name; empty if measuring would take a whole run."""
    inspect = find_engine(choice.engine).inspect
    return inspect(choice, job, device, pixels) if inspect else {}


def forecast_run(choice: ModelChoice, job: Job, size: PixelSize, device: Device) -> Forecast:
    """The plan for a picture of this size. Raises TooLarge if no plan fits into the device's memory."""
    spec = find_engine(choice.engine)
    complete = spec.complete_sampling(job.sampling, choice.variant)
    cost = spec.forecast(choice, replace(job, sampling=complete), size, device)
    return replace(cost, flop=cost.flop * (1 + len(spec.other_versions(job).jobs))) if job.mapped else cost
