"""The scratch detector against the official program: its parts, the network, sizes, and whole pictures."""

from __future__ import annotations

import json
from functools import cache

import cv2
import numpy as np
import torch
from tests.golden.cases import ROOT, Case, each, off_by
from tests.golden.test_ddcolor import outputs
from torch.nn import functional as F

from srcli.engines.runtime.device import Device
from srcli.imaging.resize import resize_array
from srcli.models.scratch_detector import BlurDown, DetectorShape, ScratchDetector, fold_norms
from srcli.repair import find_damage
from srcli.repair.find_damage import (
    DamageFinder,
    find_network_size,
    prepare_detector_input,
    read_detector,
    round_to_unit,
)

NETWORK = 2e-5
ANSWER = 3e-4  # the last layer cancels: the official answers are themselves 7e-5 from those of 64-bit arithmetic
LIKE_OURS = 0.001  # of a mask's pixels may differ: so many probabilities are that close to the threshold
MODEL = ROOT / "scratch" / "tiny" / "model.safetensors"


@cache
def network() -> ScratchDetector:
    return read_detector(MODEL)


@cache
def finder() -> DamageFinder:
    return DamageFinder(fold_norms(read_detector(MODEL)), Device(torch.device("cpu"), torch.float32), {})


@each("scratch", "s01*")
def test_blur_and_reduction(case: Case) -> None:
    for size in case.groups(".input"):
        part = BlurDown(3)
        row = torch.tensor([1.0, 2.0, 1.0])
        part.filt = (row[:, None] * row / 16).expand(3, 1, 3, 3)
        assert off_by(part(case.tensors[f"{size}.input"]), case.tensors[f"{size}.output"]) < NETWORK


@each("scratch", "s02*")
def test_network(case: Case) -> None:
    net = network()
    parts = {"first": net.first}
    for i in range(4):
        parts |= {f"down{i}.sample": net.down_sample[i], f"down{i}.block": net.down_path[i].block}
        parts |= {f"up{i}.up": net.up_path[i].up, f"up{i}.block": net.up_path[i].conv_block.block}
    with outputs(parts) as seen:
        seen["logits"] = net(case.tensors["input"])
    for name in case.tensors.keys() - {"input"}:
        assert off_by(seen[name], case.tensors[name]) < (ANSWER if name == "logits" else NETWORK), name
    assert off_by(finder().network(case.tensors["input"]), case.tensors["logits"]) < ANSWER


@each("scratch", "s03*")
def test_sizes(case: Case) -> None:
    found = [entry for entry in json_list(case) if "fails" not in entry["full_size"]]
    assert len(found) > 10
    for entry in found:
        width, height = entry["width"], entry["height"]
        resized = [round_to_unit(width), round_to_unit(height)]
        assert resized == entry["full_size"]["resized"]
        if entry["full_size"]["network"]:
            assert list(find_network_size(*resized, 256)) == entry["full_size"]["network"]
        if entry["scale_256"]["network"]:
            assert list(find_network_size(width, height, 256)) == entry["scale_256"]["network"]


def json_list(case: Case) -> list[dict]:
    return json.loads(case.file(".json").read_text())


@each("scratch", "s04*")
def test_whole_pictures(case: Case) -> None:
    """Ours looks at the picture itself; the official program first brings its sides to multiples of 16."""
    given, want = case.tensors["input_u8"].numpy(), case.tensors
    size = (want["resized_u8"].shape[1], want["resized_u8"].shape[0])
    resized = resize_array(given, size)
    np.testing.assert_array_equal(resized, want["resized_u8"].numpy())
    seen = prepare_detector_input(find_damage.reduce_to_grey(resized), 256)
    if "network_input" in want:
        assert off_by(torch.from_numpy(seen)[None, None], want["network_input"]) < NETWORK
    probability = torch.from_numpy(finder().predict(seen))[None, None]
    assert off_by(probability, want["prob"]) < ANSWER
    near = (F.interpolate(probability, size[::-1]) >= 0.4)[0, 0].numpy()
    assert (near != want["mask_u8"].numpy().astype(bool)).mean() < LIKE_OURS
    grown = cv2.dilate(near.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=3)
    assert (grown.astype(bool) != want["mask_hr_u8"].numpy().astype(bool)).mean() < 49 * LIKE_OURS


def test_windows_change_nothing(monkeypatch) -> None:
    seen = np.random.default_rng(0).uniform(-1, 1, (32, 1600)).astype(np.float32)
    exact = DamageFinder(fold_norms(read_detector(MODEL).double()), Device(torch.device("cpu"), torch.float64), {})
    wide, tall = exact.predict(seen), exact.predict(seen.T)
    monkeypatch.setattr(find_damage, "DETECTOR_WINDOW", 4096)
    np.testing.assert_allclose(exact.predict(seen), wide, atol=1e-6)
    np.testing.assert_allclose(exact.predict(seen.T), tall, atol=1e-6)


@each("scratch", "*.keys", "manifest")
def test_full_size_keys(case: Case) -> None:
    """Every tensor of the official file has its place, in the right shape, and nothing is left over."""
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in case.notes.items()}
        shape = DetectorShape.from_state(state)
        own = ScratchDetector(shape).state_dict()
    assert shape == DetectorShape()
    assert {name: tensor.shape for name, tensor in own.items()} == {n: t.shape for n, t in state.items()}


@each("scratch", "summary", "manifest")
def test_full_size_counts(case: Case) -> None:
    with torch.device("meta"):
        network = ScratchDetector(DetectorShape())
    assert len(network.state_dict()) == case.notes["tensors"]
    assert sum(weight.numel() for weight in network.parameters()) == case.notes["parameters"]
