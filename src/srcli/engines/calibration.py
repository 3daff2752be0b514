"""How a map of uncertainty is read: as the probability that a place of the result is wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from srcli.settings import MAP_SEEDS, MAX_SEED
from srcli.tasks import Job

ERROR_LEVELS = 10.0  # of 255: a place is wrong where its mean difference from the truth is larger
LEAST_LEVELS = 0.5  # added before a logarithm is taken

Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A logistic regression on degraded pictures whose truth is known.

    `spread` weighs how far versions of the result are apart, `added` how far the result is from the enlarged input;
    both enter as logarithms of levels. `benchmarks/map_calibration.py` finds the three numbers.
    """

    offset: float
    spread: float
    added: float

    def find_probability(self, spread: Plane, added: Plane) -> Plane:
        """Of an error of more than ERROR_LEVELS."""
        logit = self.offset + self.spread * log_levels(spread) + self.added * log_levels(added)
        return np.asarray(1 / (1 + np.exp(-logit)), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherVersions:
    """Other results that the input allows as well: jobs that make them, and how to read their spread.

    `share`: how much of the range of all versions lies between the result and these. Without a calibration the
    versions are taken for draws from the pictures that the truth may be.
    """

    jobs: tuple[Job, ...]
    share: float = 1.0
    calibration: Calibration | None = None


def vary_seed(job: Job) -> OtherVersions:
    """The versions of an engine that samples."""
    seeds = range(1, job.map_seeds or MAP_SEEDS)
    return OtherVersions(jobs=tuple(without_map(replace(job, seed=(job.seed + n) % (MAX_SEED + 1))) for n in seeds))


def without_map(job: Job) -> Job:
    """The same job, where only its result is wanted."""
    return replace(job, mapped=False, map_seeds=None)


def log_levels(levels: Plane) -> Plane:
    return np.asarray(np.log(levels + LEAST_LEVELS), np.float32)
