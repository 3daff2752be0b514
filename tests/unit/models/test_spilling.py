"""A VAE whose maps lie on the disk."""

from __future__ import annotations

import pytest
import torch
from tests.golden.cases import ROOT
from tests.golden.pasd_models import vae

from srcli.engines.device import Device
from srcli.engines.latent import Codec
from srcli.models.banded_vae import Bands, Spilling, decode, encode


@pytest.fixture
def net():
    return vae(ROOT / "pasd")


@torch.inference_mode()
def test_maps_on_the_disk_change_no_bit(net):
    z, picture = torch.randn(1, 4, 9, 13), torch.rand(1, 3, 72, 104)
    for run, given in ((decode, z), (encode, picture)):
        assert torch.equal(run(net, given, Spilling(area=300)), run(net, given, Bands(area=300)))


@torch.inference_mode()
def test_maps_leave_with_their_last_user(net):
    bands = Spilling(area=300)
    decode(net, torch.randn(1, 4, 9, 13), bands)
    assert [kept() for kept in bands.maps if kept() is not None] == []


@torch.inference_mode()
def test_a_small_budget_sends_maps_to_the_disk(net, monkeypatch):
    taken = []
    monkeypatch.setattr("srcli.models.banded_vae.spilled", lambda *shape: taken.append(shape) or 1 / 0)
    z = torch.randn(1, 4, 9, 13)
    roomy, scant = (Codec.of(net, Device(torch.device("cpu"), torch.float32, memory)) for memory in (1 << 30, 1 << 20))
    roomy.decode(z)
    assert taken == []
    with pytest.raises(ZeroDivisionError):
        scant.decode(z)
    assert len(taken) == 1
