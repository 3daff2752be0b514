"""The base model around what is trained: opened strictly, moved in one go, and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from srcli.engines.latent.bases import PARTS_BESIDE_UNET, Base, find_lender, open_file, open_folder
from srcli.errors import WeightsError
from srcli.models.stock import build_stock
from srcli.weights.families import detect_family
from srcli.weights.open import load_into, read_config
from srcli.weights.parts import weight_files
from srcli.weights.store import Store

WIDTH_FAMILY = "width"  # begins the family of a model of no published width


@dataclass(frozen=True)
class FrozenBase:
    """A base model with its UNet."""

    base: Base
    unet: UNet2DConditionModel
    config: Mapping[str, Any]
    family: str
    license: str


def open_frozen(name: str, family: str, store: Store, allow_pickle: bool = False) -> FrozenBase:
    """A base model, by name, folder, file or hub id. Raises WeightsError for one of another family."""
    located = store.resolve(name, "base", (*PARTS_BESIDE_UNET, "unet"), allow_pickle)
    if located.file is not None:
        found = family
        base = open_file(located, located.file, store, family, family)
        config = read_config(find_lender(store, family, family).part("unet"))
    else:
        found = detect_family(weight_files(located.part("unet"))[0]).family
        if found != family and not found.startswith(WIDTH_FAMILY):
            raise WeightsError(f"{name}: its UNet is {found}, and {family} is needed: choose another base model")
        base = open_folder(located, found, with_unet=True)
        config = read_config(located.part("unet"))
    if base.unet is None:
        raise WeightsError(f"{name}: holds no UNet: choose another base model")
    unet = load_into(build_stock(UNet2DConditionModel, config), base.unet, base.source)
    for net in (unet, base.vae, base.text_encoder):
        net.requires_grad_(False)
    return FrozenBase(base, unet, config, found, located.license)


@dataclass
class FrozenPromptEncoder:
    """Texts as the UNet is told them. The same text is encoded once."""

    tokenizer: Any
    encoder: nn.Module
    device: torch.device = torch.device("cpu")
    most: int = 4096
    _known: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        for text in texts:
            if text not in self._known:
                if len(self._known) >= self.most:
                    self._known.clear()
                ids = self.tokenizer(
                    text, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
                ).input_ids
                self._known[text] = self.encoder(ids.to(self.device)).last_hidden_state[0].float()
        return torch.stack([self._known[text] for text in texts])


def bytes_of(nets: Sequence[nn.Module]) -> int:
    return sum(p.numel() * p.element_size() for net in nets for p in net.parameters())
