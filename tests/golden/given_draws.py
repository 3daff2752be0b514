"""Draws that a vector file gives, handed out one after the other; whoever asks for another one fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class GivenDraws:
    """The draws of a json's list of [name, value]; the value "tensor" lies in the tensor file, under that name."""

    def __init__(self, listed: Sequence[tuple[str, Any]], tensors: Mapping[str, Tensor], without: Sequence[str] = ()):
        self.left = [(name, value) for name, value in listed if name not in without]
        self.tensors = tensors
        self.rates: dict[str, Tensor] = {}

    def take(self, name: str) -> Any:
        assert self.left, f"{name} is drawn after the last one"
        expected, value = self.left.pop(0)
        assert name == expected, f"{name} is drawn where {expected} should be"
        return self.tensors[name].float() if value == "tensor" else value

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> float:
        value = self.take(name)
        assert low <= value <= high, f"{name} {value} is outside {low}..{high}"
        return value

    def integer(self, name: str, high: int) -> int:
        value = self.take(name)
        assert 0 <= value <= high
        return value

    def choice(self, name: str, weights: Mapping[Any, float]) -> Any:
        value = self.take(name)
        assert weights[value] > 0
        return value

    def uniforms(self, name: str, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        value = self.take(name)
        assert value.shape == (count,)
        assert ((value >= low) & (value <= high)).all()
        return value

    def normals(self, name: str, shape: Sequence[int]) -> Tensor:
        value = self.take(name)
        assert value.shape == torch.Size(shape)
        return value

    def poisson(self, name: str, rate: Tensor) -> Tensor:
        value = self.take(name)
        assert value.shape == rate.shape
        self.rates[name] = rate
        return value
