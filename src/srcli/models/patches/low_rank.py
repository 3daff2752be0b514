"""LoRA (Hu et al. 2021) beside a network's weights, with a separate strength for each sample of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from srcli.models.patches.changes import Undo


class LowRankLayer(nn.Module):
    """The LoRA of one layer: up(down(x)), which is added to its output."""

    def __init__(self, layer: nn.Module, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.register_buffer("down", down)
        self.register_buffer("up", up)
        self._geometry = (layer.stride, layer.padding, layer.dilation) if isinstance(layer, nn.Conv2d) else None

    def forward(self, x: Tensor) -> Tensor:
        down, up = self.get_buffer("down"), self.get_buffer("up")
        if self._geometry is None:
            return linear(linear(x, down), up)
        stride, padding, dilation = self._geometry
        return conv2d(conv2d(x, down, None, stride, padding, dilation), up)


class LowRank(nn.Module):
    """The LoRA of a network, kept apart from its weights and active within `at`."""

    def __init__(self, net: nn.Module, halves: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self._strengths: Tensor | None = None
        self._paths = tuple(halves)
        layers = (LowRankLayer(net.get_submodule(path), *halves[path]) for path in self._paths)
        self.layers = nn.ModuleList(layers)

    def patch_layers(self, net: nn.Module) -> Iterator[Undo]:
        """Add hooks that add the LoRA to the layers' outputs."""
        for path, change in zip(self._paths, self.layers, strict=True):
            yield net.get_submodule(path).register_forward_hook(self._build_hook(change)).remove

    @contextmanager
    def at(self, strengths: Tensor) -> Iterator[None]:
        """A context in which the LoRA is active, with one strength per sample of the batch."""
        self._strengths = strengths
        try:
            yield
        finally:
            self._strengths = None

    def _build_hook(self, change: nn.Module) -> Any:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
            if self._strengths is None:
                return None
            strengths = self._strengths.reshape(-1, *[1] * (out.dim() - 1)).to(out)
            return torch.addcmul(out, strengths, change(args[0]))

        return hook
