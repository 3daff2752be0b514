"""The one-step models' networks from weights: a stock base with an adapter merged in, or merged folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from diffusers import AutoencoderKL, UNet2DConditionModel

from srcli.engines.latent.bases import (
    SCHEDULE_FILE,
    checked_schedule,
    merge_loras,
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
from srcli.weights.families import EPSILON, detect_family, family_of_width, require_family
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
class OneStepNetworks:
    """Everything, on the CPU. `semantic`: PiSA-SR's semantic part once more, beside the weights."""

    variant: OneStepVariant
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    texts: PromptEncoder
    semantic: LowRank | None
    made_of: Mapping[str, str]


def open_onestep(choice: ModelChoice, device: Device, store: Store) -> OneStepNetworks:
    """All networks for this choice; nothing is read before it is known to fit."""
    usual = find_onestep_variant(choice.variant)
    given = store.resolve(choice.adapter or usual.adapter, "adapter", allow_pickle=choice.allow_pickle)
    kind = _kind(given)
    variant = _variant(choice, given, kind)
    parts = ("scheduler", *PROMPT_PARTS) if kind == GDPO else ("scheduler", *PROMPT_PARTS, *NETWORK_PARTS)
    base = store.resolve(choice.base or ONESTEP_BASE, "base", parts, choice.allow_pickle)
    _check_base(base)
    if kind == GDPO:
        unet, vae, semantic = *_open_networks(given, _family(given)), None
    else:
        unet, vae, semantic = _open_merged(base, read_adapter(given.only_file()))
    texts = PromptEncoder.open(base, _unet_family(unet), device, store.places.data)
    made_of = {**given.provenance(), **base.provenance()}
    if choice.loras:
        texts, said = _merge_loras(choice, store, unet, texts, base)
        made_of |= said
    return OneStepNetworks(variant, unet, vae, texts, semantic, made_of)


def _kind(given: Located) -> str:
    """What the adapter says that it is."""
    if all((given.folder / name).is_dir() for name in NETWORK_PARTS) and given.file is None:
        return GDPO
    if given.file is None:
        raise WeightsError(f"{given.name}: holds no unet and vae, nor one file: choose a one-step adapter")
    found = detect_family(given.file)
    if found.kind not in {variant.kind for variant in ONESTEP_VARIANTS.values()}:
        raise WeightsError(f"{given.file}: this is {found}, and no OSEDiff or PiSA-SR adapter: choose another file")
    return found.kind


def _variant(choice: ModelChoice, given: Located, kind: str) -> OneStepVariant:
    """The variant that was asked for, else that of the entry, else the first of this kind."""
    fitting = [variant for variant in ONESTEP_VARIANTS.values() if variant.kind == kind]
    if choice.variant is None:
        return next((variant for variant in fitting if variant.adapter == given.name), fitting[0])
    if (asked := find_onestep_variant(choice.variant)).kind != kind:
        raise WeightsError(f"{given.name}: this is {fitting[0].name}, and `variant` {asked.name} needs another adapter")
    return asked


def _check_base(base: Located) -> None:
    """All were trained on a base that predicts noise; another has the same shapes and gives wrong pictures."""
    if base.file is not None:
        raise WeightsError(f"{base.name} is a single file: choose a base model that is a diffusers folder")
    folder = base.part("scheduler")
    said = checked_schedule(read_config(folder, SCHEDULE_FILE), folder).get("prediction_type", EPSILON)
    if said != EPSILON:
        raise WeightsError(f"{base.name} predicts {said}, and one-step models need epsilon: choose SD 2.1-base")


def _open_merged(base: Located, adapter: OneStepAdapter) -> tuple[UNet2DConditionModel, AutoencoderKL, LowRank | None]:
    """The base's networks with the adapter merged in, in fp32: half precision would round small changes away."""
    unet, vae = _open_networks(base, detect_family(adapter.source).family)
    unet.float()
    if adapter.kind == PISA:
        for part in (PIXEL_PART, SEMANTIC_PART):
            apply_changes(adapter.changes[part], unet, "unet")
        beside = LowRank(unet, adapter.changes[SEMANTIC_PART].halves())
        install([unet], beside)
        return unet, vae, beside
    apply_changes(adapter.changes[UNET_PART], unet, "unet")
    apply_changes(adapter.changes[VAE_PART], vae.float(), "vae")
    return unet, vae, None


def _open_networks(located: Located, family: str) -> tuple[UNet2DConditionModel, AutoencoderKL]:
    folder = located.part("unet")
    path = weight_files(folder)[0]
    require_family(detect_family(path), path, kind="unet", family=family)
    unet = load_into(build_stock(UNet2DConditionModel, read_config(folder)), read_tensors(folder), folder)
    return unet, load_component(AutoencoderKL, located.part("vae"))


def _family(located: Located) -> str:
    return detect_family(weight_files(located.part("unet"))[0]).family


def _merge_loras(
    choice: ModelChoice, store: Store, unet: UNet2DConditionModel, texts: PromptEncoder, base: Located
) -> tuple[PromptEncoder, dict[str, str]]:
    """LoRA files may change the text encoder too, so it is opened, and what it makes is not kept."""
    family = _unet_family(unet)
    net = open_text_encoder(base.part("text_encoder"), family)
    said = merge_loras(choice, store, unet.float(), net, family)
    return texts.with_network(net), said


def _unet_family(unet: UNet2DConditionModel) -> str:
    return family_of_width(int(unet.config.cross_attention_dim))
