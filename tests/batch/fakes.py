"""A pipeline without models, and the rest of a run, which is real."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from srcli.batch.listener import Listener
from srcli.batch.report import Outcome, Report
from srcli.batch.run import run_batch
from srcli.batch.settings import BatchSettings, InputOptions, OutputOptions, PipelineFactory, RunOptions
from srcli.engines.calibration import OtherVersions, vary_seed
from srcli.imaging.picture import Picture
from srcli.repair.repair_picture import repair_picture
from srcli.settings import DeviceChoice, ModelChoice, TargetSize
from srcli.tasks import FILLING, UPSCALE, Job


def do_nothing(picture: Picture) -> None:
    """By name, so that a pipeline can be sent to another process."""


class NoState:
    """In place of a state to resume from: the fake pipeline is fast enough to start again."""

    def delete(self) -> None:
        pass


@dataclass(frozen=True)
class Repeat:
    """Repeats each pixel. Its seed shows in the corner, so that settings can be told apart."""

    seconds: float = 0.0
    before: Callable[[Picture], None] = do_nothing

    def resume_state(self, picture: Picture, job: Job) -> NoState:
        return NoState()

    def other_versions(self, job: Job) -> OtherVersions:
        return vary_seed(job)

    def repair(self, picture: Picture, job: Job, on_progress) -> Picture:
        return repair_picture(picture, job.repair, None, on_part=partial(on_progress, FILLING))

    def run(self, picture: Picture, job: Job, on_progress, resume_state: None) -> Picture:
        self.before(picture)
        width, height = job.target(picture.width, picture.height)
        on_progress("sampling", 0, 4)
        for step in range(4):
            for tile in range(4):
                time.sleep(self.seconds / 16)
                on_progress(*(("tiles", tile + 1, 4) if tile < 3 else ("sampling", step + 1, 4)))
        rows, columns = (np.arange(n) * m // n for n, m in ((height, picture.height), (width, picture.width)))
        pixels = picture.pixels[rows][:, columns].copy()
        pixels[0, 0] = job.seed % 256
        return replace(picture, pixels=pixels, alpha=None)

    def provenance(self, job: Job, picture: Picture) -> dict[str, object]:
        return {"tool": "srcli test", "task": job.task.name, "seed": job.seed, "input_sha256": picture.sha256}


@dataclass(frozen=True, slots=True)
class FakeFactory(PipelineFactory):
    pipeline: Repeat = Repeat()
    error: Exception | None = None
    loads: list[int] = field(default_factory=list, compare=False)

    def load(self, tell, preview=None) -> Repeat:
        self.loads.append(1)
        if self.error:
            raise self.error
        return self.pipeline


@dataclass
class Watcher(Listener):
    """Remembers all it hears."""

    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    total: int = 0
    left_out: int = 0
    report: Report | None = None

    def planned(self, total: int, left_out: int) -> None:
        self.total, self.left_out = total, left_out

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, source: Path, stage: str, done: int, total: int) -> None:
        self.steps.append(stage)

    def ended(self, outcome: Outcome, tally) -> None:
        self.outcomes.append(outcome)

    def finished(self, report: Report) -> None:
        self.report = report

    def fate(self) -> dict[str, str]:
        """What became of each, by name; a failure by its kind."""
        return {o.source.name: o.kind if o.status == "failed" else o.status for o in self.outcomes}


def factory(**kind: object) -> FakeFactory:
    return FakeFactory(ModelChoice(engine="builtin"), DeviceChoice(device="cpu"), **kind)


def settings_for(
    *inputs: object, seed: int = 0, scale: float = 2, who: PipelineFactory | None = None, **more: object
) -> BatchSettings:
    """Orders with as little said as possible; what is given finds its group by its name."""

    def part(kind: type, **fixed: object):
        names = kind.__dataclass_fields__
        return kind(**fixed, **{k: v for k, v in more.items() if k in names})

    job = Job(task=UPSCALE, size=more.get("size") or TargetSize(scale=scale), seed=seed, mapped="map" in more)
    options = part(InputOptions, inputs=tuple(str(i) for i in inputs))
    return BatchSettings(options, part(OutputOptions), part(RunOptions), job, who or factory())


def go(*inputs: object, **kind: object) -> Watcher:
    """Run, and return what was heard."""
    watcher = Watcher()
    run_batch(settings_for(*inputs, **kind), watcher)
    return watcher


def draw(path: Path, width: int = 12, height: int = 8, seed: int = 0, **save: object) -> Path:
    """A small picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, **save)
    return path
