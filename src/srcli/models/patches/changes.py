"""The elementary changes that patches consist of. Each returns a function that undoes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from diffusers.models.attention_processor import Attention
from torch import nn

Undo = Callable[[], object]


class Patch(Protocol):
    """A change to a network, which may be installed in several networks at once."""

    def patch_layers(self, net: nn.Module) -> Iterable[Undo]:
        """Change the network's layers; yields a function per change that undoes it."""


def replace_forward(layer: nn.Module, forward: Callable[..., Any]) -> Undo:
    """Replace the forward method of `layer`; the new one may call the old one."""
    attributes = layer.__dict__
    before = attributes.get("forward")
    attributes["forward"] = forward

    def undo() -> None:
        if before is None:
            del attributes["forward"]
        else:
            attributes["forward"] = before

    return undo


def has_hooks(layer: nn.Module) -> bool:
    """Whether hooks run before or after the layer."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def replace_processor(attention: Attention, processor: Any) -> Undo:
    before = attention.processor
    attention.set_processor(processor)
    return lambda: attention.set_processor(before)
