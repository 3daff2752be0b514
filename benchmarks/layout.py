"""Work of a whole PASD run by the cost model: the official tiling, a fixed one, and the planned one.

python -m benchmarks.layout [--plot FILE.png]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.plot import Line, draw
from benchmarks.tables import table
from srcli.engines.pasd.forecast import count_pasd_flop
from srcli.sampling.layout import Limits, find_cheapest_tiles
from srcli.sampling.tiling import Tile, lay_grid
from srcli.settings import Tiling

SIDES = (1024, 1536, 2048, 3072, 4096, 8192)
CALLS = 40  # 20 steps, each with guidance
Layout = Callable[[int], list[Tile]]  # side of a square canvas of latents -> its tiles


def planned(side: int) -> list[Tile]:
    return find_cheapest_tiles(side, side, count_pasd_flop, Limits())


def fixed(size: int, overlap: int) -> Layout:
    return lambda side: lay_grid(side, side, Tiling(size=size, overlap=overlap))


# What `test_pasd.py` of the official program does unless told otherwise; and what tiled programs commonly do.
LAYOUTS: dict[str, Layout] = {
    "official default (320/4)": fixed(320, 4),
    "fixed 128/16": fixed(128, 16),
    "fixed 64/32": fixed(64, 32),
    "planned": planned,
}


def work(tiles: Sequence[Tile]) -> float:
    """TFLOP of all steps."""
    return CALLS * sum(count_pasd_flop(tile.height * tile.width) for tile in tiles) / 1e12


def rows() -> list[list[str]]:
    found = []
    for side in SIDES:
        costs = [work(layout(side // 8)) for layout in LAYOUTS.values()]
        tiles = planned(side // 8)
        shape = f"{len(tiles)} of {tiles[0].height}x{tiles[0].width}"
        found.append([f"{side}x{side}", *(f"{c:,.0f}" for c in costs), shape, f"{costs[0] / costs[-1]:.2f}x"])
    return found


def plot(file: Path) -> None:
    sides = range(512, 8193, 256)
    lines = [Line(name, [(side, work(layout(side // 8))) for side in sides]) for name, layout in LAYOUTS.items()]
    draw(lines, "side of a square result, pixels", "TFLOP of a PASD run (20 steps, guidance)", file)


def main() -> None:
    parser = argparse.ArgumentParser(description="Work of PASD by layout.")
    parser.add_argument("--plot", type=Path, help="write a plot of work against size")
    args = parser.parse_args()
    head = ["result", *(f"{name}, TFLOP" for name in LAYOUTS), "plan", "official / planned"]
    print("## Layout: work of a PASD run, 20 steps with guidance\n\n" + table(head, rows()))
    if args.plot:
        plot(args.plot)


if __name__ == "__main__":
    main()
