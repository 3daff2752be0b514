"""Fill holes with patches of the surrounding picture: PatchMatch (Barnes et al. 2009), from coarse to fine.

Each pixel in or near a hole is matched with the pixel whose patch is most similar to its own. The hole's pixels are
voted by the matches of all pixels nearby, then the matches are searched again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from srcli.imaging.chroma import Floats

PATCH = 7  # side of a patch in pixels
REACH = PATCH // 2
CHUNK = 1 << 14  # patches that are compared at once
SAMPLE = 4096  # random sources that the first matches are chosen from
THIN = 1.5  # most pixels from a hole's middle to its edge on the coarsest level
LEAST = 24  # least pixels of the coarsest level's short side
LEAST_SOURCES = 0.3  # least share of a coarse level with intact patches
SEARCH_ROUNDS = 3  # of search and vote on each level but the finest, which has one
NEAR = 8  # radius in pixels of the random search on the finest level
FAR = 1.0  # cost of a match at the other end of the picture, since lighting changes with distance
UNSURE = 0.1  # weight of filled pixels in comparisons
NEIGHBORS = ((0, 1), (0, -1), (1, 0), (-1, 0))

Mask = NDArray[np.bool_]
PlaceArray = NDArray[np.intp]  # (N, 2): rows and columns


@dataclass(frozen=True)
class Level:
    """The picture and its hole in one size."""

    pixels: Floats  # (H, W, C)
    hole: Mask

    @property
    def shape(self) -> tuple[int, int]:
        return self.hole.shape[0], self.hole.shape[1]


def fill_from_patches(pixels: Floats, hole: Mask, seed: tuple[int, ...]) -> Floats | None:
    """The picture (H, W, C) with its hole filled; None if too little of the picture is intact."""
    levels, rng = list(_shrink(_pad(pixels, hole))), np.random.default_rng(seed)
    filled, matches = _fill_smoothly(levels[-1]), None
    for level in reversed(levels):
        search = _Search.over(level)
        if search is None:
            if level is levels[0] or matches is not None:
                return None
            continue
        if matches is None:
            start = search.choose(filled, rng)
        else:
            start = search.enlarge(matches, rng)
            filled = search.vote(level.pixels, start)
        finest = level is levels[0] and matches is not None
        for _ in range(1 if finest else SEARCH_ROUNDS):
            start = search.improve(filled, start, rng, NEAR if finest else max(level.shape) // 2)
            filled = search.vote(level.pixels, start)
        matches = np.full((*level.shape, 2), -1, np.intp)
        matches[search.places[:, 0], search.places[:, 1]] = start
    return filled[REACH:-REACH, REACH:-REACH] if search is not None else None


def _pad(pixels: Floats, hole: Mask) -> Level:
    """Pad by reflection, so that pixels at the edges have patches."""
    sides = ((REACH, REACH), (REACH, REACH))
    return Level(np.pad(pixels, (*sides, (0, 0)), "reflect"), np.pad(hole, sides, "reflect"))


def _shrink(level: Level) -> Iterator[Level]:
    """The level and smaller ones, until the hole is THIN."""
    yield level
    depth = cv2.distanceTransform(level.hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5).max()
    while depth > THIN and min(level.shape) // 2 >= LEAST:
        level, depth = _halve(level), depth / 2
        if _find_sources(level).mean() < LEAST_SOURCES:
            return
        yield level


def _halve(level: Level) -> Level:
    """Half the size. A pixel is the mean of its intact pixels; it is a hole if less than half of them are."""
    height, width = level.shape
    size = ((width + 1) // 2, (height + 1) // 2)
    known = (~level.hole).astype(np.float32)
    share = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
    total = cv2.resize(level.pixels * known[..., None], size, interpolation=cv2.INTER_AREA)
    total = total.reshape(*total.shape[:2], -1)
    return Level(np.asarray(total / np.maximum(share, 1e-6)[..., None], np.float32), share < 0.5)


def _fill_smoothly(level: Level) -> Floats:
    """A first estimate by OpenCV's inpainting."""
    rough = np.rint(level.pixels * 255).clip(0, 255).astype(np.uint8)
    hole, out = level.hole.astype(np.uint8), level.pixels.copy()
    for c in range(rough.shape[2]):
        plane = cv2.inpaint(np.ascontiguousarray(rough[..., c]), hole, 3, cv2.INPAINT_TELEA)
        out[..., c][level.hole] = plane[level.hole] / np.float32(255)
    return out


def _find_sources(level: Level) -> Mask:
    """Pixels with intact patches."""
    touched = cv2.dilate(level.hole.astype(np.uint8), np.ones((PATCH, PATCH), np.uint8)) > 0
    inside = np.zeros(level.shape, bool)
    inside[REACH:-REACH, REACH:-REACH] = True
    inside &= ~touched
    return inside


@dataclass(frozen=True)
class _Search:
    """The search on one level."""

    level: Level
    places: PlaceArray  # pixels whose patches touch the hole
    index: NDArray[np.intp]  # (H, W): index of a pixel in `places`, or -1
    allowed: Mask  # (H, W): pixels with intact patches
    sources: PlaceArray

    @classmethod
    def over(cls, level: Level) -> _Search | None:
        """The search on this level; None if there are no sources or no places."""
        allowed, inside = _find_sources(level), np.zeros(level.shape, bool)
        inside[REACH:-REACH, REACH:-REACH] = True
        wanted = inside & ~allowed
        places, sources = np.argwhere(wanted), np.argwhere(allowed)
        if len(sources) < PATCH**2 or not len(places):
            return None
        index = np.full(level.shape, -1, np.intp)
        index[wanted] = np.arange(len(places))
        return cls(level, places, index, allowed, sources)

    def draw(self, rng: Generator) -> PlaceArray:
        """Random matches."""
        return self.sources[rng.integers(0, len(self.sources), len(self.places))]

    def choose(self, filled: Floats, rng: Generator) -> PlaceArray:
        """First matches: the best for each place among SAMPLE random sources."""
        drawn = self.sources[rng.permutation(len(self.sources))[:SAMPLE]]
        offsets, best = _patch_offsets(self.level.shape[1]), np.empty(len(self.places), np.intp)
        flat, weights = filled.reshape(-1, filled.shape[2]), self._weight().ravel()
        there = flat[(drawn @ (self.level.shape[1], 1))[:, None] + offsets]
        square = (there**2).sum(2).T
        there = there.reshape(len(drawn), -1).T
        for part in _chunks(np.arange(len(self.places)), 1024):
            here = (self.places[part] @ (self.level.shape[1], 1))[:, None] + offsets
            weight = weights[here]
            cost = weight @ square - 2 * (flat[here] * weight[..., None]).reshape(len(part), -1) @ there
            far = np.abs(self.places[part, None] - drawn).sum(2) * np.float32(FAR / max(self.level.shape))
            best[part] = (cost + far).argmin(1)
        return drawn[best]

    def _weight(self) -> Floats:
        return np.where(self.level.hole, np.float32(UNSURE), np.float32(1))

    def enlarge(self, matches: NDArray[np.intp], rng: Generator) -> PlaceArray:
        """The matches of the coarser level, scaled to this one; random where these are not allowed."""
        coarse = np.minimum(self.places // 2, np.array(matches.shape[:2]) - 1)
        previous = matches[coarse[:, 0], coarse[:, 1]]
        scaled = self._inside(2 * previous + self.places % 2)
        bad = (previous[:, 0] < 0) | ~self.allowed[scaled[:, 0], scaled[:, 1]]
        scaled[bad] = self.draw(rng)[bad]
        return scaled

    def improve(self, filled: Floats, matches: PlaceArray, rng: Generator, radius: int) -> PlaceArray:
        """Improve matches: propagate those of neighbours, then search at random within a shrinking radius."""
        matches, weight = matches.copy(), self._weight()
        cost = self._compare(filled, weight, matches)
        for candidates in self._candidates(matches, rng, radius):
            ok = self.allowed[candidates[:, 0], candidates[:, 1]]
            tried = self._compare(filled, weight, candidates, np.flatnonzero(ok))
            better = tried < cost
            matches[better], cost[better] = candidates[better], tried[better]
        return matches

    def _candidates(self, matches: PlaceArray, rng: Generator, radius: int) -> Iterator[PlaceArray]:
        """Candidates, each computed from the current matches."""
        for step in NEIGHBORS:
            near = self.index[self.places[:, 0] + step[0], self.places[:, 1] + step[1]]
            yield self._inside(np.where(near[:, None] >= 0, matches[near] - step, matches))
        while radius >= 1:
            yield self._inside(matches + rng.integers(-radius, radius + 1, matches.shape))
            radius //= 3

    def _inside(self, places: PlaceArray) -> PlaceArray:
        height, width = self.level.shape
        return np.clip(places, REACH, (height - 1 - REACH, width - 1 - REACH))

    def _compare(
        self, filled: Floats, weight: Floats, matches: PlaceArray, which: NDArray[np.intp] | None = None
    ) -> Floats:
        """The cost of each place's match; infinite for places that are not in `which`."""
        width, offsets = self.level.shape[1], _patch_offsets(self.level.shape[1])
        flat, weights = filled.reshape(-1, filled.shape[2]), weight.ravel()
        cost = np.full(len(matches), np.inf, np.float32)
        for part in _chunks(np.arange(len(matches)) if which is None else which):
            here = (self.places[part] @ (width, 1))[:, None] + offsets
            there = (matches[part] @ (width, 1))[:, None] + offsets
            off = flat[here] - flat[there]
            cost[part] = np.einsum("nkc,nkc,nk->n", off, off, weights[here]) + self._penalty(part, matches[part])
        return cost

    def _penalty(self, part: NDArray[np.intp], matches: PlaceArray) -> Floats:
        far = np.abs(self.places[part] - matches).sum(1)
        return np.asarray(far * np.float32(FAR / max(self.level.shape)), np.float32)

    def vote(self, pixels: Floats, matches: PlaceArray) -> Floats:
        """The picture with each pixel of the hole as the mean of the matches of all pixels nearby."""
        height, width = self.level.shape
        flat, offsets = pixels.reshape(-1, pixels.shape[2]), _patch_offsets(width)
        total, count = np.zeros((height * width, pixels.shape[2])), np.zeros(height * width)
        for step in offsets:
            here, there = self.places @ (width, 1) + step, matches @ (width, 1) + step
            total[here] += flat[there]  # `here` has no duplicates
            count[here] += 1
        out, hole = pixels.copy(), self.level.hole & (count > 0).reshape(height, width)
        out[hole] = (total / np.maximum(count, 1)[:, None]).reshape(pixels.shape)[hole]
        return out


def _patch_offsets(width: int) -> NDArray[np.intp]:
    """Offsets from a pixel to those of its patch in the flattened picture."""
    near = np.arange(-REACH, REACH + 1)
    return (near[:, None] * width + near).ravel()


def _chunks(numbers: NDArray[np.intp], size: int = CHUNK) -> Iterator[NDArray[np.intp]]:
    return (numbers[start : start + size] for start in range(0, len(numbers), size))
