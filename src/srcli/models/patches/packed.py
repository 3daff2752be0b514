"""Keeps the weights of convolutions and linear layers on a CPU in oneDNN's memory layout.

A stock layer reorders its weights at every call, and fp32 linear layers do not use oneDNN at all. Here it is done once,
when the patch is installed, which is while weights are loaded; the plain weights are freed layer by layer. Maps are
channels last: they are the tokens of attention layers without being copied, and bf16 convolutions take two thirds of
the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from torch import Tensor, nn

from srcli.models.patches.changes import Undo, has_hooks, replace_forward

_nn: Any = torch._C._nn


class PackedConv:
    """The computation of a convolution with packed weights."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self._conv = conv
        self._geometry = conv.padding, conv.stride, conv.dilation, conv.groups
        self._weight: Tensor = _nn.mkldnn_reorder_conv2d_weight(conv.weight.to_mkldnn(), *self._geometry)
        _swap_weight(conv, None)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._weight, self._conv.bias, *self._geometry, "none", [], ""
        )
        return out

    def unpack(self) -> None:
        """Restore the convolution's plain weights."""
        _swap_weight(self._conv, self._weight.to_dense())


class PackedLinear:
    """The computation of a linear layer with packed weights."""

    def __init__(self, linear: nn.Linear) -> None:
        self._linear = linear
        self._weight = pack_linear_weight(linear.weight)
        _swap_weight(linear, None)

    def __call__(self, x: Tensor) -> Tensor:
        return apply_packed_linear(x, self._weight, self._linear.bias)

    def unpack(self) -> None:
        """Restore the linear layer's plain weights."""
        _swap_weight(self._linear, self._weight.to_dense())


class PackedGeglu:
    """The computation of a feed-forward layer's gated GELU, with GELU and gate applied as the products are made."""

    def __init__(self, linear: nn.Linear) -> None:
        self._linear = linear
        self._value, self._gate = (pack_linear_weight(half) for half in linear.weight.chunk(2))
        _swap_weight(linear, None)

    def __call__(self, x: Tensor) -> Tensor:
        value_bias, gate_bias = (None, None) if self._linear.bias is None else self._linear.bias.chunk(2)
        gate = torch.ops.mkldnn._linear_pointwise(x, self._gate, gate_bias, "gelu", [], "none")
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, gate, self._value, value_bias, "mul")
        return out

    def unpack(self) -> None:
        """Restore the linear layer's plain weights."""
        _swap_weight(self._linear, torch.cat((self._value.to_dense(), self._gate.to_dense())))


def pack_linear_weight(weight: Tensor) -> Tensor:
    """A linear layer's weights in oneDNN's layout."""
    out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    return out


def apply_packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
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
        """Pack the convolutions, gated GELUs and linear layers, where this torch can."""
        for layer in net.modules() if can_pack() else ():
            if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
                yield from _replace(layer, PackedConv(layer))
            elif isinstance(layer, GEGLU) and not has_hooks(layer.proj):
                yield from _replace(layer, PackedGeglu(layer.proj))
            elif isinstance(layer, nn.Linear) and layer.weight is not None:
                yield from _replace(layer, PackedLinear(layer))


def _replace(layer: nn.Module, packed: PackedConv | PackedLinear | PackedGeglu) -> Iterator[Undo]:
    yield packed.unpack
    yield replace_forward(layer, packed)


def _swap_weight(layer: nn.Module, weight: Tensor | None) -> None:
    parameter = None if weight is None else nn.Parameter(weight, requires_grad=False)
    layer.register_parameter("weight", parameter)
