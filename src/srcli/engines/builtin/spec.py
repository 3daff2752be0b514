"""The specification of the built-in engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from srcli.engines.base import AdapterEvidence, Engine, EngineSpec, PixelSize, Preset, TaskSupport, VariantProfile
from srcli.engines.calibration import Calibration, OtherVersions, without_map
from srcli.settings import ModelChoice, Sampling
from srcli.tasks import RESTORE, UPSCALE, Job

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from srcli.engines.runtime.device import Device
    from srcli.engines.runtime.forecast import Forecast
    from srcli.weights.store import Store

# Fitted by benchmarks/map_calibration.py on held-out photographs; docs/guesses.md says how well they hold.
MAP_CALIBRATIONS = {
    UPSCALE.name: Calibration(offset=-2.749, spread=2.169, added=0.719),
    RESTORE.name: Calibration(offset=-4.203, spread=9.377, added=0.993),
}
FIDELITY = 0.5  # default: half the faithful, half the crisp output
# The damage that `--damage` sets: blur, noise, colour noise, JPEG. Light: medians of lightly damaged training pairs;
# heavy: the best values on held-out pictures with noise, JPEG blocks or both.
DAMAGE_PRESETS = {
    "none": (0.0, 0.0, 0.0, 0.0),
    "light": (0.3, 0.2, 0.2, 0.05),
    "heavy": (0.4, 0.7, 0.8, 0.25),
}
LICENSE = "Apache-2.0; results may be sold: https://www.apache.org/licenses/LICENSE-2.0"


def _load(choice: ModelChoice, device: Device, store: Store) -> Engine:
    from srcli.engines.builtin.engine import load_builtin

    return load_builtin(choice, device)


def _forecast(choice: ModelChoice, job: Job, size: PixelSize, device: Device) -> Forecast:
    from srcli.engines.builtin.forecast import forecast_builtin

    return forecast_builtin(job, size, device)


def _inspect(choice: ModelChoice, job: Job, device: Device, pixels: NDArray[Any]) -> Mapping[str, float]:
    from srcli.engines.builtin.engine import inspect_damage

    return inspect_damage(choice, job, device, pixels)


def _entries(choice: ModelChoice) -> tuple[str, ...]:
    return (entry_name(choice.variant),)


def entry_name(variant: str | None) -> str:
    """The packaged model's name in weights.lock."""
    return "builtin-restore" if variant == "restore" else "builtin-upscale"


def _recognizes(evidence: AdapterEvidence) -> bool:
    """Whether a header has the metadata that `srcli train builtin` writes."""
    return any({"shape", "task"} <= header.metadata.keys() for header in evidence.headers)


def _other_end(job: Job) -> OtherVersions:
    """The result at the farther end of `fidelity`: where the two differ, the input does not determine the result."""
    fidelity = SPEC.complete_sampling(job.sampling, None).fidelity or 0.0
    other = 0.0 if fidelity >= FIDELITY else 1.0
    job_of_end = replace(without_map(job), sampling=replace(job.sampling, fidelity=other))
    return OtherVersions(jobs=(job_of_end,), share=abs(fidelity - other), calibration=MAP_CALIBRATIONS[job.task.name])


SPEC = EngineSpec(
    name="builtin",
    title="the built-in engine",
    about="our own small network, in the package ([model card](docs/builtin-model.md))",
    needs="nothing; seconds on a laptop",
    tasks={UPSCALE.name: TaskSupport(rank=90), RESTORE.name: TaskSupport(rank=90, variant="restore")},
    profile=VariantProfile(
        defaults=Sampling(fidelity=FIDELITY, damage="auto"),
        presets={"draft": Preset(sampling=Sampling(fidelity=1.0))},
    ),
    options=frozenset({"adapter", "mapped"}),
    needs_accelerator=False,
    load=_load,
    forecast=_forecast,
    entries=_entries,
    recognizes=_recognizes,
    inspect=_inspect,
    other_versions=_other_end,
)
