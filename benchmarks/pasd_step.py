"""Measure a guided step of PASD at full size: CPU seconds, TFLOP, memory, and the effect of each saving.

The weights are random, which changes neither FLOP nor memory.

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

from benchmarks.tables import measure_in_turns, peak, run_in_process, table
from srcli.engines.latent.schedulers import apply_guidance
from srcli.engines.pasd.sampling import POSITIVE, Nets, PasdDenoiser
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
        # A short sequence, repeated: drawing a billion random numbers would take longer than the step.
        value.copy_((torch.randn(997) * 0.02).repeat(value.numel() // 997 + 1)[: value.numel()].view_as(value))


def denoiser(nets: Nets, text: Tensor) -> PasdDenoiser:
    return PasdDenoiser(nets, text, guidance=9.0, conditioning_scale=1.0, guided_timesteps=frozenset([float(T)]))


def inputs(config: dict, device: Device, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, the picture and the embeddings of both prompts."""
    where = device.torch
    text = torch.randn(2, 77, config["cross_attention_dim"], device=where)
    return torch.randn(1, 4, side // 8, side // 8, device=where), torch.rand(1, 3, side, side, device=where), text


def guide_in_two_calls(model: PasdDenoiser, x: Tensor, hint: Tensor) -> Tensor:
    """Classifier-free guidance with a separate call for each prompt."""
    embedding = model._embedding(hint, None)
    negative = replace(model, text=model.text.flip(0), _texts={}).predict(x, T, embedding, POSITIVE)
    return apply_guidance(negative, model.predict(x, T, embedding, POSITIVE), 9.0)


def attend_without_cache(model: PasdDenoiser, x: Tensor, hint: Tensor) -> Tensor:
    """Keys and values of the texts computed at each step, by the stock processor."""
    processors = [dict(net.attn_processors) for net in (model.nets.unet, model.nets.control)]
    for net in (model.nets.unet, model.nets.control):
        net.set_attn_processor(AttnProcessor2_0())
    try:
        return model(x, T, hint)
    finally:
        for net, own in zip((model.nets.unet, model.nets.control), processors, strict=True):
            net.set_attn_processor(own)


def embedded_again(model: PasdDenoiser, x: Tensor, hint: Tensor) -> Tensor:
    """The hint's embedding computed at each step."""
    model._embedded.clear()
    return model(x, T, hint)


@torch.inference_mode()
def flop(config: dict, side: int) -> float:
    device = Device(torch.device("meta"), torch.float32)
    x, hint, text = inputs(config, device, side)
    model = denoiser(networks(config, device), text)
    model(x, T, hint)
    with FlopCounterMode(display=False) as counter:
        model(x, T, hint)
    return float(counter.get_total_flops())


@torch.inference_mode()
def measure(config: dict, dtype: torch.dtype, side: int, times: int, savings: bool) -> dict[str, float]:
    """CPU seconds of a step, of a step without each saving, and the peak memory in bytes."""
    device = Device(torch.device("cpu"), dtype)
    x, hint, text = inputs(config, device, side)
    model = denoiser(networks(config, device), text)
    model(x, T, hint)  # the first step fills the caches
    peak_bytes = peak()
    works: dict[str, Callable[[], object]] = {"step": partial(model, x, T, hint)}
    if savings:
        works |= {
            "prompts in two calls": partial(guide_in_two_calls, model, x, hint),
            "no text KV cache": partial(attend_without_cache, model, x, hint),
            "embedding each step": partial(embedded_again, model, x, hint),
        }
    return dict(zip(works, measure_in_turns(list(works.values()), times), strict=True)) | {"peak": peak_bytes}


def main() -> None:
    parser = argparse.ArgumentParser(description="One guided step of PASD.")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--times", type=int, default=1, help="repetitions, of which the fastest counts")
    parser.add_argument("--small", action="store_true", help="tiny networks, to try the program")
    parser.add_argument("--one", choices=("bfloat16", "float32"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    config = SMALL if args.small else SD15
    if args.one:
        fast = "bfloat16" if fast_bfloat16() else "float32"
        print(json.dumps(measure(config, getattr(torch, args.one), args.side, args.times, args.one == fast)))
        return
    report(args.side, args.times, config, ["--small"] if args.small else [])


def report(side: int, times: int, config: dict, extra: list[str]) -> None:
    default, other = ("bfloat16", "float32") if fast_bfloat16() else ("float32", "bfloat16")
    tflop = flop(config, side) / 1e12
    measured = {
        dtype: run_in_process("benchmarks.pasd_step", "--side", side, "--times", times, "--one", dtype, *extra)
        for dtype in (default, other)
    }
    step = measured[default].pop("step")
    rows = [
        [dtype, f"{s:.1f}", f"{tflop:.3f}", f"{tflop / s:.3f}", f"{measured[dtype].pop('peak') / 2**30:.1f}"]
        for dtype, s in ((default, step), (other, measured[other]["step"]))
    ]
    print(f"## PASD: one guided step at {side}x{side}, random weights\n")
    print(table(["precision", "processor s", "TFLOP", "TFLOP/s of a core", "peak GiB"], rows))
    off = {**measured[default], f"{other} instead of {default}": measured[other]["step"]}
    print("\n" + table(["with this saving off", "times as long"], [[n, f"{s / step:.3f}"] for n, s in off.items()]))


if __name__ == "__main__":
    main()
