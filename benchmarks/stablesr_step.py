"""One step of StableSR at full size: processor seconds and TFLOP by part, and what the plan saves over a plain loop.

The weights are random: neither work nor memory depends on them. The plain loop is the official one: tiles of 64
latents, overlapping by half, one at a time, through the stock networks.

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
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.tables import apart, peak, seconds, table, turns
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
PLAIN = "plain loop"


@dataclass(frozen=True)
class Step:
    """A step's denoiser and its inputs."""

    led: StableSRDenoiser
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
        denoise = Tiled(self.led, tiles, 2) if len(tiles) > 1 else self.led
        return denoise(self.x, T, self.hint)

    def plain(self) -> Tensor:
        """As the official program goes about it."""
        return Tiled(self.led, lay_grid(*self.x.shape[-2:], OFFICIAL))(self.x, T, self.hint)

    def settled(self, device: Device) -> None:
        """From stock networks to what the engine makes of them."""
        install([self.led.unet], TextKvCache())
        place_step_networks((self.led.unet, self.led.encoder, self.led.modulation), device, AMPLE)

    def encoded(self) -> list[Tensor]:
        return self.led.encoder(self.hint.to(self.led.unet.dtype), T.to(self.x.device).expand(1))

    def denoised(self, maps: list[Tensor] | None) -> Tensor:
        """The UNet over the whole canvas, led by maps or left alone."""
        x, text = self.x.to(self.led.unet.dtype), self.led.text.to(self.led.unet.dtype)
        with self.led.modulation.leading(maps) if maps else nullcontext():
            return self.led.unet(x, T.to(x.device), encoder_hidden_states=text).sample


def fill(net: nn.Module, device: Device) -> None:
    net.to(device.dtype).to_empty(device=device.torch).requires_grad_(False)
    for value in net.parameters():
        # One short row of numbers, over and over: drawing a billion would take longer than the step.
        value.copy_((torch.randn(997) * 0.02).repeat(value.numel() // 997 + 1)[: value.numel()].view_as(value))


def works(step: Step) -> dict[str, Callable[[], object]]:
    """What is measured besides the plain loop. The parts are those of a canvas in one piece."""
    maps = step.encoded()
    return {
        "step": step.planned,
        "encoder": step.encoded,
        "led UNet": partial(step.denoised, maps),
        "UNet": partial(step.denoised, None),
    }


def flop(work: Callable[[], object]) -> float:
    work()  # what is kept from the first step on is not counted
    with FlopCounterMode(display=False) as counted:
        work()
    return float(counted.get_total_flops())


@torch.inference_mode()
def counts(config: dict, side: int) -> dict[str, float]:
    step = Step.of(config, Device(torch.device("meta"), torch.float32), side)
    plain = {PLAIN: flop(step.plain)}
    install([step.led.unet], TextKvCache())
    return plain | {name: flop(work) for name, work in works(step).items()}


@torch.inference_mode()
def measure(config: dict, side: int, times: int) -> dict[str, float]:
    device = Device(torch.device("cpu"), torch.bfloat16 if fast_bfloat16() else torch.float32)
    step = Step.of(config, device, side)
    plain = seconds(step.plain, times)
    step.settled(device)
    step.planned()  # the first step makes what the others keep
    found = works(step)
    return {PLAIN: plain, **dict(zip(found, turns(list(found.values()), times), strict=True)), "peak": peak()}


def main() -> None:
    parser = argparse.ArgumentParser(description="One step of StableSR.")
    parser.add_argument("--side", type=int, default=768)
    parser.add_argument("--times", type=int, default=1, help="the least of so many is taken")
    parser.add_argument("--small", action="store_true", help="tiny networks, to try the program")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    config = SMALL if given.small else SD21
    if given.one:
        print(json.dumps(measure(config, given.side, given.times)))
        return
    words = ["--side", given.side, "--times", given.times, "--one", *(["--small"] if given.small else [])]
    report(given.side, counts(config, given.side), apart("benchmarks.stablesr_step", *words))


def report(side: int, tflop: dict[str, float], spent: dict[str, float]) -> None:
    most = spent.pop("peak")
    led, alone = (spent.pop(name) for name in ("led UNet", "UNet"))
    led_flop, alone_flop = (tflop.pop(name) for name in ("led UNet", "UNet"))
    spent |= {"modulation": led - alone, "UNet": alone}
    tflop |= {"modulation": led_flop - alone_flop, "UNet": alone_flop}
    rows = [[name, f"{spent[name]:.1f}", f"{tflop[name] / 1e12:.3f}"] for name in spent]
    dtype = "bfloat16" if fast_bfloat16() else "float32"
    print(f"## StableSR: one step at {side}x{side}, random weights, {dtype}\n")
    print(table(["", "processor s", "TFLOP"], rows))
    times = spent[PLAIN] / spent["step"]
    print(f"\nThe plain loop takes {times:.2f} times as long. Peak {most / 2**30:.1f} GiB.")


if __name__ == "__main__":
    main()
