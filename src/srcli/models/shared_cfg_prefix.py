"""What both halves of a guided batch have in common: all that comes before the first attention to a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn


class SharedCfgPrefix:
    """The first layers of some networks, which work on one half of a batch while its halves are known to be equal."""

    def __init__(self, *nets: UNet2DConditionModel | ControlNetModel) -> None:
        self.twice = False
        for net in nets:
            for layer in _before_text(net):
                layer.forward = self._once(layer.forward)

    @contextmanager
    def equal_halves(self) -> Iterator[None]:
        """Within, the second half of every batch repeats the first."""
        self.twice = True
        try:
            yield
        finally:
            self.twice = False

    def _once(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if not self.twice:
                return forward(x, *args, **kwargs)
            half = forward(_first(x), *map(_first, args), **{name: _first(v) for name, v in kwargs.items()})
            return torch.cat([half, half])  # which keeps the order of memory; `repeat` does not

        return run


def _first(value: Any) -> Any:
    """The first half of a batch; what is no batch stays."""
    return value[: len(value) // 2] if isinstance(value, Tensor) and value.ndim > 1 else value


def _before_text(net: UNet2DConditionModel | ControlNetModel) -> list[nn.Module]:
    block = net.down_blocks[0]
    if not getattr(block, "attentions", None):
        return [net.conv_in]
    transformer = block.attentions[0]
    return [
        net.conv_in,
        block.resnets[0],
        transformer.norm,
        transformer.proj_in,
        transformer.transformer_blocks[0].attn1,
    ]
