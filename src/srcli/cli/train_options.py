"""Options that all training commands share, in groups that turn into frozen settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_type_hints

import typer

from srcli.cli.complete import complete_train_devices
from srcli.cli.train_help import HelpAll

if TYPE_CHECKING:
    from srcli.train.plan import TrainPlan

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


@dataclass(frozen=True)
class TrainFlags:
    """Inputs, outputs, length and batches of a training run."""

    data: Annotated[Path, typer.Option(help="Folder of sharp pictures, searched with all its folders.")]
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, log, sheets, adapter. Resumed if begun.")]
    steps: Annotated[int, typer.Option(help="Optimizer steps in all; raise it to go on with an ended run.")]
    batch: Annotated[int, typer.Option(help="Samples of a process at once.", rich_help_panel="Steps")] = 4
    accumulate: Annotated[int, typer.Option(help="Batches of a step.", rich_help_panel="Steps")] = 2
    schedule: Annotated[ScheduleKind, typer.Option(help="Course of the learning rate.", rich_help_panel="Steps")] = (
        "constant"
    )
    warm_up: Annotated[int, typer.Option(min=0, help="Steps until the full rate.", rich_help_panel="Steps")] = 0
    seed: Annotated[int, typer.Option(min=0, help="Every number drawn follows from it.", rich_help_panel="Steps")] = 1
    device: Annotated[
        str, typer.Option(help="auto (GPUs) or cpu.", rich_help_panel="Machine", autocompletion=complete_train_devices)
    ] = "auto"
    dtype: Annotated[TrainDtype, typer.Option(help="Precision.", rich_help_panel="Machine")] = "auto"
    jobs: Annotated[
        int, typer.Option(min=0, help="Processes that read and degrade ahead.", rich_help_panel="Machine")
    ] = 0
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", rich_help_panel="Machine")] = None
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.", rich_help_panel="Watching")] = 1000
    keep: Annotated[int, typer.Option(help="Checkpoints that are kept.", rich_help_panel="Watching")] = 2
    validate_every: Annotated[int, typer.Option(help="Steps between sheets.", rich_help_panel="Watching")] = 1000
    validation: Annotated[
        int, typer.Option(min=0, help="Pictures that are held out for sheets and scores.", rich_help_panel="Watching")
    ] = 4
    log_every: Annotated[int, typer.Option(help="Steps between lines of the log.", rich_help_panel="Watching")] = 10
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard's events too.", rich_help_panel="Watching")
    ] = False

    def plan(self, drop_caption: float = 0.0) -> TrainPlan:
        from srcli.errors import InputError
        from srcli.train.plan import Schedule, TrainPlan

        if self.device not in ("auto", "cpu"):
            raise InputError(f"--device {self.device!r} is unknown here: give auto or cpu, and CUDA_VISIBLE_DEVICES=N")
        return TrainPlan(
            data=self.data,
            out=self.out,
            steps=self.steps,
            batch=self.batch,
            accumulate=self.accumulate,
            seed=self.seed,
            schedule=Schedule(kind=self.schedule, warm_up=self.warm_up),
            drop_caption=drop_caption,
            precision=self.dtype,
            cpu=self.device == "cpu",
            jobs=self.jobs,
            save_every=self.save_every,
            validate_every=self.validate_every,
            validation=self.validation,
            log_every=self.log_every,
            keep=self.keep,
            tensorboard=self.tensorboard,
        )


@dataclass(frozen=True)
class WeightFlags:
    """Weights that a training starts from."""

    base_model: Annotated[
        str | None, typer.Option(help="Base model: NAME, FOLDER or hub-id\\[@rev].", rich_help_panel="Weights")
    ] = None
    start: Annotated[
        str | None,
        typer.Option("--from", help="Adapter to go on from: NAME, FOLDER or FILE.", rich_help_panel="Weights"),
    ] = None
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Convert pickled weights, once.", rich_help_panel="Weights")
    ] = False
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.", rich_help_panel="Weights")] = (
        False
    )


@dataclass(frozen=True)
class OptimizerFlags:
    """Settings of the optimizer."""

    lr: Annotated[
        float | None, typer.Option(min=0, help="Learning rate; published if left out.", rich_help_panel="Steps")
    ] = None
    clip: Annotated[
        float | None, typer.Option(min=0, help="Largest norm of the gradient; 0 is none.", rich_help_panel="Steps")
    ] = None
    optimizer_bits: Annotated[int, typer.Option(help="32, or 8 with bitsandbytes.", rich_help_panel="Machine")] = 32
    gradient_checkpointing: Annotated[
        bool,
        typer.Option("--gradient-checkpointing", help="Less memory for more time.", rich_help_panel="Machine"),
    ] = False
