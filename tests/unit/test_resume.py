"""A run that is ended in the middle of a picture: the next one goes on there, and the result is the same to the bit."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.fakes import CPU, Nothing, PassThrough
from tests.hasty import BLOCK

from srcli.engines.latent.schedulers import SCHEDULERS, build_scheduler
from srcli.engines.sr3.spec import SPEC as SR3
from srcli.imaging.picture import Picture
from srcli.pipeline import EnginePipeline
from srcli.sampling import resume
from srcli.sampling.noise import NoiseField
from srcli.sampling.resume import BlockProgress, ResumeState, remove_stale
from srcli.sampling.sampler import run_sampler
from srcli.settings import DeviceChoice, ModelChoice, Sampling, TargetSize
from srcli.tasks import RESTORE, UPSCALE, Job

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests/golden/pasd/tiny"
STEPS = 6
JOB = Job(task=RESTORE)
PICTURE = Picture(pixels=np.random.default_rng(3).integers(0, 256, (40, 30, 3), np.uint8), name="a.png")


class Ended(Exception):
    """The run is over before its time."""


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is worth saving."""
    monkeypatch.setattr(resume, "FIRST_SAVE_AFTER", 0.0)
    monkeypatch.setattr(resume, "SAVE_INTERVAL", 0.0)


class Bent:
    """A denoiser whose predictions depend on all that came before."""

    stride = 1

    def __call__(self, x, t, hint, where=None):
        return torch.sin(3 * x) + 0.1 * hint


def sampled(name: str, stretch: BlockProgress, last: int = STEPS) -> torch.Tensor:
    """Sampling that ends after `last` steps."""
    made, noise = build_scheduler(name, {"beta_schedule": "scaled_linear"}, STEPS), NoiseField(1)
    start, done = stretch.resume(noise.draw((1, 2, 8, 8)), made, "")

    def on_step(done: int, total: int, x: torch.Tensor, expected: torch.Tensor) -> None:
        stretch.save_step(done, x, made, "")
        if done == last < STEPS:
            raise Ended

    return run_sampler(Bent(), made, start, torch.ones(1, 2, 8, 8), noise, on_step, done)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("last", range(1, STEPS))
def test_a_sampling_that_is_resumed_gives_the_same_bits(tmp_path, said, name, last):
    whole = sampled(name, stretch(None))
    with pytest.raises(Ended):
        sampled(name, stretch(tmp_path / "it"), last)
    assert torch.equal(sampled(name, stretch(tmp_path / "it")), whole)
    assert said == [f"resuming a.png after step {last} of {STEPS}"]


def stretch(folder: Path | None) -> BlockProgress:
    return BlockProgress(lambda *step: None, ResumeState(folder, "a.png"))


def test_other_tiles_begin_anew(tmp_path):
    with pytest.raises(Ended):
        sampled("unipc", stretch(tmp_path / "it"), 3)
    start, made = torch.zeros(1), build_scheduler("unipc", {}, STEPS)
    assert stretch(tmp_path / "it").resume(start, made, "others") == (start, 0)


def test_what_is_broken_is_not_kept(tmp_path):
    made = build_scheduler("ddim", {}, STEPS)
    stretch(tmp_path / "it").save_step(1, torch.tensor([float("nan")]), made, "")
    assert not (tmp_path / "it").exists()


@pytest.fixture
def line() -> EnginePipeline:
    return EnginePipeline(PassThrough(block=16, factor=2), CPU)


def ended(line: EnginePipeline, blocks: int) -> ResumeState:
    """A run that is over when so many of its blocks are done."""
    made = []

    def on_progress(stage: str, done: int, total: int) -> None:
        made.append(stage)
        if made.count("preparing") > blocks:
            raise Ended

    state = line.resume_state(PICTURE, JOB)
    with pytest.raises(Ended):
        line.run(PICTURE, JOB, on_progress, state)
    return state


def again(line: EnginePipeline) -> tuple[np.ndarray, int]:
    """The result of another run, and how many blocks it had to do."""
    before = len(line.engine.seen)
    result = line.run(PICTURE, JOB, resume_state=line.resume_state(PICTURE, JOB))
    return result.pixels, len(line.engine.seen) - before


def files(state: ResumeState) -> list[Path]:
    return sorted(state._folder.iterdir())


def test_blocks_that_are_done_are_not_done_again(line, said):
    whole = line.run(PICTURE, JOB).pixels
    state = ended(line, 4)
    pixels, done = again(line)
    assert np.array_equal(pixels, whole)
    assert (done, said) == (2, ["resuming a.png after block 4 of 6"])
    state.delete()
    assert again(line)[1] == 6


class Short(Nothing):
    """Runs out of memory in one call."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, x, t, hint, where=None):
        self.left -= 1
        if not self.left:
            raise torch.OutOfMemoryError("injected")
        return super().__call__(x, t, hint, where)


@pytest.mark.parametrize(("at", "resumed"), [(1, []), (4, ["resuming a.png after step 1 of 2"])])
def test_memory_that_runs_out_costs_no_step_that_is_kept(monkeypatch, said, at, resumed):
    """So the first call of a picture is the trial of its size: a failure there costs no step at all."""
    whole = EnginePipeline(PassThrough(), CPU).run(PICTURE, JOB).pixels
    short, line, steps = Short(at), EnginePipeline(PassThrough(), CPU), []
    monkeypatch.setattr("tests.fakes.Nothing", lambda: short)
    state = line.resume_state(PICTURE, JOB)
    pixels = line.run(PICTURE, JOB, lambda *step: steps.append(step), state).pixels
    assert np.array_equal(pixels, whole)
    assert [done for stage, done, _ in steps if stage == "sampling" and done] == [1, *[1] * bool(resumed), 2]
    assert said == ["out of memory: going on with half the tiles at once", *resumed]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_result_that_was_not_written_is_not_made_again(dtype):
    line = EnginePipeline(PassThrough(), CPU)
    picture = replace(PICTURE, pixels=PICTURE.pixels.astype(dtype))
    first = line.run(picture, JOB, resume_state=line.resume_state(picture, JOB))
    again = EnginePipeline(PassThrough(change=torch.zeros_like), CPU)
    second = again.run(picture, JOB, resume_state=again.resume_state(picture, JOB))
    assert second.pixels.dtype == dtype
    assert np.array_equal(second.pixels, first.pixels)


@pytest.mark.parametrize(
    "change",
    [
        lambda line, job, picture: (line, replace(job, seed=1), picture),
        lambda line, job, picture: (line, replace(job, size=TargetSize(scale=2)), picture),
        lambda line, job, picture: (replace(line, engine=replace(line.engine, spec=SR3)), job, picture),
        lambda line, job, picture: (replace(line, device=replace(CPU, dtype=torch.bfloat16)), job, picture),
        lambda line, job, picture: (replace(line, choice=replace(line.choice, blend=0.5)), job, picture),
        lambda line, job, picture: (line, job, replace(picture, pixels=picture.pixels[::-1])),
    ],
)
def test_what_was_kept_is_for_this_picture_and_recipe_alone(line, change):
    line_, job, picture = change(line, JOB, PICTURE)
    assert line_.resume_state(picture, job)._folder != line.resume_state(PICTURE, JOB)._folder
    assert replace(line).resume_state(PICTURE, JOB)._folder == line.resume_state(PICTURE, JOB)._folder


@pytest.mark.parametrize("harm", [lambda data: data[:-9], lambda data: b"", lambda data: data[:60] + b"!" + data[61:]])
def test_a_damaged_state_is_said_and_done_again(line, said, harm):
    whole = line.run(PICTURE, JOB).pixels
    first = files(ended(line, 4))[0]
    first.write_bytes(harm(first.read_bytes()))
    pixels, done = again(line)
    assert np.array_equal(pixels, whole)
    assert done == 3
    assert "the saved state of a.png is damaged: doing that part again" in said


def test_a_state_of_another_picture_is_a_damaged_one(line, said):
    other = replace(PICTURE, pixels=255 - PICTURE.pixels)
    line.run(other, JOB, resume_state=(state := line.resume_state(other, JOB)))
    ended(line, 0)
    state._folder.rename(line.resume_state(PICTURE, JOB)._folder)
    pixels, done = again(line)
    assert np.array_equal(pixels, line.run(PICTURE, JOB).pixels)
    assert done == 6
    assert any("damaged" in text for text in said)


@contextmanager
def small_files() -> Iterator[None]:
    """No file may grow beyond this: a write fails as on a full disk.

    A fixture would stand while pytest writes its report, which may be such a file.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_takes_no_state_is_no_failure(line, said):
    with small_files():
        state = ended(line, 4)
    assert not state._folder.exists()
    assert [text for text in said if "cannot be resumed if it is ended now" in text] == said[:1] == said
    assert again(line)[1] == 6


def test_a_user_without_a_home_keeps_nothing(line, monkeypatch, said):
    for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
    ended(line, 4)
    assert (again(line)[1], said) == (6, [])


def test_what_is_kept_of_a_picture_is_its_owners_alone(line):
    assert ended(line, 4)._folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("plant", [Path.symlink_to, Path.hardlink_to, lambda path, other: os.mkfifo(path)])
def test_what_is_no_file_of_ours_is_not_read(line, plant):
    """A state behind a link may be anybody's, and a pipe would be waited for."""
    state = ended(line, 4)
    for file in files(state):
        plant(file, file.rename(state._folder.parent / file.name))
    assert again(line)[1] == 6


def test_nothing_is_kept_behind_a_link(line, tmp_path, said):
    folder = line.resume_state(PICTURE, JOB)._folder
    folder.parent.mkdir(parents=True)
    (tmp_path / "theirs").mkdir()
    folder.symlink_to(tmp_path / "theirs")
    ended(line, 4)
    assert list((tmp_path / "theirs").iterdir()) == []
    assert folder.is_symlink()
    assert len(said) == 1 and "its folder is a link" in said[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_state_of_another_user_is_not_read(line):
    state = ended(line, 4)
    for file in files(state):
        os.chown(file, 12345, -1)
    assert again(line)[1] == 6


def test_a_picture_that_takes_a_moment_leaves_nothing(line, monkeypatch):
    monkeypatch.setattr(resume, "FIRST_SAVE_AFTER", 60.0)
    assert not ended(line, 4)._folder.exists()


def test_what_nobody_came_back_for_goes(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / "old", (0, 0))
    remove_stale(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


RUNS = {  # the engine's options, states after which the run is killed, and where the next one finds itself
    "builtin": (ModelChoice(engine="builtin"), Sampling(), 3, "after block 3 of 6"),
    "pasd": (
        ModelChoice(engine="pasd", base=str(TINY / "base"), adapter=str(TINY / "pasd")),
        Sampling(steps=5, process_size=32, tile=4),
        3,
        "after step 3 of 5",
    ),
}


def command(source: Path, out: Path, choice: ModelChoice, sampling: Sampling) -> list[str]:
    options = {"engine": choice.engine, "base-model": choice.base, "adapter": choice.adapter, "device": "cpu"}
    options |= {"steps": sampling.steps, "process-size": sampling.process_size, "tile": sampling.tile, "scale": 1}
    given = [word for name, value in options.items() if value is not None for word in (f"--{name}", value)]
    return ["upscale", *map(str, (source, "-o", out, "--dtype", "float32", "--threads", 1, *given))]


def undisturbed(choice: ModelChoice, sampling: Sampling) -> np.ndarray:
    whole = EnginePipeline.load(choice, DeviceChoice(device="cpu", dtype="float32", threads=1))
    cut = replace(whole, engine=replace(whole.engine, block=whole.engine.block and BLOCK))
    return cut.run(PICTURE, Job(task=UPSCALE, size=TargetSize(scale=1), sampling=sampling)).pixels


@pytest.mark.parametrize("engine", RUNS)
def test_a_killed_run_is_resumed_and_its_result_is_the_same(tmp_path, home, engine):
    choice, sampling, kill, place = RUNS[engine]
    source, out = tmp_path / "a.png", tmp_path / "out.png"
    Image.fromarray(PICTURE.pixels).save(source)
    words = [sys.executable, "-m", "tests.hasty", str(kill), *command(source, out, choice, sampling)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.endswith(f"{signal.SIGKILL:d} 0\n"), done.stderr
    assert f"resuming {source} {place}" in done.stderr
    assert list((home / "cache/srcli/unfinished").iterdir()) == []
    assert np.array_equal(np.asarray(Image.open(out)), undisturbed(choice, sampling))
