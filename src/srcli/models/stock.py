"""Stock diffusers networks from the configs that lie beside their weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T", bound=nn.Module)


def build_stock(cls: type[T], config: Mapping[str, Any]) -> T:
    """The network without memory behind its weights; config entries that the class does not know are dropped."""
    known = inspect.signature(cls.__init__).parameters
    with torch.device("meta"):
        return cls(**{key: value for key, value in config.items() if key in known}).eval()


def heads_by_level(config: Mapping[str, Any]) -> list[int]:
    """Attention heads of each level. SD 1.5 configs write their number into `attention_head_dim`."""
    given = config.get("num_attention_heads") or config["attention_head_dim"]
    levels = len(config["block_out_channels"])
    return [given] * levels if isinstance(given, int) else list(given)


def skip_widths(config: Mapping[str, Any]) -> list[int]:
    """Widths of the UNet's skips, which are also those of a ControlNet's residuals, first to last."""
    widths = list(config["block_out_channels"])
    found = [widths[0]]
    for level, width in enumerate(widths):
        downsampled = level < len(widths) - 1
        found += [width] * (config["layers_per_block"] + downsampled)
    return found
