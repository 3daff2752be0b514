"""Colour spread from strokes: as far as luminance stays the same (Yatziv and Sapiro 2006).

Each colour is as far from a pixel as the cheapest way there from one of its strokes, and a way costs what L changes on
it. A pixel blends the colours that are near; what all of them are far from stays as it was.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.imaging.chroma import Floats

COLORS = 16  # that are told apart
BIN = 8.0  # of a and b, in which colours are the same, at first
GRAIN = 1.0  # deviation of the blur under which L is looked at
LUMINANCE_NOISE = 1.0  # of L: differences between neighbours below it, or below the picture's usual one, cost nothing
ACROSS = 6.0  # what it costs to cross a picture in which nothing changes
FADING_COST = 24.0  # cost at which a colour has faded away; it begins to fade at half of it
FALL = 4  # power of the distance by which a colour's share falls
ROUNDS, CLOSE_ENOUGH = 40, 0.05


def spread_strokes(lightness: Floats, values: Floats, strokes: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Values (h, w, 2) of the strokes for every pixel, and how far each is to be trusted, (h, w, 1) in 0..1."""
    colors, labels = group_colors(values[strokes])
    distances = np.full((len(colors), *lightness.shape), np.float32(np.inf))
    distances[labels, *np.nonzero(strokes)] = 0
    distances = measure_ways(*_costs(lightness), distances)
    nearest = distances.min(0)
    shares = ((nearest + LUMINANCE_NOISE) / (distances + LUMINANCE_NOISE)) ** FALL
    blended = np.tensordot(shares, colors, (0, 0)) / shares.sum(0)[..., None]
    confidence = np.clip(2 - 2 * nearest / FADING_COST, 0, 1)
    return blended.astype(np.float32), confidence[..., None].astype(np.float32)


def group_colors(values: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Colours that are told apart, and which of them each value is one of."""
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
    """Of a step down and of a step to the right."""
    smooth = cv2.GaussianBlur(lightness, (0, 0), GRAIN, borderType=cv2.BORDER_REPLICATE)
    steps = [np.abs(np.diff(smooth, axis=axis)) for axis in (0, 1)]
    flat = np.concatenate([step.ravel() for step in steps])
    usual = max(LUMINANCE_NOISE, float(np.median(flat))) if flat.size else LUMINANCE_NOISE
    down, right = (np.maximum(step - usual, 0) + np.float32(ACROSS / sum(lightness.shape)) for step in steps)
    return down, right


def measure_ways(down: Floats, right: Floats, distances: Floats) -> Floats:
    """The least cost of a way to each pixel of (c, h, w) from where it is 0, over steps that cost so much."""
    along_rows = np.cumsum(np.pad(right, ((0, 0), (1, 0))), 1, dtype=np.float32)
    along_columns = np.cumsum(np.pad(down, ((1, 0), (0, 0))), 0, dtype=np.float32)
    for _ in range(ROUNDS):
        before = distances
        distances = _shorten(_shorten(distances, along_columns, 1), along_rows, 2)
        if bool((before - CLOSE_ENOUGH <= distances).all()):
            break
    return distances


def _shorten(distances: Floats, along: Floats, axis: int) -> Floats:
    """With straight ways along an axis, both ways; `along`: the cost from its beginning."""
    forth = np.minimum.accumulate(distances - along, axis) + along
    back = np.flip(np.minimum.accumulate(np.flip(distances + along, axis), axis), axis) - along
    return np.minimum(np.minimum(forth, back), distances)
