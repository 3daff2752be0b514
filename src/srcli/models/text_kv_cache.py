"""Text attention that works out a text's keys and values once, not once a step."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.weak import WeakTensorKeyDictionary

from srcli.models.attention import split_heads

TEXT = ".attn2.processor"


class TextKvCache:
    """An attention processor that keeps the keys and values of each text for as long as the text is held."""

    def __init__(self) -> None:
        self._kept: MutableMapping[Tensor, tuple[Tensor, Tensor]] = WeakTensorKeyDictionary()

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: None = None
    ) -> Tensor:
        key, value = self._pair(attn, encoder_hidden_states)
        mixed = scaled_dot_product_attention(split_heads(attn.to_q(hidden_states), attn.heads), key, value)
        out: Tensor = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return out

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # it cannot look into the dictionary
    def _pair(self, attn: Any, text: Tensor) -> tuple[Tensor, Tensor]:
        if text not in self._kept:
            self._kept[text] = split_heads(attn.to_k(text), attn.heads), split_heads(attn.to_v(text), attn.heads)
        return self._kept[text]


def cache_text_kv(net: UNet2DConditionModel | ControlNetModel) -> None:
    """Give every text attention of the network a memory; a text tensor must not be changed in place after."""
    for name in net.attn_processors:
        if name.endswith(TEXT):
            net.get_submodule(name.removesuffix(".processor")).set_processor(TextKvCache())
