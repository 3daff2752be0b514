"""Maps of uncertainty: for each pixel of a result, the probability that it is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from srcli.engines.calibration import ERROR_LEVELS, OtherVersions, Plane
from srcli.imaging.bands import split_rows
from srcli.imaging.picture import Picture
from srcli.imaging.spill import allocate_array, evict_pages
from srcli.imaging.write import write_picture
from srcli.metrics.matlab import matlab_rows
from srcli.sampling.resume import OnProgress, ResumeState
from srcli.tasks import VERSION, Job

if TYPE_CHECKING:
    from srcli.pipeline import EnginePipeline

MAP_FACTS = ("tool", "task", "engine", "models", "seed", "scale", "map", "input_sha256")
ERROR_WINDOW = 5  # pixels a side over which an error is a mean
SPREAD_WINDOW = 11  # pixels a side over which versions are compared
Levels = NDArray[Any]


@dataclass(frozen=True, slots=True)
class UncertaintyMap:
    """A map: bytes (H, W), 255 for certainly wrong; and facts for the metadata."""

    levels: NDArray[np.uint8]
    facts: Mapping[str, object]
    resume_states: tuple[ResumeState, ...] = ()  # of the versions, needed until the result is written


def write_map(levels: NDArray[np.uint8], provenance: Mapping[str, object], path: Path) -> None:
    """Write a map, with the relevant part of its result's provenance. Raises MachineError."""
    pixels = np.broadcast_to(levels[:, :, None], (*levels.shape, 3))  # a view: three channels without more memory
    facts = {name: value for name, value in provenance.items() if name in MAP_FACTS} | {"is_map": True}
    write_picture(Picture(pixels=pixels, grey=True), path, provenance=facts)


def report_versions(pipeline: EnginePipeline, job: Job, on_progress: OnProgress) -> None:
    """Report, before the first run, how many runs a result and its map take."""
    if job.mapped:
        on_progress(VERSION, 0, len(pipeline.other_versions(job).jobs) + 1)


def map_uncertainty(
    pipeline: EnginePipeline, picture: Picture, job: Job, result: Picture, on_progress: OnProgress
) -> UncertaintyMap:
    """Compute other versions of a result, and from their spread the probability that each pixel is wrong."""
    spread = measure_spread(pipeline, picture, job, result, on_progress)
    calibration = spread.versions.calibration
    levels = allocate_array(spread.squares.shape, np.uint8)
    for rows in split_rows(*levels.shape):
        around = spread.around(rows)
        if calibration is None:
            found = exceed_as_draws(around)
        else:
            found = calibration.find_probability(around, measure_added(picture.pixels, result.pixels, rows))
        levels[rows] = np.rint(255 * found)
        evict_pages(levels)
    return UncertaintyMap(levels, describe_map(spread.versions), spread.resume_states)


@dataclass(frozen=True, slots=True)
class Spread:
    """How much the versions of one result differ."""

    versions: OtherVersions
    squares: Plane  # (H, W): squared differences from the result in levels of 255, summed over the versions
    resume_states: tuple[ResumeState, ...]

    def around(self, rows: slice) -> Plane:
        """The standard deviation of the versions, in levels, averaged around each pixel of these rows."""
        # The difference of two draws has twice the variance of one.
        share = 1 / (2 * len(self.versions.jobs) * self.versions.share**2)
        found = mean_over_window(
            lambda seen: np.sqrt(self.squares[seen] * share), rows, len(self.squares), SPREAD_WINDOW
        )
        evict_pages(self.squares)
        return found


def measure_spread(
    pipeline: EnginePipeline, picture: Picture, job: Job, result: Picture, on_progress: OnProgress
) -> Spread:
    """Compute the other versions, one at a time; only sums are kept."""
    versions, states = pipeline.other_versions(job), list[ResumeState]()
    squares = allocate_array(result.pixels.shape[:2], np.float32)
    squares[:] = 0
    for index, other in enumerate(versions.jobs):
        states.append(pipeline.resume_state(picture, other))
        on_progress(VERSION, index + 1, len(versions.jobs) + 1)
        _add_squares(squares, result.pixels, pipeline.run(picture, other, on_progress, states[-1]).pixels)
    return Spread(versions, squares, tuple(states))


def describe_map(versions: OtherVersions) -> dict[str, object]:
    """Facts for the metadata of the map and its result."""
    return {
        "value": f"probability of a mean error above {ERROR_LEVELS:g} of 255 levels, 255 for 1",
        "versions": len(versions.jobs) + 1,
        "calibrated": versions.calibration is not None,
    }


def _add_squares(squares: Plane, result: Levels, version: Levels) -> None:
    """Add the squared difference of two versions, in levels of 255, averaged over the channels."""
    scale = 255 / np.iinfo(result.dtype).max
    for rows in split_rows(*squares.shape):
        gap = (result[rows].astype(np.float32) - version[rows]) * scale
        squares[rows] += (gap**2).mean(2)
        evict_pages(squares)


def exceed_as_draws(spread: Plane) -> Plane:
    """The probability that result and truth differ by more than ERROR_LEVELS, if both are draws with this spread."""
    ratio = torch.from_numpy(ERROR_LEVELS / (2 * np.maximum(spread, 1e-6)))
    return np.asarray(torch.erfc(ratio).numpy())


def measure_added(source: Levels, result: Levels, rows: slice) -> Plane:
    """Mean difference around each pixel, in levels of 255, between the result and the input enlarged by bicubic."""
    height, width = result.shape[:2]
    top = np.iinfo(result.dtype).max

    def find_difference(seen: slice) -> Plane:
        enlarged = matlab_rows(source, (width, height), seen).clip(0, top)
        return np.asarray(np.abs(result[seen] - enlarged).mean(2) * (255 / top), np.float32)

    return mean_over_window(find_difference, rows, height, ERROR_WINDOW)


def mean_over_window(plane_of: Callable[[slice], Plane], rows: slice, height: int, side: int) -> Plane:
    """Means over squares of `side` pixels, for some rows of a plane that is computed by rows; edges are reflected."""
    seen = slice(max(0, rows.start - side // 2), min(height, rows.stop + side // 2))
    means = cv2.blur(plane_of(seen), (side, side), borderType=cv2.BORDER_REFLECT)
    return np.asarray(means[rows.start - seen.start : rows.stop - seen.start], np.float32)


def measure_error(result: Levels, truth: Levels) -> Plane:
    """What a map predicts: the mean difference from the truth around each pixel, in levels of 255."""
    scale = 255 / np.iinfo(result.dtype).max
    gap = np.abs(result.astype(np.float32) - truth).mean(2) * scale
    return np.asarray(cv2.blur(gap, (ERROR_WINDOW, ERROR_WINDOW), borderType=cv2.BORDER_REFLECT), np.float32)
