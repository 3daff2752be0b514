"""Spread colour from strokes along similar luminance, by geodesic distances (Yatziv and Sapiro 2006).

The distance of a colour from a pixel is the least cost of a path from one of its strokes; a path costs the changes of
L along it. A pixel blends the colours by distance; pixels that are far from all colours are not changed.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.imaging.chroma import Floats

COLORS = 16  # most different colours
BIN = 8.0  # initial bin width of a and b, within which colours are merged
GRAIN = 1.0  # sigma in pixels of the blur of L
LUMINANCE_NOISE = 1.0  # differences of L up to this, or up to the picture's median, cost nothing
ACROSS = 6.0  # cost of crossing a uniform picture
FADING_COST = 24.0  # cost at which a colour has faded out; it begins to fade at half of it
FALL = 4  # power of the distance in a colour's weight
ROUNDS, CLOSE_ENOUGH = 40, 0.05


def spread_strokes(lightness: Floats, values: Floats, strokes: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """The strokes' values (h, w, 2), spread to every pixel, and their confidence (h, w, 1) in 0..1."""
    colors, labels = group_colors(values[strokes])
    distances = np.full((len(colors), *lightness.shape), np.float32(np.inf))
    distances[labels, *np.nonzero(strokes)] = 0
    distances = measure_geodesic_distances(*_costs(lightness), distances)
    nearest = distances.min(0)
    shares = ((nearest + LUMINANCE_NOISE) / (distances + LUMINANCE_NOISE)) ** FALL
    blended = np.tensordot(shares, colors, (0, 0)) / shares.sum(0)[..., None]
    confidence = np.clip(2 - 2 * nearest / FADING_COST, 0, 1)
    return blended.astype(np.float32), confidence[..., None].astype(np.float32)


def group_colors(values: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """At most COLORS mean colours, and the index of each value's colour."""
    width = BIN
    while True:
        _, labels = np.unique(np.rint(values / width), axis=0, return_inverse=True)
        count = int(labels.max()) + 1
        if count <= COLORS:
            break
        width *= 1.5
    sums: Floats = np.zeros((count, values.shape[1]), np.float32)
    np.add.at(sums, labels, values)
    return (sums / np.bincount(labels)[:, None]).astype(np.float32), labels


def _costs(lightness: Floats) -> tuple[Floats, Floats]:
    """The costs of a step down and of a step to the right, for each pixel."""
    smooth = cv2.GaussianBlur(lightness, (0, 0), GRAIN, borderType=cv2.BORDER_REPLICATE)
    steps = [np.abs(np.diff(smooth, axis=axis)) for axis in (0, 1)]
    flat = np.concatenate([step.ravel() for step in steps])
    usual = max(LUMINANCE_NOISE, float(np.median(flat))) if flat.size else LUMINANCE_NOISE
    down, right = (np.maximum(step - usual, 0) + np.float32(ACROSS / sum(lightness.shape)) for step in steps)
    return down, right


def measure_geodesic_distances(down: Floats, right: Floats, distances: Floats) -> Floats:
    """The least cost of a path to each pixel of (c, h, w) from the pixels with 0, by alternating sweeps."""
    along_rows = np.cumsum(np.pad(right, ((0, 0), (1, 0))), 1, dtype=np.float32)
    along_columns = np.cumsum(np.pad(down, ((1, 0), (0, 0))), 0, dtype=np.float32)
    for _ in range(ROUNDS):
        before = distances
        distances = _shorten(_shorten(distances, along_columns, 1), along_rows, 2)
        if bool((before - CLOSE_ENOUGH <= distances).all()):
            break
    return distances


def _shorten(distances: Floats, along: Floats, axis: int) -> Floats:
    """Relax distances along an axis in both directions; `along`: cumulative cost from its beginning."""
    forth = np.minimum.accumulate(distances - along, axis) + along
    back = np.flip(np.minimum.accumulate(np.flip(distances + along, axis), axis), axis) - along
    return np.minimum(np.minimum(forth, back), distances)
