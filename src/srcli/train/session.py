"""A whole training: the four stages one after the other, with checkpoints, metrics and a sheet as it goes."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.random import default_rng

from srcli.engines.builtin import weights as builtin_file
from srcli.engines.runtime.device import choose_device, prepare_process
from srcli.errors import InputError, MachineError
from srcli.files import find_leftovers
from srcli.models.builtin import UP, Builtin, Shape
from srcli.settings import DeviceChoice
from srcli.train import data, loops
from srcli.train.degradations import Degrade, Pixels, degrade
from srcli.train.loops import Budget, Recipe, Run
from srcli.train.metrics import Scores, compare
from srcli.train.old import age, printed
from srcli.train.share import Peer
from srcli.train.sheet import contact, middle, results

SHARES = {"predict": 0.5, "edges": 0.08, "detail": 0.27, "distil": 0.15}
"""How a budget is divided among the stages."""
RATES = {"predict": 5e-4, "edges": 8e-4, "detail": 8e-4, "distil": 3e-4}
TASKS: dict[str, tuple[int, Degrade, data.Before | None, float]] = {
    "upscale": (1, degrade, None, 0.1),
    "restore": (2, age, printed, 0.08),
}
"""Task to fold, degradation, what becomes of the truth, and share of drawn patches."""
SHOWN, SIDE = 6, 256
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a training is told."""

    photos: Path
    out: Path
    task: str = "upscale"
    minutes: float = 240.0
    steps: float = float("inf")
    cells: int = 32
    batch: int = 8
    seed: int = 1
    every: float = 120.0
    peer: Path | None = None
    start: Path | None = None
    device: DeviceChoice = DeviceChoice(device="cpu")
    jobs: int = 0
    shape: Shape = field(default_factory=Shape)

    def recipe(self, stage: str) -> Recipe:
        shape = replace(builtin_file.shape_of(self.start) if self.start else self.shape, fold=TASKS[self.task][0])
        return Recipe(
            stage=stage,
            task=self.task,
            shape=shape,
            cells=self.cells,
            batch=self.batch,
            lr=RATES[stage],
            seed=self.seed,
        )

    def budget(self, stage: str) -> Budget:
        return Budget(steps=max(1, self.steps * SHARES[stage]), minutes=self.minutes * SHARES[stage])

    def checkpoint(self, stage: str) -> Path:
        return self.out / f"{stage}.pt"


@dataclass(frozen=True)
class Photos:
    """The pairs to learn from, and the held-out pictures to measure with."""

    pairs: data.Pairs
    unseen: Sequence[Pixels]

    @classmethod
    def open(cls, plan: Plan) -> "Photos":
        files = data.find(plan.photos)
        least = (plan.cells + 2 * data.MARGIN) * UP
        seen = [f for f in files if not data.held_out(f)]
        unseen = [f for f in files if data.held_out(f)] or files[:1]
        photos = data.photographs(seen or files, least)
        fold, spoil, before, drawn = TASKS[plan.task]
        pairs = data.Pairs(photos, spoil, plan.cells, UP, UP // fold, plan.batch, plan.seed, drawn, before)
        return cls(pairs, [p for p in map(data.decode, unseen[:SHOWN]) if p is not None])

    def tests(self) -> Iterator[tuple[Pixels, Pixels]]:
        """Spoiled and sharp, the same in every session."""
        for index, photo in enumerate(self.unseen):
            rng = default_rng((7, index))
            sharp = middle(photo, SIDE, 4 * UP)
            sharp = sharp if self.pairs.before is None else self.pairs.before(sharp, rng)
            yield self.pairs.degrade(sharp, self.pairs.scale, rng), sharp


def check(plan: Plan, resume: bool) -> None:
    """An --out that holds a training is continued only on demand; one that does not cannot be."""
    if plan.task not in TASKS:
        raise InputError(f"no task {plan.task!r} to train for: choose one of {', '.join(TASKS)}")
    begun = plan.checkpoint("predict").exists()
    if begun and not resume:
        raise InputError(f"{plan.out} already holds a training: add --resume or give another --out")
    if resume and not begun:
        raise InputError(f"{plan.out} holds no training to resume: leave out --resume or give another --out")


def train(plan: Plan, resume: bool, tell: Tell) -> Path:
    """All stages; returns the file of the trained model."""
    check(plan, resume)
    photos = Photos.open(plan)
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
        for half in find_leftovers(plan.out):  # of a training that was killed while it saved
            half.unlink()
    except OSError as error:
        raise MachineError(f"cannot make {plan.out} ({error.strerror}): give another --out") from error
    device = choose_device(plan.device)
    prepare_process(device, plan.device.threads)
    torch.manual_seed(plan.seed)
    shape = plan.recipe("predict").shape
    model = builtin_file.refolded(builtin_file.read(plan.start), shape.fold) if plan.start else Builtin(shape)
    model.to(device.torch)
    tell(f"{len(photos.pairs.photos)} photographs to learn from, {len(photos.unseen)} held out for the sheet")
    for stage in SHARES:
        run = Run.begin(plan.recipe(stage), model)
        if plan.checkpoint(stage).exists():
            run.restore(loops.load(plan.checkpoint(stage)))
        _stage(run, plan, photos, tell)
        run.part.load_state_dict(run.average)
        _report(model, plan, photos, run)
    return _model_file(plan)


def _stage(run: Run, plan: Plan, photos: Photos, tell: Tell) -> None:
    """One stage to the end of its budget. However it stops, its state is saved."""
    peer = Peer(plan.out, plan.peer) if plan.peer else None
    saved = time.monotonic()
    try:
        for _ in loops.train(run, photos.pairs, plan.budget(run.recipe.stage), plan.jobs):
            if peer and run.step % 60 == 0:
                peer.exchange(run)
            if time.monotonic() - saved >= plan.every:
                loops.save(run.state(), plan.checkpoint(run.recipe.stage))
                tell(f"{run.recipe.stage}: step {run.step}, {run.seconds / 60:.0f} min, loss {run.loss:.4f}")
                saved = time.monotonic()
    finally:
        loops.save(run.state(), plan.checkpoint(run.recipe.stage))


def _report(model: Builtin, plan: Plan, photos: Photos, run: Run) -> None:
    """The model as it is now, a line of metrics, and the sheet."""
    builtin_file.write(_model_file(plan), run.recipe.shape, model.state_dict(), plan.task)
    scores: dict[str, list[Scores]] = {}
    rows = []
    for small, sharp in photos.tests():
        made = results(model, small)
        for name, result in made.items():
            scores.setdefault(name, []).append(compare(result, sharp))
        rows.append(made | {"truth": sharp})
    means = {name: Scores.mean(several) for name, several in scores.items()}
    line = {"stage": run.recipe.stage, "step": run.step, "loss": run.loss}
    psnr = {name: round(s.psnr, 3) for name, s in means.items()}
    gmsd = {name: round(s.gmsd, 4) for name, s in means.items()}
    with (plan.out / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line | {"psnr": psnr, "gmsd": gmsd}) + "\n")
    side = min(min(r["truth"].shape[:2]) for r in rows)
    contact([{n: np.asarray(p)[:side, :side] for n, p in r.items()} for r in rows]).save(plan.out / "sheet.png")


def _model_file(plan: Plan) -> Path:
    return plan.out / f"builtin-{plan.task}.safetensors"
