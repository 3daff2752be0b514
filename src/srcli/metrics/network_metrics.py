"""Metrics that need a network: one row each. `backbone` is the network's entry in weights.lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from srcli.metrics.feature_sets import KID_SUBSET_SIZE, FeatureSet, compute_fid, compute_kid
from srcli.metrics.registry import LOWER

INCEPTION = "inception"


@dataclass(frozen=True, slots=True)
class PerceptualMetric:
    """A distance of one result from its reference, fitted to human judgements."""

    name: str
    title: str
    backbone: str
    distance: Literal["lpips", "dists"]
    heads: str  # the file of the fitted weights, in torchmetrics' functional/image
    protocol: str


@dataclass(frozen=True, slots=True)
class SetMetric:
    """One number for a whole set of results and its references."""

    name: str
    title: str
    backbone: str
    compute: Callable[[FeatureSet, FeatureSet], float]
    protocol: str
    enough: int  # pictures below which the number needs the note
    note: str
    needs_features: bool = False  # of each picture, not only their mean and covariance
    better: str = LOWER
    digits: int = 4


_FEATURES = "Inception of 2015-12-05, pool3's 2048 features; whole pictures, to 299x299 as pytorch-fid does"
SET_METRICS = (
    SetMetric(
        "fid",
        "FID",
        INCEPTION,
        compute_fid,
        _FEATURES,
        2048,
        "FID of fewer than 2,048 pictures is biased",
        digits=3,
    ),
    SetMetric(
        "kid",
        "KID",
        INCEPTION,
        compute_kid,
        f"{_FEATURES}; kernel of degree 3, mean of 100 subsets of 1,000 or of all at once if fewer",
        KID_SUBSET_SIZE,
        "KID of fewer than 1,000 pictures is of all at once, not of subsets",
        needs_features=True,
        digits=6,
    ),
)
PERCEPTUAL_METRICS = (
    PerceptualMetric(
        "lpips-alex",
        "LPIPS (Alex)",
        "alexnet",
        "lpips",
        "lpips_models/alex.pth",
        "version 0.1, AlexNet, RGB at full size, border cropped",
    ),
    PerceptualMetric(
        "lpips-vgg",
        "LPIPS (VGG)",
        "vgg16",
        "lpips",
        "lpips_models/vgg.pth",
        "version 0.1, VGG-16, RGB at full size, border cropped",
    ),
    PerceptualMetric(
        "dists",
        "DISTS",
        "vgg16",
        "dists",
        "dists_models/weights.pt",
        "VGG-16, RGB at full size (not resized to 256), border cropped",
    ),
)
BACKBONES: Mapping[str, str] = MappingProxyType(
    {metric.name: metric.backbone for metric in (*PERCEPTUAL_METRICS, *SET_METRICS)}
)
