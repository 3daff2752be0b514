"""Batches of training pairs. Each sample is determined by (seed, batch, place), on any number of processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from srcli.degrade.draws import SeededDraws
from srcli.errors import InputError, PictureError
from srcli.train.pairs import PairMaker
from srcli.train.pictures import PictureFile, read_as_tensor, read_caption
from srcli.train.systems.base import Batch

TRIES = 20  # pictures in a row that may be unreadable


@dataclass(frozen=True)
class Share:
    """This process's share of every batch: `batch` samples of `count` processes."""

    batch: int
    rank: int = 0
    count: int = 1

    @property
    def whole(self) -> int:
        return self.batch * self.count

    @property
    def places(self) -> range:
        return range(self.rank * self.batch, (self.rank + 1) * self.batch)


@dataclass(frozen=True)
class TrainingSet(Dataset[Batch]):
    """An endless sequence of batches. Pictures are read on use and not cached."""

    files: Sequence[PictureFile]
    pairs: PairMaker
    share: Share
    seed: int
    drop_caption: float = 0.0

    def __getitem__(self, micro: int) -> Batch:
        samples = [self._sample(micro, place) for place in self.share.places]
        targets, degraded, captions, names, problems = zip(*samples, strict=True)
        return Batch(
            torch.cat(targets),
            torch.cat(degraded),
            captions,
            names,
            micro,
            tuple(self.share.places),
            tuple(problem for each in problems for problem in each),
        )

    def fingerprint(self) -> list[Any]:
        """The number of pictures, the first and last name, and the total number of pixels."""
        pixels = sum(file.width * file.height for file in self.files)
        return [len(self.files), self.files[0].path.name, self.files[-1].path.name, pixels]

    def _sample(self, micro: int, place: int) -> tuple[torch.Tensor, torch.Tensor, str, str, tuple[str, ...]]:
        position, problems = micro * self.share.whole + place, list[str]()
        for attempt in range(TRIES):
            file = self.files[self._order(position + attempt)]
            try:
                picture = read_as_tensor(file.path)[None]
            except PictureError as error:
                problems.append(str(error))
                continue
            draws = SeededDraws.of(self.seed, 0, micro, place)
            pair = self.pairs(picture, draws)
            caption = read_caption(file.path)
            if draws.uniform("u_caption") < self.drop_caption:
                caption = ""
            return pair.target, pair.degraded, caption, file.path.name, tuple(problems)
        raise InputError(f"{TRIES} pictures in a row cannot be read, the last being: {problems[-1]}")

    def _order(self, position: int) -> int:
        """The picture at a position of the run; each pass over the pictures has another order."""
        lap, index = divmod(position, len(self.files))
        return int(shuffle_order(self.seed, lap, len(self.files))[index])


@lru_cache(maxsize=2)
def shuffle_order(seed: int, lap: int, count: int) -> NDArray[np.int64]:
    """The order of `count` items in one pass (`lap`) over them."""
    return np.random.default_rng((seed, 3, lap)).permutation(count)


def iterate_batches(source: Any, first: int, jobs: int) -> Iterator[Batch]:
    """Batches from number `first`, prepared by `jobs` worker processes, or in this one if `jobs` is 0."""
    return iter(DataLoader(source, batch_size=None, sampler=range(first, sys.maxsize), num_workers=jobs))
