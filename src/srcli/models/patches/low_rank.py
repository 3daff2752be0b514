"""Low-rank changes beside a network's layers, each sample with a strength of its own (Hu et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from srcli.models.patches.changes import Undo


class LowRankLayer(nn.Module):
    """What one layer's change adds to its output: up(down(x))."""

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
    """The changes of a whole network, kept apart from its weights and added while `at` is in force."""

    def __init__(self, net: nn.Module, halves: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self._strengths: Tensor | None = None
        self._paths = tuple(halves)
        layers = (LowRankLayer(net.get_submodule(path), *halves[path]) for path in self._paths)
        self.layers = nn.ModuleList(layers)

    def patch_layers(self, net: nn.Module) -> Iterator[Undo]:
        """Let the network's layers add the changes."""
        for path, change in zip(self._paths, self.layers, strict=True):
            yield net.get_submodule(path).register_forward_hook(self._adding(change)).remove

    @contextmanager
    def at(self, strengths: Tensor) -> Iterator[None]:
        """Within, each sample of a batch has the changes added at its strength."""
        self._strengths = strengths
        try:
            yield
        finally:
            self._strengths = None

    def _adding(self, change: nn.Module) -> Any:
        def hook(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
            if self._strengths is None:
                return None
            strengths = self._strengths.reshape(-1, *[1] * (out.dim() - 1)).to(out)
            return torch.addcmul(out, strengths, change(given[0]))

        return hook
