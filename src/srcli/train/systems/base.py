"""What the trainer asks of a system, and what it hands to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from srcli.degrade.draws import SeededDraws


class Batch(NamedTuple):
    """Pairs in 0..1, and which samples they are: `micro` counts batches, `places` samples across all processes.

    `problems` are pictures that could not be read, `latent` what another model made of the degraded pictures.
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
    """Random numbers of a batch: each sample's follow from the seed, the batch's number and the sample's place."""

    seed: int
    micro: int
    places: Sequence[int]
    _draws: list[SeededDraws] = field(init=False)

    def __post_init__(self) -> None:
        self._draws = [SeededDraws.of(self.seed, 1, self.micro, place) for place in self.places]

    def normals(self, shape: Sequence[int]) -> Tensor:
        """(n, *shape) normal numbers."""
        return torch.stack([draws.normals("", shape) for draws in self._draws])

    def integers(self, count: int) -> Tensor:
        """One of 0..count-1 for each sample."""
        return torch.tensor([draws.integer("", count - 1) for draws in self._draws])

    def uniforms(self) -> Tensor:
        """One number in [0, 1) for each sample."""
        return torch.tensor([draws.uniform("") for draws in self._draws])

    def shared_integer(self, count: int) -> int:
        """One of 0..count-1 for the whole batch, in all processes."""
        return SeededDraws.of(self.seed, 2, self.micro).integer("", count - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """`kind`: adamw or adam; `bits` 8 keeps the moments in 8 bits (bitsandbytes)."""

    kind: str = "adamw"
    lr: float = 5e-5
    betas: tuple[float, float] = (0.9, 0.999)
    decay: float = 0.01
    clip: float | None = None
    bits: int = 32


class StepModule(Protocol):
    """A module that computes loss terms; its own parameters are what it trains. `close` forgets the batch."""

    def __call__(self, inputs: Any) -> dict[str, Tensor]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Phase:
    """One optimizer's update within a step. Phases of a step see the same batches, one phase after the other."""

    name: str
    module: nn.Module
    optimizer: OptimizerSettings

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]


class BatchSource(Protocol):
    """Endless batches: the n-th one, whoever asks for it, and however often."""

    def __getitem__(self, micro: int) -> Batch: ...

    def fingerprint(self) -> list[Any]:
        """Tells other data apart, without reading it again."""
        ...


class System(Protocol):
    """What is trained. The trainer knows no more than this of it."""

    name: str

    @property
    def phases(self) -> Sequence[Phase]:
        """What a step updates, in order."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """All that the result depends on besides the trainer's own settings, as plain data."""
        ...

    def to(self, device: torch.device, frozen: torch.dtype) -> None:
        """Move everything to the device, what is frozen in this precision."""
        ...

    def inputs(self, batch: Batch, noise: SampleNoise, step: int) -> Any:
        """What the phases' modules take, on the device."""
        ...

    def restore(self, batch: Batch, noise: SampleNoise) -> Tensor:
        """Results in 0..1 for a batch's degraded pictures, as a user would get them."""
        ...

    def write(self, folder: Path) -> None:
        """The trained weights, in the official layout."""
        ...

    def made_of(self) -> Mapping[str, str]:
        """Names, hashes and licences of the weights it began with."""
        ...

    def frozen_bytes(self) -> int:
        """Memory of the frozen networks as they are now."""
        ...
