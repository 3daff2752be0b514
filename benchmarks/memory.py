"""Memory of a whole run on a CPU by size of the result, against what `--explain` says of it.

Reading aside, from pixels to a written TIFF. Random weights: memory does not depend on them. Sizes beyond `--most`
are estimated alone. PASD, at full size and without a captioner, takes 1 step.

python -m benchmarks.memory [--sides 1024 2048 4096 8192 16384 30000] [--most 4096] [--dtype float32] [--engine pasd]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.tables import MIB, apart, peak, table
from srcli.engines.builtin.engine import BuiltinEngine
from srcli.engines.runtime.device import Device, choose_device, prepare_process
from srcli.imaging.picture import Picture
from srcli.imaging.write import write_picture
from srcli.models.builtin import Builtin, BuiltinShape
from srcli.pipeline import EnginePipeline
from srcli.settings import DeviceChoice, ModelChoice, Prompt, Sampling
from srcli.tasks import UPSCALE, Job

JOBS = {
    "builtin": Job(task=UPSCALE),
    "pasd": Job(task=UPSCALE, sampling=Sampling(steps=1), prompt=Prompt(caption="none")),
}
SIDES = [1024, 2048, 4096, 8192, 16384, 30000]


def picture(side: int) -> Picture:
    """Soft noise, made by rows: the picture itself must not be what the peak is about."""
    rng = np.random.default_rng(0)
    pixels = np.empty((side, side, 3), np.uint8)
    for row in pixels:
        row[:] = np.repeat(rng.integers(0, 256, (-(-side // 16), 3), np.uint8), 16, 0)[:side]
    return Picture(pixels=pixels)


def device(dtype: str) -> Device:
    return Device(torch.device("cpu"), getattr(torch, dtype))


def engine(name: str, where: Device) -> Any:
    if name == "pasd":
        from benchmarks.memory_pasd import engine as pasd

        return pasd(where)
    return BuiltinEngine(Builtin(BuiltinShape()).eval().requires_grad_(False).to(where.dtype), where, "")


def estimate(name: str, side: int, dtype: str) -> int:
    """What `--explain` says of it."""
    from srcli.engines.forecast import forecast_run  # which brings libraries that the runs measured here do without

    return forecast_run(ModelChoice(engine=name), JOBS[name], (side // 4, side // 4), device(dtype)).memory


def measure(name: str, side: int, dtype: str) -> dict[str, float]:
    where = choose_device(DeviceChoice(device="cpu", dtype=dtype))
    prepare_process(where)
    line = EnginePipeline(engine(name, where), where)
    source = picture(side // 4)
    before, began = peak(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        write_picture(line.run(source, JOBS[name]), Path(folder) / "result.tif")
    return {"before": before, "peak": peak(), "seconds": time.process_time() - began}


def row(name: str, side: int, dtype: str, most: int) -> list[str]:
    said = estimate(name, side, dtype)
    if side > most:
        return [f"{side}x{side}", f"{said / MIB:,.0f}", "not run", "", ""]
    found = apart("benchmarks.memory", "--one", side, "--dtype", dtype, "--engine", name)
    off = f"{said / found['peak'] - 1:+.0%}"
    return [f"{side}x{side}", f"{said / MIB:,.0f}", f"{found['peak'] / MIB:,.0f}", off, f"{found['seconds']:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory of a run by size.")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--most", type=int, default=4096, help="sides beyond it are estimated, not run")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--engine", default="builtin", choices=list(JOBS))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.engine, given.one, given.dtype)))
        return
    rows = [row(given.engine, side, given.dtype, given.most) for side in given.sides]
    print(f"## Memory: {given.engine} in {given.dtype}, from pixels to a written TIFF\n")
    print(table(["result", "estimate, MiB", "peak, MiB", "estimate against peak", "processor s"], rows))


if __name__ == "__main__":
    main()
