"""Speed of a batch, the gain by overlap and by workers, and growth of memory.

    python benchmarks/batch.py [--count 200] [--side 96] [--json FILE]

Generated pictures, the built-in engine, this machine's CPU with one thread per worker. Rates are measured from the
first result to the last, without loading models and starting Ray; these are listed separately.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from srcli.batch.listener import Listener
from srcli.batch.report import Outcome, Report, Tally
from srcli.batch.run import run_batch
from srcli.batch.settings import BatchSettings, InputOptions, OutputOptions, PipelineFactory, RunOptions
from srcli.settings import DeviceChoice, ModelChoice, TargetSize
from srcli.tasks import UPSCALE, Job

WARM = 10  # pictures before memory is measured, which fill allocators and caches


@dataclass
class Clock(Listener):
    """The time when each picture ended, and the process's memory."""

    times: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    spent: Mapping[str, float] = field(default_factory=dict)

    def ended(self, outcome: Outcome, tally: Tally) -> None:
        if outcome.status != "done":
            raise SystemExit(f"{outcome.source}: {outcome.message}")
        self.times.append(time.time())
        self.sizes.append(resident())

    def finished(self, report: Report) -> None:
        self.spent = report.times

    @property
    def rate(self) -> float:
        return pace(self.times)

    def growth(self) -> float:
        """Growth of memory from the first to the last quarter of the run, in percent."""
        sizes = np.array(self.sizes[WARM:], float)
        quarter = max(1, len(sizes) // 4)
        return float(100 * (sizes[-quarter:].mean() / sizes[:quarter].mean() - 1))


def pace(times: list[float]) -> float:
    """Results a minute."""
    times = sorted(times)
    return 60 * (len(times) - 1) / (times[-1] - times[0])


def resident() -> int:
    """Resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def generate(folder: Path, count: int, side: int) -> None:
    """Write pictures of smooth colours, edges and grain, which codecs treat like photographs."""
    folder.mkdir(parents=True)
    for number in range(count):
        chance = np.random.default_rng(number)
        coarse = chance.integers(0, 256, (6, 8, 3), np.uint8)
        picture = cv2.resize(coarse, (side * 4 // 3, side), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        picture[side // 3 : side // 2] //= 2
        picture += chance.integers(-6, 7, picture.shape, np.int16)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number:04}.jpg", quality=90)


def batch(folder: Path, **options: object) -> Clock:
    """Run a batch over a folder."""
    clock = Clock()
    factory = PipelineFactory(ModelChoice(engine="builtin"), DeviceChoice(device="cpu", dtype="float32", threads=1))
    with tempfile.TemporaryDirectory() as out:
        job = Job(task=UPSCALE, size=TargetSize(scale=4))
        run_batch(
            BatchSettings(
                InputOptions(inputs=(str(folder),)),
                OutputOptions(path=out, format="png"),
                RunOptions(**options),
                job,
                factory,
            ),
            clock,
        )
    gc.collect()
    return clock


def processes(folder: Path, count: int) -> float:
    """Results a minute of independent processes, each with its share of the folder."""
    files = sorted(folder.iterdir())
    with tempfile.TemporaryDirectory() as parts:
        for index, path in enumerate(files):
            part = Path(parts) / str(index % count)
            part.mkdir(exist_ok=True)
            (part / path.name).symlink_to(path)
        command = [sys.executable, __file__, "--part"]
        running = [
            subprocess.Popen([*command, str(Path(parts) / str(i))], stdout=subprocess.PIPE) for i in range(count)
        ]
        return pace([moment for process in running for moment in json.loads(process.communicate()[0])])


def measure(folder: Path) -> Iterator[tuple[str, float]]:
    """All measurements; those that are compared follow each other directly."""
    alone, overlap = batch(folder, ahead=0), batch(folder)
    yield "one at a time, pictures a minute", alone.rate
    yield "with overlap, pictures a minute", overlap.rate
    yield "overlap: share of the time in which nothing was computed", waiting(overlap)
    yield "one at a time: the same share", waiting(alone)
    yield "memory, last quarter against first, per cent", overlap.growth()
    yield "memory, MiB", overlap.sizes[-1] / 2**20
    plain, ray_two, ray_one = processes(folder, 2), batch(folder, workers=2), batch(folder, ray="local")
    yield "2 plain processes, pictures a minute", plain
    yield "2 Ray workers, pictures a minute", ray_two.rate
    yield "1 Ray worker, pictures a minute", ray_one.rate
    yield "Ray against plain processes", ray_two.rate / plain
    yield "2 workers against 1", ray_two.rate / ray_one.rate
    yield "starting two workers, s", ray_two.spent["loading"]


def waiting(clock: Clock) -> float:
    times = clock.spent
    return times["waiting"] / (times["waiting"] + times["computing"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(batch(args.part).times))
        return
    with tempfile.TemporaryDirectory() as home:
        generate(Path(home) / "in", args.count, args.side)
        found = {}
        for name, value in measure(Path(home) / "in"):
            found[name] = value
            print(f"{value:10.2f}  {name}", flush=True)
    print(f"{os.getloadavg()[0]:10.2f}  load of this machine at the end, on {os.cpu_count()} processors")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
