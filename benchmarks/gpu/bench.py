"""Shared by all sections: the device, clocks, memory, differences."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.gpu.models import CPU, FULL, TINY, Sizes
from srcli.engines.runtime.device import Device, allow_tf32
from srcli.messages import forward_messages

HOST = Device(CPU, torch.float32)


@dataclass(frozen=True)
class Bench:
    """The device, the golden vectors, and whether the networks are small."""

    device: Device
    golden: Path
    small: bool = False

    @property
    def sizes(self) -> Sizes:
        return TINY if self.small else FULL

    @property
    def dtypes(self) -> list[torch.dtype]:
        """Precisions that are compared with the CPU. On a CPU, float16 is too slow."""
        if self.device.torch.type != "cpu":
            return [torch.float32, torch.bfloat16, torch.float16]
        return [torch.float32] if self.small else [torch.float32, torch.bfloat16]

    def at(self, dtype: torch.dtype) -> Device:
        """The device in this precision, with TF32 as set by the command line."""
        allow_tf32(dtype is not torch.float32)
        return replace(self.device, dtype=dtype)


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def finish(device: Device) -> None:
    if device.accelerated:
        torch.accelerator.synchronize(device.torch)


def seconds(work: Callable[[], object], device: Device, times: int = 5) -> float:
    """Mean seconds of a call, after two warm-up calls."""
    for _ in range(2):
        work()
    finish(device)
    began = time.perf_counter()
    for _ in range(times):
        work()
    finish(device)
    return (time.perf_counter() - began) / times


@contextmanager
def peak(device: Device) -> Iterator[list[float]]:
    """Peak memory of the block in GiB beyond what was allocated before, when it has ended; 0 without CUDA."""
    found: list[float] = []
    before = 0
    if device.torch.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device.torch)
        before = torch.cuda.memory_allocated(device.torch)
    yield found
    most = torch.cuda.max_memory_allocated(device.torch) if device.torch.type == "cuda" else before
    found.append((most - before) / 2**30)


@contextmanager
def collect_messages() -> Iterator[list[str]]:
    """The messages to the user within the block."""
    messages: list[str] = []
    forward_messages(messages.append)
    try:
        yield messages
    finally:
        forward_messages(None)


def away(found: Tensor, truth: Tensor) -> str:
    """The relative difference, by norm."""
    found, truth = found.cpu().float(), truth.cpu().float()
    return f"{float((found - truth).norm() / truth.norm()):.1e}"


def levels_off(found: NDArray[np.uint8], truth: NDArray[np.uint8]) -> list[str]:
    """The largest difference in levels, the share of values that differ, and PSNR."""
    if found.shape != truth.shape:
        raise ValueError(f"{found.shape} instead of {truth.shape}")
    off = np.abs(found.astype(int) - truth)
    noise = float((off.astype(float) ** 2).mean())
    psnr = f"{10 * np.log10(255**2 / noise):.1f}" if noise else "equal"
    return [str(off.max()), f"{100 * (off > 0).mean():.2f}", psnr]
