"""The built-in engine, before it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from srcli.engines.base import AdapterEvidence, Engine, EngineSpec, Preset, Profile, Size, TaskSupport
from srcli.settings import ModelChoice, Sampling
from srcli.tasks import RESTORE, UPSCALE, Job

if TYPE_CHECKING:
    from srcli.engines.runtime.device import Device
    from srcli.engines.runtime.forecast import Forecast
    from srcli.weights.store import Store

STEPS = 6  # what the denoiser was distilled for


def _load(choice: ModelChoice, device: Device, store: Store) -> Engine:
    from srcli.engines.builtin.engine import load

    return load(choice, device)


def _forecast(choice: ModelChoice, job: Job, size: Size, device: Device) -> Forecast:
    from srcli.engines.builtin.forecast import forecast

    return forecast(job, size, device)


def _entries(choice: ModelChoice) -> tuple[str, ...]:
    return (entry_name(choice.variant),)


def entry_name(variant: str | None) -> str:
    """The packaged model in weights.lock."""
    return "builtin-restore" if variant == "restore" else "builtin-upscale"


def _recognizes(evidence: AdapterEvidence) -> bool:
    """`srcli train builtin` writes these two into its files."""
    return any({"shape", "task"} <= header.metadata.keys() for header in evidence.headers)


SPEC = EngineSpec(
    name="builtin",
    title="the built-in engine",
    about="our own small SR3-style model, in the package ([model card](docs/builtin-model.md))",
    needs="nothing; seconds on a laptop",
    tasks={UPSCALE.name: TaskSupport(rank=90), RESTORE.name: TaskSupport(rank=90, variant="restore")},
    profile=Profile(
        defaults=Sampling(steps=STEPS, fidelity=0.5), presets={"draft": Preset(sampling=Sampling(steps=2))}
    ),
    options=frozenset({"adapter"}),
    needs_accelerator=False,
    load=_load,
    forecast=_forecast,
    entries=_entries,
    recognizes=_recognizes,
)
