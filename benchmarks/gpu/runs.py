"""Whole runs of tiny engines through the pipeline, on the device against the CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import AutoencoderTiny

from benchmarks.gpu.bench import HOST, Bench, collect_messages, levels_off, short
from benchmarks.gpu.models import TINY, engine, photo
from benchmarks.gpu.report import Failed, Row, attempt
from srcli.engines.latent.preview import Preview
from srcli.engines.runtime.device import Device
from srcli.pipeline import EnginePipeline
from srcli.sampling import resume
from srcli.settings import Prompt, Sampling, TargetSize
from srcli.tasks import COLORIZE, UPSCALE, Job

COLUMNS = ["run", "precision", "levels off", "% of values off", "PSNR, dB", "s"]
LIMIT = 2  # levels, in float32: approximate sums change the rounding
PASD = Sampling(steps=3, process_size=96)
STABLESR = Sampling(steps=3)


@dataclass(frozen=True)
class Case:
    """An engine and its settings."""

    name: str
    engine: str
    sampling: Sampling
    scale: float = 2
    task: object = UPSCALE
    height: int = 44
    width: int = 60

    @property
    def job(self) -> Job:
        return Job(
            task=self.task, size=TargetSize(scale=self.scale), sampling=self.sampling, prompt=Prompt(caption="none")
        )


SCHEDULERS = [
    *(Case(f"pasd, {name}", "pasd", replace(PASD, scheduler=name)) for name in ("dpm++", "ddim", "euler", "lcm")),
    *(Case(f"stablesr, {name}", "stablesr", replace(STABLESR, scheduler=name)) for name in ("unipc", "euler")),
]
CASES = [
    Case("builtin", "builtin", Sampling(), 4),
    Case("sr3", "sr3", Sampling(steps=4), 4, height=20, width=28),
    Case("sr3, tiles", "sr3", Sampling(steps=4, tile=48, overlap=16), 4, height=20, width=28),
    Case("stablesr", "stablesr", STABLESR),
    Case("stablesr, tiles", "stablesr", replace(STABLESR, tile=8, overlap=4)),
    Case("pasd", "pasd", PASD),
    Case("pasd, tiles", "pasd", replace(PASD, tile=8, overlap=4)),
    Case("pasd, tiles, reuse", "pasd", replace(PASD, tile=8, overlap=4, reuse=2)),
    Case("pasd, half guided", "pasd", replace(PASD, guidance_interval=(0.25, 0.75), color_fix="adain")),
    Case("pasd, colours", "pasd", PASD, 1, COLORIZE),
    *SCHEDULERS,
]


def rows(bench: Bench) -> Iterator[Row | Failed]:
    lines = {}
    for dtype in bench.dtypes:
        device = bench.at(dtype)
        for case in cases(bench, dtype):
            yield attempt(case.name, partial(compared, case, device, lines))
    device = bench.at(torch.float32)
    yield attempt("pasd, preview", partial(previewed, device))
    yield attempt("pasd, resumed", partial(resumed, device))


def cases(bench: Bench, dtype: torch.dtype) -> list[Case]:
    """All cases in float32, fewer in other precisions and with small networks."""
    if bench.small:
        return [case for case in CASES if "tiles" in case.name or case.name == "builtin"]
    return CASES if dtype is torch.float32 else [case for case in CASES if case not in SCHEDULERS]


def line(name: str, device: Device, lines: dict) -> EnginePipeline:
    """The pipeline of an engine on a device, cached in `lines`."""
    if (name, device) not in lines:
        lines[name, device] = EnginePipeline(engine(name, TINY, device), device)
    return lines[name, device]


def compared(case: Case, device: Device, lines: dict) -> list[str]:
    picture = photo(case.height, case.width)
    truth = line(case.engine, HOST, lines).run(picture, case.job).pixels
    began = time.perf_counter()
    got = line(case.engine, device, lines).run(picture, case.job).pixels
    spent = time.perf_counter() - began
    off = levels_off(got, truth)
    if device.dtype is torch.float32 and int(off[0]) > LIMIT:
        raise AssertionError(f"{off[0]} levels off, {off[1]} % of values, PSNR {off[2]}")
    return [short(device.dtype), *off, f"{spent:.2f}"]


def previewed(device: Device) -> list[str]:
    """Check that a preview is written while the engine samples."""
    torch.manual_seed(0)
    net = AutoencoderTiny(encoder_block_out_channels=(16,) * 4, decoder_block_out_channels=(16,) * 4)
    case = Case("", "pasd", PASD)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "preview.png"
        preview = Preview(file, net.to(device.torch, device.dtype).eval().requires_grad_(False))
        made = EnginePipeline(engine("pasd", TINY, device), device, preview=preview)
        with collect_messages() as messages:
            made.run(photo(case.height, case.width), case.job)
        if messages or not file.exists():
            raise AssertionError("; ".join(messages) or "no preview was written")
    return [short(device.dtype)]


def resumed(device: Device) -> list[str]:
    """Check that an interrupted and resumed run has the result of an uninterrupted one."""
    case = Case("", "pasd", replace(PASD, steps=4))
    made, picture = EnginePipeline(engine("pasd", TINY, device), device), photo(44, 60)
    truth = made.run(picture, case.job).pixels

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "sampling" and done == 2:
            raise KeyboardInterrupt

    waits = resume.FIRST_SAVE_AFTER, resume.SAVE_INTERVAL
    resume.FIRST_SAVE_AFTER = resume.SAVE_INTERVAL = 0.0
    try:
        with TemporaryDirectory() as folder, collect_messages() as messages:
            state = resume.ResumeState(Path(folder) / "states" / "one", "one")
            try:
                made.run(picture, case.job, interrupt, state)
            except KeyboardInterrupt:
                again = resume.ResumeState(Path(folder) / "states" / "one", "one")
                got = made.run(picture, case.job, resume_state=again).pixels
    finally:
        resume.FIRST_SAVE_AFTER, resume.SAVE_INTERVAL = waits
    if not any("resuming" in text for text in messages):
        raise AssertionError(f"nothing was resumed: {messages}")
    off = levels_off(got, truth)
    if int(off[0]) > 1:
        raise AssertionError(f"{off[0]} levels off, {off[1]} % of values")
    return [short(device.dtype), *off]
