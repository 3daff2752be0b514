"""PASD's networks before training: a base model's, with new layers that are initialized like the official ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import ControlNetModel, UNet2DConditionModel
from torch import nn

from srcli.models.control import Conditioning
from srcli.models.patches.paca import LightPaca, Paca, PixelAware
from srcli.models.rrdb import initialize_rrdb

EMBEDDING_WIDTHS = (16, 32, 96, 256)


def new_paca(config: Mapping[str, Any], light: bool, zero: bool = False) -> PixelAware:
    """PACA for a UNet's configuration. `zero`: initialize its output layers with zeros, so that it starts inactive."""
    paca = (LightPaca if light else Paca)(config)
    if zero:
        output = "attn2_plus.to_out.0" if light else ".proj_out"
        for name, module in paca.named_modules():
            if name.endswith(output):
                _zero(module)
    return paca


def new_control(
    unet: UNet2DConditionModel, widths: tuple[int, ...] = EMBEDDING_WIDTHS, rrdb: bool = False
) -> ControlNetModel:
    """A ControlNet with a copy of the UNet's encoder. Its zero convolutions make it start inactive."""
    control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=widths)
    embedding = Conditioning(unet.config.block_out_channels[0], widths, rrdb=rrdb)
    _zero(embedding.conv_out)
    if rrdb:
        initialize_rrdb(embedding.preprocesser)
    control.controlnet_cond_embedding = embedding
    return control


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
