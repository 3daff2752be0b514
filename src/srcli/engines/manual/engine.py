"""The engine that gives no colour itself: the pipeline lays strokes and reference over its grey picture."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from srcli.engines.base import Canvas, EngineSpec, Request, Size
from srcli.engines.manual.spec import SPEC
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.forecast import Forecast
from srcli.engines.runtime.memory_budget import PLAIN
from srcli.sampling.hint import to_unit_float
from srcli.sampling.tiling import Tile
from srcli.settings import Sampling
from srcli.tasks import Job

PIXEL = 30  # bytes for each pixel of the result, and FLOP


@dataclass(frozen=True)
class ManualEngine:
    """The picture as it is."""

    spec: EngineSpec = SPEC
    variant: str | None = None
    factor: int = 1
    block: int | None = None
    halo: int = 0
    supported_savings: Collection[str] = ()

    def passes(self, size: Size, target: Size) -> list[Size]:
        return [target]

    def working_size(self, size: Size, target: Size, request: Request) -> Size:
        return target

    def layout(self, height: int, width: int, sampling: Sampling) -> tuple[list[Tile], int] | None:
        return None

    def prepare(self, hint: Tensor, request: Request) -> Canvas:
        return Canvas(hint, hint, None, None, to_unit_float)

    def provenance(self) -> Mapping[str, str]:
        return {}


def forecast_hints(job: Job, size: Size, device: Device) -> Forecast:
    """The plan for a picture of this size."""
    width, height = job.target(*size)
    work = PIXEL * width * height
    plan = Forecast("manual", (width, height), 1, 1, None, 1, work, PLAIN)
    return replace(plan, host=work) if device.accelerated else replace(plan, memory=PLAIN + work)
