"""Effect of `--consistent`: PSNR and the largest deviation from the input, without and with it.

Pictures of scikit-image, reduced by MATLAB's bicubic, are enlarged by the built-in engine and by PASD, StableSR and SR3
with the random weights of the tests. Results of these are noise, which a projection changes most; their PSNR
says nothing about real weights.

python -m benchmarks.consistency [--side 256] [--tiny-side 96]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import skimage.data
from numpy.typing import NDArray

from benchmarks.drift import tiny
from benchmarks.quality import cut_middle
from srcli.engines.choose import settle_choice
from srcli.imaging.picture import Picture
from srcli.metrics.matlab import reduce_bicubic
from srcli.metrics.registry import METRICS
from srcli.metrics.sample import Sample
from srcli.pipeline import EnginePipeline
from srcli.settings import DeviceChoice, ModelChoice, Sampling, TargetSize
from srcli.tasks import UPSCALE, Job

NAMES = ("astronaut", "coffee", "chelsea", "rocket", "immunohistochemistry", "hubble_deep_field")
SCALE = 4
TINY_SAMPLING = {
    "pasd": Sampling(steps=4, process_size=32),
    "stablesr": Sampling(steps=4),
    "sr3": Sampling(steps=4),
}
COLUMNS = ("psnr-y", "consistency", "deviation")
HEAD = ["engine", *(f"{name}{more}" for name in COLUMNS for more in ("", ", consistent"))]
Pixels = NDArray[np.uint8]


def load_tiny(engine: str, folder: Path) -> EnginePipeline:
    """An engine with the random weights of the tests."""
    parts = tiny(engine, folder)
    base, adapter = (str(parts[key]) if key in parts else None for key in ("base_model", "adapter"))
    choice, device = ModelChoice(engine=engine, base=base, adapter=adapter, offline=True), DeviceChoice(device="cpu")
    return EnginePipeline.load(settle_choice(choice, device, Job(task=UPSCALE)), device)


def measure_row(name: str, line: EnginePipeline, sampling: Sampling, truths: list[Pixels]) -> list[str]:
    """Means of PSNR, the worst of all deviations."""
    found = []
    for consistent in (False, True):
        job = Job(task=UPSCALE, size=TargetSize(scale=SCALE), sampling=sampling, consistent=consistent)
        samples = list(run_all(line, job, truths))
        by_name = {metric: [METRICS[metric].measure(sample) for sample in samples] for metric in COLUMNS}
        found.append((np.mean(by_name["psnr-y"]), np.mean(by_name["consistency"]), max(by_name["deviation"])))
    digits = (2, 2, 1)
    return [name, *(f"{each[i]:.{digits[i]}f}" for i in range(3) for each in found)]


def run_all(line: EnginePipeline, job: Job, truths: list[Pixels]) -> Iterator[Sample]:
    for truth in truths:
        small = reduce_bicubic(truth, SCALE)
        result = line.run(Picture(pixels=small), job)
        yield Sample(result.pixels, truth, small, border=SCALE)


def find_rows(side: int, tiny_side: int) -> Iterator[list[str]]:
    pictures = [np.asarray(getattr(skimage.data, name)())[..., :3] for name in NAMES]
    truths, smaller = ([cut_middle(picture, most) for picture in pictures] for most in (side, tiny_side))
    builtin = EnginePipeline.load(ModelChoice(engine="builtin"), DeviceChoice(device="cpu"))
    for fidelity in (0.0, 0.5, 1.0):
        yield measure_row(f"builtin, fidelity {fidelity:g}", builtin, Sampling(fidelity=fidelity), truths)
    with tempfile.TemporaryDirectory() as folder:
        for engine in ("pasd", "stablesr", "sr3"):
            line = load_tiny(engine, Path(folder) / engine)
            wanted = TINY_SAMPLING[engine]
            yield measure_row(f"{engine}, random weights", line, wanted, smaller[:3])


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what --consistent costs and holds.")
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--tiny-side", type=int, default=64)
    args = parser.parse_args()
    print(format_row(HEAD), format_row(["---"] * len(HEAD)), sep="\n")
    for row in find_rows(args.side, args.tiny_side):
        print(format_row(row), flush=True)


def format_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
