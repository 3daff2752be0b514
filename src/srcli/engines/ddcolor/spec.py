"""The specification of the DDColor engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from srcli.engines.base import AdapterEvidence, Engine, EngineSpec, PixelSize, TaskSupport, VariantProfile, find_variant
from srcli.settings import JOINT, ModelChoice, Sampling
from srcli.tasks import COLORIZE, Job

if TYPE_CHECKING:
    from srcli.engines.runtime.device import Device
    from srcli.engines.runtime.forecast import Forecast
    from srcli.weights.store import Store

TINY_VARIANT, LARGE_VARIANT, ARTISTIC_VARIANT = "tiny", "large", "artistic"
ENTRIES: Mapping[str, str] = MappingProxyType(
    {TINY_VARIANT: "ddcolor-tiny", LARGE_VARIANT: "ddcolor", ARTISTIC_VARIANT: "ddcolor-artistic"}
)  # of weights.lock
NETWORK_SIDE = 512  # default side of the network's square input
QUERIES = "decoder.color_decoder.query_feat.weight"
ddcolor_entry = partial(find_variant, ENTRIES, engine="the ddcolor engine")


def _load(choice: ModelChoice, device: Device, store: Store) -> Engine:
    from srcli.engines.ddcolor.engine import load

    return load(choice, device, store)


def _forecast(choice: ModelChoice, job: Job, size: PixelSize, device: Device) -> Forecast:
    from srcli.engines.ddcolor.forecast import forecast_ddcolor

    return forecast_ddcolor(choice, job, size, device)


def _entries(choice: ModelChoice) -> tuple[str, ...]:
    return (ddcolor_entry(choice.variant),)


def _recognizes(evidence: AdapterEvidence) -> bool:
    return any(QUERIES in header.shapes for header in evidence.headers) or evidence.is_one_of(ENTRIES.values())


def _resolve(choice: ModelChoice, store: Store) -> ModelChoice:
    """The choice with the first variant whose weights are here. Adapter files determine their variant themselves."""
    if choice.variant is not None:
        ddcolor_entry(choice.variant)
    elif choice.adapter is None:
        here = (variant for variant, entry in ENTRIES.items() if store.has(entry))
        return replace(choice, variant=next(here, TINY_VARIANT))
    else:
        known = store.known_names(choice.adapter)
        return replace(choice, variant=next((v for v, entry in ENTRIES.items() if entry in known), None))
    return choice


SPEC = EngineSpec(
    name="ddcolor",
    title="DDColor",
    about="DDColor in one pass ([more](docs/color.md)), variants `tiny`, `large`, `artistic`",
    needs="220 MB of weights (`tiny`); seconds on a laptop",
    tasks={COLORIZE.name: TaskSupport(rank=50)},
    profile=VariantProfile(defaults=Sampling(process_size=NETWORK_SIDE, chroma_upsampling=JOINT)),
    variant_names=tuple(ENTRIES),
    options=frozenset({"variant", "adapter"}),
    needs_accelerator=False,
    load=_load,
    forecast=_forecast,
    entries=_entries,
    recognizes=_recognizes,
    resolve=_resolve,
)
