"""Features of results and references for the metrics of whole sets. Imports torch only to compute them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.metrics.feature_sets import FeatureSet
from srcli.metrics.network_metrics import SetMetric
from srcli.metrics.sample import Sample

FeaturePair = tuple[NDArray[np.float32], NDArray[np.float32]]  # of a result and of its reference
Extract = Callable[[Sample], FeaturePair]


def load_extractor(path: Path) -> Extract:
    """What computes the features of a sample, from the weights of Inception. Raises WeightsError."""
    import torch

    from srcli.evaluate.perceptual import load_weights
    from srcli.models.inception import Inception

    network = Inception()
    load_weights(network, "inception", path)

    def extract(rgb: NDArray[Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found = network(torch.from_numpy(rgb / np.float32(255)).float().permute(2, 0, 1)[None])
        return np.asarray(found[0].numpy())

    def extract_both(sample: Sample) -> FeaturePair:
        if sample.truth is None:
            raise ValueError("metrics of sets need a truth")
        return extract(sample.result), extract(sample.truth)

    return extract_both


class SetPair:
    """The features of a method's results and of their references, and the metrics of both."""

    def __init__(self, metrics: tuple[SetMetric, ...]) -> None:
        self.metrics = metrics
        self.sets: tuple[FeatureSet, FeatureSet] | None = None

    def add(self, features: FeaturePair) -> None:
        if self.sets is None:
            keep = any(metric.needs_features for metric in self.metrics)
            self.sets = (FeatureSet(len(features[0]), keep=keep), FeatureSet(len(features[1]), keep=keep))
        for known, new in zip(self.sets, features, strict=True):
            known.add(new)

    def measure(self) -> Mapping[str, float]:
        """The value of each metric; none if no picture could be measured."""
        return {} if self.sets is None else {metric.name: metric.compute(*self.sets) for metric in self.metrics}


def describe_small_sets(metrics: Iterable[SetMetric], counts: Iterable[int]) -> list[str]:
    """A note per metric whose sets are smaller than it is meant for."""
    fewest = min(counts)
    return [f"{metric.note}, and these are {fewest:,}" for metric in metrics if 0 < fewest < metric.enough]
