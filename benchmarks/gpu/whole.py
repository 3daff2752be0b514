"""Whole pictures with full-size networks of random weights: seconds by stage, and peak memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import torch

from benchmarks.gpu.bench import Bench, finish, peak
from benchmarks.gpu.models import CPU, engine, photo
from benchmarks.gpu.report import Failed, Row, attempt
from srcli.engines.runtime.device import Device
from srcli.imaging.picture import Picture
from srcli.memory import release_memory
from srcli.pipeline import EnginePipeline
from srcli.settings import Prompt, Sampling, TargetSize
from srcli.tasks import UPSCALE, Job

COLUMNS = ["run", "steps", "prepare, s", "a step, ms", "finish, s", "all, s", "GiB of weights", "GiB besides"]
PLANNED = "planned tiles"
# The official layouts: PASD's latents up to 320 in one piece; StableSR's tiles of 64, overlapping by half.
RUNS = (
    ("builtin", PLANNED, Sampling(), 1024, 4),
    ("builtin", "draft", Sampling(quality="draft"), 1024, 4),
    ("pasd", PLANNED, Sampling(steps=20), 512, 4),
    ("pasd", "official layout", Sampling(steps=2, tile=320, overlap=8), 512, 4),
    ("stablesr", PLANNED, Sampling(steps=20), 512, 4),
    ("stablesr", "official layout", Sampling(steps=4, tile=64, overlap=32), 512, 4),
    ("onestep", PLANNED, Sampling(), 128, 4),
    ("onestep", PLANNED, Sampling(), 512, 4),
    ("sr3", PLANNED, Sampling(steps=10), 512, 4),
)
SMALL = {  # with small networks; the first two take no number of steps
    "builtin": Sampling(),
    "onestep": Sampling(process_size=96),
    "pasd": Sampling(steps=3, process_size=96),
}


@dataclass
class Clock:
    """When stages and steps began and ended."""

    device: Device
    began: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=dict)
    steps: list[float] = field(default_factory=list)

    def __call__(self, stage: str, done: int, total: int) -> None:
        finish(self.device)
        now = time.perf_counter()
        self.stages.setdefault(stage, now)
        if stage == "sampling":
            self.steps.append(now)

    def row(self, count: int) -> list[str]:
        finish(self.device)
        end = time.perf_counter()
        each = [after - before for before, after in zip(self.steps, self.steps[1:], strict=False)]
        step = f"{1000 * statistics.median(each):.0f}" if each else ""
        if not self.steps:  # an engine of one pass has no stages
            return ["1", "", "", "", f"{end - self.began:.2f}"]
        prepare, last = self.stages["sampling"] - self.stages["preparing"], end - self.stages["finishing"]
        return [str(count), f"{prepare:.2f}", step, f"{last:.2f}", f"{end - self.began:.2f}"]


def rows(bench: Bench) -> Iterator[Row | Failed]:
    device = bench.at(torch.float32 if bench.small else torch.float16)
    held: dict[str, EnginePipeline] = {}
    for name, how, sampling, side, scale in RUNS:
        if name not in held:
            held.clear()
            release_memory()
        if bench.small:
            side = 32
            sampling = SMALL.get(name, Sampling(steps=3))
        job = Job(task=UPSCALE, size=TargetSize(scale=scale), sampling=sampling, prompt=Prompt(caption="none"))
        title = f"{name}, {how}, {side} to {side * scale}"
        yield attempt(title, partial(once, bench, device, held, name, job, photo(side, side)))


def once(
    bench: Bench, device: Device, held: dict[str, EnginePipeline], name: str, job: Job, picture: Picture
) -> list[str]:
    before = weights(device)
    if name not in held:
        made = engine(name, bench.sizes, device, CPU if bench.small else device.torch)
        held[name] = EnginePipeline(made, device)
    with peak(device) as most:
        clock = Clock(device)
        held[name].run(picture, job, clock)
        row = clock.row(len(clock.steps))
    return [*row, f"{weights(device) - before:.2f}", f"{most[0]:.2f}"]


def weights(device: Device) -> float:
    return torch.cuda.memory_allocated(device.torch) / 2**30 if device.torch.type == "cuda" else 0.0
