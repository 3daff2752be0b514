"""A KV cache for cross attention: keys and values of a text are computed once, not at every step."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.weak import WeakTensorKeyDictionary

from srcli.models.patches.changes import Undo, replace_processor
from srcli.models.patches.row_attention import split_heads

TEXT_ATTENTION = ".attn2"


class TextKvProcessor:
    """An attention processor that caches keys and values by text tensor, for as long as the tensor exists."""

    def __init__(self) -> None:
        self._cache: MutableMapping[Tensor, tuple[Tensor, Tensor]] = WeakTensorKeyDictionary()

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: None = None
    ) -> Tensor:
        key, value = self._find_pair(attn, encoder_hidden_states)
        mixed = scaled_dot_product_attention(split_heads(attn.to_q(hidden_states), attn.heads), key, value)
        out: Tensor = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return out

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # it cannot trace the dictionary
    def _find_pair(self, attn: Any, text: Tensor) -> tuple[Tensor, Tensor]:
        if text not in self._cache:
            self._cache[text] = split_heads(attn.to_k(text), attn.heads), split_heads(attn.to_v(text), attn.heads)
        return self._cache[text]


class TextKvCache:
    """Gives every text attention a cache. Text tensors must not be changed in place afterwards."""

    def patch_layers(self, net: nn.Module) -> Iterator[Undo]:
        """Replace the processors of a UNet's or ControlNet's text attention."""
        for name, layer in net.named_modules():
            if name.endswith(TEXT_ATTENTION):
                yield replace_processor(layer, TextKvProcessor())
