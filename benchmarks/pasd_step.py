"""One guided step of PASD at full size: processor seconds, TFLOP, memory, and what each saving is worth.

The weights are random: neither work nor memory depends on them.

python -m benchmarks.pasd_step [--side 512] [--times 1] [--small]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.tables import apart, peak, table, turns
from srcli.engines.latent.schedulers import apply_guidance
from srcli.engines.pasd.sampling import SHOWN, Nets, PasdDenoiser
from srcli.engines.runtime.device import Device, fast_bfloat16
from srcli.models.control import build_control_net
from srcli.models.patches.install import install
from srcli.models.patches.paca import Paca
from srcli.models.patches.text_kv_cache import TextKvCache
from srcli.models.stock import build_stock

SD15 = {
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "conditioning_embedding_out_channels": [16, 32, 96, 256],
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "layers_per_block": 2,
    "norm_num_groups": 32,
}
SMALL = SD15 | {"block_out_channels": [32, 64, 64, 64], "cross_attention_dim": 64}  # to try the program
T = torch.tensor(501)


def networks(config: dict, device: Device) -> Nets:
    unet, control = build_stock(UNet2DConditionModel, config), build_control_net(config, ())
    with torch.device("meta"):
        paca = Paca(config)
    install([unet], paca)
    if device.torch.type != "meta":
        for net in (unet, paca, control):
            fill(net, device)
    for net in (unet, control):
        install([net], TextKvCache())
    return Nets(unet, paca, control, device)


def fill(net: nn.Module, device: Device) -> None:
    net.to(device.dtype).to_empty(device=device.torch).requires_grad_(False)
    for value in net.parameters():
        # One short row of numbers, over and over: drawing a billion would take longer than the step.
        value.copy_((torch.randn(997) * 0.02).repeat(value.numel() // 997 + 1)[: value.numel()].view_as(value))


def denoiser(nets: Nets, text: Tensor) -> PasdDenoiser:
    return PasdDenoiser(nets, text, guidance=9.0, strength=1.0, guided_at=frozenset([float(T)]))


def inputs(config: dict, device: Device, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, the picture and the two texts."""
    where = device.torch
    text = torch.randn(2, 77, config["cross_attention_dim"], device=where)
    return torch.randn(1, 4, side // 8, side // 8, device=where), torch.rand(1, 3, side, side, device=where), text


def halves_apart(led: PasdDenoiser, x: Tensor, hint: Tensor) -> Tensor:
    """Guidance as two calls, each with the whole weight of a pass."""
    embedding = led._embedding(hint, None)
    away = replace(led, text=led.text.flip(0), _texts={}).predict(x, T, embedding, SHOWN)
    return apply_guidance(away, led.predict(x, T, embedding, SHOWN), 9.0)


def texts_again(led: PasdDenoiser, x: Tensor, hint: Tensor) -> Tensor:
    """Keys and values of the text worked out at each step, by the stock processor."""
    kept = [dict(net.attn_processors) for net in (led.nets.unet, led.nets.control)]
    for net in (led.nets.unet, led.nets.control):
        net.set_attn_processor(AttnProcessor2_0())
    try:
        return led(x, T, hint)
    finally:
        for net, own in zip((led.nets.unet, led.nets.control), kept, strict=True):
            net.set_attn_processor(own)


def embedded_again(led: PasdDenoiser, x: Tensor, hint: Tensor) -> Tensor:
    """The picture's embedding worked out at each step."""
    led._embedded.clear()
    return led(x, T, hint)


@torch.inference_mode()
def flop(config: dict, side: int) -> float:
    device = Device(torch.device("meta"), torch.float32)
    x, hint, text = inputs(config, device, side)
    led = denoiser(networks(config, device), text)
    led(x, T, hint)
    with FlopCounterMode(display=False) as counted:
        led(x, T, hint)
    return float(counted.get_total_flops())


@torch.inference_mode()
def measure(config: dict, dtype: torch.dtype, side: int, times: int, savings: bool) -> dict[str, float]:
    """Processor seconds of a step, of the same with one saving off at a time, and the memory at its largest."""
    device = Device(torch.device("cpu"), dtype)
    x, hint, text = inputs(config, device, side)
    led = denoiser(networks(config, device), text)
    led(x, T, hint)  # the first step makes what the others keep
    most = peak()
    works: dict[str, Callable[[], object]] = {"step": partial(led, x, T, hint)}
    if savings:
        works |= {
            "halves apart": partial(halves_apart, led, x, hint),
            "texts each step": partial(texts_again, led, x, hint),
            "embedding each step": partial(embedded_again, led, x, hint),
        }
    return dict(zip(works, turns(list(works.values()), times), strict=True)) | {"peak": most}


def main() -> None:
    parser = argparse.ArgumentParser(description="One guided step of PASD.")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--times", type=int, default=1, help="the least of so many is taken")
    parser.add_argument("--small", action="store_true", help="tiny networks, to try the program")
    parser.add_argument("--one", choices=("bfloat16", "float32"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    config = SMALL if given.small else SD15
    if given.one:
        fast = "bfloat16" if fast_bfloat16() else "float32"
        print(json.dumps(measure(config, getattr(torch, given.one), given.side, given.times, given.one == fast)))
        return
    report(given.side, given.times, config, ["--small"] if given.small else [])


def report(side: int, times: int, config: dict, extra: list[str]) -> None:
    default, other = ("bfloat16", "float32") if fast_bfloat16() else ("float32", "bfloat16")
    tflop = flop(config, side) / 1e12
    found = {
        dtype: apart("benchmarks.pasd_step", "--side", side, "--times", times, "--one", dtype, *extra)
        for dtype in (default, other)
    }
    step = found[default].pop("step")
    rows = [
        [dtype, f"{s:.1f}", f"{tflop:.3f}", f"{tflop / s:.3f}", f"{found[dtype].pop('peak') / 2**30:.1f}"]
        for dtype, s in ((default, step), (other, found[other]["step"]))
    ]
    print(f"## PASD: one guided step at {side}x{side}, random weights\n")
    print(table(["precision", "processor s", "TFLOP", "TFLOP/s of a core", "peak GiB"], rows))
    off = {**found[default], f"{other} instead of {default}": found[other]["step"]}
    print("\n" + table(["with this saving off", "times as long"], [[n, f"{s / step:.3f}"] for n, s in off.items()]))


if __name__ == "__main__":
    main()
