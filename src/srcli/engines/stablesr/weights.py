"""Load StableSR's networks from its adapter or a whole checkpoint, a base model, and the CFW fusion layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from srcli.engines.latent.bases import (
    Base,
    build_text_encoder,
    dtype_to_read,
    find_lender,
    load_tokenizer,
    merge_loras,
    open_file,
    open_folder,
)
from srcli.engines.stablesr.spec import (
    ADAPTER,
    FUSION,
    LENDER,
    STABLESR_FAMILY,
    STABLESR_VARIANTS,
    WHOLE,
    StableSRVariant,
    find_stablesr_variant,
)
from srcli.errors import WeightsError
from srcli.models import cfw, time_encoder
from srcli.models.patches import spade
from srcli.models.patches.install import install
from srcli.models.stock import build_stock
from srcli.settings import ModelChoice
from srcli.weights.families import EPSILON, LDM_UNET, LDM_VAE, VELOCITY, detect_family
from srcli.weights.header import Header, read_header
from srcli.weights.local import Located
from srcli.weights.open import load_into, load_state, read_config
from srcli.weights.parts import weight_files
from srcli.weights.single import OPEN_CLIP, StateDict, convert_open_clip, convert_unet, convert_vae
from srcli.weights.store import Store

Net = TypeVar("Net", bound=nn.Module)
ENCODER = "structcond_stage_model."


@dataclass(frozen=True)
class StableSRAdapter:
    """The weights that StableSR trained. The kind of each file is detected from its header."""

    located: Located
    header: Header
    whole: bool  # whether the same file contains its base
    fusion: Path | None

    @classmethod
    def find(cls, choice: ModelChoice, store: Store) -> StableSRAdapter:
        name = choice.adapter or find_stablesr_variant(choice.variant).adapter
        located = store.resolve(name, "adapter", allow_pickle=choice.allow_pickle)
        files = [file for file in located.files.values() if file.suffix == ".safetensors"]
        families = {file: detect_family(file) for file in files}
        own = [file for file in files if families[file].kind in (WHOLE, ADAPTER)]
        if len(own) != 1:
            listed = ", ".join(sorted({str(family) for family in families.values()})) or "no safetensors file"
            raise WeightsError(f"{located.name}: holds {listed}, not one StableSR model: choose a StableSR adapter")
        fusion = next((file for file in files if families[file].kind == "cfw"), None)
        return cls(located, read_header(own[0]), families[own[0]].kind == WHOLE, fusion)

    @property
    def path(self) -> Path:
        return self.header.path

    def read_part(self, prefix: str, modulation: bool = False, dtype: torch.dtype | None = None) -> StateDict:
        """The tensors under a prefix, which is removed; either only those of the modulation, or only the others."""
        names = [name for name in self.header.under(prefix) if (".spade." in name) is modulation]
        return load_state(self.path, prefix, names, dtype)


@dataclass(frozen=True)
class StableSRNetworks:
    """All networks of StableSR, on the CPU; the fusion layers are loaded on first use."""

    unet: UNet2DConditionModel
    encoder: time_encoder.TimeEncoder
    modulation: spade.Modulation
    base: Base
    variant: StableSRVariant
    fusion: FusionLayers
    weights_used: Mapping[str, str]


class FusionLayers:
    """The CFW fusion layers, loaded on first use: with `fidelity` 0 they are not needed."""

    def __init__(self, path: Path | None, choice: ModelChoice, store: Store) -> None:
        self._path, self._choice, self._store = path, choice, store
        # Filled in before loading, since the provenance is part of the key under which a picture is resumed.
        self.weights_used: Mapping[str, str] = {}
        if path is None and store.has(FUSION):
            with suppress(WeightsError):  # raised again if they are used
                self.weights_used = self._located().provenance()

    @cached_property
    def net(self) -> cfw.Wrapping:
        path = self._path or self._pulled()
        names = [name for name in read_header(path).under("decoder.") if name.startswith(cfw.FUSION_PREFIX)]
        if not names:
            raise WeightsError(f"{path}: holds no fusion layers: run srcli models pull {FUSION}")
        state = load_state(path, "decoder.", names)
        net = load_into(build_from_weights(path, cfw.build_cfw, state), state, path)
        return net.eval().requires_grad_(False)

    def _located(self) -> Located:
        return self._store.resolve(FUSION, allow_pickle=self._choice.allow_pickle)

    def _pulled(self) -> Path:
        try:
            located = self._located()
        except WeightsError as error:
            raise WeightsError(f"`fidelity` above 0 needs {FUSION}: {error}; or give `fidelity` 0") from error
        self.weights_used = located.provenance()
        if located.file is None:
            raise WeightsError(f"{FUSION} is a folder: add one file, srcli models add {FUSION} FILE")
        return located.file


def open_stablesr(choice: ModelChoice, store: Store, dtype: torch.dtype | None = None) -> StableSRNetworks:
    """Load all networks of a choice. For `dtype` see `open_pasd`."""
    read_as = dtype_to_read(choice, dtype)
    adapter = StableSRAdapter.find(choice, store)
    known, own = _known(choice, adapter), adapter.whole and not choice.base
    if own:
        variant = known or STABLESR_VARIANTS["512"]
        base, config = _open_own_base(adapter, store, read_as)
    else:
        base, config = _open_chosen_base(choice, (known or STABLESR_VARIANTS["512"]).base, store, read_as)
        variant = _match_variant(known, str(base.schedule.get("prediction_type", EPSILON)))
    unet = load_into(build_stock(UNet2DConditionModel, config), base.unet or {}, base.source)
    encoder_state = load_state(adapter.path, ENCODER, dtype=dtype)
    encoder = load_into(
        build_from_weights(adapter.path, time_encoder.build_time_encoder, encoder_state), encoder_state, adapter.path
    )
    state = spade.modulation_state(adapter.read_part(LDM_UNET, modulation=True, dtype=dtype))
    modulation = load_into(build_from_weights(adapter.path, spade.build_modulation, unet, state), state, adapter.path)
    loras = merge_loras(choice, store, unet, base.text_encoder, _required_family(adapter.path if own else base.source))
    unet.to(dtype=dtype)
    install([unet], modulation)
    fusion = FusionLayers(adapter.fusion, choice, store)
    weights_used = {**adapter.located.provenance(), **base.weights_used, **loras}
    return StableSRNetworks(unet, encoder, modulation, base.without_unet(), variant, fusion, weights_used)


def build_from_weights(path: Path, build: Callable[..., Net], *of: Any) -> Net:
    """Build a network from its weights; WeightsError if they are incomplete or do not match the base's widths."""
    try:
        return build(*of)
    except (KeyError, ValueError, IndexError, StopIteration, ZeroDivisionError) as error:
        raise WeightsError(f"{path}: is not whole, or not for this base ({error}): choose another file") from error


def _known(choice: ModelChoice, adapter: StableSRAdapter) -> StableSRVariant | None:
    """The variant that was named, or that of the adapter's entry in weights.lock; None if neither is known."""
    if choice.variant:
        return find_stablesr_variant(choice.variant)
    return next((v for v in STABLESR_VARIANTS.values() if v.adapter == adapter.located.name), None)


def _match_variant(known: StableSRVariant | None, prediction: str) -> StableSRVariant:
    """The variant for a base with this prediction type; WeightsError if the known one needs another."""
    variant = known or STABLESR_VARIANTS["768v" if prediction == VELOCITY else "512"]
    if prediction != variant.prediction:
        raise WeightsError(
            f"the base predicts {prediction} and StableSR {variant.name} needs {variant.prediction}: "
            "choose another `base` or `variant`"
        )
    return variant


def _open_chosen_base(
    choice: ModelChoice, usual: str, store: Store, dtype: torch.dtype | None
) -> tuple[Base, Mapping[str, Any]]:
    """The named base, or the variant's default one, with its UNet's configuration."""
    located = store.resolve(choice.base or usual, "base", allow_pickle=choice.allow_pickle)
    if located.file is not None:
        family = _required_family(located.file)
        base = open_file(located, located.file, store, LENDER, family, dtype)
        return base, read_config(find_lender(store, LENDER, family).part("unet"))
    folder = located.part("unet")
    return open_folder(located, _required_family(folder), True, dtype), read_config(folder)


def _open_own_base(adapter: StableSRAdapter, store: Store, dtype: torch.dtype | None) -> tuple[Base, Mapping[str, Any]]:
    """The base inside a whole checkpoint, with the default base's configurations."""
    path = adapter.path
    lent = find_lender(store, LENDER, _required_family(path))
    configs = {name: read_config(lent.part(name)) for name in ("unet", "vae", "text_encoder")}
    vae = convert_vae(path, adapter.read_part(LDM_VAE), configs["vae"])
    text = convert_open_clip(path, adapter.read_part(OPEN_CLIP), configs["text_encoder"])
    base = Base(
        vae=load_into(build_stock(AutoencoderKL, configs["vae"]), vae, path),
        text_encoder=build_text_encoder(lent, text, path),
        tokenizer=load_tokenizer(lent.part("tokenizer")),
        schedule={},
        unet=convert_unet(path, adapter.read_part(LDM_UNET, dtype=dtype), configs["unet"]),
        source=path,
        weights_used={},
    )
    return base, configs["unet"]


def _required_family(path: Path) -> str:
    """The family that files must have: SD 2.1's, or for small models, which have no named family, their own."""
    detected = detect_family(weight_files(path)[0] if path.is_dir() else path).family
    return detected if detected.startswith("width") else STABLESR_FAMILY
