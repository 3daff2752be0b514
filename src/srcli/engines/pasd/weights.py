"""Load PASD's networks from an adapter, a base model and LoRA files. Only the tensors that are used are read."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from srcli.engines.latent.bases import (
    PARTS_BESIDE_UNET,
    SCHEDULE_FILE,
    Base,
    check_schedule,
    dtype_to_read,
    merge_loras,
    open_file,
    open_folder,
    read_tensors,
)
from srcli.engines.latent.schedulers import ends_in_noise
from srcli.engines.pasd.spec import COLOR, PASD_BASE, adapter_name
from srcli.errors import WeightsError
from srcli.models.control import build_control_net
from srcli.models.patches.install import install
from srcli.models.patches.paca import LightPaca, Paca, PixelAware
from srcli.models.stock import build_stock
from srcli.settings import ModelChoice
from srcli.weights.blend import blend_unet
from srcli.weights.families import FoundFamily, detect_family
from srcli.weights.local import Located
from srcli.weights.open import load_into, read_config
from srcli.weights.parts import weight_files
from srcli.weights.store import Store

PACA_FORMS: Mapping[str, type[Paca] | type[LightPaca]] = {"pasd-unet": Paca, "pasd-light-unet": LightPaca}
REQUIRED_KEYS = {
    "attention_head_dim",
    "block_out_channels",
    "layers_per_block",
    "norm_num_groups",
    "cross_attention_dim",
}
EMBEDDING_WIDTHS_KEY = "conditioning_embedding_out_channels"
log = logging.getLogger(__name__)
CHECKPOINT = re.compile(r"checkpoint-(\d+)")  # of PASD's own training program


@dataclass(frozen=True)
class PasdAdapter:
    """The weights that PASD trained: a ControlNet, and PACA in a file with the UNet that it was trained with."""

    located: Located
    folder: Path

    @classmethod
    def find(cls, choice: ModelChoice, store: Store) -> PasdAdapter:
        located = store.resolve(
            choice.adapter or adapter_name(choice.variant), "adapter", allow_pickle=choice.allow_pickle
        )
        return cls(located, find_checkpoint_folder(located.folder))

    @property
    def unet_files(self) -> list[Path]:
        return weight_files(self.folder / "unet")

    def detect(self) -> FoundFamily:
        """Its kind and family, from the file's header."""
        detected = detect_family(self.unet_files[0])
        if detected.kind not in PACA_FORMS:
            raise WeightsError(f"{self.unet_files[0]}: this is {detected} without PASD's attention: choose PASD's own")
        return detected

    def build_paca(self) -> PixelAware:
        with torch.device("meta"):
            return PACA_FORMS[self.detect().kind](self.read_unet_config())

    def read_unet_config(self) -> dict[str, Any]:
        return read_network_config(self.folder / "unet", REQUIRED_KEYS | {"up_block_types"})

    def read_schedule(self) -> dict[str, Any] | None:
        """The noise schedule that it was trained with, from its folder or the one above; None if there is none."""
        for folder in (self.folder / "scheduler", self.folder.parent / "scheduler"):
            if folder.is_dir():
                return check_schedule(read_config(folder, SCHEDULE_FILE), folder)
        return None


@dataclass(frozen=True)
class PasdNetworks:
    """All networks of PASD, on the CPU."""

    unet: UNet2DConditionModel
    paca: PixelAware
    control: ControlNetModel
    base: Base
    schedule: Mapping[str, Any]
    weights_used: Mapping[str, str]


def open_pasd(choice: ModelChoice, store: Store, dtype: torch.dtype | None = None) -> PasdNetworks:
    """Load all networks of a choice. Kinds and families are checked before weights are read.

    The networks of every step are cast to `dtype` while they are read, or after LoRAs and blending changed them, so
    that they are never in memory as a whole in their file's precision. None: keep the file's precision.
    """
    located = find_base(choice, store)
    adapter = PasdAdapter.find(choice, store)
    read_as = dtype_to_read(choice, dtype)
    family = adapter.detect().family
    if located.file is not None:
        base = open_file(located, located.file, store, PASD_BASE, family, read_as)
    else:
        base = open_folder(located, family, choice.base not in (None, PASD_BASE), read_as)
    unet, paca = open_unet_and_paca(adapter, base, choice.blend, read_as)
    if base.vae.config.latent_channels != unet.config.in_channels:
        raise WeightsError(f"{base.source.parent}: its VAE's latents are not this UNet's: choose another base model")
    loras = merge_loras(choice, store, unet, base.text_encoder, family)
    unet, paca = unet.to(dtype=dtype), paca.to(dtype=dtype)
    weights_used = {**adapter.located.provenance(), **base.weights_used, **loras}
    schedule = adapter.read_schedule()
    if choice.variant == COLOR:
        _check_color_schedule(adapter, schedule)
    install([unet], paca)
    control = open_control(adapter, dtype)
    return PasdNetworks(unet, paca, control, base.without_unet(), schedule or base.schedule, weights_used)


def _check_color_schedule(adapter: PasdAdapter, schedule: Mapping[str, Any] | None) -> None:
    """Colorizing needs zero terminal SNR: otherwise the grey of the hint remains in the result."""
    if schedule is None:
        log.warning(f"{adapter.folder} brings no scheduler of its own: colours may come out pale")
    elif not ends_in_noise(schedule):
        raise WeightsError(
            f"{adapter.folder}: its {SCHEDULE_FILE} does not end in pure noise (rescale_betas_zero_snr), "
            "as colorizing needs: get the adapter's own scheduler folder"
        )


def open_unet_and_paca(
    adapter: PasdAdapter, base: Base, blend: float, dtype: torch.dtype | None = None
) -> tuple[UNet2DConditionModel, PixelAware]:
    """The adapter's UNet, blended with the base's, and the PACA layers for it."""
    paca, folder = adapter.build_paca(), adapter.folder / "unet"
    names = set(paca.state_dict())
    unet = build_stock(UNet2DConditionModel, adapter.read_unet_config())
    if base.unet is not None and blend == 1:
        load_into(unet, base.unet, base.source)
        return unet, load_into(paca, read_tensors(folder, names, dtype), folder)
    whole = read_tensors(folder, dtype=dtype)
    own = {name: tensor for name, tensor in whole.items() if name not in names}
    if base.unet is not None:
        own = blend_unet(own, base.unet, blend, base.source)
    load_into(unet, own, folder)
    return unet, load_into(paca, {name: whole[name] for name in names if name in whole}, folder)


def open_control(adapter: PasdAdapter, dtype: torch.dtype | None = None) -> ControlNetModel:
    folder = adapter.folder / "controlnet"
    config, unet = read_network_config(folder, REQUIRED_KEYS | {EMBEDDING_WIDTHS_KEY}), adapter.read_unet_config()
    for name in ("block_out_channels", "cross_attention_dim"):
        if config.get(name) != unet.get(name):
            raise WeightsError(f"{folder}: its {name} are not the UNet's beside it: get the whole adapter again")
    state = read_tensors(folder, dtype=dtype)
    return load_into(build_control_net(config, state), state, folder)


def read_network_config(folder: Path, needed: Collection[str]) -> dict[str, Any]:
    """A network's configuration; WeightsError if a needed key is missing."""
    config = read_config(folder)
    if missing := sorted(set(needed) - config.keys()):
        raise WeightsError(f"{folder}: its config.json does not give {missing[0]}: get the folder again")
    return config


def find_base(choice: ModelChoice, store: Store) -> Located:
    """Locate the chosen base model, or the parts of the default one that are needed: all but its UNet."""
    name = choice.base or PASD_BASE
    return store.resolve(name, "base", PARTS_BESIDE_UNET if name == PASD_BASE else (), choice.allow_pickle)


def find_checkpoint_folder(folder: Path) -> Path:
    """The folder with an adapter's networks: the folder itself, or its latest `checkpoint-N`."""
    if (folder / "controlnet").is_dir() and (folder / "unet").is_dir():
        return folder
    inner = [(int(m[1]), path) for path in folder.glob("checkpoint-*") if (m := CHECKPOINT.fullmatch(path.name))]
    if not inner:
        raise WeightsError(f"{folder} holds no unet and controlnet: choose a PASD checkpoint folder")
    return max(inner)[1]
