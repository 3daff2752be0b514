"""FID and KID: distances of two whole sets of pictures, by their features."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from srcli.metrics.similarity import FloatArray

KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
KID_SEED = 2020  # torch-fidelity's


class FeatureSet:
    """The sums that mean and covariance follow from; the features themselves only where a metric draws from them."""

    def __init__(self, width: int, *, keep: bool) -> None:
        self.count = 0
        self._sum = np.zeros(width)
        self._products = np.zeros((width, width))
        self._kept: list[NDArray[np.float32]] | None = [] if keep else None

    def add(self, features: NDArray[np.float32]) -> None:
        """Count the features of one more picture."""
        exact = features.astype(np.float64)
        self.count += 1
        self._sum += exact
        self._products += np.outer(exact, exact)
        if self._kept is not None:
            self._kept.append(features)

    @property
    def mean(self) -> FloatArray:
        return self._sum / self.count

    @property
    def covariance(self) -> FloatArray:
        """Unbiased; of two pictures at least."""
        found: FloatArray = (self._products - np.outer(self._sum, self.mean)) / (self.count - 1)
        return found

    @property
    def features(self) -> FloatArray:
        """A row per picture."""
        return np.array(self._kept, np.float64)


def compute_fid(one: FeatureSet, other: FeatureSet) -> float:
    """Heusel et al. 2017: the Fréchet distance of two normal distributions. NaN below two pictures."""
    if min(one.count, other.count) < 2:
        return math.nan
    first, second = one.covariance, other.covariance
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(values.clip(0))  # root @ root.T is the first covariance
    shared = np.linalg.eigvalsh(root.T @ second @ root).clip(0)  # the eigenvalues of first @ second
    gap = np.square(one.mean - other.mean).sum()
    return float(gap + np.trace(first) + np.trace(second) - 2 * np.sqrt(shared).sum())


def compute_kid(one: FeatureSet, other: FeatureSet) -> float:
    """Binkowski et al. 2018: the mean over random subsets; over all at once where they are fewer than a subset."""
    if min(one.count, other.count) < 2:
        return math.nan
    x, y = one.features, other.features
    if min(len(x), len(y)) <= KID_SUBSET_SIZE:
        return estimate_mmd(x, y)
    rng = np.random.RandomState(KID_SEED)
    found = []
    for _ in range(KID_SUBSETS):
        part = x[rng.choice(len(x), KID_SUBSET_SIZE, replace=False)]
        found.append(estimate_mmd(part, y[rng.choice(len(y), KID_SUBSET_SIZE, replace=False)]))
    return float(np.mean(found))


def estimate_mmd(x: FloatArray, y: FloatArray) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy, with a polynomial kernel of degree 3."""
    inside = sum(_sum_kernel(z, z, pairs_only=True) / (len(z) * (len(z) - 1)) for z in (x, y))
    return float(inside - 2 * _sum_kernel(x, y) / (len(x) * len(y)))


def _sum_kernel(x: FloatArray, y: FloatArray, *, pairs_only: bool = False) -> float:
    kernel = (x @ y.T / x.shape[1] + 1) ** 3
    return float(kernel.sum() - (np.trace(kernel) if pairs_only else 0))
