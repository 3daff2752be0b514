"""Photographs in memory, and the training pairs cut from them.

Every pair is a function of (seed, step, place in the batch), so a resumed run sees what an unbroken one would have.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from srcli.errors import InputError, PictureError
from srcli.imaging.read import read_picture
from srcli.settings import FIRST
from srcli.train.degradations import Degrade, Pixels, resize
from srcli.train.synthetic import drawn

Before = Callable[[Pixels, Generator], Pixels]
"""What becomes of the sharp picture itself before it is spoiled."""
KINDS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"})
MARGIN = 4
"""Cells cut from around each spoiled patch: filters do wrong there, and JPEG's grid gets a random place."""


def held_out(path: Path) -> bool:
    """A tenth of all pictures, told by name, is never trained on."""
    return hashlib.sha256(path.name.encode()).digest()[0] % 10 == 0


def find(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"no such folder {folder}: give --data a folder of photographs")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in KINDS)
    if not files:
        raise InputError(f"no pictures in {folder}: put photographs (JPEG, PNG, WebP, TIFF) there")
    return files


def decode(path: Path) -> Pixels | None:
    """The picture as 8-bit sRGB, upright, or None where it cannot be read."""
    try:
        pixels = read_picture(path, frames=FIRST).pixels
    except PictureError:
        return None
    return pixels.astype(np.uint8) if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def photographs(files: Sequence[Path], least: int) -> list[Pixels]:
    """Those of `files` that open and are at least `least` pixels each way."""
    opened = [p for p in map(decode, files) if p is not None]
    if not opened:
        raise InputError(f"none of {len(files)} pictures can be read: check the files under --data")
    large = [p for p in opened if min(p.shape[:2]) >= least]
    if not large:
        raise InputError(f"no picture has {least} pixels each way: give larger photographs or a smaller --patch")
    return large


def crop(pixels: Pixels, side: int, rng: Generator) -> Pixels:
    top, left = (int(rng.integers(0, n - side + 1)) for n in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]


def busy(pixels: Pixels) -> bool:
    grey = pixels[::2, ::2].mean(2)
    return bool(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean() > 3)


def turned(pixels: Pixels, rng: Generator) -> Pixels:
    """One of the eight flips and turns, and sometimes other colours."""
    pixels = np.rot90(pixels, int(rng.integers(4)))
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if rng.random() < 0.2:
        pixels = pixels[..., rng.permutation(3)]
    return np.ascontiguousarray(pixels)


@dataclass(frozen=True)
class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """Endless batches of (spoiled, sharp)."""

    photos: Sequence[Pixels]
    degrade: Degrade
    cells: int
    up: int
    scale: int
    batch: int
    seed: int
    synthetic: float = 0.1
    before: Before | None = None

    def sharp(self, rng: Generator) -> Pixels:
        side = (self.cells + 2 * MARGIN) * self.up
        if rng.random() < self.synthetic:
            return drawn(side, rng)
        sizes = np.sqrt([p.shape[0] * p.shape[1] for p in self.photos])
        for _ in range(3):
            photo = self.photos[int(rng.choice(len(self.photos), p=sizes / sizes.sum()))]
            wide = min(*photo.shape[:2], round(side * rng.uniform(1, 1.6)) if rng.random() < 0.3 else side)
            patch = crop(photo, wide, rng)
            if busy(patch):
                break
        return turned(patch if wide == side else resize(patch, side, side, Image.Resampling.LANCZOS), rng)

    def pair(self, rng: Generator) -> tuple[Pixels, Pixels]:
        sharp = self.sharp(rng) if self.before is None else self.before(self.sharp(rng), rng)
        small = self.degrade(sharp, self.scale, rng)
        fold = self.up // self.scale
        top, left = (int(rng.integers(0, 2 * MARGIN + 1)) for _ in range(2))
        cut, n = np.s_[top * self.up :, left * self.up :], self.cells
        near = small[top * fold :, left * fold :][: n * fold, : n * fold]
        return near, sharp[cut][: n * self.up, : n * self.up]

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step, as (n, 3, h, w) in 0..1."""
        made = [self.pair(np.random.default_rng((self.seed, step, i))) for i in range(self.batch)]
        small, sharp = (np.stack(part) for part in zip(*made, strict=True))
        return tensor(small), tensor(sharp)


def batches(pairs: Pairs, first: int, jobs: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches from step `first` on, made ahead by `jobs` other processes, or here when they are needed."""
    return iter(DataLoader(pairs, batch_size=None, sampler=range(first, sys.maxsize), num_workers=jobs))


def tensor(pixels: Pixels) -> Tensor:
    """(n, h, w, 3) bytes to (n, 3, h, w) in 0..1, kept channels last."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 255
