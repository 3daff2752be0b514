"""A whole training run: survey the data, report the plan, train, and write the result."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from srcli import __version__
from srcli.errors import InputError, unwritable_file
from srcli.files import UNFINISHED_PREFIX, is_dir, is_file, make_folder
from srcli.imaging.printable import printable
from srcli.train.checkpoints import writing_folder
from srcli.train.estimate import estimate_step
from srcli.train.pairs import PairMaker
from srcli.train.pictures import PictureFile, check_captions, require_data_folder, survey_pictures
from srcli.train.plan import TrainPlan
from srcli.train.processes import Processes
from srcli.train.systems.base import Batch, BatchSource, SampleNoise, System
from srcli.train.trainer import Trainer
from srcli.train.training_set import Share, TrainingSet
from srcli.train.validating import Validation
from srcli.train.watching import StepProgress, Watcher, open_board
from srcli.train.writing import write_card

log = logging.getLogger(__name__)

MARK = "run.json"
DEFAULT_BASES = (None, "sd15", "sd21-base")


@dataclass(frozen=True)
class Sources:
    """The training batches and their number of pictures, and the validation batches."""

    training: BatchSource
    validation: Sequence[Batch]
    count: int


def open_picture_sources(
    plan: TrainPlan, pairs: PairMaker, least: int, processes: Processes, captions: bool = False
) -> Sources:
    """A folder's pictures as training pairs, and a few held out for validation. Raises InputError."""
    data = require_data_folder(plan.data)
    if plan.out.absolute().is_relative_to(data.absolute()):
        raise InputError(
            f"--out {printable(plan.out)} lies inside --data, so results would become training data: give another"
        )
    found = survey_pictures(data, least)
    found.report(least)
    if captions:
        log.info(f"{check_captions(found.usable)} of them have captions")
    trained, held_out = hold_out(found.usable, plan.validation)
    share = Share(plan.batch, processes.rank, processes.count)
    training = TrainingSet(trained, pairs, share, plan.seed, plan.drop_caption)
    fixed = TrainingSet(held_out, pairs, Share(1), plan.seed)
    validation = [fixed[index] for index in range(min(plan.validation, len(held_out)))]
    return Sources(training, validation, len(trained))


def hold_out(files: Sequence[PictureFile], count: int) -> tuple[list[PictureFile], list[PictureFile]]:
    """Split off `count` files by the hash of their names. If there are few files, these are trained on as well."""
    ordered = sorted(files, key=lambda file: hashlib.sha256(file.path.name.encode()).digest())
    held_out = ordered[:count]
    if len(files) < 10 * count:
        return list(files), held_out
    return [file for file in files if file not in held_out], held_out


def train_system(
    plan: TrainPlan, system: System, sources: Sources, processes: Processes, progress: StepProgress
) -> Path:
    """Run the training; returns the folder of the result. Raises Stopped, InputError, MachineError."""
    first = processes.first
    if first:
        claim_folder(plan.out, system.name)
        report_plan(plan, system, sources, processes)
    processes.wait()
    board = open_board(plan.out) if plan.tensorboard and first else None
    watcher = Watcher(plan.out, progress, board)
    validate = Validation(system, sources.validation, plan.seed, plan.out / "validation")
    trainer = Trainer(plan, system, sources.training, watcher, processes, lambda step: dict(validate(step)))
    trainer.run()
    if first:
        write_result(plan, system, sources, trainer.settings())
    processes.wait()
    return plan.result


def claim_folder(out: Path, name: str) -> None:
    """Mark a new or empty folder as this system's. Raises InputError if it contains anything else."""
    mark = out / MARK
    if is_file(mark):
        try:
            previous = json.loads(mark.read_text(encoding="utf-8"))["system"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{printable(mark)} cannot be read: give another --out") from error
        if previous != name:
            raise InputError(f"{printable(out)} holds a training of {previous}: give another --out")
        return
    if is_dir(out) and any(not path.name.startswith(UNFINISHED_PREFIX) for path in out.iterdir()):
        raise InputError(f"{printable(out)} holds other things: give --out a new or empty folder")
    make_folder(out, "--out")
    try:
        mark.write_text(json.dumps({"system": name, "srcli": __version__}) + "\n", encoding="utf-8")
    except OSError as error:
        raise unwritable_file(printable(mark), error, "give another --out") from error


def report_plan(plan: TrainPlan, system: System, sources: Sources, processes: Processes) -> None:
    """Report what will be trained, and the memory and FLOP that it takes."""
    samples = plan.batch * plan.accumulate * processes.count
    batch = sources.training[0]
    step = estimate_step(system.phases, system.inputs(batch, SampleNoise(plan.seed, 0, batch.places), 0))
    half = processes.frozen.itemsize / 4
    memory = replace(step, kept=int(step.kept * half)).memory(int(system.frozen_bytes() * half))
    log.info(f"{step.trained / 1e6:.1f} million trained parameters, about {memory / 2**30:.1f} GiB of memory")
    passes = plan.steps * samples / sources.count
    work = step.flop * plan.accumulate / 1e12
    log.info(f"{plan.steps} steps of {samples} samples ({work:.3g} TFLOP each): every picture {passes:.3g} times")
    where = f"{processes.count} processes, " if processes.count > 1 else ""
    log.info(f"{where}{processes.accelerator.device}, {str(processes.frozen).removeprefix('torch.')} where frozen")


def write_result(plan: TrainPlan, system: System, sources: Sources, settings: Mapping[str, Any]) -> None:
    """Write the adapter and its model card, completely or not at all."""
    facts = {
        "system": system.name,
        "step": plan.steps,
        "version": __version__,
        "pictures": sources.count,
        "settings": settings,
    }
    with writing_folder(plan.result) as fresh:
        system.write(fresh)
        base = settings.get("base")
        command = format_usage(system.name, plan.result, None if base in DEFAULT_BASES else base)
        write_card(fresh / "README.md", facts, system.weights_used(), command)


def format_usage(name: str, folder: Path, base: str | None) -> str:
    """A command that uses the result. `base`: the base, if it is not the engine's default."""
    if name == "cfw":
        return f"srcli models add stablesr-cfw {folder / 'cfw.safetensors'}"
    adapter = folder / "sr3.safetensors" if name == "sr3" else folder
    more = f" --base-model {base}" if base else ""
    return f"srcli upscale photo.jpg --engine {name} --adapter {adapter}{more}"
