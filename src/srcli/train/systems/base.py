"""The interface between the trainer and the systems that it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from srcli.degrade.draws import SeededDraws


class Batch(NamedTuple):
    """Training pairs in 0..1. `micro`: the number of the batch. `places`: the samples' indices over all processes.

    `problems`: messages about unreadable pictures. `latent`: another model's latents of the degraded pictures.
    """

    target: Tensor
    degraded: Tensor
    captions: tuple[str, ...]
    names: tuple[str, ...]
    micro: int
    places: tuple[int, ...]
    problems: tuple[str, ...] = ()
    latent: Tensor | None = None


@dataclass
class SampleNoise:
    """Random numbers of a batch, determined for each sample by the seed, the batch's number and the sample's place."""

    seed: int
    micro: int
    places: Sequence[int]
    _draws: list[SeededDraws] = field(init=False)

    def __post_init__(self) -> None:
        self._draws = [SeededDraws.of(self.seed, 1, self.micro, place) for place in self.places]

    def normals(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers, (n, *shape)."""
        return torch.stack([draws.normals("", shape) for draws in self._draws])

    def integers(self, count: int) -> Tensor:
        """One integer in 0..count-1 per sample."""
        return torch.tensor([draws.integer("", count - 1) for draws in self._draws])

    def uniforms(self) -> Tensor:
        """One number in [0, 1) per sample."""
        return torch.tensor([draws.uniform("") for draws in self._draws])

    def shared_integer(self, count: int) -> int:
        """One integer in 0..count-1 for the whole batch, the same in all processes."""
        return SeededDraws.of(self.seed, 2, self.micro).integer("", count - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """`kind`: adamw or adam. `bits`: 8 stores the moments in 8 bits (bitsandbytes)."""

    kind: str = "adamw"
    lr: float = 5e-5
    betas: tuple[float, float] = (0.9, 0.999)
    decay: float = 0.01
    clip: float | None = None
    bits: int = 32


class StepModule(nn.Module):
    """Computes the loss terms of a batch, among them "loss". Its own parameters are those that are trained."""

    def close(self) -> None:
        """Release what is kept for the backward pass; called after it."""


@dataclass(frozen=True)
class Phase:
    """The update of one optimizer. A step runs all phases, one after the other, on the same batches."""

    name: str
    module: StepModule
    optimizer: OptimizerSettings

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]


class BatchSource(Protocol):
    """An endless sequence of batches; the n-th is always the same."""

    def __getitem__(self, micro: int) -> Batch: ...

    def fingerprint(self) -> list[Any]:
        """Identifies the data without reading it again."""


class System(Protocol):
    """A model and how it is trained, as the trainer sees it."""

    name: str

    @property
    def phases(self) -> Sequence[Phase]:
        """The updates of a step, in order."""

    def settings(self) -> Mapping[str, Any]:
        """Everything besides the trainer's own settings that determines the result, as plain data."""

    def to(self, device: torch.device, frozen: torch.dtype) -> None:
        """Move all networks to the device, the frozen ones in this precision."""

    def inputs(self, batch: Batch, noise: SampleNoise, step: int) -> Any:
        """The inputs of the phases' modules, on the device."""

    def restore(self, batch: Batch, noise: SampleNoise) -> Tensor:
        """The model's results in 0..1 for a batch's degraded pictures."""

    def write(self, folder: Path) -> None:
        """Write the trained weights in the official layout."""

    def weights_used(self) -> Mapping[str, str]:
        """Names, hashes and licences of the initial weights."""

    def frozen_bytes(self) -> int:
        """Bytes of the frozen networks."""
