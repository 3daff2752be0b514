"""All metrics by name: one function each, with what it needs and how its numbers are to be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from srcli.errors import InputError
from srcli.metrics.edges import compute_gmsd, gradient_energy
from srcli.metrics.niqe import compute_niqe
from srcli.metrics.sample import Sample
from srcli.metrics.similarity import compute_psnr, compute_ssim, ms_ssim

HIGHER, LOWER, ONE = "higher", "lower", "nearer 1"
TRUTH, SOURCE = "reference", "input"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number that is found of one sample. NaN where a picture is too small for it."""

    name: str
    title: str
    measure: Callable[[Sample], float]
    better: str
    protocol: str  # what has to be known to compare its numbers with others
    needs: str | None = None  # besides the result
    digits: int = 4


def _gradient_share(sample: Sample) -> float:
    return gradient_energy(sample.luma[0]) / gradient_energy(sample.luma[1])


_Y = "Y of BT.601 as MATLAB's rgb2ycbcr, not rounded"
_WINDOW = "Gaussian window of 11x11, sigma 1.5, K 0.01 and 0.03"

_ALL = (
    Metric(
        name="psnr-y",
        title="PSNR-Y",
        measure=lambda s: compute_psnr(*s.y),
        better=HIGHER,
        needs=TRUTH,
        digits=2,
        protocol=f"{_Y}; peak 255",
    ),
    Metric(
        name="ssim-y",
        title="SSIM-Y",
        measure=lambda s: compute_ssim(*s.y),
        better=HIGHER,
        needs=TRUTH,
        protocol=f"{_Y}; {_WINDOW}, inside only",
    ),
    Metric(
        name="psnr",
        title="PSNR",
        measure=lambda s: compute_psnr(*s.rgb),
        better=HIGHER,
        needs=TRUTH,
        digits=2,
        protocol="one error over R, G and B; peak 255",
    ),
    Metric(
        name="ssim",
        title="SSIM",
        measure=lambda s: compute_ssim(*s.rgb),
        better=HIGHER,
        needs=TRUTH,
        protocol=f"mean over R, G and B; {_WINDOW}, inside only",
    ),
    Metric(
        name="ms-ssim",
        title="MS-SSIM",
        measure=lambda s: ms_ssim(*s.y),
        better=HIGHER,
        needs=TRUTH,
        protocol=f"{_Y}; five scales, each halved by means of 2x2; {_WINDOW}",
    ),
    Metric(
        name="gmsd",
        title="GMSD",
        measure=lambda s: compute_gmsd(*s.luma),
        better=LOWER,
        needs=TRUTH,
        protocol="full-range luma at half the size, Prewitt, c = 170",
    ),
    Metric(
        name="gradient",
        title="gradient energy",
        measure=_gradient_share,
        better=ONE,
        needs=TRUTH,
        digits=3,
        protocol="mean squared difference of neighbours in full-range luma, as a share of the reference's",
    ),
    Metric(
        name="niqe",
        title="NIQE",
        measure=lambda s: compute_niqe(s.result_y),
        better=LOWER,
        digits=3,
        protocol="Y of BT.601 as MATLAB's rgb2ycbcr, rounded; the authors' model, blocks of 96x96, two scales",
    ),
    Metric(
        name="consistency",
        title="consistency",
        measure=lambda s: s.deviation.psnr,
        better=HIGHER,
        needs=SOURCE,
        digits=2,
        protocol="PSNR over R, G and B between the input and the result reduced by MATLAB's bicubic; whole picture",
    ),
    Metric(
        name="deviation",
        title="worst deviation",
        measure=lambda s: s.deviation.worst,
        better=LOWER,
        needs=SOURCE,
        digits=1,
        protocol="largest difference of a level, 0..255, between the input and the reduced result",
    ),
)
METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _ALL})


def choose_metrics(names: tuple[str, ...], given: frozenset[str]) -> tuple[Metric, ...]:
    """The metrics of these names; of none, all that can be found from what is given. Raises InputError."""
    if not names:
        return tuple(m for m in METRICS.values() if m.needs is None or m.needs in given)
    if unknown := [name for name in names if name not in METRICS]:
        raise InputError(f"no metric named {unknown[0]!r}: choose of {', '.join(METRICS)}")
    for metric in (chosen := tuple(METRICS[name] for name in names)):
        if metric.needs is not None and metric.needs not in given:
            raise InputError(f"{metric.name} needs the {metric.needs}: give --{metric.needs} FOLDER")
    return chosen
