"""An engine without a model, for the slot where a real one sits: the rest of the line is the real one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler

from srcli.engines.base import Canvas, EngineSpec, PixelSize, Request
from srcli.engines.builtin.spec import SPEC
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.oom_fallback import ALL_SAVINGS, MemorySavings
from srcli.pipeline import EnginePipeline
from srcli.sampling.hint import to_unit_float
from srcli.sampling.layout import Limits, lay_tiles

CPU = Device(torch.device("cpu"), torch.float32)


class Nothing:
    """A denoiser that sees no noise."""

    stride = 1

    def __call__(self, x, t, hint, where=None):
        return torch.zeros_like(x)


@dataclass
class PassThrough:
    """Gives back its hint, `factor` times larger by repetition."""

    spec: EngineSpec = SPEC  # so that the built-in engine's settings are accepted
    variant: str | None = None
    factor: int = 1
    block: int | None = None
    halo: int = 4
    supported_savings: Collection[str] = ALL_SAVINGS
    change: Callable[[torch.Tensor], torch.Tensor] = lambda rgb: rgb
    seen: tuple[PixelSize, ...] = ()
    fits: Callable[[MemorySavings], bool] = lambda savings: True

    def passes(self, size: PixelSize, target: PixelSize) -> list[PixelSize]:
        return [target]

    def working_size(self, size: PixelSize, target: PixelSize, request: Request) -> PixelSize:
        return size if self.factor > 1 else target

    def layout(self, height, width, sampling):
        tiles = lay_tiles(height, width, sampling, float, Limits(smallest=8, largest=16, overlap=4))
        return tiles and (tiles, 8)

    def prepare(self, hint: torch.Tensor, request: Request) -> Canvas:
        if not self.fits(request.savings):
            raise torch.OutOfMemoryError("injected")
        self.seen = (*self.seen, (hint.shape[3], hint.shape[2]))
        scheduler = DDIMScheduler()
        scheduler.set_timesteps(2)
        start = request.noise.draw((1, 1, hint.shape[2], hint.shape[3]))

        def finish(x: torch.Tensor) -> torch.Tensor:
            big = to_unit_float(hint).repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)
            return self.change(big)

        return Canvas(start, hint, Nothing(), scheduler, finish)

    def provenance(self) -> dict[str, str]:
        return {"model": "none"}


def pipeline(**kind: object) -> EnginePipeline:
    return EnginePipeline(PassThrough(**kind), CPU)
