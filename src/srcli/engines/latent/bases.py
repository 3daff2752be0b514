"""Load base models, from a diffusers folder or a single file. Only the tensors that are used are read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from srcli.errors import WeightsError
from srcli.models.stock import build_stock
from srcli.settings import ModelChoice
from srcli.weights.families import EPSILON, VELOCITY, detect_family, require_family
from srcli.weights.local import Located
from srcli.weights.lora import merge_lora, read_lora
from srcli.weights.open import library_errors, load_component, load_into, load_state, read_config
from srcli.weights.packaged import PACKAGED_BASES, load_clip_tokenizer, packaged_base
from srcli.weights.parts import weight_files
from srcli.weights.single import StateDict, load_text, open_single
from srcli.weights.store import Store

PARTS_BESIDE_UNET = ("vae", "text_encoder", "tokenizer", "scheduler")
LENT_PARTS = ("unet/config.json", "vae/config.json", "text_encoder/config.json", "tokenizer", "scheduler")
SCHEDULE_FILE = "scheduler_config.json"


@dataclass(frozen=True)
class Base:
    """The parts of a base model. `unet` is None if the adapter has its own, or once `without_unet` let go of it."""

    vae: AutoencoderKL
    text_encoder: nn.Module
    tokenizer: Any
    schedule: Mapping[str, Any]
    unet: StateDict | None
    source: Path
    weights_used: Mapping[str, str]

    def without_unet(self) -> Base:
        """Let go of the UNet's tensors. A reference left while they are packed would keep every one in memory twice."""
        return replace(self, unet=None)


def open_folder(located: Located, family: str, with_unet: bool, dtype: torch.dtype | None = None) -> Base:
    """Load a base in diffusers' layout; the UNet in `dtype`, the smaller parts in their files' precision."""
    unet = None
    if with_unet:
        path = weight_files(located.part("unet"))[0]
        require_family(detect_family(path), path, kind="unet", family=family)
        unet = read_tensors(located.part("unet"), dtype=dtype)
    return Base(
        load_component(AutoencoderKL, located.part("vae")),
        open_text_encoder(located.part("text_encoder"), family),
        load_tokenizer(located.part("tokenizer")),
        check_schedule(read_config(located.part("scheduler"), SCHEDULE_FILE), located.part("scheduler")),
        unet,
        located.folder / "unet",
        located.provenance(),
    )


def open_text_encoder(folder: Path, family: str) -> nn.Module:
    """Load a text encoder in transformers' layout."""
    path = weight_files(folder)[0]
    require_family(detect_family(path), path, kind="text-encoder", family=family)
    net: nn.Module = load_component(CLIPTextModel, folder)
    return net


def open_file(
    located: Located, path: Path, store: Store, usual: str, family: str, dtype: torch.dtype | None = None
) -> Base:
    """Load a single file. The configurations and parts that it lacks come from `find_lender`."""
    require_family(detect_family(path), path, kind="checkpoint", family=family)
    lent = find_lender(store, usual, family)
    single = open_single(path, lent.folder, family, dtype)
    weights = find_lender(store, usual, family, single.missing) if single.missing else lent
    return Base(
        build_vae(lent if single.vae else weights, single.vae, path),
        build_text_encoder(lent if single.text else weights, single.text, path),
        load_tokenizer(lent.part("tokenizer")),
        read_single_schedule(lent, single.found.prediction),
        single.unet,
        path,
        located.provenance(),
    )


def find_lender(store: Store, usual: str, family: str, weights: Sequence[str] = ()) -> Located:
    """The folder that supplies a single file's configurations, or the parts (`weights`) that the file lacks.

    Configurations of known families are in the package. Anything else comes from the usual base or another base of
    the family on this disk; if there is none, the usual base is pulled.
    """
    packaged = packaged_base(family)
    if packaged and not weights:
        return packaged
    parts = tuple(weights) if packaged else (*LENT_PARTS, *weights)
    return store.resolve(store.find_base(family, parts, usual) or usual, "base", parts)


def read_single_schedule(lent: Located, prediction: str | None) -> Mapping[str, Any]:
    """The family's noise schedule, with the prediction type that the file states, if it does."""
    folder = lent.part("scheduler")
    schedule = check_schedule(read_config(folder, SCHEDULE_FILE), folder)
    return {**schedule, "prediction_type": prediction} if prediction else schedule


def build_vae(lent: Located, state: StateDict | None, source: Path) -> AutoencoderKL:
    """A VAE with a single file's weights, or with the lender's."""
    if state is None:
        return load_component(AutoencoderKL, lent.part("vae"))
    return load_into(build_stock(AutoencoderKL, read_config(lent.part("vae"))), state, source)


def build_text_encoder(lent: Located, state: StateDict | None, source: Path) -> nn.Module:
    """A text encoder with a single file's weights, or with the lender's."""
    if state is None:
        own: nn.Module = load_component(CLIPTextModel, lent.part("text_encoder"))
        return own
    config = CLIPTextConfig.from_pretrained(lent.part("text_encoder"), local_files_only=True)
    with torch.device("meta"):
        net: nn.Module = CLIPTextModel(config)
    for module in net.modules():
        if hasattr(module, "position_ids"):  # a buffer that is computed, not stored
            module.position_ids = torch.arange(config.max_position_embeddings)[None]
    load_text(net, {name: tensor.float() for name, tensor in state.items()}, source)
    return net.eval()


def merge_loras(
    choice: ModelChoice, store: Store, unet: UNet2DConditionModel, text: nn.Module, family: str
) -> dict[str, str]:
    """Merge the chosen LoRA files into the networks; returns their provenance."""
    weights_used: dict[str, str] = {}
    for lora in choice.loras:
        located = store.resolve(lora.source, "lora", allow_pickle=choice.allow_pickle)
        path = located.only_file()
        require_family(detect_family(path), path, kind="lora", family=family)
        merge_lora(read_lora(path), {"unet": unet, "text_encoder": text}, lora.weight, choice.lora_alpha)
        weights_used |= located.provenance()
    return weights_used


def read_tensors(folder: Path, names: Collection[str] | None = None, dtype: torch.dtype | None = None) -> StateDict:
    """A component's weights from one file or several; only `names`, if given. For `dtype` see `load_state`."""
    files = weight_files(folder)
    if len(files) == 1:
        return load_state(files[0], names=names, dtype=dtype)
    state = {name: tensor for file in files for name, tensor in load_state(file, dtype=dtype).items()}
    return state if names is None else {name: state[name] for name in names if name in state}


def dtype_to_read(choice: ModelChoice, dtype: torch.dtype | None) -> torch.dtype | None:
    """The precision to read a UNet in: the device's, or the file's if LoRAs or blending change the weights first."""
    return None if choice.loras or choice.blend < 1 else dtype


def load_tokenizer(folder: Path) -> Any:
    if folder.is_relative_to(PACKAGED_BASES):
        return load_clip_tokenizer(folder)
    with library_errors(folder, "get the base model again"):
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def check_schedule(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The schedule; WeightsError if it lacks what sampling needs."""
    prediction = config.get("prediction_type", EPSILON)
    if prediction not in (EPSILON, VELOCITY):
        raise WeightsError(f"{folder}: predicts {prediction!r}, neither epsilon nor v_prediction: choose another")
    if not config.get("trained_betas") and not {"beta_start", "beta_end", "beta_schedule"} <= config.keys():
        raise WeightsError(f"{folder}: its {SCHEDULE_FILE} gives no noise schedule: get the folder again")
    return config
