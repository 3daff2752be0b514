"""Measure the parts of a one-step model at full size, compared with PASD's 20 steps and StableSR's 200.

The weights are random, which does not change the FLOP. One step of PASD and StableSR is measured and multiplied; the
VAE, which is the same for all, is measured once. `unmerged LoRA`: the UNet with PiSA-SR's semantic LoRA unmerged.

python -m benchmarks.onestep_step [--side 256] [--times 1] [--small] [--count]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn

from benchmarks import pasd_step, stablesr_step
from benchmarks.pasd_step import fill
from benchmarks.stablesr_step import FACTOR, SD21, flop
from benchmarks.tables import measure_in_turns, run_in_process, table
from srcli.engines.latent.codec import Codec
from srcli.engines.onestep.denoiser import OneStepDenoiser, Strengths
from srcli.engines.runtime.device import Device, fast_bfloat16
from srcli.engines.runtime.memory_budget import AMPLE
from srcli.engines.runtime.placement import place_step_networks
from srcli.models.patches.install import install
from srcli.models.patches.low_rank import LowRank
from srcli.models.patches.text_kv_cache import TextKvCache
from srcli.models.stock import build_stock
from srcli.models.tiny_vae import decode_tiny, encode_tiny

VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
SMALL_VAE = VAE | {"block_out_channels": [32, 32, 32, 32]}
UNMERGED = "unmerged LoRA"
RANK, PASD_STEPS, STABLESR_STEPS = 4, 20, 200
T = torch.tensor(1)
LEFT_OUT = ("time_emb", "norm")  # modules that an adapter does not change
Works = dict[str, Callable[[], object]]


def low_rank(unet: UNet2DConditionModel) -> LowRank:
    """An unmerged LoRA for every layer that PiSA-SR changes."""
    layers = {
        name: layer
        for name, layer in unet.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and not any(part in name for part in LEFT_OUT)
    }
    unmerged = LowRank(unet, {name: _halves(layer.weight) for name, layer in layers.items()})
    install([unet], unmerged)
    return unmerged


def _halves(weight: Tensor) -> tuple[Tensor, Tensor]:
    down = torch.zeros(RANK, *weight.shape[1:], dtype=weight.dtype, device=weight.device)
    up = torch.zeros(len(weight), RANK, *[1] * (weight.dim() - 2), dtype=weight.dtype, device=weight.device)
    return down, up


def ours(small: bool, device: Device, side: int) -> Works:
    """The parts of a one-step run."""
    config, counting = stablesr_step.SMALL if small else SD21, device.torch.type == "meta"
    unet, vae = build_stock(UNet2DConditionModel, config), build_stock(AutoencoderKL, SMALL_VAE if small else VAE)
    with torch.device("meta"):
        tiny = AutoencoderTiny().eval()
    if not counting:
        fill(unet, device)
        for net in (vae, tiny):
            fill(net, Device(device.torch, torch.float32))
    unmerged = low_rank(unet)
    install([unet], TextKvCache())
    if not counting:
        place_step_networks([unet], device, AMPLE)
    x = torch.randn(1, 4, side // FACTOR, side // FACTOR, device=device.torch)
    rgb = torch.rand(1, 3, side, side, device=device.torch)
    text = torch.randn(1, 77, config["cross_attention_dim"], device=device.torch)
    codec = Codec(vae, device)
    return {
        "encode": (lambda: vae.encode(rgb)) if counting else partial(codec.posterior, rgb),
        "UNet": partial(OneStepDenoiser(unet, text, unmerged), x, T, x),
        UNMERGED: partial(OneStepDenoiser(unet, text, unmerged, Strengths(1, 0)), x, T, x),
        "decode": (lambda: vae.decode(x)) if counting else partial(codec.decode, x),
        "tiny encode": partial(encode_tiny, tiny, rgb),
        "tiny decode": partial(decode_tiny, tiny, x),
    }


def pasd(small: bool, device: Device, side: int) -> Works:
    config = pasd_step.SMALL if small else pasd_step.SD15
    x, hint, text = pasd_step.inputs(config, device, side)
    model = pasd_step.denoiser(pasd_step.networks(config, device), text)
    return {"PASD step": partial(model, x, pasd_step.T, hint)}


def stablesr(small: bool, device: Device, side: int) -> Works:
    step = stablesr_step.Step.of(stablesr_step.SMALL if small else SD21, device, side)
    if device.torch.type != "meta":
        step.optimize(device)
    return {"StableSR step": step.planned}


PROGRAMS = {"ours": ours, "pasd": pasd, "stablesr": stablesr}


@torch.inference_mode()
def count(small: bool, side: int) -> dict[str, float]:
    """FLOP of each part."""
    device = Device(torch.device("meta"), torch.float32)
    return {name: flop(work) for make in PROGRAMS.values() for name, work in make(small, device, side).items()}


@torch.inference_mode()
def measure(program: str, small: bool, side: int, times: int) -> dict[str, float]:
    """CPU seconds of each part of one program."""
    device = Device(torch.device("cpu"), torch.bfloat16 if fast_bfloat16() else torch.float32)
    works = PROGRAMS[program](small, device, side)
    for work in works.values():
        work()  # the first call fills the caches
    return dict(zip(works, measure_in_turns(list(works.values()), times), strict=True))


def totals(part: dict[str, float]) -> dict[str, float]:
    """The sums for a whole picture."""
    ends = part["encode"] + part["decode"]
    return {
        "one step": ends + part["UNet"],
        f"one step, {UNMERGED}": ends + part[UNMERGED],
        "draft, TAESD decoder": part["encode"] + part["UNet"] + part["tiny decode"],
        "draft, TAESD at both ends": part["tiny encode"] + part["UNet"] + part["tiny decode"],
        f"PASD, {PASD_STEPS} steps": ends + PASD_STEPS * part["PASD step"],
        f"StableSR, {STABLESR_STEPS} steps": ends + STABLESR_STEPS * part["StableSR step"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="One-step models against PASD and StableSR.")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--times", type=int, default=1, help="repetitions, of which the fastest counts")
    parser.add_argument("--small", action="store_true", help="tiny networks, to try the program")
    parser.add_argument("--count", action="store_true", help="only count operations")
    parser.add_argument("--one", choices=PROGRAMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.small, args.side, args.times)))
        return
    spent: dict[str, float] = {}
    for program in [] if args.count else PROGRAMS:
        words = ["--side", args.side, "--times", args.times, "--one", program, *(["--small"] * args.small)]
        spent |= run_in_process("benchmarks.onestep_step", *words)
    report(args.side, count(args.small, args.side), spent)


def report(side: int, work: dict[str, float], spent: dict[str, float]) -> None:
    dtype = "bfloat16" if fast_bfloat16() else "float32"
    print(f"## One-step models at {side}x{side}, random weights, {dtype}\n")
    rows = [[name, f"{work[name] / 1e12:.3f}", f"{spent[name]:.1f}" if spent else "-"] for name in work]
    print(table(["part", "TFLOP", "processor s"], rows) + "\n")
    whole, times = totals(work), totals(spent) if spent else {}
    rows = [
        [name, f"{flop / whole['one step']:.2f}", f"{times[name] / times['one step']:.2f}" if times else "-"]
        for name, flop in whole.items()
    ]
    print(table(["a picture", "work", "processor time"], rows))


if __name__ == "__main__":
    main()
