"""The frozen base model around trained networks, its prompt encoder, and the system base class that uses it."""

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
from srcli.train.systems.base import Phase, StepModule
from srcli.train.writing import to_plain_json
from srcli.weights.families import detect_family
from srcli.weights.open import load_into, read_config
from srcli.weights.parts import weight_files
from srcli.weights.store import Store

WIDTH_FAMILY = "width"  # prefix of the family of models with other widths than the published ones


@dataclass(frozen=True)
class FrozenBase:
    """A base model with its UNet."""

    base: Base
    unet: UNet2DConditionModel
    config: Mapping[str, Any]
    family: str
    license: str


def open_frozen(name: str, family: str, store: Store, allow_pickle: bool = False) -> FrozenBase:
    """Load a base model by name, folder, file or hub id. Raises WeightsError for one of another family."""
    located = store.resolve(name, "base", (*PARTS_BESIDE_UNET, "unet"), allow_pickle)
    if located.file is not None:
        detected = family
        base = open_file(located, located.file, store, family, family)
        config = read_config(find_lender(store, family, family).part("unet"))
    else:
        detected = detect_family(weight_files(located.part("unet"))[0]).family
        if detected != family and not detected.startswith(WIDTH_FAMILY):
            raise WeightsError(f"{name}: its UNet is {detected}, and {family} is needed: choose another base model")
        base = open_folder(located, detected, with_unet=True)
        config = read_config(located.part("unet"))
    if base.unet is None:
        raise WeightsError(f"{name}: holds no UNet: choose another base model")
    unet = load_into(build_stock(UNet2DConditionModel, config), base.unet, base.source)
    for net in (unet, base.vae, base.text_encoder):
        net.requires_grad_(False)
    return FrozenBase(base, unet, config, detected, located.license)


@dataclass
class FrozenPromptEncoder:
    """Encodes prompts, and caches up to `most` of them."""

    tokenizer: Any
    encoder: nn.Module
    device: torch.device = torch.device("cpu")
    most: int = 4096
    _cache: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        for text in texts:
            if text not in self._cache:
                if len(self._cache) >= self.most:
                    self._cache.clear()
                ids = self.tokenizer(
                    text, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
                ).input_ids
                self._cache[text] = self.encoder(ids.to(self.device)).last_hidden_state[0].float()
        return torch.stack([self._cache[text] for text in texts])


class FrozenBaseSystem:
    """What systems that train networks around a frozen base model have in common."""

    name: str
    options: Any
    _step: StepModule

    def __init__(
        self, settings: Any, frozen: FrozenBase, schedule: Mapping[str, Any], trained: Sequence[nn.Module]
    ) -> None:
        self.options, self._frozen, self._schedule = settings, frozen, schedule
        self._prompts = FrozenPromptEncoder(frozen.base.tokenizer, frozen.base.text_encoder)
        self._device = torch.device("cpu")
        for net in trained:
            net.requires_grad_(True).train()
        if settings.checkpointing:
            frozen.unet.enable_gradient_checkpointing()
            frozen.unet.train()  # it only checkpoints in this mode; it has no dropout

    @property
    def phases(self) -> Sequence[Phase]:
        return [Phase(self.name, self._step, self.options.optimizer)]

    @property
    def least_side(self) -> int:
        """Smaller pictures are left out: enlarging them that much would teach blur."""
        return int(self.options.side) // 4

    def settings(self) -> Mapping[str, Any]:
        return {**to_plain_json(self.options), "made_of": dict(self.weights_used())}

    def to(self, device: torch.device, frozen: torch.dtype) -> None:
        for net in self._frozen_networks():
            net.to(device, frozen)
        self._step.to(device)
        self._device = self._prompts.device = device

    def weights_used(self) -> Mapping[str, str]:
        return self._frozen.base.weights_used

    def frozen_bytes(self) -> int:
        return count_network_bytes(self._frozen_networks())

    def _frozen_networks(self) -> list[nn.Module]:
        return [self._frozen.base.vae, self._frozen.base.text_encoder, self._frozen.unet]


def count_network_bytes(nets: Sequence[nn.Module]) -> int:
    return sum(p.numel() * p.element_size() for net in nets for p in net.parameters())
