"""The memory that an engine needs, and how it is placed on a device that has less."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from srcli.engines.runtime.device import Device
from srcli.engines.runtime.oom_fallback import MemorySavings
from srcli.errors import TooLarge
from srcli.imaging.spill import SPILL_BYTES
from srcli.memory import GIB

CONTEXT = GIB // 2  # taken by torch, diffusers and their libraries, on any device
TORCH_BYTES = 325 << 20  # the same for an engine that needs torch alone, with its convolutions' workspace
ACTIVATION_SHARE = 0.8  # usable share of the memory left for activations; the rest is lost to fragmentation
CPU_LATENTS = 2 * 64 * 64  # latents per call on a CPU, where larger batches are no faster
MPS_ATTENTION = GIB // 2  # for attention scores in fp32, which torch materializes on MPS only
PIXEL_ENGINE_SHARE = 0.75  # of memory, for an engine over pixels; the rest is left to the picture and its result
MOST_LATENTS = 16 * 64 * 64
LEAST_LATENTS = 48 * 48  # in the smallest tile that is planned


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that an engine over latents needs.

    `steps`: weights used at every step. `ends`: weights used only before and after (VAE, text encoder). `latent`:
    activations per latent in a call. `kept`: what stays on the device from one step to the next.
    """

    name: str
    steps: int
    ends: int
    latent: int
    kept: int = 0

    def least(self, placement: Placement) -> int:
        """With one smallest tile in a call. Offloaded networks (`by_stage`) share the tile's memory."""
        tile = math.ceil(LEAST_LATENTS * self.latent / ACTIVATION_SHARE)
        return self.fixed(placement) + (max(tile, self.ends) if placement.by_stage else tile)

    def fixed(self, placement: Placement) -> int:
        """Everything but activations, while the engine samples."""
        steps = self.steps // 2 if placement.weights_fp8 else self.steps
        return CONTEXT + steps + self.kept + (0 if placement.by_stage else self.ends)

    def latents(self, placement: Placement, memory: int | None) -> int:
        """How many latents, over all tiles of a call, fit into this memory."""
        if memory is None:
            return placement.latents
        return min(placement.latents, int(ACTIVATION_SHARE * (memory - self.fixed(placement)) / self.latent))

    def beside(self, placement: Placement, device: Device) -> Device:
        """The device with its memory limit, if any, reduced by what the engine occupies while it samples."""
        return replace(device, memory=device.memory and max(1, device.memory - self.fixed(placement)))

    def bytes(self, placement: Placement) -> int:
        """The peak."""
        activations = math.ceil(placement.latents * self.latent / ACTIVATION_SHARE)
        return max(self.least(placement), self.fixed(placement) + activations)


@dataclass(frozen=True, slots=True)
class Placement:
    """How an engine is placed in the memory that there is."""

    latents: int  # per call, over all its tiles
    by_stage: bool = False  # text encoder and VAE are on the device only while they run
    weights_fp8: bool = False  # weights are stored in 8 bits, which changes the result slightly

    def provenance(self) -> dict[str, str]:
        """What changes the result, for its metadata."""
        return {"weights": "kept in 8 bits"} if self.weights_fp8 else {}

    def with_less(self, savings: MemorySavings) -> Placement:
        return replace(self, by_stage=self.by_stage or savings.offload)


@dataclass(frozen=True, slots=True)
class PixelMemoryNeed:
    """Bytes that an engine over pixels needs: `weights`, and `pixel` for each pixel that it processes at once."""

    name: str
    pixel: int
    weights: int = 0

    def bytes(self, pixels: int, kept: int = 0) -> int:
        return TORCH_BYTES + self.weights + self.pixel * pixels + kept

    def largest(self, sides: Iterable[int], around: int, device: Device) -> int:
        """The first of these falling sides whose square, with `around` on each edge, fits; TooLarge if none does."""
        memory, least = find_memory_budget(device), 0
        for side in sides:
            least = math.ceil(self.bytes((side + 2 * around) ** 2) / PIXEL_ENGINE_SHARE)
            if memory is None or least <= memory:
                return side
        raise too_large_error(self.name, device, least)


def spare_host_memory(device: Device) -> int:
    """Bytes of a picture and its result that may stay in host memory; a larger result is kept in a file."""
    limit = None if device.accelerated else device.memory
    return SPILL_BYTES if limit is None else min(SPILL_BYTES, int((1 - PIXEL_ENGINE_SHARE) * limit))


AMPLE = Placement(MOST_LATENTS)


def plan_placement(memory_need: MemoryNeed, device: Device) -> Placement:
    """The fastest placement that fits. TooLarge, with the smallest budget that would do, if none fits."""
    placements = [Placement(MOST_LATENTS), Placement(MOST_LATENTS, True), Placement(MOST_LATENTS, True, True)]
    if device.torch.type == "mps":  # has no 8-bit floats
        placements.pop()
    if not device.accelerated:
        placements = [Placement(CPU_LATENTS)]
    memory = find_memory_budget(device)
    for placement in placements:
        if memory is None or memory_need.least(placement) <= memory:
            return replace(placement, latents=memory_need.latents(placement, memory))
    half = replace(memory_need, steps=memory_need.steps // 2, latent=memory_need.latent // 2)
    fits_in_half = device.dtype is torch.float32 and half.least(placements[-1]) <= (memory or 0)
    raise too_large_error(memory_need.name, device, memory_need.least(placements[-1]), fits_in_half)


def too_large_error(name: str, device: Device, least: int, fits_in_half: bool = False) -> TooLarge:
    what = f"{name} in float32" if fits_in_half else name
    remedy = "`dtype` bfloat16, which fits," if fits_in_half else f"`max_memory` {_format_gib(least)} or more,"
    return TooLarge(
        f"{what} does not fit into {_format_gib(find_memory_budget(device) or 0)} of memory on {device.torch}:"
        f" give {remedy} or choose another engine"
    )


def find_memory_budget(device: Device) -> int | None:
    """Bytes that may be used: the limit that was set and what is free on a GPU, whichever is less; None: no limit."""
    free = _find_free_memory(device.torch)
    return device.memory if free is None else min(free, device.memory or free)


def _find_free_memory(where: torch.device) -> int | None:
    """Free bytes of an accelerator's memory; None where they are unknown."""
    if where.type == "cuda":
        return int(torch.cuda.mem_get_info(where)[0])
    if where.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()) - MPS_ATTENTION
    return None


def count_weight_bytes(nets: Iterable[nn.Module], dtype: torch.dtype) -> int:
    """Bytes of these networks' weights in this precision."""
    return sum(p.numel() for net in nets for p in net.parameters()) * dtype.itemsize


def _format_gib(count: int) -> str:
    return f"{math.ceil(count / GIB * 10) / 10:.1f}G"
