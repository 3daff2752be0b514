"""FID and KID: their formulas on given features, and the network against pytorch-fid's on the same weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage import data

from srcli.evaluate.sets import SetPair, describe_small_sets, load_extractor
from srcli.metrics.feature_sets import FeatureSet, compute_fid, compute_kid, estimate_mmd
from srcli.metrics.network_metrics import SET_METRICS
from srcli.metrics.sample import Sample
from srcli.models.inception import Inception


def features(seed, count=40, width=6):
    return np.random.default_rng(seed).random((count, width), np.float32) ** (1 + seed)


def as_set(rows):
    found = FeatureSet(rows.shape[1], keep=True)
    for row in rows:
        found.add(row)
    return found


def test_fid_is_the_frechet_distance_of_means_and_covariances():
    x, y = features(0), features(1)
    one, other = (np.cov(z.astype(np.float64), rowvar=False) for z in (x, y))
    root = np.sqrt(np.linalg.eigvals(one @ other).astype(complex)).sum().real  # not symmetric: another way to the trace
    want = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(one) + np.trace(other) - 2 * root
    assert compute_fid(as_set(x), as_set(y)) == pytest.approx(want, rel=1e-5)
    assert compute_fid(as_set(x), as_set(x)) == pytest.approx(0, abs=1e-9)


def test_fid_of_fewer_pictures_than_features_is_finite():
    few = as_set(features(0, count=3)), as_set(features(1, count=3))
    assert 0 < compute_fid(*few) < 10


def test_kid_is_the_mean_over_pairs_of_different_pictures():
    x, y = features(0, count=7).astype(np.float64), features(1, count=7).astype(np.float64)

    def kernel(a, b):
        return (a @ b / 6 + 1) ** 3

    inside = sum(kernel(z[i], z[j]) for z in (x, y) for i in range(7) for j in range(7) if i != j) / (7 * 6)
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert compute_kid(as_set(x.astype(np.float32)), as_set(y.astype(np.float32))) == pytest.approx(inside - 2 * across)


def test_kid_of_many_pictures_is_over_random_subsets_always_the_same(monkeypatch):
    monkeypatch.setattr("srcli.metrics.feature_sets.KID_SUBSET_SIZE", 10)
    x, y = features(0), features(1)
    found = compute_kid(as_set(x), as_set(y))
    assert found == compute_kid(as_set(x), as_set(y))
    whole = estimate_mmd(x.astype(np.float64), y.astype(np.float64))
    assert found != whole
    assert found == pytest.approx(whole, rel=0.1)


def test_one_picture_has_no_distance_and_a_small_set_is_said():
    sets = SetPair(SET_METRICS)
    assert sets.measure() == {}
    sets.add((features(0)[0], features(1)[0]))
    assert all(math.isnan(value) for value in sets.measure().values())
    assert describe_small_sets(SET_METRICS, [1500, 3000]) == [
        "FID of fewer than 2,048 pictures is biased, and these are 1,500"
    ]
    assert len(describe_small_sets(SET_METRICS, [999])) == 2
    assert describe_small_sets(SET_METRICS, [2048]) == []


def fill_at_random(network):
    """Weights that keep the signal's size, from numpy's generator, so that they are the same everywhere."""
    rng = np.random.default_rng(0)
    for name, x in sorted(network.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue
        values = rng.random(x.numel(), np.float32)
        if x.ndim == 4:
            values = (values * 2 - 1) * (6 / x[0].numel()) ** 0.5
        else:
            values += -0.5 if name.endswith(("bias", "running_mean")) else 0.5
        x.copy_(torch.from_numpy(values).view(x.shape))


def test_features_are_those_of_pytorch_fid(tmp_path):
    """Its version 0.3.0, given these weights, has these features of this picture."""
    with torch.device("meta"):
        network = Inception().eval()
    network.to_empty(device="cpu")
    fill_at_random(network)
    save_file({**network.state_dict(), "fc.bias": torch.zeros(1008)}, tmp_path / "inception.safetensors")
    picture = data.astronaut()[100:172, 200:280]
    (found, _) = load_extractor(tmp_path / "inception.safetensors")(Sample(picture, picture[:8, :8]))
    assert found.shape == (2048,)
    want = [1.6196, 0.01677, 18.38999, 7.11836, 0.31562, 6.53059, 0.45266, 0.57091]
    assert found[::256].tolist() == pytest.approx(want, rel=1e-3, abs=1e-4)
    assert found.mean(dtype=np.float64) == pytest.approx(4.335723, rel=1e-4)
