"""Convolutions and linear layers of a CPU with their weights in the order that oneDNN computes in.

A stock layer brings its weights into that order at every call, and fp32 linear layers do not use oneDNN at all. Here
it is done once, at the first call, which knows the shapes; the plain weights are given up for it.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)

_nn: Any = torch._C._nn


class PackedConv:
    """What a convolution does, with its weights packed."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self._conv = conv
        self._weight: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        conv = self._conv
        if self._weight is None:
            geometry = conv.padding, conv.stride, conv.dilation, conv.groups, x.shape
            self._weight = _nn.mkldnn_reorder_conv2d_weight(conv.weight.to_mkldnn(), *geometry)
            _release(conv)
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups, "none", [], ""
        )
        return out


class PackedLinear:
    """What a linear layer does, with its weights packed."""

    def __init__(self, linear: nn.Linear) -> None:
        self._linear = linear
        self._weight: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self._weight is None:
            self._weight = pack_linear_weight(self._linear.weight, x.numel() // x.shape[-1])
            _release(self._linear)
        return apply_packed_linear(x, self._weight, self._linear.bias)


def pack_linear_weight(weight: Tensor, rows: int) -> Tensor:
    """A linear layer's weights in the order that suits so many rows of input."""
    out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
    return out


def apply_packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer with packed weights."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def can_pack() -> bool:
    """Whether this torch has the operators; they are what its compiler uses on a CPU, and could be renamed."""
    names = ("_convolution_pointwise", "_linear_pointwise", "_reorder_linear_weight")
    here = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return here and all(hasattr(torch.ops.mkldnn, name) for name in names)


def pack_layers(net: Net) -> Net:
    """Pack every layer of a network that is on the CPU and only to be used; hooks on the layers stay in force."""
    if can_pack():
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
                layer.forward = PackedConv(layer)  # type: ignore[method-assign, assignment]
            elif isinstance(layer, nn.Linear):
                layer.forward = PackedLinear(layer)  # type: ignore[method-assign, assignment]
    return net


def _release(layer: nn.Module) -> None:
    layer.register_parameter("weight", None)
