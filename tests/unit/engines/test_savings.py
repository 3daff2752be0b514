"""Each exact saving gives what the plain way gives, on the tiny networks of the official numbers."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from tests.golden.pasd_models import nets as official

from srcli.engines.pasd.sampling import Nets, PasdDenoiser
from srcli.engines.runtime.device import Device
from srcli.models.patches.install import install
from srcli.models.patches.packed import PackedLayers, can_pack
from srcli.models.patches.row_attention import RowAttention, compute_attention
from srcli.models.patches.shared_cfg_prefix import SharedCfgPrefix
from srcli.models.patches.text_kv_cache import TextKvCache
from srcli.sampling.sampler import Tiled
from srcli.sampling.tiling import Tile

ROOT = Path(__file__).parents[2] / "golden/pasd"
T = torch.tensor(501)
KINDS = ("pasd", "pasd_light")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # fp32 sums in another order


def made(kind: str, dtype: torch.dtype = torch.float32) -> PasdDenoiser:
    """The plain denoiser, with networks of its own."""
    parts = deepcopy(official(ROOT, kind))
    for net in parts:
        net.to(dtype)
    width = parts.unet.config.cross_attention_dim
    text = torch.randn(2, 77, width, generator=torch.Generator().manual_seed(2))
    nets = Nets(parts.unet, parts.paca, parts.control, Device(torch.device("cpu"), dtype))
    return PasdDenoiser(nets, text, guidance=9.0, conditioning_scale=0.8, guided_timesteps=frozenset([float(T)]))


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 4, 16, 16, generator=generator), torch.rand(1, 3, 128, 128, generator=generator)


@torch.inference_mode()
def run(led: PasdDenoiser) -> torch.Tensor:
    x, hint = inputs()
    return led(x, T, hint)


@pytest.mark.parametrize("kind", KINDS)
def test_shared_layers_compute_the_same(kind):
    plain, saving = made(kind), made(kind)
    nets, prefix = saving.nets, SharedCfgPrefix()
    install([nets.unet, nets.control], prefix)
    shared = Nets(nets.unet, nets.paca, nets.control, nets.device, prefix)
    result = run(PasdDenoiser(shared, saving.text, saving.guidance, saving.conditioning_scale, saving.guided_timesteps))
    torch.testing.assert_close(result, run(plain), **CLOSE)


def test_the_second_half_is_worked_out_again_where_halves_may_differ():
    nets = made("pasd").nets
    x, seen = torch.cat([inputs()[0], -inputs()[0]]), []
    nets.unet.conv_in.register_forward_hook(lambda _layer, _args, out: seen.append(out))
    prefix = SharedCfgPrefix()
    install([nets.unet], prefix)
    with torch.inference_mode():
        nets.unet.conv_in(x)
        with prefix.equal_halves():
            nets.unet.conv_in(x)
    assert not torch.equal(*seen[0])
    assert torch.equal(*seen[1])
    torch.testing.assert_close(seen[1][0], seen[0][0])


@pytest.mark.parametrize("kind", KINDS)
def test_remembered_texts_give_the_same_bits(kind):
    plain, saving = made(kind), made(kind)
    install([saving.nets.unet, saving.nets.control], TextKvCache())
    assert torch.equal(run(saving), run(plain))
    assert torch.equal(run(saving), run(plain))


def test_a_kept_embedding_gives_the_same_bits():
    led = made("pasd")
    assert torch.equal(run(led), run(led))
    assert len(led._embedded) == 1


@pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("kind", KINDS)
def test_packed_weights_compute_the_same(kind):
    plain, saving = made(kind), made(kind)
    install([saving.nets.unet, saving.nets.paca, saving.nets.control], PackedLayers())
    expected = run(plain)
    torch.testing.assert_close(run(saving), expected, **CLOSE)
    torch.testing.assert_close(run(saving), expected, **CLOSE)


@pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")
def test_packing_gives_the_plain_weights_up():
    led = made("pasd")
    install([led.nets.unet], PackedLayers())
    run(led)
    assert led.nets.unet.conv_in.weight is None
    assert led.nets.unet.mid_block.resnets[0].conv1.weight is None


@pytest.mark.parametrize("kind", KINDS)
def test_attention_by_rows_computes_the_same(kind, monkeypatch):
    monkeypatch.setattr("srcli.models.patches.row_attention.FEW_KEYS", 1)
    plain, saving = made(kind), made(kind)
    install([saving.nets.unet, saving.nets.paca, saving.nets.control], RowAttention())
    torch.testing.assert_close(run(saving), run(plain), **CLOSE)


@pytest.mark.parametrize("tokens", [513, 1024, 1025, 1500])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_attention_in_rows_is_attention(tokens, dtype, close):
    generator = torch.Generator().manual_seed(tokens)
    query, key, value = (torch.randn(2, 3, tokens, 8, generator=generator).to(dtype) for _ in range(3))
    with torch.inference_mode():
        expected = torch.nn.functional.scaled_dot_product_attention(query.double(), key.double(), value.double())
        torch.testing.assert_close(compute_attention(query, key, value).double(), expected, rtol=close, atol=close)


def test_attention_to_a_longer_or_shorter_context_is_attention():
    query, key, value = torch.randn(1, 2, 300, 8), torch.randn(1, 2, 700, 8), torch.randn(1, 2, 700, 8)
    with torch.inference_mode():
        expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        torch.testing.assert_close(compute_attention(query, key, value), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_any_number_of_tiles_in_a_call_gives_the_same(batch):
    led, (x, hint) = made("pasd"), inputs()
    tiles = [Tile(top, 0, 8, 16) for top in (0, 4, 8)]
    with torch.inference_mode():
        expected = Tiled(led, tiles, 1)(x, T, hint)
        torch.testing.assert_close(Tiled(made("pasd"), tiles, batch)(x, T, hint), expected, **CLOSE)
