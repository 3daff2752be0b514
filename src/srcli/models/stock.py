"""Build diffusers' networks from the configurations beside their weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T", bound=nn.Module)


def build_stock(cls: type[T], config: Mapping[str, Any]) -> T:
    """The network on the meta device; configuration entries that the class does not know are dropped."""
    known = inspect.signature(cls.__init__).parameters
    with torch.device("meta"):
        return cls(**{key: value for key, value in config.items() if key in known}).eval()


def list_heads(config: Mapping[str, Any]) -> list[int]:
    """Attention heads of each level. SD 1.5 configurations have this number in `attention_head_dim`."""
    heads = config.get("num_attention_heads") or config["attention_head_dim"]
    levels = len(config["block_out_channels"])
    return [heads] * levels if isinstance(heads, int) else list(heads)


def list_skip_widths(config: Mapping[str, Any]) -> list[int]:
    """Widths of the UNet's skip connections, first to last; those of a ControlNet's residuals are the same."""
    widths = list(config["block_out_channels"])
    skips = [widths[0]]
    for level, width in enumerate(widths):
        downsampled = level < len(widths) - 1
        skips += [width] * (config["layers_per_block"] + downsampled)
    return skips
