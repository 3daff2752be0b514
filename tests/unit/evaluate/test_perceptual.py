"""LPIPS and DISTS against torchmetrics' own, both on one network with random weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from skimage import data

from srcli.errors import WeightsError
from srcli.evaluate.perceptual import load_metric, read_backbone, read_heads
from srcli.metrics.network_metrics import PERCEPTUAL_METRICS
from srcli.metrics.sample import Sample
from srcli.models.alexnet import AlexNet
from srcli.models.vgg16 import Vgg16


@pytest.fixture(scope="module")
def vgg():
    torch.manual_seed(0)
    return Vgg16().eval()


@pytest.fixture(scope="module")
def pair():
    truth = data.astronaut()[100:172, 200:280]
    return truth[::-1].copy(), truth


def tensors(pair):
    return [torch.from_numpy(picture / 255).float().permute(2, 0, 1)[None] for picture in pair]


@pytest.fixture(scope="module")
def alexnet():
    torch.manual_seed(0)
    return AlexNet().eval()


def measured(name, network, pair):
    (row,) = (each for each in PERCEPTUAL_METRICS if each.name == name)
    return load_metric(row, network).measure(Sample(*pair))


@pytest.mark.parametrize(("net", "network"), [("vgg", "vgg"), ("alex", "alexnet")])
def test_lpips_is_that_of_torchmetrics(net, network, request, pair, monkeypatch):
    from torchmetrics.functional.image import lpips as theirs

    network = request.getfixturevalue(network)
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda net, pretrained: network.features)
    with torch.inference_mode():
        want = theirs._LPIPS(net=net)(*tensors(pair), normalize=True).item()
    assert want > 0
    assert measured(f"lpips-{net}", network, pair) == pytest.approx(want, abs=1e-4 * want)


def test_dists_is_that_of_torchmetrics(vgg, pair, monkeypatch):
    from torchmetrics.functional.image import dists as theirs

    monkeypatch.setattr(theirs, "_TORCHVISION_AVAILABLE", True)
    monkeypatch.setattr(theirs, "vgg16", lambda weights: vgg, raising=False)
    monkeypatch.setattr(theirs, "VGG16_Weights", SimpleNamespace(DEFAULT=None), raising=False)
    want = theirs.DISTSNetwork()(*tensors(pair)).item()
    assert want > 0
    assert measured("dists", vgg, pair) == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize("row", PERCEPTUAL_METRICS, ids=lambda row: row.name)
def test_equal_pictures_have_no_distance(row, vgg, alexnet, pair):
    network = alexnet if row.name == "lpips-alex" else vgg
    assert measured(row.name, network, (pair[1], pair[1])) == pytest.approx(0, abs=1e-6)


def test_a_backbone_is_read_from_a_classifiers_file(vgg, tmp_path):
    save_file({**vgg.state_dict(), "head.fc.weight": torch.zeros(2, 2)}, tmp_path / "vgg.safetensors")
    read = read_backbone("vgg16", tmp_path / "vgg.safetensors")
    assert torch.equal(read.features[28].weight, vgg.features[28].weight)
    save_file({"features.0.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="other.safetensors does not hold alexnet: run srcli models verify alexnet"):
        read_backbone("alexnet", tmp_path / "other.safetensors")


def test_the_extra_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr("srcli.evaluate.perceptual.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"pip install 'srcli\[metrics\]'"):
        read_heads(PERCEPTUAL_METRICS[-1])
