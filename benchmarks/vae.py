"""Decoding and encoding by bands, compared with the untiled VAE and the library's tiles: time, error and memory.

A stock Stable Diffusion VAE with random weights, fp32, each variant in its own process. `--divide` makes the layers
narrower, so that large sides are compared in little time; memory falls in proportion. TAESD, which decodes previews,
is another network; with random weights its error would say nothing.

python -m benchmarks.vae [--side 512] [--divide 1] [--ways WAY ...]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor

from benchmarks.tables import MIB, peak, run_in_process, table
from srcli.models.banded_vae import decode_in_bands, encode_in_bands
from srcli.models.patches.install import install
from srcli.models.patches.packed import PackedLayers
from srcli.models.row_bands import Bands, Spilling
from srcli.threads import default_threads

Net = AutoencoderKL | AutoencoderTiny
Way = Callable[[Net, Tensor], Tensor]
TAESD = "TAESD"


def network(divide: int, way: str) -> Net:
    torch.manual_seed(0)
    if way == TAESD:
        narrow = [64 // divide] * 4
        tiny = AutoencoderTiny(encoder_block_out_channels=narrow, decoder_block_out_channels=narrow)
        install([tiny.eval().requires_grad_(False)], PackedLayers())
        return tiny
    widths = [width // divide for width in (128, 256, 512, 512)]
    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        sample_size=256,
    ).eval()


def whole(vae: Net, z: Tensor) -> Tensor:
    return vae.decode(z).sample


def tiled(vae: AutoencoderKL, z: Tensor) -> Tensor:
    vae.enable_tiling()
    return vae.decode(z).sample


WAYS: dict[str, Way] = {
    "untiled": whole,
    "bands": lambda vae, z: decode_in_bands(vae, z, Bands()),
    "bands, maps on disk": lambda vae, z: decode_in_bands(vae, z, Spilling()),
    "the library's tiles": tiled,
    TAESD: whole,
    "encode untiled": lambda vae, z: vae._encode(z),
    "encode bands": lambda vae, z: encode_in_bands(vae, z, Bands()),
}


@torch.inference_mode()
def measure(way: str, side: int, divide: int, file: Path) -> dict[str, float]:
    """Seconds and bytes of one variant; its result is written to `file` for comparison."""
    torch.set_num_threads(default_threads())
    vae = network(divide, way)
    generator = torch.Generator().manual_seed(1)
    shape = (1, 3, side, side) if way.startswith("encode") else (1, 4, side // 8, side // 8)
    latents = torch.randn(shape, generator=generator)
    small = 64 if way.startswith("encode") else 8
    WAYS[way](vae, latents[..., :small, :small])
    before, began, clock = peak(), time.perf_counter(), time.process_time()
    result = WAYS[way](vae, latents)
    spent = {"cpu": time.process_time() - clock, "wall": time.perf_counter() - began, "memory": peak() - before}
    torch.save(result, file)
    return spent


def report(side: int, divide: int, ways: Iterable[str]) -> None:
    rows, found = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for way in ways:
            file = Path(folder) / way.replace(" ", "-")
            one = run_in_process("benchmarks.vae", "--side", side, "--divide", divide, "--one", way, "--file", file)
            exact = "encode untiled" if way.startswith("encode") else "untiled"
            found[way] = (torch.load(file), one)
            truth, plain = found[exact]
            error = "-" if way == TAESD else f"{float((found[way][0] - truth).norm() / truth.norm()):.1e}"
            times, share = one["cpu"] / plain["cpu"], one["memory"] / max(1, plain["memory"])
            sizes = f"{one['memory'] / MIB:,.0f}", f"{share:.2f}"
            rows.append([way, f"{one['cpu']:.1f}", f"{times:.2f}", *sizes, error])
    thin = "" if divide == 1 else f", layers {divide} times thinner"
    print(f"## VAE at {side}x{side}{thin}, fp32\n")
    print(
        table(
            ["decode, or encode", "processor s", "times untiled", "memory, MiB", "of untiled", "relative error"], rows
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="The VAE by bands against others.")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--divide", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="each after its untiled one")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.side, args.divide, args.file)))
        return
    report(args.side, args.divide, args.ways)


if __name__ == "__main__":
    main()
