"""Calibration of the uncertainty map: from spread to the probability that a pixel of the result is wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from srcli.settings import MAP_SEEDS, MAX_SEED
from srcli.tasks import Job

ERROR_LEVELS = 10.0  # of 255: a pixel is wrong if its mean difference from the truth is larger
LEAST_LEVELS = 0.5  # added before taking the logarithm

Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A logistic regression, fitted on degraded pictures whose originals are known.

    `spread` is the coefficient of the difference between versions of the result, `added` that of the difference
    between result and enlarged input; both enter as logarithms of 8-bit levels. `benchmarks/map_calibration.py`
    fits the three numbers.
    """

    offset: float
    spread: float
    added: float

    def find_probability(self, spread: Plane, added: Plane) -> Plane:
        """Probability of an error of more than ERROR_LEVELS, per pixel."""
        logit = self.offset + self.spread * log_levels(spread) + self.added * log_levels(added)
        return np.asarray(1 / (1 + np.exp(-logit)), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherVersions:
    """Jobs that produce other plausible results for the same input, and how to interpret their spread.

    `share`: the part of the full range of versions that these jobs span. Without a calibration the versions are
    treated as samples of the posterior over the original picture.
    """

    jobs: tuple[Job, ...]
    share: float = 1.0
    calibration: Calibration | None = None


def vary_seed(job: Job) -> OtherVersions:
    """For engines that sample: the same job with other seeds."""
    seeds = range(1, job.map_seeds or MAP_SEEDS)
    return OtherVersions(jobs=tuple(without_map(replace(job, seed=(job.seed + n) % (MAX_SEED + 1))) for n in seeds))


def without_map(job: Job) -> Job:
    """The same job without its uncertainty map."""
    return replace(job, mapped=False, map_seeds=None)


def log_levels(levels: Plane) -> Plane:
    return np.asarray(np.log(levels + LEAST_LEVELS), np.float32)
