"""The scores that a training writes down. Pictures are uint8 RGB arrays."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from srcli.metrics.edges import band_energy, gmsd, gradient_energy, luma
from srcli.metrics.similarity import psnr, ssim
from srcli.train.degradations import Pixels


@dataclass(frozen=True, slots=True)
class Scores:
    """PSNR and SSIM (higher is better), GMSD (lower), and energies as shares of the truth's (1 is right)."""

    psnr: float
    ssim: float
    gmsd: float
    gradient: float
    near: float
    far: float

    @classmethod
    def mean(cls, scores: Sequence["Scores"]) -> "Scores":
        return cls(*(float(np.mean(column)) for column in zip(*map(astuple, scores), strict=True)))


def compare(result: Pixels, truth: Pixels) -> Scores:
    """On luma over the full range, to the border: not the protocol of published tables, which `evaluate` has."""
    a, b = luma(result), luma(truth)
    near, far = (band_energy(a, low, high) / band_energy(b, low, high) for low, high in ((0.25, 0.5), (0.5, 1.0)))
    return Scores(psnr(a, b), ssim(a, b), gmsd(a, b), gradient_energy(a) / gradient_energy(b), near, far)
