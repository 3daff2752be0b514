"""Memory: what is arranged in how much of it, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from srcli.engines.builtin import engine as builtin
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import (
    AMPLE,
    CONTEXT,
    CPU_LATENTS,
    GIB,
    MPS_ATTENTION,
    MemoryNeed,
    PixelMemoryNeed,
    Placement,
    find_memory_budget,
    plan_placement,
)
from srcli.engines.runtime.placement import on_device, place_network
from srcli.errors import InputError, MachineError
from srcli.settings import ModelChoice, size_in_bytes

PASD = MemoryNeed("PASD", steps=int(2.94 * GIB), ends=int(0.42 * GIB), latent=1 << 16)
META = torch.device("meta")  # takes the way of an accelerator: it is no CPU


def placement(memory: float | None, kind: torch.device = META) -> Placement:
    return plan_placement(PASD, Device(kind, torch.float16, memory and int(memory * GIB)))


def test_more_memory_takes_more_tiles_and_shrinks_nothing():
    rooms = [placement(size) for size in (2.4, 3, 4, 5, 8, 80, None)]
    ranks = [(not r.weights_fp8, not r.by_stage, r.latents) for r in rooms]
    assert ranks == sorted(ranks)
    assert rooms[0].weights_fp8
    assert rooms[-2] == rooms[-1] == Placement(16 * 64 * 64)


def test_a_card_of_4_gib_keeps_all_bits_by_stages():
    assert (placement(4).by_stage, placement(4).weights_fp8) == (True, False)


@pytest.mark.parametrize("memory", [2.4, 2.5, 3.9, 4.5, 6, 12])
def test_what_is_arranged_fits(memory):
    assert PASD.bytes(placement(memory)) <= memory * GIB


def test_what_is_free_on_a_mac_is_what_metal_recommends_less_what_is_taken(monkeypatch):
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 5 * GIB)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: GIB)
    mps = Device(torch.device("mps"), torch.float16)
    assert [
        find_memory_budget(mps),
        find_memory_budget(replace(mps, memory=3 * GIB)),
        find_memory_budget(replace(mps, memory=9 * GIB)),
    ] == [
        4 * GIB - MPS_ATTENTION,
        3 * GIB,
        4 * GIB - MPS_ATTENTION,
    ]


def test_a_mac_which_has_no_numbers_of_8_bits_needs_more(monkeypatch):
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 64 * GIB)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 0)
    assert not placement(4, torch.device("mps")).weights_fp8
    with pytest.raises(MachineError, match=r"`max_memory` 3\.\dG"):
        placement(2.5, torch.device("mps"))


def test_a_budget_below_the_smallest_plan_names_the_smallest():
    with pytest.raises(MachineError, match=r"PASD does not fit into 1.0G .* `max_memory` (\d.\d)G") as caught:
        placement(1)
    assert caught.value.exit_code == 5
    said = float(str(caught.value).split("`max_memory` ")[1].split("G")[0])
    assert placement(said).weights_fp8
    with pytest.raises(MachineError):
        placement(said - 0.1)


def test_a_cpu_has_one_arrangement():
    cpu = torch.device("cpu")
    assert placement(None, cpu) == placement(8, cpu) == Placement(CPU_LATENTS)
    with pytest.raises(MachineError, match="on cpu"):
        placement(3.4, cpu)


@pytest.mark.parametrize(
    ("text", "size"), [("4G", 4 * GIB), ("1.5g", 3 * GIB // 2), ("800M", 800 << 20), ("512MiB", 512 << 20), ("77", 77)]
)
def test_sizes_are_read(text, size):
    assert size_in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "4X", "-1G", "0", "G", "4 4", "0.1", "9" * 400])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="`max_memory`"):
        size_in_bytes(text)


def test_weights_in_8_bits_compute_nearly_the_same_in_half_the_bytes():
    torch.manual_seed(4)
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 36, 16))
    x = torch.randn(2, 4, 8, 8)
    expected = net(x)
    place_network(net, Device(torch.device("cpu"), torch.float32), placement=Placement(1, weights_fp8=True))
    assert all(p.dtype is torch.float8_e4m3fn for n, p in net.named_parameters() if "weight" in n)
    with torch.inference_mode():
        assert (net(x) - expected).norm() / expected.norm() < 0.1
    assert all(p.dtype is torch.float8_e4m3fn for n, p in net.named_parameters() if "weight" in n)


def test_a_visitor_leaves_when_room_is_short():
    net = nn.Linear(2, 2)
    with on_device(net, Device(META, torch.float32), Placement(1)):
        assert net.weight.device.type == "cpu"
    net = nn.Linear(2, 2)
    seen = []
    net.to = lambda where: seen.append(str(where))
    with on_device(net, Device(META, torch.float32), Placement(1, by_stage=True)):
        assert seen == ["meta"]
    assert seen == ["meta", "cpu"]


def test_what_weights_take_is_not_left_to_maps():
    limited = Device(META, torch.float16, 8 * GIB)
    assert PASD.beside(AMPLE, limited).memory == 8 * GIB - PASD.fixed(AMPLE)
    assert PASD.beside(AMPLE, replace(limited, memory=1)).memory == 1
    assert PASD.beside(AMPLE, replace(limited, memory=None)).memory is None


def test_the_context_is_part_of_the_smallest():
    assert PASD.least(Placement(1)) > CONTEXT + PASD.steps + PASD.ends


def cpu(memory: float | None) -> Device:
    return Device(torch.device("cpu"), torch.float32, memory and int(memory * GIB))


def test_the_largest_piece_that_fits_is_taken():
    area = PixelMemoryNeed("it", pixel=1 << 12)
    sides = [area.largest((512, 256, 64), 8, cpu(memory)) for memory in (None, 4, 1, 0.5)]
    assert sides == [512, 512, 256, 64]


def test_a_limit_below_the_smallest_piece_names_one_that_would_do():
    area = PixelMemoryNeed("it", pixel=1 << 12, weights=GIB)
    with pytest.raises(MachineError, match=r"it does not fit into 1.0G of memory on cpu: give `max_memory`") as caught:
        area.largest((512, 64), 8, cpu(1))
    assert caught.value.exit_code == 5
    said = float(str(caught.value).split("`max_memory` ")[1].split("G")[0])
    assert area.largest((512, 64), 8, cpu(said)) == 64


def loaded(memory: float | None) -> builtin.BuiltinEngine:
    return builtin.load_builtin(ModelChoice(engine="builtin"), cpu(memory))


def test_the_builtin_engine_works_in_smaller_blocks_where_memory_is_short():
    sides = [loaded(memory).block for memory in (None, 2, 1, 0.6)]
    assert sides[:2] == [builtin.BLOCK_SIDE, builtin.BLOCK_SIDE]
    assert builtin.BLOCK_SIDE > sides[2] > sides[3]


def test_the_builtin_engine_refuses_less_than_its_smallest_block_takes():
    with pytest.raises(MachineError, match=r"the built-in engine does not fit into 0.3G .* `max_memory` 0.5G"):
        loaded(0.3)
    assert loaded(0.6).block


def test_float32_that_does_not_fit_names_the_half_that_would() -> None:
    need = MemoryNeed("PASD", 6 * GIB, 0, 1 << 16)
    with pytest.raises(
        MachineError, match=r"PASD in float32 does not fit into 5\.0G .* give `dtype` bfloat16, which fits"
    ):
        plan_placement(need, Device(torch.device("cpu"), torch.float32, 5 * GIB))
    with pytest.raises(MachineError, match=r"PASD does not fit into 2\.0G .* give `max_memory`"):
        plan_placement(need, Device(torch.device("cpu"), torch.float32, 2 * GIB))
