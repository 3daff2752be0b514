"""`srcli train builtin`: load photographs, compute a bank of training pairs, and run the training stages."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from srcli.degrade.draws import SeededDraws
from srcli.engines.builtin.weights import disk_is_full, read_model, refold_model, write_model
from srcli.errors import InputError, MachineError, PictureError, WeightsError, unknown_word
from srcli.files import make_folder, replace_file
from srcli.imaging.picture import Pixels8
from srcli.imaging.printable import printable
from srcli.models.builtin import UPSCALE_FACTOR, Builtin, BuiltinShape
from srcli.train.builtin.aging import make_old_print, print_picture
from srcli.train.builtin.bank import Bank, BankMaker, make_aged_bank
from srcli.train.builtin.features import FeatureNetwork
from srcli.train.builtin.photos import Photographs, decode_photo, draw_lettering, is_held_out
from srcli.train.builtin.teachers import Teacher, read_teacher
from srcli.train.builtin.trainer import Training, TrainingStage
from srcli.train.pictures import survey_pictures

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from multiprocessing.context import ForkContext

FOLDS = {"upscale": 1, "restore": 2}
BANK_SHARE = 0.18
"""Share of the time for computing pairs; the stages share the rest."""
SAVE_EVERY = 30.0  # seconds
AGED_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltinTrainPlan:
    """The settings of a training."""

    photos: Path
    out: Path
    seconds: float
    device: torch.device
    task: str = "upscale"
    teachers: Path | None = None  # general, dense, span, features: NAME.safetensors; None: photographs alone
    batch: int = 8
    cells: int = 48
    pairs: int = 80_000
    steps: int | None = None  # per stage, instead of a share of `seconds`
    jobs: int = 0
    seed: int = 1
    rate: float = 1.2e-3
    start: Path | None = None
    shape: BuiltinShape = field(default_factory=BuiltinShape)

    @property
    def model_file(self) -> Path:
        return self.out / f"builtin-{self.task}.safetensors"

    @property
    def state_file(self) -> Path:
        return self.out / f"builtin-{self.task}.state"

    def stages(self) -> tuple[TrainingStage, ...]:
        """Enlargement: learn the teachers' outputs, sharpen against photographs, train the crisp head alone."""
        left = self.seconds * (1 - BANK_SHARE)
        learn = TrainingStage(
            name="learn", seconds=0.5 * left, rate=self.rate, batch=self.batch, steps=self.steps, truth=0.1
        )
        later = replace(learn, rate=self.rate / 2.5, seconds=0.25 * left)
        if self.task == "restore":
            return (replace(later, name="restore", seconds=left, features=1.2, critic=0.3, truth=1),)
        sharpen = replace(later, name="sharpen", features=3, critic=0.3, truth=0.5)
        # A feature loss instead of a critic, which had no effect against the teacher's outputs.
        crisp = replace(later, name="crisp", features=6, truth=0.3, crisp_only=True)
        return learn, sharpen, crisp


def run_builtin_training(plan: BuiltinTrainPlan, resume: bool) -> Path:
    """Run all stages within the time; returns the file of the trained network."""
    _check_out(plan, resume)
    began = time.monotonic()
    torch.manual_seed(plan.seed)
    files = _find_photos(plan)
    if plan.start:
        read_model(plan.start)  # a wrong file would else be told once all pairs are made
    make_folder(plan.out, "--out")
    photos = _open_photos(plan, files)
    with _aging(plan, photos) as aged:  # forked before the device is touched
        features = _read_features(plan)
        bank = _make_bank(plan, photos, aged, BANK_SHARE * plan.seconds - (time.monotonic() - began))
    training = Training(_begin_model(plan), features, plan.device, plan.seed)
    if resume:
        training.restore(_load_state(plan))
        log.info(f"resumed at step {training.step}, stage {training.stage}")
    stages = plan.stages()
    names = [stage.name for stage in stages]
    for stage in stages[names.index(training.stage) if training.stage in names else 0 :]:
        _run_stage(training, stage, bank, plan)
    return plan.model_file


def _check_out(plan: BuiltinTrainPlan, resume: bool) -> None:
    """InputError unless --out holds a training exactly if --resume is given."""
    if plan.task not in FOLDS:
        raise unknown_word("--task", plan.task, FOLDS)
    begun = plan.state_file.exists()
    if begun and not resume:
        raise InputError(f"{plan.out} already holds a training: add --resume or give another --out")
    if resume and not begun:
        raise InputError(f"{plan.out} holds no training to resume: leave out --resume or give another --out")


def _find_photos(plan: BuiltinTrainPlan) -> list[Path]:
    """All photographs that are large enough and not held out; InputError if there are none."""
    least = (plan.cells + 8) * UPSCALE_FACTOR
    found = survey_pictures(plan.photos, least)
    found.report(least)
    files = [picture.path for picture in found.usable]
    return [file for file in files if not is_held_out(file)] or files


def _open_photos(plan: BuiltinTrainPlan, files: list[Path]) -> list[Pixels8]:
    """Decode photographs in `jobs` worker processes or in this one; those whose header alone is whole are left out."""
    opened = _map(decode_photo, files, plan.jobs)
    errors = [each for each in opened if isinstance(each, PictureError)]
    if len(errors) == len(files):
        raise InputError(f"none of {len(files)} pictures in {printable(plan.photos)} can be read, such as: {errors[0]}")
    if errors:
        log.info(f"left out: {len(errors)} of {len(files)} pictures that cannot be read, such as: {errors[0]}")
    return [each for each in opened if not isinstance(each, PictureError)]


def _fork() -> ForkContext:
    """The multiprocessing context for workers that share this process's memory."""
    if "fork" not in multiprocessing.get_all_start_methods():
        raise InputError("--jobs needs a system that can fork processes, which Windows cannot: leave it out")
    return multiprocessing.get_context("fork")


def _map(function: Callable[[Any], Any], items: list[Any], jobs: int) -> list[Any]:
    if not jobs:
        return [function(item) for item in items]
    with ProcessPoolExecutor(jobs, _fork()) as pool:
        return list(pool.map(function, items, chunksize=4))


@dataclass(frozen=True)
class Aging:
    """Computes aged prints; random numbers depend only on the seed and the batch's number."""

    photos: list[Pixels8]
    cells: int
    seed: int

    def make_batch(self, number: int) -> tuple[Pixels8, Pixels8]:
        """Aged prints (n, 2c, 2c, 3) and original ones (n, 4c, 4c, 3)."""
        pairs = [self._make_pair(np.random.default_rng((self.seed, number, i))) for i in range(AGED_AT_ONCE)]
        small, sharp = (np.stack(part) for part in zip(*pairs, strict=True))
        return small, sharp

    def _make_pair(self, rng: np.random.Generator) -> tuple[Pixels8, Pixels8]:
        side = self.cells * UPSCALE_FACTOR
        photo = self.photos[int(rng.integers(len(self.photos)))]
        top, left = (int(rng.integers(0, length - side + 1)) for length in photo.shape[:2])
        sharp = np.rot90(photo[top : top + side, left : left + side], int(rng.integers(4)))
        sharp = print_picture(np.ascontiguousarray(sharp), rng)
        return make_old_print(sharp, FOLDS["restore"], rng), sharp


_aging_here: Aging | None = None  # set before forking, so that workers share the decoded photographs


def _make_aged(number: int) -> tuple[Pixels8, Pixels8]:
    if _aging_here is None:
        raise MachineError("a worker started without photographs: report this as a defect")
    return _aging_here.make_batch(number)


@contextmanager
def _aging(plan: BuiltinTrainPlan, photos: list[Pixels8]) -> Iterator[Iterator[tuple[Pixels8, Pixels8]]]:
    """Batches of aged prints, computed ahead by workers, which must be forked before the device is used."""
    global _aging_here
    _aging_here = Aging(photos, plan.cells, plan.seed)
    numbers = range(max(1, plan.pairs // AGED_AT_ONCE))
    if plan.task != "restore" or not plan.jobs:
        yield map(_make_aged, numbers)
        return
    with ProcessPoolExecutor(plan.jobs, _fork(), os.nice, (10,)) as pool:
        yield pool.map(_make_aged, numbers)
        pool.shutdown(wait=False, cancel_futures=True)


def _make_bank(
    plan: BuiltinTrainPlan, photos: list[Pixels8], aged: Iterator[tuple[Pixels8, Pixels8]], seconds: float
) -> Bank:
    if plan.task == "restore":
        until, batches = time.monotonic() + seconds, [next(aged)]
        while time.monotonic() < until and (batch := next(aged, None)) is not None:
            batches.append(batch)
        log.info(f"{len(batches) * AGED_AT_ONCE} aged pairs")
        return make_aged_bank(batches, UPSCALE_FACTOR // FOLDS["restore"], plan.device)
    drawings = _map(draw_lettering, list(range(min(800, max(1, plan.pairs // 16)))), plan.jobs)
    maker = BankMaker(
        Photographs.place(photos, drawings, plan.device),
        _read_teacher(plan, "dense"),
        _read_teacher(plan, "span"),
        plan.cells,
        torch.bfloat16,
    )
    return maker.fill(plan.batch, plan.pairs, seconds, SeededDraws.of(plan.seed, device=plan.device))


def _read_teacher(plan: BuiltinTrainPlan, kind: str) -> Teacher | None:
    if plan.teachers is None:
        return None
    return read_teacher(kind, _existing(plan.teachers / f"{kind}.safetensors"), plan.device, torch.bfloat16)


def _read_features(plan: BuiltinTrainPlan) -> FeatureNetwork | None:
    if plan.teachers is None:
        return None
    return FeatureNetwork(_existing(plan.teachers / "features.safetensors")).to(plan.device)


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise WeightsError(f"no {file.name} in {file.parent}: put the teacher there, or leave out --teachers")
    return file


def _begin_model(plan: BuiltinTrainPlan) -> Builtin:
    model = read_model(plan.start) if plan.start else Builtin(replace(plan.shape, fold=FOLDS[plan.task]))
    return refold_model(model, FOLDS[plan.task]).requires_grad_(True).train()


def _load_state(plan: BuiltinTrainPlan) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(plan.state_file, map_location=plan.device, weights_only=True)
    except Exception as error:
        raise WeightsError(f"cannot resume from {plan.state_file} ({type(error).__name__}): start anew") from error
    for name in ("dice", "turns"):
        state[name] = state[name].cpu()
    return state


def _run_stage(training: Training, stage: TrainingStage, bank: Bank, plan: BuiltinTrainPlan) -> None:
    """Run a stage; save it and report its losses every SAVE_EVERY seconds and at its end, also after an error."""
    saved = time.monotonic()

    def keep() -> None:
        nonlocal saved
        _save(training, plan)
        _report_losses(training, plan)
        saved = time.monotonic()

    try:
        training.run(stage, bank, lambda: keep() if time.monotonic() - saved > SAVE_EVERY else None)
    finally:
        keep()


def _save(training: Training, plan: BuiltinTrainPlan) -> None:
    """Save state and model atomically, so that a full disk or a kill leaves the previous ones intact."""
    training.check_finite()
    try:
        with replace_file(plan.state_file) as fresh, fresh.open("wb") as opened:
            torch.save(training.state(), opened)
    except (OSError, RuntimeError) as error:
        raise disk_is_full(plan.state_file, error) from error
    write_model(plan.model_file, training.model.shape, training.average.state_dict(), plan.task)


def _report_losses(training: Training, plan: BuiltinTrainPlan) -> None:
    rate = training.done / max(training.seconds, 1e-9)
    line = {"stage": training.stage, "step": training.step, "steps a second": round(rate, 2)}
    line |= {name: round(value, 4) for name, value in training.losses.items()}
    with (plan.out / "losses.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    log.info(json.dumps(line))
