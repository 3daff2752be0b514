"""The sampling loop, its denoiser and scheduler protocols, and the tiled denoiser."""

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
OnStep = Callable[[int, int, Tensor, Tensor], None]  # steps done, total, canvas, the scheduler's estimate of x0
OnTiles = Callable[[int, int], None]  # tiles done of a step, total


class Denoiser(Protocol):
    """Predicts noise or v for `x` at timestep `t`, conditioned on `hint`, the degraded picture.

    `x` and `hint` are batches of equal crops. `where`: the tile of each crop, under which an engine may cache what
    does not depend on the step; None for a whole canvas.
    """

    @property
    def stride(self) -> int:
        """Side of the hint per side of x: 8 if x is latents and the hint pixels, else 1."""

    def __call__(self, x: Tensor, t: Tensor, hint: Tensor, where: Sequence[Tile] | None = None) -> Tensor: ...


class Scheduler(Protocol):
    """The part of a diffusers scheduler that the loop uses."""

    timesteps: Any

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor: ...

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **extra: Any) -> Any: ...


@dataclass(frozen=True)
class Tiled:
    """A denoiser for a large canvas that averages overlapping tiles of a smaller one (MultiDiffusion).

    All tiles have the same shape; `batch` of them share a call. The tile weights are kept on the canvas's `device`,
    since copying them at each step would synchronize it.
    """

    inner: Denoiser
    tiles: Sequence[Tile]
    batch: int = 1
    device: torch.device = torch.device("cpu")
    weight: TileWeight = gaussian_weight
    on_tiles: OnTiles | None = None  # called between batches; may raise to stop

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
        """The sum of the tiles' weights at each element of the canvas."""
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
    """Sample from `x`; the first `done` steps are skipped. `noise`: for schedulers that add noise at each step."""
    draw = _choose_noise_arguments(scheduler, noise)
    total = len(scheduler.timesteps)
    for step, t in enumerate(scheduler.timesteps[done:], done + 1):
        prediction = denoise(scheduler.scale_model_input(x, t), t, hint)
        stepped = scheduler.step(prediction, t, x, **draw(step, x))
        x = stepped.prev_sample
        if on_step:
            on_step(step, total, x, _find_estimate(scheduler, stepped))
    return x


def _find_estimate(scheduler: Any, stepped: Any) -> Tensor:
    """The scheduler's estimate of x0; multistep solvers keep it in `model_outputs`."""
    for name in ("pred_original_sample", "denoised"):
        x0: Tensor | None = getattr(stepped, name, None)
        if x0 is not None:
            return x0
    last: Tensor = scheduler.model_outputs[-1]
    return last


def _choose_noise_arguments(scheduler: Scheduler, noise: NoiseField | None) -> Callable[[int, Tensor], dict[str, Any]]:
    """The noise arguments of this scheduler's step: a tensor, a generator, or none."""
    takes = inspect.signature(scheduler.step).parameters
    if noise is not None and "variance_noise" in takes:
        return lambda step, x: {"variance_noise": noise.draw(x.shape, step).to(x)}
    if noise is not None and "generator" in takes:
        return lambda step, x: {"generator": noise.generator(step)}
    return lambda step, x: {}
