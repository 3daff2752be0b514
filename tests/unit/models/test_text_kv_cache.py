"""Text attention with a memory gives the stock numbers, and forgets with the text."""

import gc

import torch
from diffusers import UNet2DConditionModel
from tests.unit.models.test_paca import CONFIG, random
from torch import nn

from srcli.models.patches.install import install
from srcli.models.patches.text_kv_cache import TextKvCache, TextKvProcessor
from srcli.models.stock import build_stock


def memories(net: nn.Module) -> list[TextKvProcessor]:
    return [processor for processor in net.attn_processors.values() if isinstance(processor, TextKvProcessor)]


def test_the_numbers_are_the_stock_ones() -> None:
    unet = random(build_stock(UNet2DConditionModel, CONFIG))
    x, text, other = torch.randn(2, 4, 5, 6), torch.randn(2, 7, 8), torch.randn(2, 9, 8)
    stock = [unet(x, 3, t).sample for t in (text, other)]
    install([unet], TextKvCache())
    for _ in range(2):
        assert torch.equal(unet(x, 3, text).sample, stock[0])
        assert torch.equal(unet(x, 3, other).sample, stock[1])


def test_keys_and_values_are_worked_out_once_and_go_with_the_text() -> None:
    unet = random(build_stock(UNet2DConditionModel, CONFIG))
    install([unet], TextKvCache())
    calls = []
    for name, layer in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            layer.register_forward_hook(lambda *_: calls.append(1))
    text = torch.randn(1, 7, 8)
    for t in (3, 2, 1):
        unet(torch.randn(1, 4, 5, 6), t, text)
    assert len(calls) == 2 * len(memories(unet)) > 0
    del text
    gc.collect()
    assert all(len(memory._cache) == 0 for memory in memories(unet))
