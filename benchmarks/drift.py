"""How far each approximate way is from the exact one on a picture: PSNR, GMSD, and the time it takes.

The exact result is the engine's default in fp32 with the planned tiles. PASD and StableSR need their weights here, or
others by --base-model and --adapter; of tiny random ones the differences say nothing about real ones, only that the way
runs, and how much of the time it takes.

python -m benchmarks.drift [--engine builtin] [--picture examples/cat.jpg] [--scale 4] [--process-size N]
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.tables import table
from srcli.errors import SrcliError
from srcli.imaging.read import read_picture
from srcli.pipeline import Pipeline
from srcli.settings import DeviceChoice, ModelChoice, Sampling, Size
from srcli.tasks import UPSCALE, Job
from srcli.train.metrics import Scores, compare

Way = tuple[str, Sampling, str]  # settings and precision
BUILTIN: dict[str, Way] = {
    "bf16": ("standard", Sampling(), "bfloat16"),
    "draft": ("draft", Sampling(), "float32"),
}
LATENT: dict[str, Way] = {
    "bf16": ("standard", Sampling(), "bfloat16"),
    "half of the steps": ("standard", Sampling(steps=10), "float32"),
    "tiles of 64, overlap 32": ("standard", Sampling(tile=64, overlap=32), "float32"),
    "draft": ("draft", Sampling(), "float32"),
}
PASD = LATENT | {
    "guidance on the middle half": ("standard", Sampling(guidance_interval=(0.25, 0.75)), "float32"),
    "deep features for 2 steps": ("standard", Sampling(reuse=2), "float32"),
    "deep features for 3 steps": ("standard", Sampling(reuse=3), "float32"),
}
WAYS = {"builtin": BUILTIN, "pasd": PASD, "stablesr": LATENT}


def run(choice: ModelChoice, way: Way, job: Job, picture: Path) -> tuple[np.ndarray, float]:
    """The result and the seconds of one core that it took, loading aside."""
    quality, own, dtype = way
    line = Pipeline.load(choice.at(quality), DeviceChoice(dtype=dtype, threads=1), partial(print, file=sys.stderr))
    sampling = replace(own, quality=quality, process_size=job.sampling.process_size)
    source = read_picture(picture)
    began = time.process_time()
    return line.run(source, replace(job, sampling=sampling)).pixels, time.process_time() - began


def row(name: str, scores: Scores, share: float) -> list[str]:
    return [name, f"{scores.psnr:.1f}", f"{scores.gmsd:.4f}", f"{share:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Drift of approximate ways.")
    parser.add_argument("--engine", choices=WAYS, default="builtin")
    parser.add_argument("--picture", type=Path, default=Path("examples/cat.jpg"))
    parser.add_argument("--scale", type=float, default=4)
    parser.add_argument("--base-model")
    parser.add_argument("--adapter")
    parser.add_argument("--process-size", type=int)
    given = parser.parse_args()
    choice = ModelChoice(engine=given.engine, base=given.base_model, adapter=given.adapter, offline=True)
    job = Job(task=UPSCALE, size=Size(scale=given.scale), sampling=Sampling(process_size=given.process_size))
    exact, spent = run(choice, ("standard", Sampling(), "float32"), job, given.picture)
    rows = []
    for name, way in WAYS[given.engine].items():
        try:
            result, time_taken = run(choice, way, job, given.picture)
            rows.append(row(name, compare(result, exact), time_taken / spent))
        except SrcliError as error:
            rows.append([name, f"not measured: {error}", "", ""])
    weights = f", with the weights of {given.adapter}" if given.adapter else ""
    print(f"## Drift of the {given.engine} engine on {given.picture.name}{weights}, against its default in fp32\n")
    print(table(["way", "PSNR, dB", "GMSD", "time, of the default's"], rows))


if __name__ == "__main__":
    main()
