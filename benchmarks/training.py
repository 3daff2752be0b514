"""Cost of training: FLOP of a full-size step by part, memory compared with the estimate, and pairs a second.

FLOP and bytes are counted on the meta device. Real steps are run and their memory is compared with the estimate:
StableSR at full size and half the side, PASD with narrower networks and a quarter of the side. Pairs are made in this
process; more processes make proportionally more.

python -m benchmarks.training [--side 512] [--pairs 8] [--widths 64 128 128 128]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.tables import MIB, peak, run_in_process, seconds, table
from srcli.degrade.chain import degrade_pictures
from srcli.degrade.draws import SeededDraws
from srcli.degrade.presets import PRESETS
from srcli.models.patches.install import install
from srcli.models.patches.spade import Modulation
from srcli.models.time_encoder import TimeEncoder, TimeEncoderShape
from srcli.train.estimate import estimate_step
from srcli.train.systems.base import OptimizerSettings, Phase
from srcli.train.systems.diffusion import sample_latents
from srcli.train.systems.pasd_networks import new_control, new_paca
from srcli.train.systems.pasd_step import PasdInputs, PasdStep
from srcli.train.systems.stablesr_step import StableSRInputs, StableSRStep

SD15 = {
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "layers_per_block": 2,
    "norm_num_groups": 32,
}
SD21 = SD15 | {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": True}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
    "layers_per_block": 2,
}
FULL = [320, 640, 1280, 1280]
T = TypeVar("T")
ALPHAS = torch.linspace(0.999, 0.005, 1000)


def pasd_step(widths: list[int], light: bool) -> PasdStep:
    config = SD15 | {"block_out_channels": widths}
    unet = UNet2DConditionModel(**config).requires_grad_(False)
    narrow = [max(32, width * 2 // 5) for width in widths]  # 128 of 320
    vae = AutoencoderKL(**(VAE | {"block_out_channels": [width // 32 * 32 for width in narrow]})).requires_grad_(False)
    paca = new_paca(config, light)
    install([unet], paca)
    return PasdStep(new_control(unet), paca, unet, vae, ALPHAS, "epsilon")


def stablesr_step(widths: list[int]) -> StableSRStep:
    unet = UNet2DConditionModel(**(SD21 | {"block_out_channels": widths})).requires_grad_(False)
    vae = AutoencoderKL(**VAE).requires_grad_(False)
    modulation, encoder = Modulation(unet, TimeEncoderShape().out), TimeEncoder(TimeEncoderShape())
    install([unet], modulation)
    return StableSRStep(encoder, modulation, unet, vae, ALPHAS, "epsilon")


def pasd_inputs(side: int, batch: int = 1) -> PasdInputs:
    picture, latent = torch.rand(batch, 3, side, side), torch.randn(batch, 4, side // 8, side // 8)
    return PasdInputs(picture, picture, torch.randn(batch, 77, 768), latent, latent, torch.full((batch,), 500))


def stablesr_inputs(side: int) -> StableSRInputs:
    picture, latent = torch.rand(1, 3, side, side), torch.randn(1, 4, side // 8, side // 8)
    return StableSRInputs(picture, picture, torch.randn(1, 77, 1024), latent, latent, torch.full((1,), 500), latent)


def step_of(name: str, widths: list[int]) -> PasdStep | StableSRStep:
    return stablesr_step(widths) if name == "StableSR" else pasd_step(widths, "light" in name)


def inputs_of(name: str, side: int, batch: int = 1) -> PasdInputs | StableSRInputs:
    return stablesr_inputs(side) if name == "StableSR" else pasd_inputs(side, batch)


def frozen_bytes(step: PasdStep | StableSRStep) -> int:
    return sum(p.numel() * 4 for net in step._frozen for p in net.parameters())


def full_size(side: int) -> str:
    """FLOP and memory of one sample's step."""
    rows = []
    for name in ("PASD", "PASD light", "StableSR"):
        with torch.device("meta"):
            step = step_of(name, FULL)
        inputs = inputs_of(name, side)
        found = estimate_step([Phase(name, step, OptimizerSettings())], inputs)
        with FlopCounterMode(display=False) as encoding:
            picture = torch.empty(1, 3, side, side, device="meta")
            sample_latents(step._frozen[1], picture, torch.empty(1, 4, side // 8, side // 8, device="meta"))
        encodes = encoding.get_total_flops() * (2 if name == "StableSR" else 1)
        memory = found.memory(frozen_bytes(step))
        rows.append(
            [name, f"{found.trained / 1e6:.0f}", f"{encodes / 1e12:.2f}", f"{(found.flop - encodes) / 1e12:.2f}"]
            + [f"{found.flop / 1e12:.2f}", f"{found.kept / 2**30:.1f}", f"{memory / 2**30:.1f}"]
        )
    head = ["system", "trained, million", "VAE, TFLOP", "networks, TFLOP", "all, TFLOP", "kept, GiB", "float32, GiB"]
    return table(head, rows)


def measured(name: str, widths: list[int], side: int, batch: int) -> dict[str, float]:
    """Peak memory and CPU time of a real step by part, after one that creates the optimizer's moments; the estimate."""
    torch.manual_seed(0)
    before = peak()
    step, inputs = step_of(name, widths), inputs_of(name, side, batch)
    found = estimate_step([Phase(name, step, OptimizerSettings())], inputs)
    optimizer = torch.optim.AdamW(step.parameters(), 1e-4)
    for _ in range(2):
        spent = step_by_part(step, inputs, optimizer)
    return {**spent, "peak": peak() - before, "estimate": found.memory(frozen_bytes(step))}


def step_by_part(
    step: PasdStep | StableSRStep, inputs: PasdInputs | StableSRInputs, optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    """Processor seconds of one step. The VAE's are measured once more, alone, and taken off the forward pass."""
    encodes = 2 if isinstance(step, StableSRStep) else 1
    _, vae = timed(lambda: sample_latents(step._frozen[1], inputs[0], inputs[3]))
    optimizer.zero_grad(set_to_none=True)
    terms, forward = timed(lambda: step(inputs))
    _, backward = timed(terms["loss"].backward)
    step.close()
    _, update = timed(optimizer.step)
    return {"VAE": encodes * vae, "forward": forward - encodes * vae, "backward": backward, "optimizer": update}


def timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.process_time()
    return work(), time.process_time() - began


PARTS = ("VAE", "forward", "backward", "optimizer")


def against_estimate(steps: list[tuple[str, list[int], int, int]]) -> str:
    """Measured and estimated memory. Each step has its own process, whose peak is measured."""
    rows = []
    for name, widths, side, batch in steps:
        words = ["--step", name, "--measure", side, "--batch", batch, "--widths", *widths]
        found = run_in_process("benchmarks.training", *words)
        sizes = [f"{found[kind] / MIB:.0f}" for kind in ("peak", "estimate")]
        spent = [f"{found[part]:.2f}" for part in PARTS]
        rows.append([name, widths[0], f"{batch} of {side}", *spent, *sizes, f"{found['peak'] / found['estimate']:.2f}"])
    head = ["system", "width", "samples", *(f"{part}, s" for part in PARTS), "peak, MiB", "estimate, MiB", "ratio"]
    return table(head, rows)


def pairs(side: int, count: int) -> str:
    rows = []
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, side // 8, side // 8), size=(side, side), mode="bicubic")
    picture = picture.clamp(0, 1)
    for name, settings in PRESETS.items():
        draws = [SeededDraws.of(1, index) for index in range(count)]
        spent = seconds(
            lambda draws=draws, settings=settings: [degrade_pictures(picture, settings, each) for each in draws]
        )
        rows.append([name, f"{count / spent:.1f}", f"{15 * count / spent:.0f}"])
    return table(["degradation", "pairs a second of one process", "of 15 processes"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--widths", type=int, nargs=4, default=[64, 128, 128, 128])
    parser.add_argument("--measure", type=int, help="side of the real step, in a process of its own")
    parser.add_argument("--step", default="PASD", help="whose step that is")
    parser.add_argument("--batch", type=int, default=1, help="its samples")
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measured(chosen.step, chosen.widths, chosen.measure, chosen.batch)))
        return
    print(f"## One training step of one {chosen.side}x{chosen.side} sample, full size, counted\n")
    print(full_size(chosen.side))
    print("\n## Steps taken: processor seconds by part, and memory\n")
    narrow = ("PASD", chosen.widths, chosen.side // 4, 2)
    print(against_estimate([narrow, ("StableSR", FULL, chosen.side // 2, 1)]))
    print(f"\n## Training pairs of {chosen.side}x{chosen.side}\n")
    print(pairs(chosen.side, chosen.pairs))


if __name__ == "__main__":
    main()
