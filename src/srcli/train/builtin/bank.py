"""A bank of training pairs, computed once and kept on the device as bytes: damaged, sharp, and a teacher's output."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from srcli.degrade.draws import SeededDraws
from srcli.imaging.picture import Pixels8
from srcli.models.builtin import UPSCALE_FACTOR
from srcli.train.builtin.damage import (
    HEAVY_DAMAGE,
    LIGHT_DAMAGE,
    add_raw_noise,
    damage_pictures,
    measure_damage,
    quantize_to_uint8,
    reduce_antialiased,
    reduce_randomly,
)
from srcli.train.builtin.photos import Photographs
from srcli.train.builtin.teachers import Teacher

log = logging.getLogger(__name__)

DAMAGE_NONE, DAMAGE_LIGHT, DAMAGE_HEAVY, DAMAGE_RAW = range(4)
SHARES = {DAMAGE_NONE: 0.3, DAMAGE_LIGHT: 0.25, DAMAGE_HEAVY: 0.3, DAMAGE_RAW: 0.15}


@dataclass(frozen=True)
class Bank:
    """Samples; all but `damage` as 8-bit integers."""

    damaged: Tensor
    sharp: Tensor
    answers: Tensor
    damage: Tensor
    kinds: Tensor

    def __len__(self) -> int:
        return len(self.kinds)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        pictures = (part[indices].float() / 255 for part in (self.damaged, self.sharp, self.answers))
        return (*pictures, self.damage[indices], self.kinds[indices])  # type: ignore[return-value]

    @classmethod
    def join(cls, parts: list[Bank]) -> Bank:
        names = cls.__dataclass_fields__
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class BankMaker:
    """Computes samples; teachers run in `dtype`."""

    photos: Photographs
    damaged_teacher: Teacher | None  # None: the sharp picture is the answer
    clean_teacher: Teacher | None  # for pictures without damage
    cells: int
    dtype: torch.dtype

    def make(self, count: int, draws: SeededDraws) -> Bank:
        """`count` samples with one kind of damage."""
        sharp = self.photos.cut_patches(count, self.cells * UPSCALE_FACTOR, draws)
        kind = draws.choice("kind", SHARES)
        damaged = quantize_to_uint8(self._damage(kind, sharp, draws))
        small = damaged.float() / 255
        teacher = self.clean_teacher if kind == DAMAGE_NONE else self.damaged_teacher
        answers = sharp if teacher is None else self._ask(teacher, small)
        damage = measure_damage(small, reduce_antialiased(sharp))
        kinds = torch.full((count,), kind, device=sharp.device)
        return Bank(damaged, quantize_to_uint8(sharp), quantize_to_uint8(answers), damage, kinds)

    @torch.inference_mode()
    def _ask(self, teacher: Teacher, small: Tensor) -> Tensor:
        answers: Tensor = teacher(small.to(self.dtype).contiguous(memory_format=torch.channels_last))
        return answers.float()

    def _damage(self, kind: int, sharp: Tensor, draws: SeededDraws) -> Tensor:
        if kind == DAMAGE_NONE:
            return reduce_antialiased(sharp) if draws.uniform("reduce.u") < 0.75 else reduce_randomly(sharp, draws)
        if kind == DAMAGE_RAW:
            return add_raw_noise(sharp, draws)
        return damage_pictures(sharp, LIGHT_DAMAGE if kind == DAMAGE_LIGHT else HEAVY_DAMAGE, draws)

    def fill(self, batch: int, most: int, seconds: float, draws: SeededDraws) -> Bank:
        """Compute samples until there are `most` or the time is over."""
        started, parts = time.monotonic(), [self.make(batch, draws)]
        while sum(map(len, parts)) < most and time.monotonic() - started < seconds:
            parts.append(self.make(batch, draws))
            if parts[-1].kinds.is_cuda:
                torch.cuda.synchronize()
        log.info(f"{sum(map(len, parts))} pairs in {time.monotonic() - started:.0f} s")
        return Bank.join(parts)


def make_aged_bank(batches: Sequence[tuple[Pixels8, Pixels8]], factor: int, device: torch.device) -> Bank:
    """A bank of aged prints (N, h, w, 3) and the original prints, `factor` times as large, which are the answers."""
    small, sharp = (
        torch.from_numpy(np.concatenate(part)).permute(0, 3, 1, 2).contiguous().to(device)
        for part in zip(*batches, strict=True)
    )
    damage = [
        measure_damage(s.float() / 255, reduce_antialiased(t.float() / 255, factor))
        for s, t in zip(torch.split(small, 256), torch.split(sharp, 256), strict=True)
    ]
    kinds = torch.full((len(small),), DAMAGE_LIGHT, device=device)
    return Bank(small, sharp, sharp, torch.cat(damage), kinds)
