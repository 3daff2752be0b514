"""Holes filled with pieces of the picture around them: PatchMatch (Barnes et al. 2009), from coarse to fine.

Each pixel in or near a hole gets the place whose surroundings look most like its own (its match). What a hole shows is
voted by the matches of all pixels near it, then the matches are sought again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from srcli.imaging.chroma import Floats

PATCH = 7  # pixels across
REACH = PATCH // 2
CHUNK = 1 << 14  # pixels whose surroundings are compared at once
SAMPLE = 4096  # places that the first matches are chosen from
THIN = 1.5  # pixels from a hole's middle to its edge on the coarsest level
LEAST = 24  # pixels of the coarsest level's short side
LEAST_SOURCES = (
    0.3  # share of a coarse level whose surroundings are whole: with less there is too little to choose from
)
SEARCH_ROUNDS = 3  # of search and vote on each level but the finest, which has one
NEAR = 8  # pixels within which better matches are sought at random on the finest level
FAR = 1.0  # added to a comparison for a match at the other end of the picture: light changes with distance
UNSURE = 0.1  # weight in comparisons of what is itself filled in
NEIGHBORS = ((0, 1), (0, -1), (1, 0), (-1, 0))

Mask = NDArray[np.bool_]
PlaceArray = NDArray[np.intp]  # (N, 2): rows and columns


@dataclass(frozen=True)
class Level:
    """The picture in one size, with its hole."""

    pixels: Floats  # (H, W, C)
    hole: Mask

    @property
    def shape(self) -> tuple[int, int]:
        return self.hole.shape[0], self.hole.shape[1]


def fill_from_patches(pixels: Floats, hole: Mask, seed: tuple[int, ...]) -> Floats | None:
    """The picture (H, W, C) with its hole filled. None where there is too little around the hole to take from."""
    levels, rng = list(_shrink(_widen(pixels, hole))), np.random.default_rng(seed)
    shown, matches = _fill_smoothly(levels[-1]), None
    for level in reversed(levels):
        search = _Search.over(level)
        if search is None:
            if level is levels[0] or matches is not None:
                return None
            continue
        if matches is None:
            start = search.choose(shown, rng)
        else:
            start = search.enlarge(matches, rng)
            shown = search.vote(level.pixels, start)
        finest = level is levels[0] and matches is not None
        for _ in range(1 if finest else SEARCH_ROUNDS):
            start = search.improve(shown, start, rng, NEAR if finest else max(level.shape) // 2)
            shown = search.vote(level.pixels, start)
        matches = np.full((*level.shape, 2), -1, np.intp)
        matches[search.places[:, 0], search.places[:, 1]] = start
    return shown[REACH:-REACH, REACH:-REACH] if search is not None else None


def _widen(pixels: Floats, hole: Mask) -> Level:
    """Mirrored at its edges, so that pixels there have surroundings too."""
    sides = ((REACH, REACH), (REACH, REACH))
    return Level(np.pad(pixels, (*sides, (0, 0)), "reflect"), np.pad(hole, sides, "reflect"))


def _shrink(level: Level) -> Iterator[Level]:
    """The level and smaller ones, until the hole is thin."""
    yield level
    depth = cv2.distanceTransform(level.hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5).max()
    while depth > THIN and min(level.shape) // 2 >= LEAST:
        level, depth = _halve(level), depth / 2
        if _find_sources(level).mean() < LEAST_SOURCES:
            return
        yield level


def _halve(level: Level) -> Level:
    """Half the size. A pixel is the mean of what is known of it; one of which less than half is known is a hole."""
    height, width = level.shape
    size = ((width + 1) // 2, (height + 1) // 2)
    known = (~level.hole).astype(np.float32)
    share = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
    total = cv2.resize(level.pixels * known[..., None], size, interpolation=cv2.INTER_AREA)
    total = total.reshape(*total.shape[:2], -1)
    return Level(np.asarray(total / np.maximum(share, 1e-6)[..., None], np.float32), share < 0.5)


def _fill_smoothly(level: Level) -> Floats:
    """A first guess."""
    rough = np.rint(level.pixels * 255).clip(0, 255).astype(np.uint8)
    hole, out = level.hole.astype(np.uint8), level.pixels.copy()
    for c in range(rough.shape[2]):
        plane = cv2.inpaint(np.ascontiguousarray(rough[..., c]), hole, 3, cv2.INPAINT_TELEA)
        out[..., c][level.hole] = plane[level.hole] / np.float32(255)
    return out


def _find_sources(level: Level) -> Mask:
    """Pixels whose surroundings are whole."""
    touched = cv2.dilate(level.hole.astype(np.uint8), np.ones((PATCH, PATCH), np.uint8)) > 0
    inside = np.zeros(level.shape, bool)
    inside[REACH:-REACH, REACH:-REACH] = True
    inside &= ~touched
    return inside


@dataclass(frozen=True)
class _Search:
    """Where matches are wanted on one level, and where they may lie."""

    level: Level
    places: PlaceArray  # pixels whose surroundings touch the hole
    index: NDArray[np.intp]  # (H, W): which of the places a pixel is, or -1
    allowed: Mask  # (H, W): pixels whose surroundings are whole
    sources: PlaceArray

    @classmethod
    def over(cls, level: Level) -> _Search | None:
        """None where there is nothing to take from."""
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
        """Matches at random."""
        return self.sources[rng.integers(0, len(self.sources), len(self.places))]

    def choose(self, shown: Floats, rng: Generator) -> PlaceArray:
        """The best of many matches at random: each place is compared with all of a sample."""
        drawn = self.sources[rng.permutation(len(self.sources))[:SAMPLE]]
        around, best = _around(self.level.shape[1]), np.empty(len(self.places), np.intp)
        flat, weights = shown.reshape(-1, shown.shape[2]), self._weight().ravel()
        there = flat[(drawn @ (self.level.shape[1], 1))[:, None] + around]
        square = (there**2).sum(2).T
        there = there.reshape(len(drawn), -1).T
        for part in _chunks(np.arange(len(self.places)), 1024):
            here = (self.places[part] @ (self.level.shape[1], 1))[:, None] + around
            weight = weights[here]
            cost = weight @ square - 2 * (flat[here] * weight[..., None]).reshape(len(part), -1) @ there
            far = np.abs(self.places[part, None] - drawn).sum(2) * np.float32(FAR / max(self.level.shape))
            best[part] = (cost + far).argmin(1)
        return drawn[best]

    def _weight(self) -> Floats:
        return np.where(self.level.hole, np.float32(UNSURE), np.float32(1))

    def enlarge(self, matches: NDArray[np.intp], rng: Generator) -> PlaceArray:
        """The matches of the level before, at this level's size; at random where that is no place to take from."""
        coarse = np.minimum(self.places // 2, np.array(matches.shape[:2]) - 1)
        found = matches[coarse[:, 0], coarse[:, 1]]
        moved = self._inside(2 * found + self.places % 2)
        bad = (found[:, 0] < 0) | ~self.allowed[moved[:, 0], moved[:, 1]]
        moved[bad] = self.draw(rng)[bad]
        return moved

    def improve(self, shown: Floats, matches: PlaceArray, rng: Generator, radius: int) -> PlaceArray:
        """Better matches, from those of neighbours and at random within a radius, ever closer by."""
        matches, weight = matches.copy(), self._weight()
        cost = self._compare(shown, weight, matches)
        for candidates in self._candidates(matches, rng, radius):
            ok = self.allowed[candidates[:, 0], candidates[:, 1]]
            tried = self._compare(shown, weight, candidates, np.flatnonzero(ok))
            better = tried < cost
            matches[better], cost[better] = candidates[better], tried[better]
        return matches

    def _candidates(self, matches: PlaceArray, rng: Generator, radius: int) -> Iterator[PlaceArray]:
        """Each is made of the matches as they then are."""
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
        self, shown: Floats, weight: Floats, matches: PlaceArray, which: NDArray[np.intp] | None = None
    ) -> Floats:
        """How unlike the surroundings of each place and its match are; infinite where it is not asked for."""
        width, around = self.level.shape[1], _around(self.level.shape[1])
        flat, weights = shown.reshape(-1, shown.shape[2]), weight.ravel()
        cost = np.full(len(matches), np.inf, np.float32)
        for part in _chunks(np.arange(len(matches)) if which is None else which):
            here = (self.places[part] @ (width, 1))[:, None] + around
            there = (matches[part] @ (width, 1))[:, None] + around
            off = flat[here] - flat[there]
            cost[part] = np.einsum("nkc,nkc,nk->n", off, off, weights[here]) + self._penalty(part, matches[part])
        return cost

    def _penalty(self, part: NDArray[np.intp], matches: PlaceArray) -> Floats:
        far = np.abs(self.places[part] - matches).sum(1)
        return np.asarray(far * np.float32(FAR / max(self.level.shape)), np.float32)

    def vote(self, pixels: Floats, matches: PlaceArray) -> Floats:
        """The picture with, in the hole, the mean of what all matches near a pixel say of it."""
        height, width = self.level.shape
        flat, around = pixels.reshape(-1, pixels.shape[2]), _around(width)
        total, count = np.zeros((height * width, pixels.shape[2])), np.zeros(height * width)
        for step in around:
            here, there = self.places @ (width, 1) + step, matches @ (width, 1) + step
            total[here] += flat[there]  # no place is twice in `here`
            count[here] += 1
        out, hole = pixels.copy(), self.level.hole & (count > 0).reshape(height, width)
        out[hole] = (total / np.maximum(count, 1)[:, None]).reshape(pixels.shape)[hole]
        return out


def _around(width: int) -> NDArray[np.intp]:
    """Steps from a pixel to its surroundings in the flat picture."""
    near = np.arange(-REACH, REACH + 1)
    return (near[:, None] * width + near).ravel()


def _chunks(numbers: NDArray[np.intp], size: int = CHUNK) -> Iterator[NDArray[np.intp]]:
    return (numbers[start : start + size] for start in range(0, len(numbers), size))
