"""The manual engine returns the picture unchanged; the pipeline adds the colours of strokes and reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from srcli.engines.base import Canvas, EngineSpec, PixelSize, Request, WholePicture
from srcli.engines.manual.spec import SPEC
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.forecast import Forecast
from srcli.engines.runtime.memory_budget import TORCH_BYTES
from srcli.sampling.hint import to_unit_float
from srcli.tasks import Job

MANUAL_PIXEL_COST = 30  # per pixel of the result: bytes, and FLOP


@dataclass(frozen=True)
class ManualEngine(WholePicture):
    """Returns the picture unchanged."""

    spec: EngineSpec = SPEC
    variant: str | None = None

    def prepare(self, hint: Tensor, request: Request) -> Canvas:
        return Canvas(hint, hint, None, None, to_unit_float)

    def provenance(self) -> Mapping[str, str]:
        return {}


def forecast_hints(job: Job, size: PixelSize, device: Device) -> Forecast:
    """The plan for a picture of this size."""
    width, height = job.target(*size)
    work = MANUAL_PIXEL_COST * width * height
    plan = Forecast("manual", (width, height), 1, 1, None, 1, work, TORCH_BYTES)
    return replace(plan, host=work) if device.accelerated else replace(plan, memory=TORCH_BYTES + work)
