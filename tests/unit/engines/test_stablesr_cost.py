"""The cost model that the planner trusts, against operations counted in the full networks."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from tests.golden.cases import HERE
from tests.golden.stablesr_tiny import UNET, under, unet_config
from torch.utils.flop_counter import FlopCounterMode

from srcli.engines.runtime.placement import BYTES_PER_LATENT
from srcli.engines.stablesr.engine import StableSRDenoiser
from srcli.engines.stablesr.forecast import count_stablesr_flop
from srcli.models import time_encoder
from srcli.models.patches import spade
from srcli.models.patches.install import install
from srcli.models.stock import build_stock

MANIFEST = HERE / "stablesr" / "manifest"


@pytest.mark.parametrize("side", [48, 96])
def test_the_cost_model_is_what_the_full_networks_compute(side):
    config = json.loads((MANIFEST / "configs.json").read_text())["v2_finetune_text_T_512"]["model"]["params"]
    shapes = json.loads((MANIFEST / "stablesr_512.json").read_text())
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
    unet = build_stock(UNet2DConditionModel, unet_config(config["unet_config"]["params"]))
    modulation = spade.build_modulation(unet, spade.modulation_state(under(state, UNET)))
    encoder = time_encoder.build_time_encoder(under(state, "structcond_stage_model."))
    install([unet], modulation)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counted:
        x, t = torch.empty(1, 4, side, side), torch.tensor(5)
        StableSRDenoiser(unet, encoder, modulation, torch.empty(1, 77, 1024))(x, t, x)
    assert count_stablesr_flop(side * side) == pytest.approx(counted.get_total_flops(), rel=0.005)


def test_a_picture_of_512_fits_in_six_gigabytes_of_half_precision():
    summary = json.loads((MANIFEST / "summary.json").read_text())
    weights = 2 * (summary["sr512"]["params_total"] + summary["cfw"]["fusion_params"])
    assert weights + BYTES_PER_LATENT * 64 * 64 < 6e9
