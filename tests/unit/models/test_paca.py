"""PACA beside a base that does not know of it."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from srcli.models.control import build_control_net
from srcli.models.patches.install import install
from srcli.models.patches.paca import LightPaca, Paca, PixelAware
from srcli.models.stock import build_stock, list_skip_widths

CONFIG = {
    "attention_head_dim": 2,
    "block_out_channels": [8, 12, 16, 16],
    "conditioning_embedding_out_channels": [4, 4, 4, 4],
    "cross_attention_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "layers_per_block": 2,
    "norm_num_groups": 4,
}


def random(net: nn.Module) -> nn.Module:
    """Weights everywhere, zero convolutions too: a layer at rest would hide how it is wired."""
    torch.manual_seed(5)
    net = net.to_empty(device="cpu").requires_grad_(False)
    for value in net.parameters():
        value.normal_(std=0.3)
    return net


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return random(build_stock(UNet2DConditionModel, CONFIG))


def adapter(form: type[PixelAware]) -> PixelAware:
    with torch.device("meta"):
        return random(form(CONFIG))


def quiet(paca: PixelAware) -> PixelAware:
    for name, value in paca.named_parameters():
        if ".attentions." in name and ".to_out." in name or name.split(".")[-2] == "proj_out":
            value.zero_()
    return paca


def led(unet: UNet2DConditionModel, paca: PixelAware, x: Tensor, text: Tensor, scale: float) -> Tensor:
    control = random(build_control_net(CONFIG, ["controlnet_cond_embedding.to_rgbs.0.weight"]))
    hint = torch.rand(x.shape[0], 3, x.shape[2] * 8, x.shape[3] * 8)
    down, mid = control(x, 7, text, hint, conditioning_scale=scale, return_dict=False)
    with paca.attending(down):
        return unet(x, 7, text, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample


@pytest.mark.parametrize("form", [Paca, LightPaca])
@settings(max_examples=4, deadline=None)
@given(height=st.integers(2, 11), width=st.integers(2, 11), batch=st.integers(1, 2))
def test_with_its_outputs_at_zero_the_result_is_the_bases_own(
    unet: UNet2DConditionModel, form: type[PixelAware], height: int, width: int, batch: int
) -> None:
    x, text = torch.randn(batch, 4, height, width), torch.randn(batch, 5, 8)
    own = unet(x, 7, text).sample
    loud, mute = adapter(form), quiet(adapter(form))
    install([unet], mute, loud)
    torch.testing.assert_close(led(unet, mute, x, text, 0.0), own)
    assert not torch.allclose(led(unet, mute, x, text, 1.0), own)
    assert not torch.allclose(led(unet, loud, x, text, 0.0), own)
    torch.testing.assert_close(unet(x, 7, text).sample, own)


def test_two_adapters_in_one_base_do_not_meet(unet: UNet2DConditionModel) -> None:
    x, text = torch.randn(1, 4, 4, 4), torch.randn(1, 5, 8)
    first = adapter(Paca)
    install([unet], first)
    before = led(unet, first, x, text, 1.0)
    install([unet], adapter(LightPaca))
    torch.testing.assert_close(led(unet, first, x, text, 1.0), before)


def test_an_embedding_made_earlier_passes_through() -> None:
    embed = random(build_control_net(CONFIG, [])).controlnet_cond_embedding
    made = embed(torch.rand(1, 3, 16, 24))
    assert made.shape == (1, 8, 2, 3)
    assert embed(made) is made


def test_skip_widths_are_those_of_the_residuals() -> None:
    control = random(build_control_net(CONFIG, []))
    down, _ = control(torch.randn(1, 4, 8, 8), 1, torch.randn(1, 5, 8), torch.rand(1, 3, 64, 64), return_dict=False)
    assert list_skip_widths(CONFIG) == [residual.shape[1] for residual in down]
