"""Strides and memory formats that a GPU's kernels ask for; a CPU takes any, so they are looked at here."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from srcli.models import sr3_unet, time_encoder
from srcli.models.patches.install import install
from srcli.models.patches.shared_cfg_prefix import SharedCfgPrefix


@pytest.mark.parametrize("side", [1, 2])
@pytest.mark.parametrize("kind", ["stablesr", "sr3"])
@torch.inference_mode()
def test_rows_of_attention_are_aligned_also_where_there_is_one_position(kind, side, monkeypatch):
    seen: list[Tensor] = []
    plain = nn.functional.scaled_dot_product_attention

    def attend(*tensors: Tensor, **options: float) -> Tensor:
        seen.extend(tensors)
        return plain(*tensors, **options)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", attend)
    x = torch.randn(2, 64, side, side)
    if kind == "stablesr":
        time_encoder.TimeAttention(64)(x, torch.randn(2, 8))
    else:
        sr3_unet.SR3Attention(64, 16)(x)
    assert len(seen) == 3
    for tensor in seen:
        *_, row, element = tensor.stride()
        assert element == 1
        assert row % 4 == 0  # 16 bytes of float32: the memory-efficient kernel refuses others


def test_the_shared_prefix_keeps_channels_last():
    net = nn.Module()
    net.conv_in, net.down_blocks = nn.Conv2d(4, 8, 3, padding=1).to(memory_format=torch.channels_last), [nn.Module()]
    prefix = SharedCfgPrefix()
    install([net], prefix)
    x = torch.randn(1, 4, 6, 6).to(memory_format=torch.channels_last)
    both = torch.cat([x, x])
    with prefix.equal_halves():
        shared = net.conv_in(both)
    assert shared.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(shared[:1], shared[1:])
    torch.testing.assert_close(shared, net.conv_in(both))
