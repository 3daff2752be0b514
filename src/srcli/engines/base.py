"""What an engine is: it makes a picture ready for sampling, and knows which weights it is made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from srcli.memory import MemorySavings
from srcli.sampling.noise import NoiseField
from srcli.sampling.sampler import Denoiser, Scheduler
from srcli.sampling.tiling import Tile
from srcli.settings import Prompt, Sampling
from srcli.tasks import Task

Size = tuple[int, int]  # width, height
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted of an engine for one picture."""

    task: Task
    sampling: Sampling  # complete: already laid over the engine's defaults
    prompt: Prompt
    noise: NoiseField
    tell: Tell = print  # a sentence for the user, said once
    savings: MemorySavings = MemorySavings()  # how much is done at a time


@dataclass(frozen=True, slots=True)
class Canvas:
    """A picture ready for sampling: all that does not depend on the step is already worked out."""

    start: Tensor
    hint: Tensor
    denoiser: Denoiser
    scheduler: Scheduler
    finish: Callable[[Tensor], Tensor]  # sampled canvas -> RGB (1, 3, H, W) in 0..1


class Engine(Protocol):
    """A loaded model family."""

    name: str
    factor: int  # pixels of the result per pixel of the hint: 4 for the built-in engine, 1 where the hint is full size
    block: int | None  # side of the largest piece of hint taken at once; None: any size is taken whole
    supported_savings: Collection[str]  # fields of MemorySavings that it can apply; with all applied, OOM is final
    halo: int  # hint pixels around a block that bear on its result

    def passes(self, size: Size, target: Size) -> list[Size]:
        """Sizes of the results of successive passes; the last is `target`. Most engines need one."""
        ...

    def working_size(self, size: Size, target: Size, request: Request) -> Size:
        """Size of the hint that this engine wants, to make a result of `target` from a picture of `size`."""
        ...

    def layout(self, height: int, width: int, sampling: Sampling) -> tuple[list[Tile], int] | None:
        """Tiles of a canvas of this height and width, and how many share a call; None takes it whole."""
        ...

    def prepare(self, hint: Tensor, request: Request) -> Canvas:
        """Work out all that does not depend on the step. `hint` is (1, 3, H, W) levels, on the CPU."""
        ...

    def provenance(self) -> Mapping[str, str]:
        """The models it is made of, with their hashes and licences, for the output's metadata."""
        ...
