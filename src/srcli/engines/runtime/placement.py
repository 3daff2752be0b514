"""Place networks on their device, within its memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from diffusers import AutoencoderKL
from diffusers.hooks import apply_layerwise_casting
from torch import nn

from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import MemoryNeed, Placement, count_weight_bytes
from srcli.memory import trim_heap
from srcli.models.patches.changes import Patch
from srcli.models.patches.install import install
from srcli.models.patches.packed import PackedLayers
from srcli.models.patches.row_attention import RowAttention

BYTES_PER_LATENT = 1 << 16  # activations of both halves of a guided call, in half precision


def network_memory_need(
    name: str, steps: Iterable[nn.Module], ends: Iterable[nn.Module], dtype: torch.dtype
) -> MemoryNeed:
    """Memory of an engine with these networks: `steps` run at every step, `ends` before and after."""
    at_ends = sum(
        count_weight_bytes([net], vae_dtype(dtype) if isinstance(net, AutoencoderKL) else dtype) for net in ends
    )
    return MemoryNeed(name, count_weight_bytes(steps, dtype), at_ends, BYTES_PER_LATENT * dtype.itemsize // 2)


def vae_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision of a VAE: fp32 instead of bfloat16, whose 8 bits would cause banding in smooth skies."""
    return torch.float32 if dtype is torch.bfloat16 else dtype


def place_network(
    net: nn.Module, device: Device, dtype: torch.dtype | None = None, placement: Placement | None = None
) -> nn.Module:
    """Move a network to the device, for inference."""
    net = net.to(dtype=dtype or device.dtype).eval().requires_grad_(False)
    if placement and placement.weights_fp8:
        apply_layerwise_casting(net, torch.float8_e4m3fn, dtype or device.dtype, skip_modules_pattern=("norm",))
    net = net.to(device.torch)
    return net.to(memory_format=torch.channels_last) if device.accelerated else net  # type: ignore[call-overload]


def place_step_networks(nets: Iterable[nn.Module], device: Device, placement: Placement, *patches: Patch) -> None:
    """Place the networks of every step, with `patches` and those that suit a CPU or MPS.

    All are installed at once: a patch below `PackedLayers` that comes later has every weight unpacked and packed again.
    """
    own: dict[str, tuple[Patch, ...]] = {"cpu": (RowAttention(), PackedLayers()), "mps": (RowAttention(),)}
    for net in nets:
        place_network(net, device, placement=placement)
        install([net], *patches, *own.get(device.torch.type, ()))
        trim_heap()  # small weights that were packed leave holes, which the next network's do not fit into


@contextmanager
def on_device(net: nn.Module, device: Device, placement: Placement) -> Iterator[None]:
    """Keep a network on its device; with `by_stage`, only within this context."""
    if placement.by_stage:
        net.to(device.torch)
    try:
        yield
    finally:
        if placement.by_stage:
            net.to("cpu")
