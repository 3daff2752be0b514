"""The README's picture: small pictures made four times as large by bicubic interpolation, Real-ESRGAN and the built-in.

python -m benchmarks.pairs TEACHERS [--degraded] [--out FILE]

--degraded draws the model card's sheet instead: eight photographs, degraded as in `benchmarks.quality`. TEACHERS holds
`general.safetensors`, realesr-general-x4v3. The photographs are in the public domain: one lies in `examples/`, the
others come with scikit-image. Each crop is shown pixel by pixel.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from benchmarks.quality import Method, Pixels, ask, cut_middle, degrade, degrade_heavily, resize_by, run_builtin
from srcli.train.builtin.teachers import read_teacher

SIDE, GAP, HEAD = 240, 4, 22
DEGRADED = ("astronaut", "camera", "chelsea", "coffee", "coins", "grass", "rocket", "stereo_motorcycle")
Cases = Iterator[tuple[Pixels, int, int]]


def list_cases() -> Cases:
    """Small pictures, and where the crop of each result begins: row, column."""
    import skimage.data

    yield np.asarray(Image.open("examples/cat.jpg").convert("RGB")), 100, 110
    yield degrade(skimage.data.astronaut()[:256, 90:346], 3), 8, 8
    yield skimage.data.page()[:64, 10:110, None].repeat(3, 2), 10, 10
    yield degrade_heavily(skimage.data.coffee()[60:316, 180:436], 4), 8, 8


def list_degraded() -> Cases:
    """The middles of photographs, degraded."""
    import skimage.data

    for seed, name in enumerate(DEGRADED):
        found = getattr(skimage.data, name)()
        photograph = np.asarray(Image.fromarray(found[0] if isinstance(found, tuple) else found).convert("RGB"))
        yield degrade(cut_middle(photograph, 256), seed), 8, 8


def list_ways(teachers: Path) -> dict[str, Method]:
    general = read_teacher("general", teachers / "general.safetensors", torch.device("cpu"), torch.float32)
    return {
        "bicubic": resize_by(Image.Resampling.BICUBIC),
        "Real-ESRGAN general-x4v3": ask(general),
        "srcli, built-in": run_builtin(None, None),
    }


def draw_pairs(ways: dict[str, Method], cases: list[tuple[Pixels, int, int]]) -> Image.Image:
    size = len(ways) * (SIDE + GAP) - GAP, HEAD + len(cases) * (SIDE + GAP) - GAP
    sheet, font = Image.new("RGB", size, "white"), ImageFont.load_default(14)
    draw = ImageDraw.Draw(sheet)
    for column, (name, enlarge) in enumerate(ways.items()):
        left = column * (SIDE + GAP)
        draw.text((left + 4, 2), name, "black", font)
        for row, (small, y, x) in enumerate(cases):
            crop = enlarge(np.ascontiguousarray(small))[y : y + SIDE, x : x + SIDE]
            sheet.paste(Image.fromarray(crop), (left, HEAD + row * (SIDE + GAP)))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description="The README's picture, or the model card's sheet.")
    parser.add_argument("teachers", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--degraded", action="store_true", help="the model card's sheet instead")
    args = parser.parse_args()
    cases = list_degraded() if args.degraded else list_cases()
    out = args.out or Path("docs/degraded.jpg" if args.degraded else "docs/pairs.jpg")
    draw_pairs(list_ways(args.teachers), list(cases)).save(out, quality=84 if args.degraded else 90)


if __name__ == "__main__":
    main()
