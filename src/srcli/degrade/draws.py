"""Named random draws: from the seed of a sample, or predefined for tests and replays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


class Draws(Protocol):
    """A source of random numbers. The name says what a number is used for."""

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> float:
        """One number in [low, high)."""

    def integer(self, name: str, high: int) -> int:
        """One integer in 0..high, inclusive."""

    def choice(self, name: str, weights: Mapping[T, float]) -> T:
        """One key, with a probability proportional to its weight."""

    def uniforms(self, name: str, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """One number in [low, high) per sample."""

    def normals(self, name: str, shape: Sequence[int]) -> Tensor: ...

    def poisson(self, name: str, rate: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class SeededDraws:
    """Draws that depend only on a key of integers, such as (seed, rank, step, sample).

    Fields of noise are drawn on `generator`'s device: the same key gives other fields on another kind of device.
    """

    numbers: np.random.Generator
    generator: torch.Generator

    @classmethod
    def of(cls, *key: int, device: torch.device | str = "cpu") -> SeededDraws:
        numbers = np.random.default_rng(key)
        return cls(numbers, torch.Generator(device).manual_seed(int(numbers.integers(2**63))))

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> float:
        return low + float(self.numbers.random()) * (high - low)

    def integer(self, name: str, high: int) -> int:
        return int(self.numbers.integers(high + 1))

    def choice(self, name: str, weights: Mapping[T, float]) -> T:
        share = np.array(list(weights.values()))
        return list(weights)[int(self.numbers.choice(len(share), p=share / share.sum()))]

    def uniforms(self, name: str, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        drawn = torch.from_numpy(self.numbers.random(count, dtype=np.float32))
        return (low + drawn * (high - low)).to(self.generator.device)

    def normals(self, name: str, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self.generator, device=self.generator.device)

    def poisson(self, name: str, rate: Tensor) -> Tensor:
        return torch.poisson(rate, generator=self.generator)
