"""Where to compute: what the machine has, what was asked for, and in which precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import device as TorchDevice
from torch import dtype as TorchDtype

from srcli.errors import InputError, MachineError
from srcli.memory import tune_allocator
from srcli.settings import DeviceChoice
from srcli.threads import default_threads


@dataclass(frozen=True, slots=True)
class Device:
    """A device that is there, and the precision to use on it."""

    torch: TorchDevice
    dtype: TorchDtype
    memory: int | None = None  # bytes that may be used; None: whatever there is
    compiled: bool = False  # networks are compiled where there are pictures enough to pay for it

    @property
    def accelerated(self) -> bool:
        return self.torch.type != "cpu"

    def __str__(self) -> str:
        return f"{self.torch} {str(self.dtype).removeprefix('torch.')}"


def list_devices() -> list[str]:
    """Names of the devices of this machine, best first."""
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def choose_device(choice: DeviceChoice) -> Device:
    """The device that was asked for, or the best one; never another one silently."""
    names = list_devices()
    name = names[0] if choice.device == "auto" else choice.device
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in names:
        raise MachineError(f"no device {name!r} here: choose one of {', '.join(names)}")
    if choice.compiled and wanted == "cpu":
        raise InputError("`compile` only loses time on a CPU: leave it out")
    return Device(torch.device(wanted), _dtype(wanted, choice.dtype), choice.memory, choice.compiled)


def prepare_process(device: Device, threads: int | None = None) -> None:
    """Set what holds for the whole process: the allocator, the CPU threads, and TF32. A program's own start calls it,
    in the thread that will compute; srcli used as a library does not."""
    tune_allocator()
    torch.set_num_threads(threads or default_threads(_capabilities().get("num_physical_cores")))
    allow_tf32(device.dtype is not torch.float32)


def allow_tf32(allowed: bool) -> None:
    """Whether a GPU multiplies float32 with the precision of float16, which is all that is wanted beside float16."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def _dtype(device: str, dtype: str) -> torch.dtype:
    if device == "cpu" and dtype == "float16":
        raise InputError("float16 on a CPU is over a hundred times slower than float32: use `dtype` auto")
    if dtype != "auto":
        chosen: torch.dtype = getattr(torch, dtype)
        return chosen
    if device == "cpu":
        return torch.bfloat16 if fast_bfloat16() else torch.float32
    return torch.float16


def fast_bfloat16() -> bool:
    """Whether this processor computes in bfloat16 natively; without that it is slower than float32."""
    has = _capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def _capabilities() -> Mapping[str, Any]:
    """What torch knows of the processor: nothing, where it is too old to be asked."""
    asked = getattr(torch.cpu, "get_capabilities", None)
    return asked() if asked else {}
