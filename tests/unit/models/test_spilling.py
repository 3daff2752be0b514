"""A VAE whose maps lie on the disk, give back what has been used of them, or are not kept at all."""

from __future__ import annotations

import pytest
import torch
from tests.golden.cases import ROOT
from tests.golden.pasd_models import vae

from srcli.engines.latent.codec import Codec
from srcli.engines.runtime.device import Device
from srcli.imaging import spill
from srcli.models import row_bands as streams
from srcli.models.banded_vae import decode_in_bands, encode_in_bands
from srcli.models.row_bands import Bands, Spilling


@pytest.fixture
def net():
    return vae(ROOT / "pasd")


@torch.inference_mode()
def test_maps_on_the_disk_change_no_bit(net):
    z, picture = torch.randn(1, 4, 9, 13), torch.rand(1, 3, 72, 104)
    for run, given in ((decode_in_bands, z), (encode_in_bands, picture)):
        assert torch.equal(run(net, given, Spilling(area=300)), run(net, given, Bands(area=300)))


@torch.inference_mode()
def test_maps_that_are_given_back_while_they_are_read_change_no_bit(net, monkeypatch):
    z, picture, given_back = torch.randn(1, 4, 9, 13), torch.rand(1, 3, 72, 104), []
    plain = [run(net, given, Bands(area=300)) for run, given in ((decode_in_bands, z), (encode_in_bands, picture))]
    monkeypatch.setattr(spill, "LEAST_MAPPING", 1)
    monkeypatch.setattr(
        streams, "reclaim_start", lambda array, size: given_back.append(size) or spill.reclaim_start(array, size)
    )
    assert torch.equal(decode_in_bands(net, z, Bands(area=300)), plain[0])
    assert torch.equal(encode_in_bands(net, picture, Bands(area=300)), plain[1])
    assert max(given_back) > 4096


@torch.inference_mode()
@pytest.mark.parametrize("lean", [True, False])
@pytest.mark.parametrize("count", [1, 2])
def test_kept_or_worked_out_again_it_is_the_stock_result(net, lean, count):
    z, picture = torch.randn(count, 4, 9, 13), torch.rand(count, 3, 72, 104)
    torch.testing.assert_close(
        decode_in_bands(net, z, Bands(300, lean=lean)), net.decode(z).sample, rtol=1e-4, atol=1e-4
    )
    moments = net.encode(picture).latent_dist.parameters
    torch.testing.assert_close(encode_in_bands(net, picture, Bands(300, lean=lean)), moments, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_maps_leave_with_their_last_user(net):
    bands = Spilling(area=300)
    decode_in_bands(net, torch.randn(1, 4, 9, 13), bands)
    assert [kept() for kept in bands.maps if kept() is not None] == []


@torch.inference_mode()
def test_a_small_budget_sends_maps_to_the_disk(net, monkeypatch):
    taken = []
    monkeypatch.setattr("srcli.models.row_bands.allocate_in_file", lambda *shape: taken.append(shape) or 1 / 0)
    z = torch.randn(1, 4, 9, 13)
    roomy, scant = (Codec.of(net, Device(torch.device("cpu"), torch.float32, memory)) for memory in (1 << 30, 1 << 20))
    roomy.decode(z)
    assert taken == []
    with pytest.raises(ZeroDivisionError):
        scant.decode(z)
    assert len(taken) == 1


@torch.inference_mode()
def test_devices_without_the_swift_statistics_find_the_same(net, monkeypatch):
    z = torch.randn(1, 4, 9, 13)
    swift = decode_in_bands(net, z, Bands(area=300))
    monkeypatch.setattr(streams, "FAST_STATISTICS", ())
    torch.testing.assert_close(decode_in_bands(net, z, Bands(area=300)), swift, rtol=1e-4, atol=1e-5)
