"""All metrics by name: the function, what it needs, and how to read its values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from srcli.errors import InputError, unknown_word
from srcli.metrics.edges import compute_gmsd, gradient_energy
from srcli.metrics.niqe import BLOCK, compute_niqe
from srcli.metrics.sample import Sample
from srcli.metrics.similarity import MS_SSIM_LEAST_SIDE, compute_psnr, compute_ssim, ms_ssim

HIGHER, LOWER, ONE = "higher", "lower", "nearer 1"
TRUTH, SOURCE = "reference", "input"


@dataclass(frozen=True, slots=True)
class Metric:
    """A number computed from one sample; NaN if the picture is not one that `applies_to` describes."""

    name: str
    title: str
    measure: Callable[[Sample], float]
    better: str
    protocol: str  # details needed to compare the values with others
    needs: str | None = None  # besides the result
    digits: int = 4
    applies_to: str = "every picture"


_Y = "Y of BT.601 as MATLAB's rgb2ycbcr, not rounded"
_LUMA = "full-range luma"
_SCALES = "five scales, each halved by means of 2x2"
_WINDOW = "Gaussian window of 11x11, sigma 1.5, K 0.01 and 0.03"

_ALL = (
    Metric("psnr-y", "PSNR-Y", lambda s: compute_psnr(*s.y), HIGHER, f"{_Y}; peak 255", TRUTH, 2),
    Metric("ssim-y", "SSIM-Y", lambda s: compute_ssim(*s.y), HIGHER, f"{_Y}; {_WINDOW}, inside only", TRUTH),
    Metric("psnr", "PSNR", lambda s: compute_psnr(*s.rgb), HIGHER, "one error over R, G and B; peak 255", TRUTH, 2),
    Metric(
        "ssim", "SSIM", lambda s: compute_ssim(*s.rgb), HIGHER, f"mean over R, G and B; {_WINDOW}, inside only", TRUTH
    ),
    Metric(
        "ms-ssim",
        "MS-SSIM",
        lambda s: ms_ssim(*s.y),
        HIGHER,
        f"{_Y}; {_SCALES}; {_WINDOW}",
        TRUTH,
        applies_to=f"pictures of at least {MS_SSIM_LEAST_SIDE} pixels a side within the border",
    ),
    Metric(
        "gmsd", "GMSD", lambda s: compute_gmsd(*s.luma), LOWER, f"{_LUMA} at half the size, Prewitt, c = 170", TRUTH
    ),
    Metric(
        "gradient",
        "gradient energy",
        lambda s: gradient_energy(s.luma[0]) / gradient_energy(s.luma[1]),
        ONE,
        f"mean squared difference of neighbours in {_LUMA}, as a share of the reference's",
        TRUTH,
        3,
    ),
    Metric(
        "niqe",
        "NIQE",
        lambda s: compute_niqe(s.result_y),
        LOWER,
        "Y of BT.601 as MATLAB's rgb2ycbcr, rounded; the authors' model, blocks of 96x96, two scales",
        digits=3,
        applies_to=f"pictures with two textured blocks of {BLOCK}x{BLOCK} pixels within the border",
    ),
    Metric(
        "consistency",
        "consistency",
        lambda s: s.deviation.psnr,
        HIGHER,
        "PSNR over R, G and B between the input and the result reduced by MATLAB's bicubic; whole picture",
        SOURCE,
        2,
    ),
    Metric(
        "deviation",
        "worst deviation",
        lambda s: s.deviation.worst,
        LOWER,
        "largest difference of a level, 0..255, between the input and the reduced result",
        SOURCE,
        1,
    ),
)
METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _ALL})


def choose_metrics(names: tuple[str, ...], given: frozenset[str]) -> tuple[Metric, ...]:
    """The metrics of these names, or without names all that the given pictures allow. Raises InputError."""
    if not names:
        return tuple(m for m in METRICS.values() if m.needs is None or m.needs in given)
    if unknown := [name for name in names if name not in METRICS]:
        raise unknown_word("`metric`", unknown[0], METRICS)
    for metric in (chosen := tuple(METRICS[name] for name in names)):
        if metric.needs is not None and metric.needs not in given:
            raise InputError(f"{metric.name} needs the {metric.needs}: give --{metric.needs} FOLDER")
    return chosen
