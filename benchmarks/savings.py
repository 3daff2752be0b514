"""What each exact saving is worth on one guided step of PASD at full size on a CPU: the plain way, then one more
saving at a time, in fp32 and at last in bf16. Random weights: work does not depend on them.

python -m benchmarks.savings [--side 512] [--small]
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from benchmarks.pasd_step import SD15, SMALL, T, denoiser, embedded_again, inputs, networks
from benchmarks.tables import apart, seconds, table
from srcli.engines.pasd.sampling import PasdDenoiser
from srcli.engines.runtime.device import Device, fast_bfloat16
from srcli.models.patches.install import install
from srcli.models.patches.packed import PackedLayers
from srcli.models.patches.row_attention import RowAttention
from srcli.models.patches.shared_cfg_prefix import SharedCfgPrefix
from srcli.models.patches.text_kv_cache import TextKvCache

Step = Callable[[Tensor, Tensor], Tensor]
PLAIN = "plain: stock layers, both texts in one call"
PACKED = "weights packed"


def stages(led: PasdDenoiser) -> Iterator[tuple[str, Step]]:
    """The plain step, then the step with one more saving each time."""
    nets = led.nets
    every = (nets.unet, nets.paca, nets.control)
    for net in (nets.unet, nets.control):
        net.set_attn_processor(AttnProcessor2_0())
    yield PLAIN, lambda x, hint: embedded_again(led, x, hint)
    install((nets.unet, nets.control), TextKvCache())
    yield "the picture's embedding and the texts' keys kept", lambda x, hint: led(x, T, hint)
    install(every, RowAttention())
    yield "attention by rows", lambda x, hint: led(x, T, hint)
    install(every, PackedLayers())
    yield PACKED, lambda x, hint: led(x, T, hint)
    prefix = SharedCfgPrefix()
    install((nets.unet, nets.control), prefix)
    shared = replace(led, nets=replace(nets, prefix=prefix))
    yield "layers before the first text shared by the halves", lambda x, hint: shared(x, T, hint)


@torch.inference_mode()
def measure(config: dict, dtype: torch.dtype, side: int, last: bool) -> dict[str, float]:
    """Processor seconds of a step at each stage; or only at the last."""
    torch.set_num_threads(1)
    device = Device(torch.device("cpu"), dtype)
    x, hint, text = inputs(config, device, side)
    found = {}
    steps = stages(denoiser(networks(config, device), text))
    for name, step in list(steps)[-1:] if last else steps:
        if last or name == PACKED:
            step(x, hint)  # the first of its kind packs the weights
        found[name] = seconds(lambda step=step: step(x, hint))
    return found


def report(side: int, config: dict, extra: list[str]) -> None:
    found = apart("benchmarks.savings", "--side", side, "--one", "float32", *extra)
    plain = found[PLAIN]
    rows, before = [], plain
    for name, spent in found.items():
        rows.append([name, f"{spent:.1f}", f"{before / spent:.2f}x", f"{plain / spent:.2f}x"])
        before = spent
    if fast_bfloat16():
        spent = next(iter(apart("benchmarks.savings", "--side", side, "--one", "bfloat16", *extra).values()))
        rows.append(["bf16", f"{spent:.1f}", f"{before / spent:.2f}x", f"{plain / spent:.2f}x"])
    print(f"## Exact savings: one guided step of PASD at {side}x{side}, one core, {platform.machine()}\n")
    print(table(["with, besides all above", "processor s", "faster by", "than plain"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description="What each exact saving is worth.")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--small", action="store_true", help="small networks, to try the program")
    parser.add_argument("--one", choices=("float32", "bfloat16"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    config = SMALL if given.small else SD15
    if given.one:
        print(json.dumps(measure(config, getattr(torch, given.one), given.side, given.one == "bfloat16")))
        return
    report(given.side, config, ["--small"] if given.small else [])


if __name__ == "__main__":
    main()
