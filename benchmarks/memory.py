"""Memory of a whole run of the built-in engine by size of the result: reading aside, from pixels to a written TIFF.

Random weights: memory does not depend on them. `--narrow` takes a thin network, for sizes whose time would be long;
what is kept of picture and result is the same.

python -m benchmarks.memory [--sides 1024 2048 4096] [--narrow]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.tables import MIB, apart, peak, table
from srcli.engines.builtin import BuiltinEngine
from srcli.engines.device import Device, default_threads
from srcli.imaging.picture import Picture
from srcli.imaging.write import write_picture
from srcli.models.builtin import Builtin, Shape
from srcli.pipeline import Pipeline
from srcli.settings import Sampling
from srcli.tasks import UPSCALE, Job

NARROW = Shape(width=8, wide=8, before=1, deep=1, after=1, detail=(8, 8, 8), edge=8)


def picture(side: int) -> Picture:
    """Soft noise, made by rows: the picture itself must not be what the peak is about."""
    rng = np.random.default_rng(0)
    pixels = np.empty((side, side, 3), np.uint8)
    for row in pixels:
        row[:] = np.repeat(rng.integers(0, 256, (-(-side // 16), 3), np.uint8), 16, 0)[:side]
    return Picture(pixels=pixels)


def measure(side: int, narrow: bool) -> dict[str, float]:
    torch.set_num_threads(default_threads())
    model = Builtin(NARROW if narrow else Shape()).eval().requires_grad_(False)
    engine = BuiltinEngine(model, Device(torch.device("cpu"), torch.float32), "")
    line = Pipeline(engine, engine.device, lambda text: None)
    source = picture(side // 4)
    job = Job(task=UPSCALE, sampling=Sampling(steps=2))
    before, began = peak(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        write_picture(line.run(source, job), Path(folder) / "result.tif")
    return {"before": before, "peak": peak(), "seconds": time.perf_counter() - began, "input": source.pixels.nbytes}


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory of the built-in engine by size.")
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--narrow", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.narrow)))
        return
    rows = []
    for side in given.sides:
        found = apart("benchmarks.memory", "--one", side, *["--narrow"] * given.narrow)
        levels = side * side * 3
        values = (found["before"], found["peak"], found["input"] + levels)
        rows.append([f"{side}x{side}", *(f"{value / MIB:,.0f}" for value in values), f"{found['seconds']:.0f}"])
    head = ["result", "before, MiB", "peak, MiB", "levels of input and result, MiB", "seconds"]
    kind = "a thin network" if given.narrow else "the built-in network"
    print(f"## Memory: {kind}, from pixels to a written TIFF\n\n" + table(head, rows))


if __name__ == "__main__":
    main()
