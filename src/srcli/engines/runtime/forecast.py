"""The forecast of a run: its plan, the measured speed of this device, and durations in words."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import conv2d

from srcli.engines.base import PixelSize
from srcli.engines.runtime.device import Device
from srcli.files import create_folder, replace_file
from srcli.weights.places import find_places

SPEEDS = "speeds.json"
SPEED_SHARE = {"cpu": 0.6, "cuda": 0.35, "mps": 0.35}  # speed of whole networks relative to one convolution


@dataclass(frozen=True, slots=True)
class Forecast:
    """The plan of one picture."""

    engine: str
    result: PixelSize
    steps: int
    tiles: int
    tile: PixelSize | None  # in canvas elements; None: the engine has no tiles
    at_once: int
    flop: float
    memory: int
    host: int = 0  # additional bytes of host memory if `memory` is an accelerator's

    def fields(self, device: Device, speed: float) -> dict[str, object]:
        """The fields of the report, with a duration at `speed` FLOP per second."""
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


def format_duration(seconds: float) -> str:
    """A duration in hours, minutes or seconds, as text."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 0.1 else "less than 0.1 s"


def known_speed(device: Device) -> float:
    """FLOP per second of whole networks on this device. Measured once and cached, so that the forecast does not depend
    on the machine's current load."""
    file = find_places().data / SPEEDS
    key = f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    speeds = _read_speeds(file)
    if key not in speeds:
        speeds[key] = measure_speed(device)
        with suppress(OSError):  # without the cache the next run measures again
            create_folder(file.parent)
            with replace_file(file) as fresh:
                fresh.write_text(json.dumps(speeds), encoding="utf-8")
    return speeds[key]


def _read_speeds(file: Path) -> dict[str, float]:
    try:
        cached = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    speeds = cached.items() if isinstance(cached, dict) else ()
    return {key: speed for key, speed in speeds if isinstance(speed, float) and 0 < speed < math.inf}


def measure_speed(device: Device) -> float:
    """FLOP per second of whole networks, estimated from a 3x3 convolution like most of their layers."""
    x = torch.randn(1, 320, 64, 64, dtype=device.dtype, device=device.torch)
    weight = torch.randn(320, 320, 3, 3, dtype=device.dtype, device=device.torch)
    flop = 2 * weight.numel() * x[:, 0].numel()
    best = min(_seconds(lambda: conv2d(x, weight, padding=1), device) for _ in range(4))
    return flop / best * SPEED_SHARE.get(device.torch.type, SPEED_SHARE["cuda"])


def _seconds(work: Callable[[], object], device: Device) -> float:
    """Duration of `work`; on a CPU, CPU time per thread, so that other programs do not count."""
    clock = time.perf_counter if device.accelerated else time.process_time
    began = clock()
    work()
    if device.accelerated:
        torch.accelerator.synchronize(device.torch)
    return (clock() - began) / (1 if device.accelerated else torch.get_num_threads())
