"""Attention some rows at a time, where torch would hold the scores of all of them."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from tests.unit.models.test_paca import CONFIG
from torch.nn.functional import scaled_dot_product_attention

from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import AMPLE, MPS_ATTENTION, find_memory_budget
from srcli.engines.runtime.placement import place_step_networks
from srcli.models.patches import row_attention
from srcli.models.patches.row_attention import MPS_SCORES, RowAttentionProcessor, attend_in_parts
from srcli.models.stock import build_stock

MPS = Device(torch.device("mps"), torch.float16)


@pytest.mark.parametrize("scores", [1, 2 * 3 * 50 * 7, 1 << 20])
def test_parts_of_any_size_add_up_to_the_whole(scores: int) -> None:
    query, key, value = (torch.randn(2, 3, tokens, 8) for tokens in (40, 50, 50))
    torch.testing.assert_close(
        attend_in_parts(query, key, value, scores), scaled_dot_product_attention(query, key, value)
    )


def test_the_scores_that_are_held_at_once_are_those_that_are_planned_for() -> None:
    assert 4 * MPS_SCORES == MPS_ATTENTION


def test_a_plan_for_mps_leaves_room_for_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 8 << 30)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 1 << 30)
    assert find_memory_budget(MPS) == (7 << 30) - MPS_ATTENTION


def test_on_mps_attention_goes_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    net = build_stock(UNet2DConditionModel, CONFIG)
    monkeypatch.setattr("srcli.engines.runtime.placement.place_network", lambda *_, **__: None)
    place_step_networks([net], MPS, AMPLE)
    assert any(isinstance(processor, RowAttentionProcessor) for processor in net.attn_processors.values())


@pytest.mark.parametrize(("amx", "faster"), [(True, False), (False, True)])
def test_rows_are_left_to_processors_without_amx(amx: bool, faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_attention, "read_cpu_features", lambda: {"amx_bf16": amx})
    assert row_attention.rows_are_faster() == (faster and row_attention.can_pack())
    query, key, value = (torch.randn(2, 3, tokens, 8) for tokens in (40, 600, 600))
    expected = scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(row_attention.compute_attention(query, key, value), expected)
