"""The tiny StableSR of a golden folder, as the product builds it: stock networks with adapters beside them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from tests.golden.cases import ROOT
from torch import Tensor

from srcli.engines.stablesr.engine import StableSRDenoiser
from srcli.models import cfw, stock, time_encoder
from srcli.models.patches import spade
from srcli.models.patches.install import install
from srcli.weights.open import load_into
from srcli.weights.single import convert_unet, convert_vae

FOLDER = ROOT / "stablesr" / "tiny"
UNET, VAE, ENCODER = "model.diffusion_model.", "first_stage_model.", "structcond_stage_model."


def unet_config(official: Mapping[str, Any]) -> dict[str, Any]:
    """diffusers' words for an official UNet configuration."""
    widths = [official["model_channels"] * times for times in official["channel_mult"]]
    seeing = [2**level in official["attention_resolutions"] for level in range(len(widths))]
    return {
        "in_channels": official["in_channels"],
        "out_channels": official["out_channels"],
        "block_out_channels": widths,
        "layers_per_block": official["num_res_blocks"],
        "attention_head_dim": [width // official["num_head_channels"] for width in widths],
        "cross_attention_dim": official["context_dim"],
        "use_linear_projection": official["use_linear_in_transformer"],
        "down_block_types": ["CrossAttnDownBlock2D" if see else "DownBlock2D" for see in seeing],
        "up_block_types": ["CrossAttnUpBlock2D" if see else "UpBlock2D" for see in reversed(seeing)],
    }


def vae_config(official: Mapping[str, Any]) -> dict[str, Any]:
    """diffusers' words for an official VAE configuration."""
    widths = [official["ch"] * times for times in official["ch_mult"]]
    return {
        "block_out_channels": widths,
        "layers_per_block": official["num_res_blocks"],
        "latent_channels": official["z_channels"],
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "sample_size": official["resolution"],
    }


def under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}


@dataclass(frozen=True)
class StableSR:
    """All networks of one checkpoint."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    encoder: time_encoder.TimeEncoder
    modulation: spade.Modulation
    wrapping: cfw.Wrapping


Put = Callable[[Any, Mapping[str, Tensor], Path], Any]


def assemble(
    state: Mapping[str, Tensor], extra: Mapping[str, Tensor], config: Mapping[str, Any], put: Put = load_into
) -> StableSR:
    """Stock networks from the checkpoint's stock part, ours from the rest; every key must find its place."""
    source, parts = Path("tiny"), config["model"]["params"]
    of_unet = unet_config(parts["unet_config"]["params"])
    plain = {key: v for key, v in under(state, UNET).items() if ".spade." not in key}
    unet = put(stock.build_stock(UNet2DConditionModel, of_unet), convert_unet(source, plain, of_unet), source)
    of_vae = vae_config(parts["first_stage_config"]["params"]["ddconfig"])
    vae = put(stock.build_stock(AutoencoderKL, of_vae), convert_vae(source, under(state, VAE), of_vae), source)
    own = [
        under(state, ENCODER),
        spade.modulation_state(under(state, UNET)),
        {key: v for key, v in under(extra, "decoder.").items() if key.startswith(cfw.FUSION_PREFIX)},
    ]
    encoder = put(time_encoder.build_time_encoder(own[0]), own[0], source)
    modulation = put(spade.build_modulation(unet, own[1]), own[1], source)
    wrapping = put(cfw.build_cfw(own[2]), own[2], source)
    install([unet], modulation)
    for module in (unet, vae, encoder, modulation, wrapping):
        module.eval().requires_grad_(False)
    return StableSR(unet, vae, encoder, modulation, wrapping)


@cache
def config() -> dict[str, Any]:
    return json.loads((FOLDER / "stablesr_tiny_config.json").read_text())


# Whichever test asks first, the weights are ordinary ones: training cannot use those of inference mode.
@cache
@torch.inference_mode(False)
def checkpoint() -> dict[str, Tensor]:
    return load_file(FOLDER / "stablesr_tiny.safetensors")


@cache
@torch.inference_mode(False)
def wrapping_checkpoint() -> dict[str, Tensor]:
    return load_file(FOLDER / "cfw_tiny.safetensors")


@cache
@torch.inference_mode(False)
def tiny() -> StableSR:
    return assemble(checkpoint(), wrapping_checkpoint(), config())


def led(context: Tensor) -> StableSRDenoiser:
    """The product's denoiser, told a text."""
    return StableSRDenoiser(tiny().unet, tiny().encoder, tiny().modulation, context)
