"""Options that all training commands share, in groups that turn into frozen settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_type_hints

import typer

from srcli.cli.complete import complete_train_devices
from srcli.cli.train_help import HelpAll
from srcli.settings import MAX_SEED

if TYPE_CHECKING:
    from srcli.train.plan import TrainPlan

# Options by the panel of the help that shows them.
STEPS, MACHINE, WATCHING, WEIGHTS = (
    partial(typer.Option, rich_help_panel=panel) for panel in ("Steps", "Machine", "Watching", "Weights")
)
ScheduleKind = Literal["constant", "cosine"]
TrainDtype = Literal["auto", "float32", "bfloat16"]


def add_options(*groups: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command with the options of these dataclasses: each field is an option; the command gets instances."""

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        hints = {f.name: get_type_hints(g, include_extras=True)[f.name] for g in groups for f in fields(g)}
        hints["help_all"] = HelpAll

        def run(help_all: bool = False, **values: object) -> None:
            command(*(group(**{f.name: values[f.name] for f in fields(group)}) for group in groups))

        run.__name__, run.__doc__, run.__annotations__ = command.__name__, command.__doc__, hints
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=_default(f), annotation=hints[f.name])
                for group in groups
                for f in fields(group)
            ]
            + [inspect.Parameter("help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=HelpAll)]
        )
        return run

    return wrap


def _default(field: Field[object]) -> object:
    """The default of a field; a field without one is a required option."""
    return inspect.Parameter.empty if field.default is MISSING else field.default


DATA = typer.Option("--data", help="Folder of sharp pictures, searched with all its folders.")


@dataclass(frozen=True)
class DataFlags:
    """The pictures of a training run."""

    data: Annotated[Path, DATA]


@dataclass(frozen=True)
class TrainFlags:
    """Output, length and batches of a training run."""

    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, log, sheets, adapter. Resumed if begun.")]
    steps: Annotated[int, typer.Option(help="Optimizer steps in all; raise it to go on with an ended run.")]
    batch: Annotated[int, STEPS(help="Samples of a process at once.")] = 4
    accumulate: Annotated[int, STEPS(help="Batches of a step.")] = 2
    schedule: Annotated[ScheduleKind, STEPS(help="Course of the learning rate.")] = "constant"
    warm_up: Annotated[int, STEPS(min=0, help="Steps until the full rate.")] = 0
    seed: Annotated[int, STEPS(min=0, max=MAX_SEED, help="Every number drawn follows from it.")] = 1
    device: Annotated[str, MACHINE(help="auto (GPUs) or cpu.", autocompletion=complete_train_devices)] = "auto"
    dtype: Annotated[TrainDtype, MACHINE(help="Precision.")] = "auto"
    jobs: Annotated[int, MACHINE(min=0, help="Processes that read and degrade ahead.")] = 0
    threads: Annotated[int | None, MACHINE(min=1, help="CPU threads.")] = None
    save_every: Annotated[int, WATCHING(help="Steps between checkpoints.")] = 1000
    keep: Annotated[int, WATCHING(help="Checkpoints that are kept.")] = 2
    validate_every: Annotated[int, WATCHING(help="Steps between sheets.")] = 1000
    validation: Annotated[int, WATCHING(min=0, help="Pictures that are held out for sheets and scores.")] = 4
    log_every: Annotated[int, WATCHING(help="Steps between lines of the log.")] = 10
    tensorboard: Annotated[bool, WATCHING("--tensorboard", help="Write TensorBoard's events too.")] = False

    def plan(self, data: Path | None, drop_caption: float = 0.0) -> TrainPlan:
        from srcli.errors import InputError
        from srcli.train.plan import Schedule, TrainPlan

        if self.device not in ("auto", "cpu"):
            raise InputError(f"--device {self.device!r} is unknown here: give auto or cpu, and CUDA_VISIBLE_DEVICES=N")
        settings = {f.name: getattr(self, f.name) for f in fields(TrainPlan) if hasattr(self, f.name)}
        schedule = Schedule(kind=self.schedule, warm_up=self.warm_up)
        settings |= {"schedule": schedule, "precision": self.dtype, "cpu": self.device == "cpu"}
        return TrainPlan(**settings, data=data, drop_caption=drop_caption)


@dataclass(frozen=True)
class WeightFlags:
    """Weights that a training starts from."""

    base_model: Annotated[str | None, WEIGHTS(help="Base model: NAME, FOLDER or hub-id\\[@rev].")] = None
    start: Annotated[str | None, WEIGHTS("--from", help="Adapter to go on from: NAME, FOLDER or FILE.")] = None
    allow_pickle: Annotated[bool, WEIGHTS("--allow-pickle", help="Convert pickled weights, once.")] = False
    offline: Annotated[bool, WEIGHTS("--offline", help="Never use the network.")] = False


@dataclass(frozen=True)
class OptimizerFlags:
    """Settings of the optimizer."""

    lr: Annotated[float | None, STEPS(min=0, help="Learning rate; published if left out.")] = None
    clip: Annotated[float | None, STEPS(min=0, help="Largest norm of the gradient; 0 is none.")] = None
    optimizer_bits: Annotated[int, MACHINE(help="32, or 8 with bitsandbytes.")] = 32
    gradient_checkpointing: Annotated[bool, MACHINE("--gradient-checkpointing", help="Less memory for more time.")] = (
        False
    )
