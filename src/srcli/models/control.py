"""PASD's ControlNet: diffusers' own, with an embedding that is also trained to remove degradation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from diffusers import ControlNetModel
from torch import Tensor, nn
from torch.nn.functional import silu

from srcli.models.rrdb import Rrdb
from srcli.models.stock import build_stock

EMBEDDING = "controlnet_cond_embedding"


class Conditioning(nn.Module):
    """Embeds the degraded picture, in 0..1, at an eighth of its size.

    `predictions` also returns the restored picture at three sizes, for the training loss.
    """

    def __init__(self, out: int, widths: tuple[int, ...], rrdb: bool = False, rgbs: bool = True) -> None:
        super().__init__()
        self.out_channels = out
        self.conv_in = _conv(3, widths[0])
        if rrdb:
            self.preprocesser = nn.Sequential(*(Rrdb(widths[0], widths[0]) for _ in range(2)))
        pairs = list(zip(widths, widths[1:], strict=False))
        self.blocks = nn.ModuleList(
            conv for now, then in pairs for conv in (_conv(now, now), _conv(now, then, stride=2))
        )
        if rgbs:
            self.to_rgbs = nn.ModuleList(_conv(then, 3) for _, then in pairs)
        self.conv_out = _conv(widths[-1], out)

    def forward(self, picture: Tensor) -> Tensor:
        """The embedding. An input that already is one is returned unchanged, so it is computed only once."""
        if picture.shape[1] == self.out_channels:
            return picture
        embedding: Tensor = self.conv_out(self._levels(picture)[-1])
        return embedding

    def predictions(self, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The embedding, and the restored picture (-1..1) at a half, a quarter and an eighth of the size."""
        levels = self._levels(picture)
        return self.conv_out(levels[-1]), [to_rgb(x) for to_rgb, x in zip(self.to_rgbs, levels, strict=True)]

    def _levels(self, picture: Tensor) -> list[Tensor]:
        x = silu(self.conv_in(picture))
        if hasattr(self, "preprocesser"):
            x = self.preprocesser(x)
        levels = []
        for index in range(0, len(self.blocks), 2):
            x = silu(self.blocks[index + 1](silu(self.blocks[index](x))))
            levels.append(x)
        return levels


def build_control_net(config: Mapping[str, Any], keys: Iterable[str]) -> ControlNetModel:
    """The ControlNet for a checkpoint with these keys, on the meta device.

    The keys show whether it has RRDBs and training heads: the official configurations do not always say.
    """
    keys = set(keys)
    net = build_stock(ControlNetModel, config)
    with torch.device("meta"):
        net.controlnet_cond_embedding = Conditioning(
            config["block_out_channels"][0],
            tuple(config["conditioning_embedding_out_channels"]),
            rrdb=f"{EMBEDDING}.preprocesser.0.rdb1.conv1.weight" in keys,
            rgbs=f"{EMBEDDING}.to_rgbs.0.weight" in keys,
        )
    return net


def _conv(into: int, out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(into, out, 3, stride, 1)
