"""Single files in the original layout (one .safetensors with UNet, VAE and text encoder), read without network.

A single file has no configurations: they come from a folder in diffusers' layout, as do parts that the file lacks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srcli.errors import WeightsError
from srcli.weights.families import LDM_TEXT, LDM_UNET, LDM_VAE, FoundFamily, detect_family, require_family
from srcli.weights.open import load_into, load_state, read_config

HF_TEXT = LDM_TEXT + "transformer."
OPEN_CLIP = LDM_TEXT + "model."
StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class Single:
    """A single file's parts with diffusers' names; None for a part that the file lacks."""

    source: Path
    found: FoundFamily
    unet: StateDict
    vae: StateDict | None
    text: StateDict | None

    @property
    def missing(self) -> tuple[str, ...]:
        """The parts that the file lacks."""
        parts = (("vae", self.vae), ("text_encoder", self.text))
        return tuple(name for name, state in parts if state is None)


def open_single(path: Path, parts: Path, family: str, dtype: torch.dtype | None = None) -> Single:
    """Read and convert a single file. `parts`: a diffusers folder of the same family with configurations.

    The UNet is read in `dtype`, the smaller parts in the file's own precision.
    """
    found = detect_family(path)
    require_family(found, path, kind="checkpoint", family=family)
    unet = convert_unet(path, load_state(path, LDM_UNET, dtype=dtype), read_config(parts / "unet"))
    vae = load_state(path, LDM_VAE)
    text = _text(path, read_config(parts / "text_encoder"))
    return Single(path, found, unet, convert_vae(path, vae, read_config(parts / "vae")) if vae else None, text)


def convert_unet(source: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> StateDict:
    """Rename an original UNet's weights (without prefix) to diffusers' names. WeightsError if any would be lost."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    return _convert(source, convert_ldm_unet_checkpoint, LDM_UNET, state, config)


def convert_vae(source: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> StateDict:
    """Rename an original VAE's weights (without prefix) to diffusers' names. WeightsError if any would be lost."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    inner = {name: tensor for name, tensor in state.items() if not name.startswith(("loss.", "model_ema."))}
    return _convert(source, convert_ldm_vae_checkpoint, LDM_VAE, inner, config)


def _convert(
    source: Path, convert: Callable[..., StateDict], prefix: str, state: Mapping[str, Tensor], config: Mapping[str, Any]
) -> StateDict:
    try:
        renamed = convert({prefix + name: tensor for name, tensor in state.items()}, dict(config))
    except KeyError as error:
        raise WeightsError(f"{source}: lacks {error} of the original layout: choose another file") from error
    except Exception as error:  # the library may raise anything for unexpected tensors or configurations
        raise WeightsError(f"{source}: is not of the original layout: choose another file") from error
    kept = {tensor.data_ptr() for tensor in renamed.values()}
    if lost := sorted(name for name, tensor in state.items() if tensor.numel() and tensor.data_ptr() not in kept):
        raise WeightsError(f"{source}: has unknown {prefix}{lost[0]}: choose a plain model of this family")
    return renamed


def _text(path: Path, config: Mapping[str, Any]) -> StateDict | None:
    if state := load_state(path, HF_TEXT):
        return {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    if state := load_state(path, OPEN_CLIP):
        return convert_open_clip(path, state, config)
    return None


def convert_open_clip(source: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> StateDict:
    """Rename OpenCLIP's text encoder (without prefix) to transformers' names, with the layers that `config` has."""
    layers, width = config.get("num_hidden_layers"), config.get("hidden_size")
    if not isinstance(layers, int) or not isinstance(width, int):
        raise WeightsError(f"{source}: the text encoder's configuration gives no size: get the base model again")
    renamed: StateDict = {}
    try:
        renamed["embeddings.token_embedding.weight"] = state["token_embedding.weight"]
        renamed["embeddings.position_embedding.weight"] = state["positional_embedding"]
        for end in ("weight", "bias"):
            renamed[f"final_layer_norm.{end}"] = state[f"ln_final.{end}"]
        for layer in range(layers):
            renamed |= _open_clip_layer(state, layer, width)
    except KeyError as error:
        raise WeightsError(f"{source}: lacks {OPEN_CLIP}{error.args[0]}: choose another file") from error
    except IndexError as error:  # a scalar instead of a matrix
        raise WeightsError(f"{source}: its text encoder is mis-shaped: choose another file") from error
    return renamed


def _open_clip_layer(state: Mapping[str, Tensor], layer: int, width: int) -> StateDict:
    old, new = f"transformer.resblocks.{layer}.", f"encoder.layers.{layer}."
    names = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    renamed: StateDict = {}
    for end in ("weight", "bias"):
        for theirs, ours in names.items():
            renamed[f"{new}{ours}.{end}"] = state[f"{old}{theirs}.{end}"]
        joined = state[f"{old}attn.in_proj_{end}"]
        for part, name in enumerate(("q_proj", "k_proj", "v_proj")):
            renamed[f"{new}self_attn.{name}.{end}"] = joined[part * width : (part + 1) * width]
    return renamed


def load_text(text_encoder: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Load a text encoder's weights into a transformers model, with the prefix of its version."""
    nested = any(name.startswith("text_model.") for name in text_encoder.state_dict())
    load_into(text_encoder, {f"text_model.{k}": v for k, v in state.items()} if nested else state, source)
