"""Blocks: independent pieces of a picture that is too large to be processed at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from srcli.sampling.tiling import Tile


class Block(NamedTuple):
    """A piece of the picture (`inner`) and the larger area that is processed for it (`outer`)."""

    inner: Tile
    outer: Tile

    @property
    def inside(self) -> Tile:
        """`inner` in coordinates of `outer`."""
        return self.inner._replace(top=self.inner.top - self.outer.top, left=self.inner.left - self.outer.left)


def cut_blocks(height: int, width: int, side: int | None, halo: int) -> Iterator[Block]:
    """Nearly equal blocks of at most `side` that partition the picture, each with `halo` pixels around it."""
    for top, tall in _cuts(height, side):
        for left, wide in _cuts(width, side):
            inner = Tile(top, left, tall, wide)
            y, x = max(0, top - halo), max(0, left - halo)
            outer = Tile(y, x, min(height, top + tall + halo) - y, min(width, left + wide + halo) - x)
            yield Block(inner, outer)


def _cuts(length: int, side: int | None) -> Iterator[tuple[int, int]]:
    count = 1 if side is None else -(-length // side)
    edges = [round(i * length / count) for i in range(count + 1)]
    for start, stop in zip(edges, edges[1:], strict=False):
        yield start, stop - start
