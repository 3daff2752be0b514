"""The specification of the StableSR engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from srcli.engines.base import (
    Engine,
    EngineSpec,
    PixelSize,
    Preset,
    TaskSupport,
    VariantProfile,
    find_variant,
)
from srcli.errors import WeightsError, check_range
from srcli.settings import ENGINE_OPTIONS, ModelChoice, Sampling
from srcli.tasks import RESTORE, UPSCALE, Job
from srcli.weights.families import EPSILON, VELOCITY

if TYPE_CHECKING:
    from srcli.engines.runtime.device import Device
    from srcli.engines.runtime.forecast import Forecast
    from srcli.weights.store import Store

STABLESR_FAMILY = "sd21"
LENDER = "sd21-base"  # supplies configurations for a checkpoint that includes its own base
FUSION = "stablesr-cfw"
WHOLE, ADAPTER = STABLESR_KINDS = ("stablesr", "stablesr-adapter")
SCHEDULE_STEPS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class StableSRVariant:
    """One of the published models. `process`: short side in pixels of its training pictures."""

    name: str
    adapter: str
    base: str
    prediction: str = EPSILON
    process: int = 512


STABLESR_USUAL = "512"
STABLESR_VARIANTS: Mapping[str, StableSRVariant] = MappingProxyType(
    {
        STABLESR_USUAL: StableSRVariant(name=STABLESR_USUAL, adapter="stablesr", base=LENDER),
        "768v": StableSRVariant(name="768v", adapter="stablesr-768v", base="sd21", prediction=VELOCITY, process=768),
        "turbo": StableSRVariant(name="turbo", adapter="stablesr-turbo", base="sd-turbo"),
    }
)
STABLESR_ADAPTERS = tuple(variant.adapter for variant in STABLESR_VARIANTS.values())
find_stablesr_variant = partial(find_variant, STABLESR_VARIANTS, engine="StableSR")


def _load(choice: ModelChoice, device: Device, store: Store) -> Engine:
    from srcli.engines.stablesr.engine import load_stablesr

    return load_stablesr(choice, device, store)


def _forecast(choice: ModelChoice, job: Job, size: PixelSize, device: Device) -> Forecast:
    from srcli.engines.stablesr.forecast import forecast_stablesr

    return forecast_stablesr(choice, job, size, device)


def _entries(choice: ModelChoice) -> tuple[str, ...]:
    variant = find_stablesr_variant(choice.variant)
    return variant.adapter, choice.base or variant.base


def _resolve(choice: ModelChoice, store: Store) -> ModelChoice:
    """The choice with its variant: that of the adapter's entry, or one that suits the base's prediction type."""
    if choice.variant is not None or choice.adapter is None:
        return replace(choice, variant=find_stablesr_variant(choice.variant).name)
    known = variant_of_entry(store.known_names(choice.adapter))
    if known is None and choice.base is not None:
        known = _variant_for_base(choice.base, store)
    return replace(choice, variant=known)


def variant_of_entry(names: tuple[str, ...]) -> str | None:
    """The variant whose adapter is one of these entries of weights.lock."""
    return next((variant.name for variant in STABLESR_VARIANTS.values() if variant.adapter in names), None)


def _variant_for_base(base: str, store: Store) -> str | None:
    """The variant that suits a base; None if that is only known after loading."""
    usual = next((variant.name for variant in STABLESR_VARIANTS.values() if variant.base == base), None)
    return usual or {EPSILON: STABLESR_USUAL, VELOCITY: "768v"}.get(_prediction_of(base, store))


def _prediction_of(base: str, store: Store) -> str:
    """A base's prediction type, from its folder; "" if it is a single file or not here."""
    from srcli.weights.open import read_config

    try:
        folder = store.resolve(base, "base", ("scheduler",)).folder / "scheduler"
        return str(read_config(folder, "scheduler_config.json").get("prediction_type", EPSILON))
    except WeightsError:
        return ""


def _check(sampling: Sampling) -> None:
    if sampling.scheduler != "ddpm":
        from srcli.engines.latent.schedulers import check_steps

        check_steps(str(sampling.scheduler), int(sampling.steps or 1))
    else:
        check_range("`steps`", int(sampling.steps or 0), 2, SCHEDULE_STEPS)


SPEC = EngineSpec(
    name="stablesr",
    title="StableSR",
    about="StableSR, variants `512`, `768v`, `turbo`",
    needs="about 6 GB of weights, a GPU",
    tasks={UPSCALE.name: TaskSupport(), RESTORE.name: TaskSupport()},
    profile=VariantProfile(
        defaults=Sampling(steps=200, fidelity=0.5, scheduler="ddpm", color_fix="adain"),
        presets={"draft": Preset(sampling=Sampling(steps=50)), "best": Preset(sampling=Sampling(steps=400))},
    ),
    variants={"turbo": VariantProfile(defaults=Sampling(steps=4, fidelity=0.5, scheduler="ddpm", color_fix="adain"))},
    variant_names=tuple(STABLESR_VARIANTS),
    options=frozenset(ENGINE_OPTIONS) - {"blend", "negative", "caption"},
    unset=frozenset({"tile", "overlap", "process_size"}),
    load=_load,
    forecast=_forecast,
    entries=_entries,
    shared_entries=(LENDER, FUSION),
    recognizes=lambda evidence: evidence.is_of(STABLESR_KINDS, STABLESR_ADAPTERS, STABLESR_FAMILY),
    resolve=_resolve,
    check=_check,
)
