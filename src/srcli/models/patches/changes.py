"""The single changes that patches consist of. Each returns the function that takes it back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from diffusers.models.attention_processor import Attention
from torch import nn

Undo = Callable[[], object]


class Patch(Protocol):
    """A change to a network, which may be installed in several networks at once."""

    def patch_layers(self, net: nn.Module) -> Iterable[Undo]:
        """Change the network, one layer after the other."""


def replace_forward(layer: nn.Module, forward: Callable[..., Any]) -> Undo:
    """Let `layer` compute with `forward`, which may call the one it had before."""
    attributes = layer.__dict__
    before = attributes.get("forward")
    attributes["forward"] = forward

    def undo() -> None:
        if before is None:
            del attributes["forward"]
        else:
            attributes["forward"] = before

    return undo


def replace_processor(attention: Attention, processor: Any) -> Undo:
    """Let `attention` compute with another processor."""
    before = attention.processor
    attention.set_processor(processor)
    return lambda: attention.set_processor(before)
