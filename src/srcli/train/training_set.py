"""Batches of training pairs. Each sample follows from (seed, batch, place): on one process or several, or resumed."""

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

TRIES = 20  # pictures in a row that may turn out to be unreadable


@dataclass(frozen=True)
class Share:
    """Which part of every batch is made here: `batch` samples of each of `count` processes."""

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
    """Endless: the n-th batch, whoever asks for it. Pictures are read when they are needed, and not kept."""

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
        """Their number, the first and the last name, and all pixels."""
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
        """The picture at a position of the run; each pass over all of them has an order of its own."""
        lap, index = divmod(position, len(self.files))
        return int(shuffle_order(self.seed, lap, len(self.files))[index])


@lru_cache(maxsize=2)
def shuffle_order(seed: int, lap: int, count: int) -> NDArray[np.int64]:
    """The order of `count` things in one pass over them."""
    return np.random.default_rng((seed, 3, lap)).permutation(count)


def iterate_batches(source: Any, first: int, jobs: int) -> Iterator[Batch]:
    """The batches from the `first` on, made ahead by `jobs` other processes, or here when they are needed."""
    return iter(DataLoader(source, batch_size=None, sampler=range(first, sys.maxsize), num_workers=jobs))
