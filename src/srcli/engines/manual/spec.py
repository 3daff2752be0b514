"""The specification of the manual engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from srcli.engines.base import Engine, EngineSpec, PixelSize, TaskSupport, VariantProfile
from srcli.settings import ModelChoice, Sampling
from srcli.tasks import COLORIZE, Job

if TYPE_CHECKING:
    from srcli.engines.runtime.device import Device
    from srcli.engines.runtime.forecast import Forecast
    from srcli.weights.store import Store


def _load(choice: ModelChoice, device: Device, store: Store) -> Engine:
    from srcli.engines.manual.engine import ManualEngine

    return ManualEngine()


def _forecast(choice: ModelChoice, job: Job, size: PixelSize, device: Device) -> Forecast:
    from srcli.engines.manual.engine import forecast_hints

    return forecast_hints(job, size, device)


SPEC = EngineSpec(
    name="manual",
    title="strokes and reference alone",
    about="no network: the colours of `--hint` and `--reference` alone ([more](docs/color.md#your-own-colours))",
    needs="nothing; a second on a laptop",
    tasks={COLORIZE.name: TaskSupport(rank=90, guided_only=True)},
    profile=VariantProfile(defaults=Sampling()),
    needs_accelerator=False,
    load=_load,
    forecast=_forecast,
)
