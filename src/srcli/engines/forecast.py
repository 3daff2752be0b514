"""What a run will take, before anything is loaded: tiles, calls, work, memory, and seconds on this device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module

import torch
from torch.nn.functional import conv2d

from srcli.engines import sr3
from srcli.engines.base import Size
from srcli.engines.budget import Demand, Room, arrange, spare
from srcli.engines.device import Device
from srcli.engines.latent import VALUES_A_PIXEL, guided_steps, least
from srcli.engines.placing import BYTES_A_LATENT, exact
from srcli.sampling.blocks import blocks
from srcli.sampling.layout import Cost, Limits, lay
from srcli.sampling.tiling import Tile
from srcli.settings import ModelChoice, Sampling, profile
from srcli.tasks import Job
from srcli.weights.store import Store

UNIT = 8  # pixels of a latent's side
# Values in the weights of every step, and at both ends in the VAE's and in all others, counted at full size.
WEIGHTS = {"pasd": (1.469e9, 0.084e9, 0.123e9), "stablesr": (1.0e9, 0.084e9, 0.406e9)}
NAMES = {"pasd": "PASD", "stablesr": "StableSR"}
VAE, VAE_ATTENTION = 13.8e6, 4 * 512 * 2  # FLOP of encoding and decoding, a pixel; and a pair of latents
# The built-in model's FLOP for each pixel of the picture: once, and at each step. Blocks overlap by about a third.
ONCE, STEP, OVERLAPPING = 2.71e6, 0.608e6, 1.34
CANVAS = 21  # bytes of a canvas pixel: the result in fp32, its levels twice, and the picture that leads
CHANNELS = 3  # of the picture and its result, a byte each
SHARE = {"cpu": 0.6, "cuda": 0.35, "mps": 0.35}  # of a convolution's speed that whole networks reach


@dataclass(frozen=True, slots=True)
class Forecast:
    """The plan of one picture."""

    engine: str
    result: Size
    steps: int
    tiles: int
    tile: Size | None  # of the canvas; None where there is no canvas to be cut
    at_once: int
    flop: float
    memory: int
    host: int = 0  # bytes of host memory besides, where `memory` is an accelerator's

    def said(self, device: Device, speed: float) -> dict[str, object]:
        """In words and numbers that others can read."""
        return {
            "engine": self.engine,
            "result": f"{self.result[0]}x{self.result[1]}",
            "steps": self.steps,
            "tiles": self.tiles,
            "tile": f"{self.tile[0]}x{self.tile[1]}" if self.tile else None,
            "tiles_at_once": self.at_once,
            "tflop": round(self.flop / 1e12, 3),
            "memory_gib": round(self.memory / 2**30, 2),
            "host_memory_gib": round(self.host / 2**30, 2),
            "device": str(device),
            "seconds": round(self.flop / speed, 1),
        }


def forecast(choice: ModelChoice, job: Job, size: Size, device: Device) -> Forecast:
    """The plan for a picture of this size. TooLarge where no plan fits into the device's budget."""
    name = choice.engine
    sampling, target = job.sampling.over(profile(choice)), job.target(*size)
    if name == "builtin":
        return _builtin(sampling, size, target, device)
    if name == "sr3":
        return _sr3(choice, sampling, size, target, device)
    module = import_module(f"srcli.engines.{name}")
    short = sampling.process_size or UNIT * 64
    wide, high = module.grey_size(size, short) if job.task.grey_hint else least(target, short)
    canvas = max(1, high // UNIT), max(1, wide // UNIT)
    limits = Limits() if name == "pasd" else module.limits(short // UNIT)
    tiles = lay(*canvas, sampling, module.cost, limits) or [Tile(0, 0, *canvas)]
    width, (steps, vae, others) = device.dtype.itemsize, WEIGHTS[name]
    ends = int(vae * exact(device.dtype).itemsize + others * width)
    demand = Demand(NAMES[name], int(steps * width), ends, BYTES_A_LATENT * width // 2)
    if name == "pasd":
        demand = replace(demand, kept=module.kept(tiles, sampling, device))
    room = arrange(demand, device)
    cost = _shared(module.cost, module.outer_cost, sampling) if sampling.reuse else module.cost
    plan = _latent(name, target, sampling, tiles, cost, room, demand)
    pixels = canvas[0] * canvas[1] * UNIT**2
    memory = _with_ends(plan.memory, pixels, demand.fixed(room), device)
    host = module.deep(tiles, sampling, device.dtype) if sampling.reuse and device.accelerated else 0
    return replace(plan, memory=memory, host=host)


def _shared(whole: Cost, outer: Cost, sampling: Sampling) -> Cost:
    """The mean cost of a call, where some steps share the deep layers' work."""
    steps = int(sampling.steps or 1)
    share = math.ceil(steps / (sampling.reuse or 1)) / steps
    return lambda latents: share * whole(latents) + (1 - share) * outer(latents)


def _with_ends(sampling: int, pixels: int, fixed: int, device: Device) -> int:
    """Memory at its peak, on a CPU mostly while the VAE decodes in fp32. Maps beyond the limit lie on the disk."""
    if device.accelerated:
        return sampling
    peak = max(sampling, fixed + 4 * VALUES_A_PIXEL * pixels) + CANVAS * pixels
    return min(peak, max(sampling, device.memory or peak))


def _latent(
    name: str, target: Size, sampling: Sampling, tiles: list[Tile], cost: Cost, room: Room, demand: Demand
) -> Forecast:
    steps, tile = int(sampling.steps or 1), tiles[0]
    guided = (sampling.guidance or 0) > 1
    both = len(guided_steps(torch.arange(steps), sampling.guidance_interval)) if guided else 0
    latents = tile.height * tile.width
    whole = max(t.top + t.height for t in tiles) * max(t.left + t.width for t in tiles)
    flop = (steps + both) * len(tiles) * cost(latents) + VAE * whole * UNIT**2 + VAE_ATTENTION * whole**2
    at_once = max(1, min(len(tiles), room.latents // latents))
    memory = demand.bytes(Room(at_once * latents, room.by_stage, room.eighth))
    return Forecast(name, target, steps, len(tiles), (tile.width, tile.height), at_once, flop, memory)


def _builtin(sampling: Sampling, size: Size, target: Size, device: Device) -> Forecast:
    from srcli.engines.builtin import HALO, block_side, demand

    steps, (width, height), flop = int(sampling.steps or 1), size, 0.0
    factor = max(target[0] / size[0], target[1] / size[1])
    while True:
        flop += width * height * (ONCE + STEP * steps)
        if (factor := factor / 4) <= 1:
            break
        width, height = 4 * width, 4 * height
    levels, picture = CHANNELS * target[0] * target[1], CHANNELS * width * height
    kept = picture + (levels if levels < spare(device) - picture else 0)
    pieces = list(blocks(height, width, block_side(device), HALO))
    memory = demand(device).bytes(max(piece.outer.height * piece.outer.width for piece in pieces))
    overlap = OVERLAPPING if len(pieces) > 1 else 1
    plan = Forecast("builtin", target, steps, len(pieces), None, 1, flop * overlap, memory)
    return replace(plan, host=kept) if device.accelerated else replace(plan, memory=memory + kept)


def _sr3(choice: ModelChoice, sampling: Sampling, size: Size, target: Size, device: Device) -> Forecast:
    """As its checkpoint, which has to be here, would do it."""
    engine = _opened(choice, device)
    steps, unit, flop = min(int(sampling.steps or 1), len(engine.table)), engine.unet.shape.factor, 0.0
    for width, height in engine.passes(size, target):
        canvas = math.ceil(height / unit) * unit, math.ceil(width / unit) * unit
        tiles, at_once = engine.layout(*canvas, sampling) or ([Tile(0, 0, *canvas)], 1)
        tile = tiles[0]
        flop += steps * len(tiles) * sr3.work(engine.unet, tile.height, tile.width)
    memory = sr3.demand(engine.unet, device).bytes(tile.height * tile.width, sr3.CANVAS * math.prod(canvas))
    return Forecast("sr3", target, steps, len(tiles), (tile.width, tile.height), at_once, flop, memory)


@lru_cache(maxsize=1)
def _opened(choice: ModelChoice, device: Device) -> sr3.SR3:
    return sr3.load(choice, device, Store(offline=True), lambda _: None)


def lasting(seconds: float) -> str:
    """A duration in words."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def speed(device: Device) -> float:
    """FLOP a second of a whole network, from a convolution of the kind that most of it is."""
    x = torch.randn(2, 320, 64, 64, dtype=device.dtype, device=device.torch)
    weight = torch.randn(320, 320, 3, 3, dtype=device.dtype, device=device.torch)
    flop = 2 * weight.numel() * x[:, 0].numel()
    best = min(_seconds(lambda: conv2d(x, weight, padding=1), device) for _ in range(4))
    return flop / best * SHARE.get(device.torch.type, SHARE["cuda"])


def _seconds(work: Callable[[], object], device: Device) -> float:
    began = time.perf_counter()
    work()
    if device.accelerated:
        torch.accelerator.synchronize(device.torch)
    return time.perf_counter() - began
