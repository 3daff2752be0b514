"""Measure a step of StableSR at full size: CPU seconds and TFLOP by part, and the gain over a plain loop.

The weights are random, which changes neither FLOP nor memory. The plain loop is that of the official code: tiles of
64 latents that overlap by half, one per call, with stock networks.

python -m benchmarks.stablesr_step [--side 768] [--times 1] [--small]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.pasd_step import fill
from benchmarks.tables import measure_in_turns, peak, run_in_process, seconds, table
from srcli.engines.runtime.device import Device, fast_bfloat16
from srcli.engines.runtime.memory_budget import AMPLE
from srcli.engines.runtime.placement import place_step_networks
from srcli.engines.stablesr.engine import StableSRDenoiser
from srcli.engines.stablesr.forecast import count_stablesr_flop, limit_tiles
from srcli.models.patches.install import install
from srcli.models.patches.spade import Modulation
from srcli.models.patches.text_kv_cache import TextKvCache
from srcli.models.stock import build_stock
from srcli.models.time_encoder import TimeEncoder, TimeEncoderShape
from srcli.sampling.layout import find_cheapest_tiles
from srcli.sampling.sampler import Tiled
from srcli.sampling.tiling import lay_grid
from srcli.settings import Tiling

SD21 = {
    "attention_head_dim": [5, 10, 20, 20],
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 1024,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "layers_per_block": 2,
    "use_linear_projection": True,
}
SMALL = SD21 | {"block_out_channels": [32, 64, 64, 64], "attention_head_dim": [2, 4, 4, 4], "cross_attention_dim": 64}
OFFICIAL = Tiling(size=64, overlap=32)
PROCESS, FACTOR = 512, 8
T = torch.tensor(501)
PLAIN, MODULATED = "plain loop", "modulated UNet"


@dataclass(frozen=True)
class Step:
    """A denoiser and its inputs."""

    model: StableSRDenoiser
    x: Tensor
    hint: Tensor

    @classmethod
    def of(cls, config: dict, device: Device, side: int) -> Step:
        unet = build_stock(UNet2DConditionModel, config)
        with torch.device("meta"):
            encoder = TimeEncoder(
                TimeEncoderShape() if config is SD21 else TimeEncoderShape(widths=(32, 32, 64, 64), first=32, out=32)
            )
            modulation = Modulation(unet, encoder.shape.out)
        install([unet], modulation)
        if device.torch.type != "meta":
            for net in (unet, encoder, modulation):
                fill(net, device)
        text = torch.randn(1, 77, config["cross_attention_dim"], device=device.torch)
        x, hint = torch.randn(2, 1, 4, side // FACTOR, side // FACTOR, device=device.torch).unbind()
        return cls(StableSRDenoiser(unet, encoder, modulation, text), x, hint)

    def planned(self) -> Tensor:
        tiles = find_cheapest_tiles(*self.x.shape[-2:], count_stablesr_flop, limit_tiles(PROCESS // FACTOR))
        denoise = Tiled(self.model, tiles, 2, self.x.device) if len(tiles) > 1 else self.model
        return denoise(self.x, T, self.hint)

    def plain(self) -> Tensor:
        """The official code's tiling."""
        return Tiled(self.model, lay_grid(*self.x.shape[-2:], OFFICIAL), device=self.x.device)(self.x, T, self.hint)

    def optimize(self, device: Device) -> None:
        """Install the engine's patches in the stock networks."""
        install([self.model.unet], TextKvCache())
        place_step_networks((self.model.unet, self.model.encoder, self.model.modulation), device, AMPLE)

    def encode(self) -> list[Tensor]:
        return self.model.encoder(self.hint.to(self.model.unet.dtype), T.to(self.x.device).expand(1))

    def denoise(self, maps: list[Tensor] | None) -> Tensor:
        """The UNet over the whole canvas, with or without modulation."""
        x, text = self.x.to(self.model.unet.dtype), self.model.text.to(self.model.unet.dtype)
        with self.model.modulation.leading(maps) if maps else nullcontext():
            return self.model.unet(x, T.to(x.device), encoder_hidden_states=text).sample


def works(step: Step) -> dict[str, Callable[[], object]]:
    """What is measured besides the plain loop. The parts run on the whole canvas."""
    maps = step.encode()
    return {
        "step": step.planned,
        "encoder": step.encode,
        MODULATED: partial(step.denoise, maps),
        "UNet": partial(step.denoise, None),
    }


def flop(work: Callable[[], object]) -> float:
    work()  # fills the caches, which is not counted
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


@torch.inference_mode()
def counts(config: dict, side: int) -> dict[str, float]:
    step = Step.of(config, Device(torch.device("meta"), torch.float32), side)
    plain = {PLAIN: flop(step.plain)}
    install([step.model.unet], TextKvCache())
    return plain | {name: flop(work) for name, work in works(step).items()}


@torch.inference_mode()
def measure(config: dict, side: int, times: int) -> dict[str, float]:
    device = Device(torch.device("cpu"), torch.bfloat16 if fast_bfloat16() else torch.float32)
    step = Step.of(config, device, side)
    plain = seconds(step.plain, times)
    step.optimize(device)
    step.planned()  # the first step fills the caches
    parts = works(step)
    return {
        PLAIN: plain,
        **dict(zip(parts, measure_in_turns(list(parts.values()), times), strict=True)),
        "peak": peak(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="One step of StableSR.")
    parser.add_argument("--side", type=int, default=768)
    parser.add_argument("--times", type=int, default=1, help="repetitions, of which the fastest counts")
    parser.add_argument("--small", action="store_true", help="tiny networks, to try the program")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    config = SMALL if args.small else SD21
    if args.one:
        print(json.dumps(measure(config, args.side, args.times)))
        return
    words = ["--side", args.side, "--times", args.times, "--one", *(["--small"] if args.small else [])]
    report(args.side, counts(config, args.side), run_in_process("benchmarks.stablesr_step", *words))


def report(side: int, tflop: dict[str, float], spent: dict[str, float]) -> None:
    peak_bytes = spent.pop("peak")
    modulated, plain = (spent.pop(name) for name in (MODULATED, "UNet"))
    modulated_flop, plain_flop = (tflop.pop(name) for name in (MODULATED, "UNet"))
    spent |= {"modulation": modulated - plain, "UNet": plain}
    tflop |= {"modulation": modulated_flop - plain_flop, "UNet": plain_flop}
    rows = [[name, f"{spent[name]:.1f}", f"{tflop[name] / 1e12:.3f}"] for name in spent]
    dtype = "bfloat16" if fast_bfloat16() else "float32"
    print(f"## StableSR: one step at {side}x{side}, random weights, {dtype}\n")
    print(table(["", "processor s", "TFLOP"], rows))
    times = spent[PLAIN] / spent["step"]
    print(f"\nThe plain loop takes {times:.2f} times as long. Peak {peak_bytes / 2**30:.1f} GiB.")


if __name__ == "__main__":
    main()
