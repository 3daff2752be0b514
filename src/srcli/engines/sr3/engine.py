"""The SR3 engine: a U-Net over pixels, conditioned on the bicubic enlargement (Saharia et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from srcli.engines.base import Canvas, EngineSpec, PixelSize, Request, Unblocked
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import PixelMemoryNeed, count_weight_bytes
from srcli.engines.sr3.spec import SPEC, SR3_STEPS
from srcli.engines.sr3.weights import open_checkpoint
from srcli.errors import WeightsError
from srcli.models.sr3_unet import SR3UNet
from srcli.sampling.ancestral import Ancestral, compute_sqrt_alpha_bar
from srcli.sampling.hint import to_unit_float
from srcli.sampling.layout import Limits, lay_tiles
from srcli.sampling.noise import START_NOISE
from srcli.sampling.tiling import Tile, pad_to_multiple
from srcli.settings import ModelChoice, Sampling
from srcli.weights.store import Store

SR3_LIMITS = Limits(smallest=128, largest=512, step=32, overlap=32)
SIDES = (512, 448, 384, 320, 256, 192, 128)  # candidates for the largest tile's side
SR3_VALUES = 24  # peak number of feature-map values per pixel of a tile and channel of the first level


def load_sr3(choice: ModelChoice, device: Device, store: Store) -> SR3Engine:
    """Load the checkpoint that was named; SR3 has no weights to pull."""
    if choice.adapter is None:
        raise WeightsError("SR3 has no weights of its own to pull: give a checkpoint, `adapter` FILE")
    checkpoint = open_checkpoint(choice.adapter, store, choice.allow_pickle)
    unet = checkpoint.unet.to(device.torch).requires_grad_(False)
    limits = replace(SR3_LIMITS, largest=tile_memory_need(unet, device).largest(SIDES, 0, device))
    return SR3Engine(unet, checkpoint.betas, checkpoint.factor, device, checkpoint.weights_used, limits)


def tile_memory_need(unet: SR3UNet, device: Device) -> PixelMemoryNeed:
    pixel = SR3_VALUES * unet.shape.inner_channel * device.dtype.itemsize
    return PixelMemoryNeed("SR3", pixel, count_weight_bytes([unet], torch.float32))


@dataclass(frozen=True)
class SR3Denoiser:
    """The U-Net as a denoiser. The hint is the enlargement in -1..1. It is conditioned on the noise level, or on the
    timestep for checkpoints of the "ddpm" variant."""

    unet: SR3UNet
    sqrt_alpha_bar: Tensor  # after each step
    device: Device
    stride: int = 1

    def __call__(self, x: Tensor, t: Tensor, hint: Tensor, where: Sequence[Tile] | None = None) -> Tensor:
        if self.unet.shape.variant == "ddpm":
            condition = torch.full((len(x),), int(t), device=x.device)
        else:
            condition = torch.full((len(x), 1), float(self.sqrt_alpha_bar[int(t) + 1]), device=x.device)
        half = self.device.dtype is not torch.float32
        with torch.autocast(x.device.type, self.device.dtype, enabled=half):
            prediction: Tensor = self.unet(torch.cat([hint, x], dim=1), condition)
        return prediction.to(x.dtype)


@dataclass(frozen=True)
class SR3Engine(Unblocked):
    """Loaded SR3 networks. Factors above `pass_factor`, that of training, take several passes."""

    unet: SR3UNet
    betas: Tensor
    pass_factor: int
    device: Device
    weights_used: Mapping[str, str]
    limits: Limits = SR3_LIMITS
    spec: EngineSpec = SPEC
    variant: str | None = None
    supported_savings: Collection[str] = ("share", "tile")

    def passes(self, size: PixelSize, target: PixelSize) -> list[PixelSize]:
        """A cascade of passes with equal factors of at most `pass_factor`."""
        scale = max(target[0] / size[0], target[1] / size[1], 1.0)
        count = max(1, math.ceil(math.log(scale) / math.log(self.pass_factor) - 1e-6))
        between = [scale ** (i / count) for i in range(1, count)]
        return [*((round(size[0] * s), round(size[1] * s)) for s in between), target]

    def working_size(self, size: PixelSize, target: PixelSize, request: Request) -> PixelSize:
        return target

    def layout(self, height: int, width: int, sampling: Sampling) -> tuple[list[Tile], int] | None:
        unit = self.unet.shape.factor
        if sampling.tile is not None:  # its side must be divisible by the U-Net's total stride
            tile = max(unit, sampling.tile // unit * unit)
            sampling = replace(sampling, tile=tile, overlap=sampling.overlap and min(sampling.overlap, tile - 1))
        tiles = lay_tiles(height, width, sampling, float, self.limits)
        return None if tiles is None else (tiles, 1)

    def prepare(self, hint: Tensor, request: Request) -> Canvas:
        scheduler = Ancestral(self.betas, clip=True)
        scheduler.set_timesteps(min(int(request.sampling.steps or SR3_STEPS), len(self.betas)))
        whole = pad_to_multiple(to_unit_float(hint).to(self.device.torch), self.unet.shape.factor) * 2 - 1
        start = request.noise.draw(whole.shape, START_NOISE).to(whole)
        denoiser = SR3Denoiser(self.unet, compute_sqrt_alpha_bar(self.betas), self.device)
        height, width = hint.shape[2:]
        return Canvas(start, whole, denoiser, scheduler, lambda x: x[:, :, :height, :width] / 2 + 0.5)

    def provenance(self) -> Mapping[str, str]:
        return self.weights_used
