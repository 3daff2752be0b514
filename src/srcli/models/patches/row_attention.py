"""Attention over a picture's tokens in blocks of rows: on a CPU with oneDNN for speed, on MPS to limit memory.

On an AMD EPYC (AVX512-BF16) torch's own kernel takes a third longer in fp32, and two thirds longer in bf16. On an Intel
Sapphire Rapids (AMX) it takes 0.6 and 0.3 of the time of this one, and is used. Scores and softmax are in fp32, as in
that kernel. On MPS torch may materialize the scores of all rows at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from srcli.models.cpu_features import read_cpu_features
from srcli.models.patches.changes import Undo, replace_processor
from srcli.models.patches.packed import apply_packed_linear, can_pack, pack_linear_weight

SCORES = 1 << 19  # per block of rows on a CPU, so that they stay in a core's cache
MPS_SCORES = 1 << 27  # per block of rows on MPS
FEW_KEYS = 512  # up to here torch is as fast


def compute_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention of (batch, heads, tokens, width)."""
    if query.device.type == "mps":
        return attend_in_parts(query, key, value, MPS_SCORES)
    if query.device.type != "cpu" or key.shape[2] <= FEW_KEYS or not rows_are_faster():
        return scaled_dot_product_attention(query, key, value)
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    scale = query.shape[-1] ** -0.5
    for one, q, k, v in zip(*(x.flatten(0, 1) for x in (out, query, key, value)), strict=True):
        _attend_rows(one, q.float() * scale, k.float(), v)
    return out


def rows_are_faster() -> bool:
    """Whether oneDNN is here, on a processor where it is faster than torch's own kernel."""
    return can_pack() and not read_cpu_features().get("amx_bf16")


def attend_in_parts(query: Tensor, key: Tensor, value: Tensor, scores: int) -> Tensor:
    """The same with torch's own kernel, in blocks of at most this many scores."""
    rows = max(1, scores // (query.shape[0] * query.shape[1] * key.shape[2]))
    if rows >= query.shape[2]:
        return scaled_dot_product_attention(query, key, value)
    return torch.cat([scaled_dot_product_attention(part, key, value) for part in torch.split(query, rows, 2)], 2)


def _attend_rows(out: Tensor, query: Tensor, key: Tensor, value: Tensor) -> None:
    """Attention of one head of one picture, written to `out`."""
    count = max(32, SCORES // len(key))
    keys, values = pack_linear_weight(key), pack_linear_weight(value.t())
    for part, rows in zip(torch.split(out, count), torch.split(query, count), strict=True):
        part.copy_(apply_packed_linear(apply_packed_linear(rows, keys).softmax(-1).to(value.dtype), values))


class RowAttentionProcessor:
    """An attention processor for self and cross attention without masks, norms or LoRA."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,
    ) -> Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source)
        mixed = compute_attention(*(split_heads(x, attn.heads) for x in (query, key, value)))
        out: Tensor = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return out


class RowAttention:
    """Replaces the processor of every attention that still has the stock one."""

    def patch_layers(self, net: nn.Module) -> Iterator[Undo]:
        """Replace the stock processors of a network."""
        for module in net.modules():
            if isinstance(module, Attention) and isinstance(module.processor, AttnProcessor2_0):
                yield replace_processor(module, RowAttentionProcessor())


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(batch, tokens, width) to (batch, heads, tokens, width / heads)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)
