"""The tiny one-step models of a golden folder: stock networks with an adapter merged in."""

import json
from functools import cache
from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from srcli.engines.onestep.denoiser import OneStepDenoiser, Strengths
from srcli.models.patches.install import install
from srcli.models.patches.low_rank import LowRank
from srcli.models.stock import build_stock
from srcli.weights.one_step import (
    OSEDIFF_KIND,
    PISA_KIND,
    PIXEL_PART,
    SEMANTIC_PART,
    UNET_PART,
    VAE_PART,
    OneStepAdapter,
    apply_changes,
    read_adapter,
)

FILES = {OSEDIFF_KIND: "osediff.safetensors", PISA_KIND: "pisa_sr.safetensors"}
TRAINED = Strengths()
WEIGHTS = "diffusion_pytorch_model.safetensors"


def program(case) -> str:
    """The name of a case's program, as files of vectors have it after their kind."""
    return case.name.split(".")[1].replace("_", "-") if "." in case.name else ""


def opened(folder: Path, cls: type) -> nn.Module:
    """A stock network, in fp32 whatever its file holds."""
    state = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
    net = build_stock(cls, json.loads((folder / "config.json").read_text()))
    net.load_state_dict(state, strict=True, assign=True)
    return net.eval().requires_grad_(False)


def adapter(root: Path, kind: str) -> OneStepAdapter:
    return read_adapter(root / "tiny" / FILES[kind])


def folder(root: Path, kind: str) -> Path:
    return root / "tiny" / ("gdpo" if kind == "gdpo" else "base")


@cache
def unet(root: Path, kind: str, parts: tuple[str, ...] | None = None) -> UNet2DConditionModel:
    """The UNet with these parts of its adapter merged in; all of them unless told otherwise."""
    net = opened(folder(root, kind) / "unet", UNet2DConditionModel)
    for part in parts or {OSEDIFF_KIND: (UNET_PART,), PISA_KIND: (PIXEL_PART, SEMANTIC_PART)}.get(kind, ()):
        apply_changes(adapter(root, kind).changes[part], net, "unet")
    return net


@cache
def vae(root: Path, kind: str) -> AutoencoderKL:
    net = opened(folder(root, kind) / "vae", AutoencoderKL)
    if kind == OSEDIFF_KIND:
        apply_changes(adapter(root, kind).changes[VAE_PART], net, "vae")
    return net


@cache
def semantic(root: Path) -> LowRank:
    """PiSA-SR's semantic part beside the merged UNet."""
    net = unet(root, PISA_KIND)
    beside = LowRank(net, adapter(root, PISA_KIND).changes[SEMANTIC_PART].halves())
    install([net], beside)
    return beside


def denoiser(root: Path, kind: str, context: Tensor, strengths: Strengths = TRAINED) -> OneStepDenoiser:
    beside = semantic(root) if kind == PISA_KIND else None
    return OneStepDenoiser(unet(root, kind), context, beside, strengths)


@cache
def text_parts(root: Path) -> tuple[CLIPTokenizer, CLIPTextModel]:
    base = root / "tiny" / "base"
    text = CLIPTextModel.from_pretrained(base / "text_encoder", dtype="float32").eval()
    return CLIPTokenizer.from_pretrained(base / "tokenizer"), text
