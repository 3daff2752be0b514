"""Measure each exact saving on one guided step of PASD at full size on a CPU.

The plain step is that of the official program; then one more saving is added at a time. --calls: the first call and
later ones, plain and with all savings. The weights are random, which does not change the FLOP.

python -m benchmarks.savings [--side 512] [--calls] [--small]
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from benchmarks.pasd_step import SD15, SMALL, T, denoiser, embedded_again, inputs, networks
from benchmarks.tables import run_in_process, seconds, table
from srcli.engines.pasd.sampling import PasdDenoiser
from srcli.engines.runtime.device import Device, fast_bfloat16
from srcli.memory import reuse_freed_memory, tune_allocator
from srcli.models.patches.install import install
from srcli.models.patches.packed import PackedLayers
from srcli.models.patches.row_attention import RowAttention
from srcli.models.patches.shared_cfg_prefix import SharedCfgPrefix
from srcli.models.patches.text_kv_cache import TextKvCache

Step = Callable[[Tensor, Tensor], Tensor]
PLAIN = "plain: stock layers, both texts in one call"


def stages(denoiser: PasdDenoiser) -> Iterator[tuple[str, Step]]:
    """The plain step, then the step with one more saving each time."""
    nets = denoiser.nets
    every = (nets.unet, nets.paca, nets.control)
    for net in (nets.unet, nets.control):
        net.set_attn_processor(AttnProcessor2_0())
    yield PLAIN, lambda x, hint: embedded_again(denoiser, x, hint)
    install((nets.unet, nets.control), TextKvCache())
    yield "the picture's embedding and the texts' keys kept", lambda x, hint: denoiser(x, T, hint)
    install(every, RowAttention())
    yield "attention by rows, where that is faster", lambda x, hint: denoiser(x, T, hint)
    install(every, PackedLayers())
    yield "weights packed, maps channels last", lambda x, hint: denoiser(x, T, hint)
    prefix = SharedCfgPrefix()
    install((nets.unet, nets.control), prefix)
    shared = replace(denoiser, nets=replace(nets, prefix=prefix))
    yield "layers before the first text shared by the halves", lambda x, hint: shared(x, T, hint)


@torch.inference_mode()
def measure_stages(config: dict, side: int) -> dict[str, float]:
    """Processor seconds of a step in fp32 with one more saving each time."""
    x, hint, nets = _prepare(config, torch.float32, side)
    return {name: seconds(lambda step=step: step(x, hint), 2) for name, step in stages(nets)}


@torch.inference_mode()
def measure_calls(config: dict, dtype: torch.dtype, side: int, plain: bool) -> dict[str, float]:
    """Processor seconds of the first step and of later ones, either plain or with all savings."""
    if plain:
        return _measure_calls(config, dtype, side, 1)
    tune_allocator()  # as the command line does
    with reuse_freed_memory():
        return _measure_calls(config, dtype, side, None)


def _measure_calls(config: dict, dtype: torch.dtype, side: int, ways: int | None) -> dict[str, float]:
    x, hint, nets = _prepare(config, dtype, side)
    steps: list[Step] = []
    loading = seconds(lambda: steps.extend(step for _, step in islice(stages(nets), ways)))
    first = seconds(lambda: steps[-1](x, hint))
    return {"loading": loading, "first": first, "later": seconds(lambda: steps[-1](x, hint), 3)}


def _prepare(config: dict, dtype: torch.dtype, side: int) -> tuple[Tensor, Tensor, PasdDenoiser]:
    torch.set_num_threads(1)
    device = Device(torch.device("cpu"), dtype)
    x, hint, text = inputs(config, device, side)
    return x, hint, denoiser(networks(config, device), text)


def report_stages(side: int, extra: list[str]) -> None:
    found = run_in_process("benchmarks.savings", "--side", side, "--one", "stages", *extra)
    plain = found[PLAIN]
    rows, before = [], plain
    for name, spent in found.items():
        rows.append([name, f"{spent:.1f}", f"{before / spent:.2f}x", f"{plain / spent:.2f}x"])
        before = spent
    print(f"## Exact savings: one guided step of PASD at {side}x{side}, one core, fp32, {platform.machine()}\n")
    print(table(["with, besides all above", "processor s", "faster by", "than plain"], rows))


def report_calls(side: int, extra: list[str]) -> None:
    """Measure both alternately, each in its own process, so that each has a first call."""
    rows = []
    for dtype in ("float32", *(["bfloat16"] if fast_bfloat16() else [])):
        plain, ours = (
            run_in_process("benchmarks.savings", "--side", side, "--one", f"{way} {dtype}", *extra)
            for way in ("plain", "ours")
        )
        for call in ("first", "later"):
            rows.append([dtype, call, f"{plain[call]:.1f}", f"{ours[call]:.1f}", f"{plain[call] / ours[call]:.2f}x"])
        rows.append([dtype, "packing, while weights load", "", f"{ours['loading']:.1f}", ""])
    print(f"\n## The same in all, {side}x{side}: processor seconds of a call\n")
    print(table(["precision", "call", "plain", "srcli", "faster by"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description="What each exact saving is worth.")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--small", action="store_true", help="small networks, to try the program")
    parser.add_argument("--calls", action="store_true", help="only all savings together, first and later calls")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    config, extra = (SMALL, ["--small"]) if args.small else (SD15, [])
    if args.one == "stages":
        print(json.dumps(measure_stages(config, args.side)))
    elif args.one:
        way, dtype = args.one.split()
        print(json.dumps(measure_calls(config, getattr(torch, dtype), args.side, way == "plain")))
    else:
        if not args.calls:
            report_stages(args.side, extra)
        report_calls(args.side, extra)


if __name__ == "__main__":
    main()
