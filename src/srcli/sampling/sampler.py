"""The sampling loop, and what it loops over: a denoiser, whole or tiled."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any, Protocol

import torch
from torch import Tensor

from srcli.sampling.noise import NoiseField
from srcli.sampling.tiling import Tile, gaussian_weight

TileWeight = Callable[[int, int], Tensor]  # height and width of a tile -> weight of each element
# Steps done, of how many, the canvas after them, and what the scheduler expects it to become.
OnStep = Callable[[int, int, Tensor, Tensor], None]
OnTiles = Callable[[int, int], None]  # tiles done of a step, of how many


class Denoiser(Protocol):
    """Predicts what the scheduler wants (noise or v) for `x` at step `t`, led by `hint`, the degraded picture.

    It gets a batch of equal crops. `where` names the tile of each, or is None for a whole canvas: a key under
    which an engine may keep what does not depend on the step.
    """

    @property
    def stride(self) -> int:
        """Hint pixels per element of x: 8 for latents, 1 for pixels."""
        ...

    def __call__(self, x: Tensor, t: Tensor, hint: Tensor, where: Sequence[Tile] | None = None) -> Tensor: ...


class Scheduler(Protocol):
    """The part of a diffusers scheduler that the loop uses."""

    timesteps: Any

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor: ...

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **extra: Any) -> Any: ...


@dataclass(frozen=True)
class Tiled:
    """A denoiser that covers a large canvas with many calls of a small one.

    All tiles have one shape, so any number of them can share a call; `batch` is that number. Weights wait on the
    canvas's device: to bring them there at each step would halt it each time.
    """

    inner: Denoiser
    tiles: Sequence[Tile]
    batch: int = 1
    device: torch.device = torch.device("cpu")
    weight: TileWeight = gaussian_weight
    on_tiles: OnTiles | None = None  # called between tiles; may raise to end the work there

    @property
    def stride(self) -> int:
        return self.inner.stride

    def __call__(self, x: Tensor, t: Tensor, hint: Tensor, where: Sequence[Tile] | None = None) -> Tensor:
        total = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
        for done, tiles in zip(count(0, self.batch), self._batches(), strict=False):
            if done and self.on_tiles:
                self.on_tiles(done, len(self.tiles))
            crops = torch.cat([tile.crop(x) for tile in tiles])
            hints = torch.cat([tile.crop(hint, self.stride) for tile in tiles])
            for tile, part in zip(tiles, self.inner(crops, t, hints, tiles), strict=True):
                tile.crop(total)[0].add_(part.float() * self._weight)
        return (total / self._cover).to(x.dtype)

    def _batches(self) -> Iterator[Sequence[Tile]]:
        for start in range(0, len(self.tiles), self.batch):
            yield self.tiles[start : start + self.batch]

    @cached_property
    def _weight(self) -> Tensor:
        return self.weight(self.tiles[0].height, self.tiles[0].width).float().to(self.device)

    @cached_property
    def _cover(self) -> Tensor:
        """Summed weights of all tiles at each element of the canvas."""
        height = max(tile.top + tile.height for tile in self.tiles)
        width = max(tile.left + tile.width for tile in self.tiles)
        cover = torch.zeros(height, width, device=self.device)
        for tile in self.tiles:
            tile.crop(cover).add_(self._weight)
        return cover


def run_sampler(
    denoise: Denoiser,
    scheduler: Scheduler,
    x: Tensor,
    hint: Tensor,
    noise: NoiseField | None = None,
    on_step: OnStep | None = None,
    done: int = 0,
) -> Tensor:
    """Run the scheduler's steps from `x`, of which some may be done. Step noise, if any, is the canvas's own."""
    draw = _step_noise(scheduler, noise)
    total = len(scheduler.timesteps)
    for step, t in enumerate(scheduler.timesteps[done:], done + 1):
        prediction = denoise(scheduler.scale_model_input(x, t), t, hint)
        stepped = scheduler.step(prediction, t, x, **draw(step, x))
        x = stepped.prev_sample
        if on_step:
            on_step(step, total, x, _expected(scheduler, stepped))
    return x


def _expected(scheduler: Any, stepped: Any) -> Tensor:
    """The clean canvas by the scheduler's own estimate; those of several steps keep it for the next one."""
    for name in ("pred_original_sample", "denoised"):
        told: Tensor | None = getattr(stepped, name, None)
        if told is not None:
            return told
    kept: Tensor = scheduler.model_outputs[-1]
    return kept


def _step_noise(scheduler: Scheduler, noise: NoiseField | None) -> Callable[[int, Tensor], dict[str, Any]]:
    """How this scheduler takes its noise: as a tensor, by a generator, or not at all."""
    takes = inspect.signature(scheduler.step).parameters
    if noise is not None and "variance_noise" in takes:
        return lambda step, x: {"variance_noise": noise.draw(x.shape, step).to(x)}
    if noise is not None and "generator" in takes:
        return lambda step, x: {"generator": noise.generator(step)}
    return lambda step, x: {}
