"""The specification of the one-step engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from srcli.engines.base import (
    AdapterEvidence,
    Engine,
    EngineSpec,
    PixelSize,
    Preset,
    TaskSupport,
    VariantProfile,
    find_variant,
)
from srcli.files import expand_user, is_dir, is_file
from srcli.settings import ENGINE_OPTIONS, ColorFix, ModelChoice, Sampling
from srcli.tasks import CLEAN_PROMPT, RESTORE, UPSCALE, Job
from srcli.weights.families import ONE_STEP, detect_header
from srcli.weights.header import read_header
from srcli.weights.parts import SUFFIX

if TYPE_CHECKING:
    from srcli.engines.runtime.device import Device
    from srcli.engines.runtime.forecast import Forecast
    from srcli.weights.store import Store

ONESTEP_BASE = "sd21-base"
TINY_VAE = "taesd"  # replaces the VAE for drafts
OSEDIFF, PISA = ONE_STEP
GDPO = "gdpo"
PROCESS = 512  # short side in pixels of the training pictures, for all variants


@dataclass(frozen=True, slots=True, kw_only=True)
class OneStepVariant:
    """One of the published models.

    `kind`: kind of its file, as detected from the header. `timestep`: the UNet's input. `noise_timestep`: the latents
    are first diffused to this timestep. `residual`: the UNet predicts the difference to the clean latents, not noise.
    `half_up`: see `gaussian_weight`. `described`: by default the prompt is a caption of the picture. `words`: appended
    to every prompt.
    """

    name: str
    adapter: str
    kind: str
    timestep: int
    noise_timestep: int | None = None
    residual: bool = False
    half_up: bool = False
    described: bool = True
    words: str = ""


ONESTEP_USUAL = "pisa"
ONESTEP_VARIANTS: Mapping[str, OneStepVariant] = MappingProxyType(
    {
        variant.name: variant
        for variant in (
            OneStepVariant(
                name=ONESTEP_USUAL, adapter="pisa-sr", kind=PISA, timestep=1, residual=True, described=False
            ),
            OneStepVariant(name="osediff", adapter="osediff", kind=OSEDIFF, timestep=999, half_up=True),
            OneStepVariant(name="osediff-face", adapter="osediff-face", kind=OSEDIFF, timestep=999, half_up=True),
            OneStepVariant(name=GDPO, adapter="gdpo", kind=GDPO, timestep=100, noise_timestep=250, words=CLEAN_PROMPT),
        )
    }
)
ONESTEP_ADAPTERS = tuple(variant.adapter for variant in ONESTEP_VARIANTS.values())
find_onestep_variant = partial(find_variant, ONESTEP_VARIANTS, engine="the onestep engine")


def _load(choice: ModelChoice, device: Device, store: Store) -> Engine:
    from srcli.engines.onestep.engine import load_onestep

    return load_onestep(choice, device, store)


def _forecast(choice: ModelChoice, job: Job, size: PixelSize, device: Device) -> Forecast:
    from srcli.engines.onestep.forecast import forecast_onestep

    return forecast_onestep(choice, job, size, device)


def _entries(choice: ModelChoice) -> tuple[str, ...]:
    return find_onestep_variant(choice.variant).adapter, choice.base or ONESTEP_BASE


def _recognizes(evidence: AdapterEvidence) -> bool:
    kinds = {detect_header(header).kind for header in evidence.headers}
    return bool(kinds & {OSEDIFF, PISA}) or evidence.is_one_of(ONESTEP_ADAPTERS)


def _resolve(choice: ModelChoice, store: Store) -> ModelChoice:
    """The choice with its variant: that of the adapter, or without one the first variant whose weights are here."""
    if choice.variant is not None:
        return replace(choice, variant=find_onestep_variant(choice.variant).name)
    if choice.adapter is None:
        here = (v.name for v in ONESTEP_VARIANTS.values() if store.can_open(v.adapter, choice.allow_pickle))
        return replace(choice, variant=next(here, ONESTEP_USUAL))
    known = store.known_names(choice.adapter)
    named = next((v.name for v in ONESTEP_VARIANTS.values() if v.adapter in known), None)
    return replace(choice, variant=named or _variant_of_file(expand_user(choice.adapter)))


def _variant_of_file(path: Path) -> str | None:
    """The first variant of the file's or folder's kind; None if that is unknown, as for a pickle."""
    if is_dir(path / "unet") and is_dir(path / "vae"):
        return GDPO
    if path.suffix != SUFFIX or not is_file(path):
        return None
    kind = detect_header(read_header(path)).kind
    return next((variant.name for variant in ONESTEP_VARIANTS.values() if variant.kind == kind), None)


def _profile(fidelity: float | None = None, color_fix: ColorFix = "adain") -> VariantProfile:
    defaults = Sampling(fidelity=fidelity, color_fix=color_fix)
    return VariantProfile(defaults=defaults, presets={"draft": Preset(sampling=Sampling(tiny_vae=True))})


SPEC = EngineSpec(
    name="onestep",
    title="one-step diffusion",
    about="one-step models on Stable Diffusion 2.1-base ([more](docs/onestep.md)), variants `pisa`, `osediff`, "
    "`osediff-face`, `gdpo`",
    needs="about 5 GB of weights, a GPU",
    tasks={UPSCALE.name: TaskSupport(rank=10, optional=True), RESTORE.name: TaskSupport()},
    profile=_profile(fidelity=0.5),
    variants={"osediff": _profile(), "osediff-face": _profile(color_fix="none"), GDPO: _profile()},
    variant_names=tuple(ONESTEP_VARIANTS),
    options=frozenset(ENGINE_OPTIONS) - {"blend", "negative"},
    unset=frozenset({"tile", "overlap", "process_size"}),
    load=_load,
    forecast=_forecast,
    entries=_entries,
    shared_entries=(ONESTEP_BASE, TINY_VAE),
    recognizes=_recognizes,
    resolve=_resolve,
)
