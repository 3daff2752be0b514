"""Computes once what both halves of a guided batch share: everything before the first attention to a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from srcli.models.patches.changes import Undo, replace_forward


class SharedCfgPrefix:
    """Lets the first layers work on one half of a batch while both halves are known to be equal."""

    def __init__(self) -> None:
        self.twice = False

    def patch_layers(self, net: nn.Module) -> Iterator[Undo]:
        """Wrap the layers before the first text attention of a UNet or ControlNet."""
        for layer in _before_text(net):
            yield replace_forward(layer, self._once(layer.forward))

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
    """The first half of a batch; other values stay as they are."""
    return value[: len(value) // 2] if isinstance(value, Tensor) and value.ndim > 1 else value


def _before_text(net: Any) -> list[nn.Module]:
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
