"""The tiny PASD models of a golden folder, opened for tests."""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from srcli.models.control import build_control_net
from srcli.models.patches.install import install
from srcli.models.patches.paca import LightPaca, Paca, PixelAware
from srcli.models.stock import build_stock

WEIGHTS = "diffusion_pytorch_model.safetensors"


class Nets(NamedTuple):
    unet: UNet2DConditionModel
    paca: PixelAware
    control: ControlNetModel


def unet_folder(root: Path, kind: str) -> Path:
    """RRDB variants share the UNet of their family."""
    own = root / "tiny" / kind / "unet"
    return own if own.exists() else root / "tiny" / kind.replace("_rrdb", "") / "unet"


def opened(folder: Path) -> tuple[dict, dict[str, Tensor]]:
    return json.loads((folder / "config.json").read_text()), load_file(folder / WEIGHTS)


def filled(net: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    net.load_state_dict(state, strict=True, assign=True)
    return net.eval().requires_grad_(False)


@cache
def control(root: Path, kind: str) -> ControlNetModel:
    config, state = opened(root / "tiny" / kind / "controlnet")
    return filled(build_control_net(config, state), state)


@cache
def nets(root: Path, kind: str) -> Nets:
    config, state = opened(unet_folder(root, kind))
    light = any("_plus" in key for key in state)
    unet = build_stock(UNet2DConditionModel, config)
    with torch.device("meta"):
        paca = (LightPaca if light else Paca)(config)
    own = paca.state_dict().keys()
    filled(unet, {k: v for k, v in state.items() if k not in own})
    filled(paca, {k: v for k, v in state.items() if k in own})
    install([unet], paca)
    return Nets(unet, paca, control(root, kind))


@cache
def vae(root: Path) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(root / "tiny" / "base" / "vae").eval()


@cache
def text_parts(root: Path) -> tuple[CLIPTokenizer, CLIPTextModel]:
    base = root / "tiny" / "base"
    return (
        CLIPTokenizer.from_pretrained(base / "tokenizer"),
        CLIPTextModel.from_pretrained(base / "text_encoder").eval(),
    )
