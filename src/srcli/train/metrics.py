"""How near a result is to the truth. Pictures are uint8 RGB arrays; all but the names work on luma, 0..255."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.train.degradations import Pixels

Grey = NDArray[np.float64]
BT601 = np.array([0.299, 0.587, 0.114])


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
    a, b = grey(result), grey(truth)
    near, far = (band(a, low, high) / band(b, low, high) for low, high in ((0.25, 0.5), (0.5, 1.0)))
    return Scores(psnr(a, b), ssim(a, b), gmsd(a, b), gradient_energy(a) / gradient_energy(b), near, far)


def grey(pixels: Pixels) -> Grey:
    return np.asarray(pixels @ BT601, np.float64)


def psnr(a: Grey, b: Grey) -> float:
    return float(10 * np.log10(255**2 / max(float(np.mean((a - b) ** 2)), 1e-10)))


def ssim(a: Grey, b: Grey) -> float:
    """Structural similarity with the usual 11x11 Gaussian window of sigma 1.5, inside the border."""

    def blur(x: Grey) -> Grey:
        return np.asarray(cv2.GaussianBlur(x, (11, 11), 1.5)[5:-5, 5:-5], np.float64)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    both = blur(a * b) - mean_a * mean_b
    small, smaller = (0.03 * 255) ** 2, (0.01 * 255) ** 2
    similar = (2 * mean_a * mean_b + smaller) * (2 * both + small)
    return float(np.mean(similar / ((mean_a**2 + mean_b**2 + smaller) * (var_a + var_b + small))))


def gmsd(a: Grey, b: Grey) -> float:
    """Gradient magnitude similarity deviation (Xue et al. 2014): how unevenly edges are wrong."""
    prewitt = np.array([[1.0, 0, -1]] * 3) / 3

    def steepness(x: Grey) -> Grey:
        half = cv2.blur(x, (2, 2), anchor=(0, 0))[::2, ::2]
        dx, dy = cv2.filter2D(half, -1, prewitt), cv2.filter2D(half, -1, prewitt.T)
        return np.asarray(np.sqrt(dx**2 + dy**2))

    one, other = steepness(a), steepness(b)
    return float(np.std((2 * one * other + 170) / (one**2 + other**2 + 170)))


def gradient_energy(a: Grey) -> float:
    return float(np.mean(np.diff(a, axis=0) ** 2) + np.mean(np.diff(a, axis=1) ** 2)) + 1e-9


def band(a: Grey, low: float, high: float) -> float:
    """Spectral power between two radii, as shares of the Nyquist frequency."""
    window = np.outer(np.hanning(a.shape[0]), np.hanning(a.shape[1]))
    power = np.abs(np.fft.fft2((a - a.mean()) * window)) ** 2
    y, x = (np.fft.fftfreq(side) * 2 for side in a.shape)
    radius = np.hypot(y[:, None], x[None])
    return float(power[(radius >= low) & (radius < high)].sum()) + 1e-9
