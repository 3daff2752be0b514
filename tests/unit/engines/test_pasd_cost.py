"""The cost model that the planner trusts, against operations counted in the real networks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from srcli.engines.pasd.forecast import DEEP, EMBEDDED, count_pasd_flop, outer_cost
from srcli.models.control import build_control_net
from srcli.models.patches.deepcache import DeepFeatures, count_outer_residuals, run_outer_layers
from srcli.models.patches.install import install
from srcli.models.patches.paca import Paca
from srcli.models.stock import build_stock
from srcli.sampling.layout import Limits, find_cheapest_tiles
from srcli.sampling.tiling import Tile, lay_grid
from srcli.settings import Tiling

MANIFEST = Path(__file__).parents[2] / "golden/pasd/manifest"


def read(name: str) -> dict:
    return json.loads((MANIFEST / f"{name}.json").read_text())


@pytest.mark.parametrize("side", [48, 96])
def test_the_cost_model_is_what_the_full_networks_compute(side):
    unet = build_stock(UNet2DConditionModel, read("pasd_unet.config"))
    control = build_control_net(read("pasd_controlnet.config"), read("pasd_controlnet.keys"))
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counted:
        paca = Paca(read("pasd_unet.config"))
        install([unet], paca)
        x, t, text, hint = torch.empty(1, 4, side, side), torch.tensor([5]), torch.empty(1, 77, 768), 8 * side
        down, mid = control(x, t, text, torch.empty(1, 3, hint, hint), return_dict=False)
        features = DeepFeatures()
        with paca.attending(down), install([unet], features):
            unet(x, t, text, down_block_additional_residuals=down, mid_block_additional_residual=mid)
        whole, deep = counted.get_total_flops(), features.captured
        with paca.attending(down):
            run_outer_layers(unet, x, t, text, deep[0], down)
    assert count_pasd_flop(side * side) == pytest.approx(whole, rel=0.005)
    assert outer_cost(side * side) == pytest.approx(counted.get_total_flops() - whole, rel=0.005)
    assert control.controlnet_cond_embedding.out_channels == EMBEDDED
    assert DEEP * side * side == sum(kept.numel() for kept in (deep[0], *down[: count_outer_residuals(unet)]))


def work(tiles: list[Tile]) -> float:
    return sum(count_pasd_flop(tile.height * tile.width) for tile in tiles)


@pytest.mark.parametrize(("side", "gain"), [(2048, 2.5), (4096, 5)])
def test_the_plan_does_a_fraction_of_the_official_work(side, gain):
    official = lay_grid(side // 8, side // 8, Tiling(size=320, overlap=4))
    assert work(official) / work(find_cheapest_tiles(side // 8, side // 8, count_pasd_flop, Limits())) > gain
