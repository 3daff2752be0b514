"""The tile planner: the tiles that cover a canvas at the least cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from srcli.sampling.tiling import Tile, lay_grid, spread_origins
from srcli.settings import Sampling, Tiling

Cost = Callable[[int], float]  # elements of one tile -> FLOP of one prediction


@dataclass(frozen=True, slots=True)
class Limits:
    """The sides that a tile may have, from `smallest` in steps of `step`, and the least overlap of neighbours."""

    smallest: int = 48
    largest: int = 128
    step: int = 8
    overlap: int = 16


def find_cheapest_tiles(height: int, width: int, cost: Cost, limits: Limits) -> list[Tile]:
    """Equal, evenly spread tiles of least total cost; a single tile if that is cheapest."""
    best = min(product(_sides(height, limits), _sides(width, limits)), key=lambda pair: _total(pair[0], pair[1], cost))
    (tall, rows), (wide, columns) = best
    return [
        Tile(top, left, tall, wide)
        for left in spread_origins(width, wide, columns)
        for top in spread_origins(height, tall, rows)
    ]


def lay_tiles(height: int, width: int, sampling: Sampling, cost: Cost, limits: Limits) -> list[Tile] | None:
    """Tiles of the size that the user set, else planned ones; None if one tile covers the canvas."""
    if sampling.tile is None:
        tiles = find_cheapest_tiles(height, width, cost, limits)
    elif max(height, width) <= sampling.tile:
        return None
    else:
        overlap = min(limits.overlap, sampling.tile // 2) if sampling.overlap is None else sampling.overlap
        tiles = lay_grid(height, width, Tiling(size=sampling.tile, overlap=overlap))
    return tiles if len(tiles) > 1 else None


def _sides(length: int, limits: Limits) -> list[tuple[int, int]]:
    """Possible tile sides along one axis, each with the number of tiles."""
    sides = range(limits.smallest, limits.largest + 1, limits.step)
    tiled = [(side, -(-(length - limits.overlap) // (side - limits.overlap))) for side in sides if side < length]
    whole = [(length, 1)] if length <= limits.largest else []
    return whole + tiled


def _total(rows: tuple[int, int], columns: tuple[int, int], cost: Cost) -> float:
    return rows[1] * columns[1] * cost(rows[0] * columns[0])
