"""Engines with random weights, tiny or full-size, created on the device without files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks import pasd_step, stablesr_step
from srcli.engines.builtin.engine import load_builtin
from srcli.engines.latent.bases import Base
from srcli.engines.latent.captions import Describer
from srcli.engines.latent.prompt_cache import PromptEncoder
from srcli.engines.onestep.engine import OneStepEngine
from srcli.engines.onestep.spec import ONESTEP_VARIANTS as ONE_STEP_VARIANTS
from srcli.engines.onestep.weights import OneStepNetworks
from srcli.engines.pasd.engine import PasdEngine
from srcli.engines.pasd.weights import PasdNetworks
from srcli.engines.runtime.device import Device
from srcli.engines.sr3.engine import SR3Engine
from srcli.engines.sr3.spec import SR3_STEPS
from srcli.engines.sr3.weights import BETA_ENDS
from srcli.engines.stablesr.engine import StableSREngine
from srcli.engines.stablesr.spec import STABLESR_VARIANTS
from srcli.engines.stablesr.weights import StableSRNetworks
from srcli.imaging.picture import Picture
from srcli.models.cfw import Wrapping
from srcli.models.control import build_control_net
from srcli.models.patches.install import install
from srcli.models.patches.paca import Paca
from srcli.models.patches.spade import Modulation
from srcli.models.sr3_unet import SR3Shape, build_sr3_unet
from srcli.models.stock import build_stock
from srcli.models.time_encoder import TimeEncoder, TimeEncoderShape
from srcli.sampling.ancestral import make_betas
from srcli.settings import ModelChoice
from srcli.weights.store import Store

CPU = torch.device("cpu")
GAIN = 0.8  # of each layer, so that activations neither vanish nor overflow in float16
SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}
VAE_BLOCKS = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
TWO_LEVELS = {
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
}


@dataclass(frozen=True)
class Sizes:
    """Widths and depths of all networks."""

    pasd: Mapping[str, Any]
    stablesr: Mapping[str, Any]
    encoder: TimeEncoderShape
    vae: Mapping[str, Any]
    growth: int  # of the feature wrapping's dense blocks
    sr3: SR3Shape
    process: int  # pixels of the short side that StableSR works with at least


FULL = Sizes(
    pasd=pasd_step.SD15,
    stablesr=stablesr_step.SD21,
    encoder=TimeEncoderShape(),
    vae={"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2} | VAE_BLOCKS,
    growth=32,
    sr3=SR3Shape(multiplier=(1, 2, 4, 8, 16), res_blocks=1, attention=(False,) * 5, norm_groups=16),
    process=512,
)
TINY = Sizes(
    pasd=pasd_step.SMALL | TWO_LEVELS,
    stablesr=stablesr_step.SMALL | {"layers_per_block": 1},
    encoder=TimeEncoderShape(widths=(32, 32, 64, 64), first=32, out=32, blocks=1),
    vae={"block_out_channels": [32, 32, 64, 64], "layers_per_block": 1} | VAE_BLOCKS,
    growth=8,
    sr3=SR3Shape(inner_channel=16, norm_groups=8, multiplier=(1, 2), res_blocks=1, attention=(False, True)),
    process=72,
)


class Letters:
    """A tokenizer with one token per letter."""

    model_max_length, bos_token_id, eos_token_id, pad_token_id = 77, 0, 1, 1
    known = 64

    def __call__(self, text: str, **options: object) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[2 + ord(letter) % (self.known - 2) for letter in text])


@torch.no_grad()
def filled(net: nn.Module, where: torch.device, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Fill a network on the meta device with random weights on `where`; layers about keep the scale of their input."""
    if any(True for _ in net.buffers()):
        raise ValueError(f"{type(net).__name__} has buffers, which would stay empty")
    net.to(dtype).to_empty(device=where).requires_grad_(False)
    generator = torch.Generator(where).manual_seed(0)
    for name, value in net.named_parameters():
        if value.ndim > 1:
            value.normal_(0, GAIN * value[0].numel() ** -0.5, generator=generator)
        else:
            value.fill_(1.0 if name.endswith("weight") else 0.0)
    return net.eval()


def base(sizes: Sizes, width: int, where: torch.device, dtype: torch.dtype) -> Base:
    """VAE and text encoder. The latter has two layers, since its speed is not measured."""
    torch.manual_seed(0)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=Letters.known,
            hidden_size=width,
            intermediate_size=2 * width,
            num_attention_heads=4,
            num_hidden_layers=2,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    vae = filled(build_stock(AutoencoderKL, sizes.vae), where, torch.float32 if dtype is torch.bfloat16 else dtype)
    return Base(vae, text.eval(), Letters(), SCHEDULE, None, Path("random"), {})


def pasd_loaded(sizes: Sizes, where: torch.device = CPU, dtype: torch.dtype = torch.float32) -> PasdNetworks:
    config = dict(sizes.pasd)
    unet, control = build_stock(UNet2DConditionModel, config), build_control_net(config, ())
    with torch.device("meta"):
        paca = Paca(config)
    install([unet], paca)
    for net in (unet, paca, control):
        filled(net, where, dtype)
    return PasdNetworks(unet, paca, control, base(sizes, config["cross_attention_dim"], where, dtype), SCHEDULE, {})


def stablesr_loaded(sizes: Sizes, where: torch.device = CPU, dtype: torch.dtype = torch.float32) -> StableSRNetworks:
    config = dict(sizes.stablesr)
    unet, widths = build_stock(UNet2DConditionModel, config), sizes.vae["block_out_channels"]
    with torch.device("meta"):
        encoder, modulation = TimeEncoder(sizes.encoder), Modulation(unet, sizes.encoder.out)
        wrapping = Wrapping({1: widths[1], 2: widths[2]}, sizes.growth, 2)
    install([unet], modulation)
    for net in (unet, encoder, modulation, wrapping):
        filled(net, where, dtype)
    variant = replace(STABLESR_VARIANTS["512"], process=sizes.process)
    whole = base(sizes, config["cross_attention_dim"], where, dtype)
    return StableSRNetworks(
        unet, encoder, modulation, whole, variant, SimpleNamespace(net=wrapping, weights_used={}), {}
    )


def onestep_loaded(
    sizes: Sizes, device: Device, where: torch.device = CPU, dtype: torch.dtype = torch.float32
) -> OneStepNetworks:
    """OSEDiff, which has no networks but stock ones, since its LoRA is merged."""
    config = dict(sizes.stablesr)
    unet = filled(build_stock(UNet2DConditionModel, config), where, dtype)
    whole = base(sizes, config["cross_attention_dim"], where, dtype)
    texts = PromptEncoder(whole.tokenizer, Path("random"), "sd21", device, None)
    texts = texts.with_network(whole.text_encoder)
    return OneStepNetworks(ONE_STEP_VARIANTS["osediff"], unet, whole.vae, texts, None, {})


def engine(name: str, sizes: Sizes, device: Device, where: torch.device = CPU) -> Any:
    """An engine with random weights drawn on `where`; the built-in one has its real weights."""
    drawn = device.dtype if where.type != "cpu" else torch.float32  # equal values on both devices, for comparisons
    if name == "pasd":
        return PasdEngine.of(pasd_loaded(sizes, where, drawn), device, Describer(Store(offline=True), device))
    if name == "stablesr":
        return StableSREngine.of(stablesr_loaded(sizes, where, drawn), device)
    if name == "onestep":
        store = Store(offline=True)
        return OneStepEngine.of(onestep_loaded(sizes, device, where, drawn), device, Describer(store, device), store)
    if name == "sr3":
        unet = filled(build_sr3_unet(sizes.sr3), where).to(device.torch)
        return SR3Engine(unet, make_betas("linear", SR3_STEPS, *BETA_ENDS["sr3"]), 4, device, {})
    return load_builtin(ModelChoice(engine="builtin"), device)


def photo(height: int, width: int) -> Picture:
    """Waves and grain: something at every scale."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(rows / 5), np.cos(columns / 9), np.sin((rows + columns) / 23)], axis=2)
    grain = np.random.default_rng(0).normal(0, 0.15, waves.shape)
    return Picture(pixels=((waves + grain) * 100 + 128).clip(0, 255).astype(np.uint8))
