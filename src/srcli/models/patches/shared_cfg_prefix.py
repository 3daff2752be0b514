"""Computes the layers before the first text attention once for both halves of a classifier-free guidance batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from srcli.models.patches.changes import Undo, replace_forward


class SharedCfgPrefix:
    """Makes the first layers compute only half of a batch, within `equal_halves`."""

    def __init__(self) -> None:
        self.twice = False

    def patch_layers(self, net: nn.Module) -> Iterator[Undo]:
        """Wrap the layers before the first text attention of a UNet or ControlNet."""
        for layer in _list_prefix(net):
            yield replace_forward(layer, self._compute_half(layer.forward))

    @contextmanager
    def equal_halves(self) -> Iterator[None]:
        """A context in which the two halves of every batch are equal before the first text attention."""
        self.twice = True
        try:
            yield
        finally:
            self.twice = False

    def _compute_half(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if not self.twice:
                return forward(x, *args, **kwargs)
            half = forward(_take_half(x), *map(_take_half, args), **{name: _take_half(v) for name, v in kwargs.items()})
            return torch.cat([half, half])  # keeps channels-last, unlike `repeat`

        return run


def _take_half(value: Any) -> Any:
    """The first half of a batch; other values unchanged."""
    return value[: len(value) // 2] if isinstance(value, Tensor) and value.ndim > 1 else value


def _list_prefix(net: Any) -> list[nn.Module]:
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
