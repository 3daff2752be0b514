"""Patches go in in one order whatever order they are named in, and come out without a trace."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.activations import GEGLU
from tests.unit.models.test_paca import CONFIG, random
from torch import Tensor, nn

from srcli.models.patches.compiled import Compiled
from srcli.models.patches.deepcache import DeepFeatures
from srcli.models.patches.install import ORDER, install
from srcli.models.patches.low_rank import LowRank
from srcli.models.patches.paca import LightPaca, Paca
from srcli.models.patches.packed import PackedConv, PackedGeglu, PackedLayers, PackedLinear, can_pack
from srcli.models.patches.row_attention import RowAttention
from srcli.models.patches.shared_cfg_prefix import SharedCfgPrefix
from srcli.models.patches.spade import Modulation
from srcli.models.patches.text_kv_cache import TextKvCache
from srcli.models.stock import build_stock

SMALL = CONFIG | {
    "block_out_channels": [32, 32],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 32,  # as in SPADE
}
CLOSE = {"rtol": 1e-3, "atol": 1e-3}  # fp32 sums in another order


def stock() -> UNet2DConditionModel:
    return random(build_stock(UNet2DConditionModel, SMALL))


def own(net: nn.Module) -> nn.Module:
    return random(net.to("meta"))


def uncompiled() -> Compiled:
    """The patch as it is after a failure: in its place, and computing plainly. The compiler has tests of its own."""
    patch = Compiled()
    patch.failed = True
    return patch


def low_rank(net: nn.Module) -> LowRank:
    down, up = torch.randn(2, net.conv_in.in_channels, 3, 3), torch.randn(net.conv_in.out_channels, 2, 1, 1)
    return LowRank(net, {"conv_in": (down, up)})


MAKERS: dict[type, Callable[[nn.Module], Any]] = {
    Paca: lambda net: own(Paca(SMALL)),
    LightPaca: lambda net: own(LightPaca(SMALL)),
    Modulation: lambda net: own(Modulation(net, 8)),
    LowRank: low_rank,
    TextKvCache: lambda net: TextKvCache(),
    RowAttention: lambda net: RowAttention(),
    PackedLayers: lambda net: PackedLayers(),
    SharedCfgPrefix: lambda net: SharedCfgPrefix(),
    Compiled: lambda net: uncompiled(),
    DeepFeatures: lambda net: DeepFeatures(),
}
# What the engines install: on a CPU everything, on a GPU neither rows nor packing.
CPU = (RowAttention, PackedLayers)
ENGINES = {
    "pasd": (Paca, TextKvCache, SharedCfgPrefix, Compiled, DeepFeatures),
    "pasd_light": (LightPaca, TextKvCache, SharedCfgPrefix, Compiled, DeepFeatures),
    "stablesr": (Modulation, TextKvCache, Compiled),
    "onestep": (LowRank, TextKvCache, Compiled),
}
SETS = [pytest.param(kinds + more, id=f"{name}{len(more)}") for name, kinds in ENGINES.items() for more in ((), CPU)]


def run(net: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    x, text = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(2, 5, 8, generator=generator)
    with torch.inference_mode():
        return net(torch.cat([x, x]), 7, text, return_dict=False)[0]


def changes(net: nn.Module) -> list[Any]:
    """Everything a patch may leave behind, layer by layer."""
    return [
        (
            name,
            dict(layer._forward_hooks),
            dict(layer._forward_pre_hooks),
            layer.__dict__.get("forward"),
            getattr(layer, "processor", None),
        )
        for name, layer in net.named_modules()
    ]


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("kinds", SETS)
def test_a_network_is_the_stock_one_again_after_any_set_that_an_engine_uses(kinds: tuple[type, ...]) -> None:
    net = stock()
    before, bits, expected = changes(net), weights(net), run(net)
    handle = install([net], *(MAKERS[kind](net) for kind in kinds))
    assert changes(net) != before
    torch.testing.assert_close(run(net), expected, **CLOSE)  # at rest they change nothing
    handle.remove()
    assert changes(net) == before
    assert all(torch.equal(value, bits[name]) for name, value in net.state_dict().items())
    assert torch.equal(run(net), expected)


def layers(forward: Any) -> list[str]:
    """What computes in a layer, from the outermost to the innermost: names of functions and classes."""
    found = []
    while forward is not None:
        found.append(getattr(forward, "__qualname__", type(forward).__name__).split(".")[0])
        inside = [cell.cell_contents for cell in getattr(forward, "__closure__", None) or ()]
        forward = next((one for one in inside if callable(one) and not isinstance(one, nn.Module)), None)
    return found


def structure(net: nn.Module) -> list[Any]:
    """What computes in each layer, by its kind."""
    return [(layers(layer.__dict__.get("forward")), type(getattr(layer, "processor", None))) for layer in net.modules()]


def test_any_two_patches_lie_in_the_same_order_whoever_comes_first() -> None:
    net = stock()
    for pair in combinations((TextKvCache, RowAttention, PackedLayers, SharedCfgPrefix, Compiled), 2):
        found = []
        for one, other in (pair, pair[::-1]):
            with install([net], MAKERS[one](net), MAKERS[other](net)):
                found.append(structure(net))
            with install([net], MAKERS[one](net)), install([net], MAKERS[other](net)):
                found.append(structure(net))
        assert all(each == found[0] for each in found), pair


@pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")
def test_packing_stays_below_the_shared_prefix() -> None:
    net = stock()
    install([net], SharedCfgPrefix())
    install([net], PackedLayers())
    assert layers(net.conv_in.forward) == ["SharedCfgPrefix", "PackedConv"]


@pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")
def test_the_prefix_still_shares_the_work_of_packed_layers() -> None:
    net, prefix, rows = stock(), SharedCfgPrefix(), []
    expected = run(net)
    install([net], prefix)
    install([net], PackedLayers())
    packed = PackedConv.__call__

    def count(self: PackedConv, x: Tensor) -> Tensor:
        rows.append(len(x))
        return packed(self, x)

    with pytest.MonkeyPatch.context() as patching, prefix.equal_halves():
        patching.setattr(PackedConv, "__call__", count)
        torch.testing.assert_close(run(net), expected, **CLOSE)
    assert rows[0] == 1
    assert set(rows[-3:]) == {2}


@pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")
def test_a_patch_from_the_middle_can_be_removed() -> None:
    net = stock()
    install([net], SharedCfgPrefix())
    before, bits = changes(net), weights(net)
    handle = install([net], PackedLayers())
    run(net)
    handle.remove()
    assert layers(net.conv_in.forward)[0] == "SharedCfgPrefix"
    assert [
        name for name, *_, forward, _ in changes(net) if isinstance(forward, PackedConv | PackedLinear | PackedGeglu)
    ] == []
    assert [one[:3] for one in changes(net)] == [one[:3] for one in before]
    assert all(torch.equal(value, bits[name]) for name, value in net.state_dict().items())


@pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_a_gated_gelu_is_packed_in_two_halves(bias: bool) -> None:
    gated = nn.Sequential(GEGLU(16, 24, bias=bias))
    x = torch.randn(2, 5, 16)
    plain = gated(x)
    handle = install([gated], PackedLayers())
    assert gated[0].proj.weight is None
    torch.testing.assert_close(gated(x), plain)
    handle.remove()
    assert torch.equal(gated(x), plain)


@pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")
@torch.inference_mode()
def test_packing_keeps_hooks_in_gated_gelus() -> None:
    gated, called = nn.Sequential(GEGLU(16, 24)), []
    gated[0].proj.register_forward_hook(lambda *_: called.append(1))
    install([gated], PackedLayers())
    gated(torch.randn(1, 5, 16))
    assert called == [1]


def test_deep_features_are_captured_only_within() -> None:
    net, deep = stock(), DeepFeatures()
    with install([net], deep):
        run(net)
    run(net)
    assert len(deep.captured) == 1


def test_every_kind_of_patch_has_its_place_in_the_order() -> None:
    assert all(any(issubclass(kind, known) for known in ORDER) for kind in MAKERS)
    assert all(any(issubclass(kind, known) for kind in MAKERS) for known in ORDER)


def test_a_patched_network_is_let_go_like_any_other():
    net = torch.nn.Sequential(torch.nn.Linear(4, 4))
    install([net], PackedLayers())
    seen = weakref.ref(net)
    del net
    gc.collect()
    assert seen() is None
