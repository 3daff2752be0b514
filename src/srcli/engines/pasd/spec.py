"""The specification of the PASD engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from srcli.engines.base import Engine, EngineSpec, PixelSize, Preset, TaskSupport, VariantProfile
from srcli.settings import ENGINE_OPTIONS, LoraChoice, ModelChoice, Sampling
from srcli.tasks import COLORIZE, RESTORE, STYLIZE, UPSCALE, Job

if TYPE_CHECKING:
    from srcli.engines.runtime.device import Device
    from srcli.engines.runtime.forecast import Forecast
    from srcli.weights.store import Store

PASD_FAMILY = "sd15"
PASD_BASE = "sd15"  # the default base model; it also supplies what another one lacks
COLOR = "light-color"
PASD_ADAPTERS = ("pasd", "pasd-rrdb", "pasd-light", "pasd-light-rrdb", "pasd-light-color")
PASD_KINDS = ("pasd-unet", "pasd-light-unet", "pasd-control")


def _load(choice: ModelChoice, device: Device, store: Store) -> Engine:
    from srcli.engines.pasd.engine import load_pasd

    return load_pasd(choice, device, store)


def _forecast(choice: ModelChoice, job: Job, size: PixelSize, device: Device) -> Forecast:
    from srcli.engines.pasd.forecast import forecast_pasd

    return forecast_pasd(job, size, device)


def adapter_name(variant: str | None) -> str:
    """The adapter's name in weights.lock."""
    return "pasd" if variant in (None, "full") else f"pasd-{variant}"


def _entries(choice: ModelChoice) -> tuple[str, ...]:
    return (adapter_name(choice.variant), *([choice.base] if choice.base else []))


def _check(sampling: Sampling) -> None:
    from srcli.engines.latent.schedulers import check_steps

    check_steps(str(sampling.scheduler), int(sampling.steps or 1))


SPEC = EngineSpec(
    name="pasd",
    title="PASD",
    about="PASD, pixel-aware Stable Diffusion, on any Stable Diffusion 1.5 base",
    needs="about 5 to 9 GB of weights, a GPU",
    tasks={
        UPSCALE.name: TaskSupport(rank=20),
        STYLIZE.name: TaskSupport(rank=20),
        RESTORE.name: TaskSupport(rank=20, base="realistic"),
        COLORIZE.name: TaskSupport(rank=20, variant=COLOR),
    },
    profile=VariantProfile(
        defaults=Sampling(
            steps=20,
            guidance=9.0,
            conditioning_scale=1.0,
            noise_level=900,
            scheduler="unipc",
            color_fix="wavelet",
            process_size=768,  # what PASD was tuned for
        ),
        presets={
            "draft": Preset(
                sampling=Sampling(steps=6, guidance=1.0, scheduler="lcm"), loras=(LoraChoice(source="lcm-lora"),)
            ),
            "best": Preset(sampling=Sampling(steps=40)),
        },
    ),
    variant_names=("full", "rrdb", "light", "light-rrdb", COLOR),
    options=frozenset(ENGINE_OPTIONS),
    unset=frozenset({"guidance_interval", "reuse", "tile", "overlap"}),
    load=_load,
    forecast=_forecast,
    entries=_entries,
    shared_entries=(PASD_BASE,),
    recognizes=lambda evidence: evidence.is_of(PASD_KINDS, PASD_ADAPTERS, PASD_FAMILY),
    check=_check,
)
