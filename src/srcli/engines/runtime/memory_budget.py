"""Memory: what an engine needs of a device, and how it is arranged where there is less."""

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

CONTEXT = GIB // 2  # what torch itself and its libraries take, on any device
TORCH_BYTES = 325 << 20  # of it, for an engine that needs torch alone, with the workspace of its convolutions
ACTIVATION_SHARE = 0.8  # of what is left for activations; the rest is lost between blocks of memory
CPU_LATENTS = 2 * 64 * 64  # of all tiles in a call on a CPU, where larger batches gain nothing
MPS_ATTENTION = GIB // 2  # for scores in fp32, which torch holds there and nowhere else
MAIN = 0.75  # of memory, for an engine over pixels; the rest is left to the picture and its result
MOST_LATENTS = 16 * 64 * 64
LEAST_LATENTS = 48 * 48  # the smallest tile that is planned


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that an engine needs: weights of every step, weights at both ends, and of each latent in a call.

    `kept` is what stays on the device from one step to the next.
    """

    name: str
    steps: int
    ends: int
    latent: int
    kept: int = 0

    def least(self, placement: Placement) -> int:
        """With one smallest tile in a call. A VAE that comes by stage wants no more than tiles do."""
        tile = math.ceil(LEAST_LATENTS * self.latent / ACTIVATION_SHARE)
        return self.fixed(placement) + (max(tile, self.ends) if placement.by_stage else tile)

    def fixed(self, placement: Placement) -> int:
        """All besides activations, while the engine samples."""
        steps = self.steps // 2 if placement.weights_fp8 else self.steps
        return CONTEXT + steps + self.kept + (0 if placement.by_stage else self.ends)

    def latents(self, placement: Placement, memory: int | None) -> int:
        """Of all tiles in a call: as many as there is room for."""
        free = (
            placement.latents
            if memory is None
            else int(ACTIVATION_SHARE * (memory - self.fixed(placement)) / self.latent)
        )
        return min(placement.latents, free)

    def beside(self, placement: Placement, device: Device) -> Device:
        """The device with no more memory than this leaves, where there is a limit to it."""
        return replace(device, memory=device.memory and max(1, device.memory - self.fixed(placement)))

    def bytes(self, placement: Placement) -> int:
        """At the largest."""
        return max(
            self.least(placement), self.fixed(placement) + math.ceil(placement.latents * self.latent / ACTIVATION_SHARE)
        )


@dataclass(frozen=True, slots=True)
class Placement:
    """How an engine lives in the memory it has."""

    latents: int  # of all tiles in one call
    by_stage: bool = False  # text encoder and VAE leave the device when they have done their part
    weights_fp8: bool = False  # weights are kept in 8 bits, which changes the result a little

    def said(self) -> dict[str, str]:
        """What of it changes the result."""
        return {"weights": "kept in 8 bits"} if self.weights_fp8 else {}

    def with_less(self, savings: MemorySavings) -> Placement:
        return replace(self, by_stage=self.by_stage or savings.offload)


@dataclass(frozen=True, slots=True)
class PixelMemoryNeed:
    """Bytes of an engine over pixels: its weights, and each pixel of the largest piece that it takes at once."""

    name: str
    pixel: int
    weights: int = 0

    def bytes(self, pixels: int, kept: int = 0) -> int:
        return TORCH_BYTES + self.weights + self.pixel * pixels + kept

    def largest(self, sides: Iterable[int], around: int, device: Device) -> int:
        """The first of these falling sides whose square, with `around` on each edge, fits. TooLarge: none does."""
        memory, least = find_memory_budget(device), 0
        for side in sides:
            least = math.ceil(self.bytes((side + 2 * around) ** 2) / MAIN)
            if memory is None or least <= memory:
                return side
        raise does_not_fit(self.name, device, least)


def spare_host_memory(device: Device) -> int:
    """Bytes of a picture and its result that may stay in host memory; a larger result lies in a file."""
    limit = None if device.accelerated else device.memory
    return SPILL_BYTES if limit is None else min(SPILL_BYTES, int((1 - MAIN) * limit))


AMPLE = Placement(MOST_LATENTS)


def plan_placement(memory_need: MemoryNeed, device: Device) -> Placement:
    """The least intrusive arrangement that fits. TooLarge names the smallest budget where none does."""
    rooms = [Placement(MOST_LATENTS), Placement(MOST_LATENTS, True), Placement(MOST_LATENTS, True, True)]
    if device.torch.type == "mps":  # which has no numbers of 8 bits
        rooms.pop()
    if not device.accelerated:
        rooms = [Placement(CPU_LATENTS)]
    memory = find_memory_budget(device)
    for placement in rooms:
        if memory is None or memory_need.least(placement) <= memory:
            return replace(placement, latents=memory_need.latents(placement, memory))
    half = replace(memory_need, steps=memory_need.steps // 2, latent=memory_need.latent // 2)
    fits_in_half = device.dtype is torch.float32 and half.least(rooms[-1]) <= (memory or 0)
    raise does_not_fit(memory_need.name, device, memory_need.least(rooms[-1]), fits_in_half)


def does_not_fit(name: str, device: Device, least: int, fits_in_half: bool = False) -> TooLarge:
    in_what = f"{name} in float32" if fits_in_half else name
    way = "`dtype` bfloat16, which fits," if fits_in_half else f"`max_memory` {_gib(least)} or more,"
    return TooLarge(
        f"{in_what} does not fit into {_gib(find_memory_budget(device) or 0)} of memory on {device.torch}:"
        f" give {way} or choose another engine"
    )


def find_memory_budget(device: Device) -> int | None:
    """Bytes that may be used: what was asked for, else what is free on a GPU, else no one's concern."""
    free = _free(device.torch)
    return device.memory if free is None else min(free, device.memory or free)


def _free(where: torch.device) -> int | None:
    """Bytes of an accelerator's memory that nobody uses, where it says so."""
    if where.type == "cuda":
        return int(torch.cuda.mem_get_info(where)[0])
    if where.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()) - MPS_ATTENTION
    return None


def count_weight_bytes(nets: Iterable[nn.Module], dtype: torch.dtype) -> int:
    """Bytes of these networks' weights in this precision."""
    return sum(p.numel() for net in nets for p in net.parameters()) * dtype.itemsize


def _gib(count: int) -> str:
    return f"{math.ceil(count / GIB * 10) / 10:.1f}G"
