"""Gaussian noise of a canvas: drawn on the CPU, and independent of the order and the crops in which it is drawn."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace

import torch
from torch import Tensor

NOISE_CELL = 64
# Step numbers for noise outside the sampling loop, whose steps count from 1.
POSTERIOR_NOISE, START_NOISE, EXTRA_NOISE = -1, 0, -2


@dataclass(frozen=True, slots=True)
class NoiseField:
    """An infinite plane of Gaussian noise for each step, determined by the seed.

    The plane consists of square cells, each with its own generator, keyed by seed, step and position. So drawing a
    crop only generates its cells, and a picture gets the same noise whole, in tiles or in blocks.
    """

    seed: int
    top: int = 0
    left: int = 0
    layer: int = 0  # number of the pass over the picture; each pass has other noise

    def at(self, top: int, left: int) -> NoiseField:
        """The same noise, shifted to another origin."""
        return replace(self, top=self.top + top, left=self.left + left)

    def draw(self, shape: tuple[int, ...] | torch.Size, step: int = START_NOISE) -> Tensor:
        """Noise of this shape (1, channels, height, width), fp32."""
        _, channels, height, width = shape
        out = torch.empty(1, channels, height, width)
        for cell_y in range(self.top // NOISE_CELL, (self.top + height - 1) // NOISE_CELL + 1):
            for cell_x in range(self.left // NOISE_CELL, (self.left + width - 1) // NOISE_CELL + 1):
                self._paste(out, step, cell_y, cell_x)
        return out

    def generator(self, step: int) -> torch.Generator:
        """A generator for library code that draws the whole canvas's noise itself."""
        return torch.Generator().manual_seed(self._key(step, self.top, self.left))

    def _paste(self, out: Tensor, step: int, cell_y: int, cell_x: int) -> None:
        generator = torch.Generator().manual_seed(self._key(step, cell_y, cell_x))
        cell = torch.randn(out.shape[1], NOISE_CELL, NOISE_CELL, generator=generator)
        y, x = cell_y * NOISE_CELL - self.top, cell_x * NOISE_CELL - self.left
        rows = slice(max(y, 0), min(y + NOISE_CELL, out.shape[2]))
        columns = slice(max(x, 0), min(x + NOISE_CELL, out.shape[3]))
        out[0, :, rows, columns] = cell[:, rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]

    def _key(self, step: int, y: int, x: int) -> int:
        digest = hashlib.blake2b(struct.pack("<qqqqq", self.seed, self.layer, step, y, x), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 1
