"""PASD's networks from weights: an adapter, a base model, LoRA files; strictly, and reading no more than is used."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from srcli.engines.base import Tell
from srcli.errors import WeightsError
from srcli.models.control import control_net
from srcli.models.paca import LightPaca, Paca, PixelAware
from srcli.models.stock import build
from srcli.settings import ModelChoice
from srcli.weights.blend import blend_unet
from srcli.weights.families import Found, detect, require
from srcli.weights.local import Located
from srcli.weights.lora import merge, read_lora
from srcli.weights.open import load_component, load_into, load_state, read_config
from srcli.weights.parts import weight_files
from srcli.weights.single import load_text, open_single
from srcli.weights.store import Store

State = dict[str, Tensor]
BASE = "sd15"
OUTER = ("vae", "text_encoder", "tokenizer", "scheduler")
CONFIGS = ("unet/config.json", "vae", "text_encoder", "tokenizer", "scheduler")
FORMS: Mapping[str, type[Paca] | type[LightPaca]] = {"pasd-unet": Paca, "pasd-light-unet": LightPaca}
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
SCHEDULE = "scheduler_config.json"


@dataclass(frozen=True)
class Adapter:
    """What PASD trained: a ControlNet, and PACA inside a file that also holds the UNet it was trained with."""

    located: Located
    folder: Path

    @classmethod
    def find(cls, choice: ModelChoice, store: Store) -> Adapter:
        name = choice.adapter or ("pasd" if choice.variant in (None, "full") else f"pasd-{choice.variant}")
        located = store.resolve(name, "adapter", allow_pickle=choice.allow_pickle)
        return cls(located, checkpoint(located.folder))

    @property
    def unet_files(self) -> list[Path]:
        return weight_files(self.folder / "unet")

    def found(self) -> Found:
        """Which form and family it is, from the file's header alone."""
        found = detect(self.unet_files[0])
        if found.kind not in FORMS:
            raise WeightsError(f"{self.unet_files[0]}: this is {found} without PASD's attention: choose PASD's own")
        return found

    def paca(self) -> PixelAware:
        with torch.device("meta"):
            return FORMS[self.found().kind](self.unet_config())

    def unet_config(self) -> dict[str, Any]:
        return read_config(self.folder / "unet")

    def schedule(self) -> dict[str, Any] | None:
        """The noise schedule that it was trained with, where it brings one: in its folder, or beside it."""
        for folder in (self.folder / "scheduler", self.folder.parent / "scheduler"):
            if folder.is_dir():
                return checked_schedule(read_config(folder, SCHEDULE), folder)
        return None


@dataclass(frozen=True)
class Base:
    """What a base model brings. `unet` is None where the adapter's own is used."""

    vae: AutoencoderKL
    text_encoder: nn.Module
    tokenizer: Any
    schedule: Mapping[str, Any]
    unet: State | None
    source: Path
    made_of: Mapping[str, str]


@dataclass(frozen=True)
class Loaded:
    """Everything, on the CPU and in the precision of the files."""

    unet: UNet2DConditionModel
    paca: PixelAware
    control: ControlNetModel
    base: Base
    schedule: Mapping[str, Any]
    made_of: Mapping[str, str]


def open_all(choice: ModelChoice, store: Store, tell: Tell) -> Loaded:
    """All networks for this choice; nothing is read before it is known to fit."""
    adapter = Adapter.find(choice, store)
    base = open_base(choice, store, adapter.found().family)
    unet, paca = join(adapter, base, choice.blend)
    made_of = {**adapter.located.provenance(), **base.made_of}
    for lora in choice.loras:
        located = store.resolve(lora.source, "lora", allow_pickle=choice.allow_pickle)
        path = only_file(located)
        require(detect(path), path, kind="lora", family=adapter.found().family)
        merge(read_lora(path), unet, base.text_encoder, lora.weight, choice.lora_alpha)
        made_of |= located.provenance()
    schedule = adapter.schedule()
    if schedule is None and choice.variant == "light-color":
        tell(f"{adapter.folder} brings no scheduler of its own: colours may come out pale")
    paca.attach(unet)
    return Loaded(unet, paca, open_control(adapter), base, schedule or base.schedule, made_of)


def join(adapter: Adapter, base: Base, blend: float) -> tuple[UNet2DConditionModel, PixelAware]:
    """The base's UNet blended into the adapter's, and PACA to go beside it."""
    paca, folder = adapter.paca(), adapter.folder / "unet"
    names = set(paca.state_dict())
    unet = build(UNet2DConditionModel, adapter.unet_config())
    if base.unet is not None and blend == 1:
        load_into(unet, base.unet, base.source)
        return unet, load_into(paca, tensors(folder, names), folder)
    whole = tensors(folder)
    own = {name: tensor for name, tensor in whole.items() if name not in names}
    if base.unet is not None:
        own = blend_unet(own, base.unet, blend, base.source)
    load_into(unet, own, folder)
    return unet, load_into(paca, {name: whole[name] for name in names if name in whole}, folder)


def open_control(adapter: Adapter) -> ControlNetModel:
    folder = adapter.folder / "controlnet"
    state = tensors(folder)
    return load_into(control_net(read_config(folder), state), state, folder)


def open_base(choice: ModelChoice, store: Store, family: str) -> Base:
    """The base model that was chosen; without a choice, all of the usual one but its UNet."""
    located = store.resolve(choice.base or BASE, "base", () if choice.base else OUTER, choice.allow_pickle)
    if located.file is not None:
        return _from_file(located, located.file, store, family)
    unet = None
    if choice.base and choice.base != BASE:
        path = weight_files(located.part("unet"))[0]
        require(detect(path), path, kind="unet", family=family)
        unet = tensors(located.part("unet"))
    return _from_folder(located, unet, family)


def _from_folder(located: Located, unet: State | None, family: str) -> Base:
    text = located.part("text_encoder")
    path = weight_files(text)[0]
    require(detect(path), path, kind="text-encoder", family=family)
    return Base(
        load_component(AutoencoderKL, located.part("vae")),
        load_component(CLIPTextModel, text),
        tokenizer(located.part("tokenizer")),
        checked_schedule(read_config(located.part("scheduler"), SCHEDULE), located.part("scheduler")),
        unet,
        located.folder / "unet",
        located.provenance(),
    )


def _from_file(located: Located, path: Path, store: Store, family: str) -> Base:
    """A single file has no configurations, and may lack parts: the usual base lends them."""
    require(detect(path), path, kind="checkpoint", family=family)
    lender = store.resolve(BASE, "base", CONFIGS)
    single = open_single(path, lender.folder, family)
    usual = _from_folder(lender, single.unet, family)
    vae, text = usual.vae, usual.text_encoder
    if single.vae is not None:
        vae = load_into(build(AutoencoderKL, read_config(lender.part("vae"))), single.vae, path)
    if single.text is not None:
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(lender.part("text_encoder")))
        load_text(text, single.text, path)
    return Base(vae, text, usual.tokenizer, usual.schedule, single.unet, path, located.provenance())


def tensors(folder: Path, names: Collection[str] | None = None) -> State:
    """A component's weights, or of these only `names`; one file or several."""
    files = weight_files(folder)
    if len(files) == 1:
        return load_state(files[0], names=names)
    state = {name: tensor for file in files for name, tensor in load_state(file).items()}
    return state if names is None else {name: state[name] for name in names if name in state}


def checkpoint(folder: Path) -> Path:
    """The folder of an adapter that holds its networks: itself, or its latest `checkpoint-N`."""
    if (folder / "controlnet").is_dir() and (folder / "unet").is_dir():
        return folder
    inner = [(int(m[1]), path) for path in folder.glob("checkpoint-*") if (m := CHECKPOINT.fullmatch(path.name))]
    if not inner:
        raise WeightsError(f"{folder} holds no unet and controlnet: choose a PASD checkpoint folder")
    return max(inner)[1]


def only_file(located: Located) -> Path:
    if located.file is None:
        raise WeightsError(f"{located.name} is a folder: choose one safetensors file")
    return located.file


def tokenizer(folder: Path) -> Any:
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{folder}: no tokenizer that can be read: get the base model again") from error


def checked_schedule(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The schedule, if it says what sampling needs to know."""
    said = config.get("prediction_type", "epsilon")
    if said not in ("epsilon", "v_prediction"):
        raise WeightsError(f"{folder}: predicts {said!r}, neither epsilon nor v_prediction: choose another")
    if not config.get("trained_betas") and not {"beta_start", "beta_end", "beta_schedule"} <= config.keys():
        raise WeightsError(f"{folder}: its {SCHEDULE} gives no noise schedule: get the folder again")
    return config
