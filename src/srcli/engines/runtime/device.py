"""The device to compute on and its precision: what the machine has and what the user asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import device as TorchDevice
from torch import dtype as TorchDtype

from srcli.errors import InputError, MachineError
from srcli.memory import tune_allocator
from srcli.models.cpu_features import read_cpu_features
from srcli.settings import DeviceChoice
from srcli.threads import default_threads


@dataclass(frozen=True, slots=True)
class Device:
    """A device of this machine, and the precision to use on it."""

    torch: TorchDevice
    dtype: TorchDtype
    memory: int | None = None  # limit in bytes; None: no limit
    compiled: bool = False  # compile the networks once there is more than one picture

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
    """The requested device, or the best one for `auto`; MachineError if the requested one does not exist."""
    names = list_devices()
    name = names[0] if choice.device == "auto" else choice.device
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in names:
        raise MachineError(f"no device {name!r} here: choose one of {', '.join(names)}")
    if choice.compiled and wanted == "cpu":
        raise InputError("`compile` only loses time on a CPU: leave it out")
    return Device(torch.device(wanted), _dtype(wanted, choice.dtype), choice.memory, choice.compiled)


def prepare_process(device: Device, threads: int | None = None) -> None:
    """Set process-wide state: allocator, CPU threads, TF32. The CLI calls this at its start, in the computing thread;
    the Python API does not."""
    tune_allocator()
    torch.set_num_threads(threads or default_threads(read_cpu_features().get("num_physical_cores")))
    allow_tf32(device.dtype is not torch.float32)


def allow_tf32(allowed: bool) -> None:
    """Allow TF32 (float32 products in about float16's precision), which is enough for networks in half precision."""
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
    has = read_cpu_features()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
