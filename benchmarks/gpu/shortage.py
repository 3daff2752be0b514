"""PASD with little memory: networks loaded by stage, 8-bit weights, and the fallbacks after running out of memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu.bench import Bench, collect_messages, levels_off, peak
from benchmarks.gpu.models import CPU, engine, photo
from benchmarks.gpu.report import Failed, Row, attempt
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import MOST_LATENTS, MemoryNeed, Placement
from srcli.imaging.picture import Picture
from srcli.memory import release_memory
from srcli.pipeline import EnginePipeline
from srcli.settings import Prompt, Sampling, TargetSize
from srcli.tasks import UPSCALE, Job

Levels = NDArray[np.uint8]
COLUMNS = ["run", "levels off", "% of values off", "PSNR, dB", "s", "GiB in all", "how"]
SHARES = (0.75, 0.6, 0.45, 0.3, 0.15)  # of the peak of a run, allowed in the next one


def rows(bench: Bench) -> Iterator[Row | Failed]:
    device = bench.at(torch.float32 if bench.small else torch.float16)
    side, tile = (96, 8) if bench.small else (1024, 64)
    asked = Sampling(steps=2, process_size=side, tile=tile, overlap=tile // 2)
    job = Job(task=UPSCALE, size=TargetSize(scale=2), sampling=asked, prompt=Prompt(caption="none"))
    picture = photo(side // 2, side // 2)
    truth: list[Levels] = []
    plain = line(bench, device)
    need: MemoryNeed = plain.engine.memory_need
    yield attempt("plain", partial(enough, plain, picture, job, truth))
    yield attempt("out of memory", partial(starved, plain, picture, job, truth))
    del plain
    release_memory()
    for name, placement in (("by stage", Placement(MOST_LATENTS)), ("8 bits", Placement(MOST_LATENTS, True))):
        # On a CPU, nothing is planned for less memory.
        short = replace(device, memory=need.least(placement) - 1) if device.accelerated else device
        yield attempt(name, partial(squeezed, bench, short, picture, job, truth))
        release_memory()


def line(bench: Bench, device: Device) -> EnginePipeline:
    made = engine("pasd", bench.sizes, device, CPU if bench.small else device.torch)
    return EnginePipeline(made, device)


def allocated(device: Device) -> float:
    return torch.cuda.memory_allocated(device.torch) / 2**30 if device.torch.type == "cuda" else 0.0


def enough(made: EnginePipeline, picture: Picture, job: Job, truth: list[Levels]) -> list[str]:
    """The reference run, after a warm-up."""
    truth.append(made.run(picture, job).pixels)
    return [*run(made, picture, job, truth), "enough memory"]


def run(made: EnginePipeline, picture: Picture, job: Job, truth: list[Levels]) -> list[str]:
    before, began = allocated(made.device), time.perf_counter()
    with peak(made.device) as most:
        got = made.run(picture, job).pixels
    return [*levels_off(got, truth[0]), f"{time.perf_counter() - began:.2f}", f"{before + most[0]:.2f}"]


def squeezed(bench: Bench, device: Device, picture: Picture, job: Job, truth: list[Levels]) -> list[str]:
    made = line(bench, device)
    placement = made.engine.placement
    how = ", ".join(name for name in ("by_stage", "weights_fp8") if getattr(placement, name)) or "enough memory"
    if device.accelerated and how == "enough memory":
        raise AssertionError("nothing was arranged for less memory")
    return [*run(made, picture, job, truth), how]


def starved(made: EnginePipeline, picture: Picture, job: Job, truth: list[Levels]) -> list[str]:
    """Reduce the memory until a run needs a fallback."""
    with peak(made.device) as most:
        made.run(picture, job)
    for share in SHARES:
        fresh = EnginePipeline(made.engine, made.device)
        with collect_messages() as messages, limited(made, share * most[0]):
            found = run(fresh, picture, job, truth)
        if steps := [text.removeprefix("out of memory: going on with ") for text in messages if "going on" in text]:
            return [*found, f"with {share:.0%} of the activations: " + ", then ".join(steps)]
    raise AssertionError("no allocation failed")


@contextmanager
def limited(made: EnginePipeline, gib: float) -> Iterator[None]:
    """Limit further allocations to `gib`; on a CPU, make calls with more than two tiles fail instead."""
    where = made.device.torch
    if where.type != "cuda":
        with failing(made):
            yield
        return
    release_memory()
    allowed = torch.cuda.memory_reserved(where) + gib * 2**30
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(where).total_memory, where)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, where)


@contextmanager
def failing(made: EnginePipeline) -> Iterator[None]:
    def refuse(net: object, inputs: tuple) -> None:
        if len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("out of memory, simulated")

    hook = made.engine.nets.unet.register_forward_pre_hook(refuse)
    try:
        yield
    finally:
        hook.remove()
