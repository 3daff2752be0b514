"""Keeps the weights of convolutions and linear layers on a CPU in oneDNN's memory layout.

A stock layer reorders its weights at every call, and fp32 linear layers do not use oneDNN at all. Here weights are
reordered once, at the first call, when the shapes are known; the plain weights are freed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from srcli.models.patches.changes import Undo, replace_forward

_nn: Any = torch._C._nn


class PackedConv:
    """The computation of a convolution with packed weights."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self._conv = conv
        self._weight: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        conv = self._conv
        if self._weight is None:
            geometry = conv.padding, conv.stride, conv.dilation, conv.groups, x.shape
            self._weight = _nn.mkldnn_reorder_conv2d_weight(conv.weight.to_mkldnn(), *geometry)
            _swap_weight(conv, None)
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups, "none", [], ""
        )
        return out

    def unpack(self) -> None:
        """Restore the convolution's plain weights."""
        if self._weight is not None:
            _swap_weight(self._conv, self._weight.to_dense())
            self._weight = None


class PackedLinear:
    """The computation of a linear layer with packed weights."""

    def __init__(self, linear: nn.Linear) -> None:
        self._linear = linear
        self._weight: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self._weight is None:
            self._weight = pack_linear_weight(self._linear.weight, x.numel() // x.shape[-1])
            _swap_weight(self._linear, None)
        return apply_packed_linear(x, self._weight, self._linear.bias)

    def unpack(self) -> None:
        """Restore the linear layer's plain weights."""
        if self._weight is not None:
            _swap_weight(self._linear, self._weight.to_dense())
            self._weight = None


def pack_linear_weight(weight: Tensor, rows: int) -> Tensor:
    """A linear layer's weights in oneDNN's layout for this number of input rows."""
    out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
    return out


def apply_packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer with packed weights."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def can_pack() -> bool:
    """Whether this version of torch has the operators, which are internal to its compiler and may be renamed."""
    names = ("_convolution_pointwise", "_linear_pointwise", "_reorder_linear_weight")
    here = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return here and all(hasattr(torch.ops.mkldnn, name) for name in names)


class PackedLayers:
    """Packs every layer of a network on the CPU, for inference. Hooks on the layers run as usual."""

    def patch_layers(self, net: nn.Module) -> Iterator[Undo]:
        """Pack the convolutions and linear layers, if this version of torch can."""
        for layer in net.modules() if can_pack() else ():
            if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
                yield from _replace(layer, PackedConv(layer))
            elif isinstance(layer, nn.Linear):
                yield from _replace(layer, PackedLinear(layer))


def _replace(layer: nn.Conv2d | nn.Linear, packed: PackedConv | PackedLinear) -> Iterator[Undo]:
    yield packed.unpack
    yield replace_forward(layer, packed)


def _swap_weight(layer: nn.Module, weight: Tensor | None) -> None:
    parameter = None if weight is None else nn.Parameter(weight, requires_grad=False)
    layer.register_parameter("weight", parameter)
