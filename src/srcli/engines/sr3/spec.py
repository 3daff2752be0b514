"""The specification of the SR3 engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from srcli.engines.base import AdapterEvidence, Engine, EngineSpec, PixelSize, Preset, TaskSupport, VariantProfile
from srcli.errors import InputError
from srcli.settings import ModelChoice, Sampling
from srcli.tasks import UPSCALE, Job

if TYPE_CHECKING:
    from srcli.engines.runtime.device import Device
    from srcli.engines.runtime.forecast import Forecast
    from srcli.weights.store import Store

SR3_STEPS = 2000
SR3_PREFIX = "denoise_fn."  # of the network's tensor names in a checkpoint


def _load(choice: ModelChoice, device: Device, store: Store) -> Engine:
    from srcli.engines.sr3.engine import load_sr3

    return load_sr3(choice, device, store)


def _forecast(choice: ModelChoice, job: Job, size: PixelSize, device: Device) -> Forecast:
    from srcli.engines.sr3.forecast import forecast_sr3

    return forecast_sr3(choice, job, size, device)


def _recognizes(evidence: AdapterEvidence) -> bool:
    return any(f"{SR3_PREFIX}downs.0.weight" in header.shapes for header in evidence.headers)


def _check(sampling: Sampling) -> None:
    if sampling.steps == 1:
        raise InputError("`steps` 1 is too few for SR3: give at least 2")


SPEC = EngineSpec(
    name="sr3",
    title="SR3",
    about="SR3 as published, with a checkpoint of your own (`--adapter FILE`)",
    needs="your checkpoint",
    tasks={UPSCALE.name: TaskSupport()},
    profile=VariantProfile(defaults=Sampling(steps=SR3_STEPS), presets={"draft": Preset(sampling=Sampling(steps=250))}),
    options=frozenset({"adapter", "mapped", "map_seeds"}),
    unset=frozenset({"tile", "overlap"}),
    load=_load,
    forecast=_forecast,
    recognizes=_recognizes,
    check=_check,
)
