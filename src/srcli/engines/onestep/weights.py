"""Load the one-step models' networks: a base with an adapter merged in, or the folders of a whole model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from srcli.engines.latent.bases import (
    SCHEDULE_FILE,
    check_schedule,
    find_lender,
    merge_loras,
    open_file,
    open_text_encoder,
    read_tensors,
)
from srcli.engines.latent.prompt_cache import PromptEncoder
from srcli.engines.onestep.spec import GDPO, ONESTEP_BASE, ONESTEP_VARIANTS, PISA, OneStepVariant, find_onestep_variant
from srcli.engines.runtime.device import Device
from srcli.errors import WeightsError
from srcli.models.patches.install import install
from srcli.models.patches.low_rank import LowRank
from srcli.models.stock import build_stock
from srcli.settings import ModelChoice
from srcli.weights.families import EPSILON, detect_family, require_family
from srcli.weights.local import Located
from srcli.weights.one_step import (
    PIXEL_PART,
    SEMANTIC_PART,
    UNET_PART,
    VAE_PART,
    OneStepAdapter,
    apply_changes,
    read_adapter,
)
from srcli.weights.open import load_component, load_into, read_config
from srcli.weights.parts import weight_files
from srcli.weights.store import Store

PROMPT_PARTS = ("text_encoder", "tokenizer")
NETWORK_PARTS = ("unet", "vae")


@dataclass(frozen=True)
class _Base:
    """The networks before an adapter is merged in. The text encoder is only opened for LoRA files."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    texts: PromptEncoder
    open_text_encoder: Callable[[], nn.Module]
    weights_used: Mapping[str, str]


@dataclass(frozen=True)
class OneStepNetworks:
    """All networks, on the CPU. `semantic`: PiSA-SR's semantic LoRA, also kept apart from the merged weights."""

    variant: OneStepVariant
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    texts: PromptEncoder
    semantic: LowRank | None
    weights_used: Mapping[str, str]


def open_onestep(choice: ModelChoice, device: Device, store: Store) -> OneStepNetworks:
    """Load all networks of a choice. Kinds and families are checked before weights are read."""
    usual = find_onestep_variant(choice.variant)
    located = store.resolve(choice.adapter or usual.adapter, "adapter", allow_pickle=choice.allow_pickle)
    kind = _detect_kind(located)
    variant = _match_variant(choice, located, kind)
    adapter = None if kind == GDPO else read_adapter(located.only_file())
    family = detect_family(adapter.source if adapter else weight_files(located.part("unet"))[0]).family
    base = _open_base(choice, None if adapter else located, family, device, store)
    semantic = _merge_adapter(adapter, base.unet, base.vae) if adapter else None
    texts, loras = _merge_loras(choice, store, base, family) if choice.loras else (base.texts, {})
    weights_used = {**located.provenance(), **base.weights_used, **loras}
    return OneStepNetworks(variant, base.unet, base.vae, texts, semantic, weights_used)


def _detect_kind(adapter: Located) -> str:
    """The adapter's kind, from its folders or its file's header."""
    if all((adapter.folder / name).is_dir() for name in NETWORK_PARTS) and adapter.file is None:
        return GDPO
    if adapter.file is None:
        raise WeightsError(f"{adapter.name}: holds no unet and vae, nor one file: choose a one-step adapter")
    detected = detect_family(adapter.file)
    if detected.kind not in {variant.kind for variant in ONESTEP_VARIANTS.values()}:
        raise WeightsError(
            f"{adapter.file}: this is {detected}, not an OSEDiff or PiSA-SR adapter: choose another file"
        )
    return detected.kind


def _match_variant(choice: ModelChoice, adapter: Located, kind: str) -> OneStepVariant:
    """The named variant, that of the adapter's entry, or the first of this kind."""
    fitting = [variant for variant in ONESTEP_VARIANTS.values() if variant.kind == kind]
    if choice.variant is None:
        return next((variant for variant in fitting if variant.adapter == adapter.name), fitting[0])
    if (named := find_onestep_variant(choice.variant)).kind != kind:
        raise WeightsError(
            f"{adapter.name}: this is {fitting[0].name}, and `variant` {named.name} needs another adapter"
        )
    return named


def _open_base(choice: ModelChoice, networks: Located | None, family: str, device: Device, store: Store) -> _Base:
    """Load the base, a diffusers folder or a single file. `networks`: a folder with other UNet and VAE than its own."""
    parts = ("scheduler", *PROMPT_PARTS) if networks else ("scheduler", *PROMPT_PARTS, *NETWORK_PARTS)
    located = store.resolve(choice.base or ONESTEP_BASE, "base", parts, choice.allow_pickle)
    if located.file is not None:
        return _open_single_file(located, located.file, networks, family, device, store)
    folder = located.part("scheduler")
    _check_prediction(located, check_schedule(read_config(folder, SCHEDULE_FILE), folder))
    texts = PromptEncoder.open(located, family, device, store.places.data)
    open_encoder = partial(open_text_encoder, located.part("text_encoder"), family)
    return _Base(*_open_networks(networks or located, family), texts, open_encoder, located.provenance())


def _open_single_file(
    located: Located, path: Path, networks: Located | None, family: str, device: Device, store: Store
) -> _Base:
    """Load a single file. Its text encoder is already in memory, so embeddings are not cached."""
    base = open_file(located, path, store, ONESTEP_BASE, family)
    _check_prediction(located, base.schedule)
    if networks:
        unet, vae = _open_networks(networks, family)
    else:
        config = read_config(find_lender(store, ONESTEP_BASE, family).part("unet"))
        unet, vae = load_into(build_stock(UNet2DConditionModel, config), base.unet or {}, path), base.vae
    text_encoder = base.text_encoder
    texts = PromptEncoder(base.tokenizer, path, family, device, None).with_network(text_encoder)
    # The function must not hold a reference to the base, which would keep its UNet.
    return _Base(unet, vae, texts, lambda: text_encoder, base.weights_used)


def _check_prediction(located: Located, schedule: Mapping[str, Any]) -> None:
    """All models were trained on a base that predicts noise; one that predicts v has the same shapes."""
    prediction = schedule.get("prediction_type", EPSILON)
    if prediction != EPSILON:
        raise WeightsError(
            f"{located.name} predicts {prediction}, and one-step models need epsilon: choose SD 2.1-base"
        )


def _merge_adapter(adapter: OneStepAdapter, unet: UNet2DConditionModel, vae: AutoencoderKL) -> LowRank | None:
    """Merge in fp32; half precision would round small changes to nothing. Returns PiSA-SR's semantic LoRA."""
    unet.float()
    if adapter.kind == PISA:
        for part in (PIXEL_PART, SEMANTIC_PART):
            apply_changes(adapter.changes[part], unet, "unet")
        semantic = LowRank(unet, adapter.changes[SEMANTIC_PART].halves())
        install([unet], semantic)
        return semantic
    apply_changes(adapter.changes[UNET_PART], unet, "unet")
    apply_changes(adapter.changes[VAE_PART], vae.float(), "vae")
    return None


def _open_networks(located: Located, family: str) -> tuple[UNet2DConditionModel, AutoencoderKL]:
    folder = located.part("unet")
    path = weight_files(folder)[0]
    require_family(detect_family(path), path, kind="unet", family=family)
    unet = load_into(build_stock(UNet2DConditionModel, read_config(folder)), read_tensors(folder), folder)
    return unet, load_component(AutoencoderKL, located.part("vae"))


def _merge_loras(choice: ModelChoice, store: Store, base: _Base, family: str) -> tuple[PromptEncoder, dict[str, str]]:
    """Merge LoRA files. They may change the text encoder too, so its embeddings are not cached."""
    text_encoder = base.open_text_encoder()
    provenance = merge_loras(choice, store, base.unet.float(), text_encoder, family)
    return base.texts.with_network(text_encoder), provenance
