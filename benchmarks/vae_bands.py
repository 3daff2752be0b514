"""The full-size VAE's decoder in one piece, in diffusers' tiles and in our bands: seconds, memory and error.

python -m benchmarks.vae_bands [--side 512] [--small]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from benchmarks.tables import MIB, peak, run_in_process, seconds, table
from srcli.models.banded_vae import decode_in_bands
from srcli.models.row_bands import Bands

SD = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "sample_size": 256}
SMALL = {"block_out_channels": [32, 32, 64, 64], "layers_per_block": 1, "sample_size": 64}
ROWS = (128, 16, 4)


def network(small: bool) -> AutoencoderKL:
    torch.manual_seed(1)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    return AutoencoderKL(**blocks, **(SMALL if small else SD)).eval().requires_grad_(False)


def way(name: str, vae: AutoencoderKL, side: int) -> Callable[[Tensor], Tensor]:
    """The decoder for `whole`, `tiles`, or a number of rows per band."""
    if name == "tiles":
        vae.enable_tiling()
    if name in ("whole", "tiles"):
        return lambda z: vae.decode(z).sample
    return lambda z: decode_in_bands(vae, z, Bands(int(name) * side))


@torch.inference_mode()
def measure(name: str, side: int, small: bool, file: Path) -> dict[str, float]:
    """Decode once. The first, `whole`, writes its result for comparison."""
    vae = network(small)
    z = torch.randn(1, 4, side // 8, side // 8, generator=torch.Generator().manual_seed(2))
    decode_in_bands(vae, z[:, :, :4, :4], Bands())  # a warm-up call
    before, run, kept = peak(), way(name, vae, side), []
    took = seconds(lambda: kept.append(run(z)))
    most = peak() - before
    if name == "whole":
        torch.save(kept[0], file)
    whole = torch.load(file, weights_only=True)
    off = float((kept[0] - whole).abs().max() / whole.abs().max())
    return {"seconds": took, "bytes": most, "off": off}


def main() -> None:
    parser = argparse.ArgumentParser(description="The VAE's decoder in bands.")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--small", action="store_true", help="a tiny network, to try the program")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.side, args.small, args.file)))
        return
    report(args.side, ["--small"] if args.small else [])


def report(side: int, extra: list[str]) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        shared = ("--side", side, "--file", Path(folder) / "whole.pt", *extra)
        for name in ("whole", "tiles", *map(str, ROWS)):
            found = run_in_process("benchmarks.vae_bands", "--one", name, *shared)
            label = {"whole": "in one piece", "tiles": "diffusers' tiles"}.get(name, f"bands of {name} rows")
            megabytes = f"{found['bytes'] / MIB:,.0f}"
            rows.append([label, f"{found['seconds']:.1f}", megabytes, f"{found['off']:.0e}"])
    print(f"## VAE: decoding {side}x{side}, float32, random weights\n")
    print(table(["way", "processor s", "MiB besides weights", "largest relative difference"], rows))


if __name__ == "__main__":
    main()
