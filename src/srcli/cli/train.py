"""`srcli train`: train models from a folder of photographs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from srcli.cli import complete, train_systems
from srcli.cli.boundary import print_message
from srcli.cli.train_help import HelpAll, TrainCommand
from srcli.errors import InputError
from srcli.messages import forward_messages
from srcli.settings import MAX_SEED, DeviceChoice

train_app = typer.Typer(help="Train models from your own photographs.", no_args_is_help=True)


for name, command in {
    "pasd": train_systems.train_pasd,
    "stablesr": train_systems.train_stablesr,
    "cfw": train_systems.train_cfw,
    "sr3": train_systems.train_sr3,
}.items():
    train_app.command(name, cls=TrainCommand)(command)


@train_app.command("builtin", cls=TrainCommand)
def train_builtin(
    data: Annotated[Path, typer.Option(help="Folder of sharp photographs, searched with all its folders.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, the losses and the model.")],
    budget: Annotated[str, typer.Option(help="Length of the training: 90s, 8m or 4h.")] = "4h",
    task: Annotated[Literal["upscale", "restore"], typer.Option(help="What it is trained for.")] = "upscale",
    teachers: Annotated[
        Path | None, typer.Option(help="Folder of networks to learn from; without, the photographs alone teach.")
    ] = None,
    cells: Annotated[int, typer.Option("--patch", min=16, help="Side of a patch, in cells of 4x4 result pixels.")] = 48,
    batch: Annotated[int, typer.Option(min=1, help="Patches per step; 64 for a GPU.")] = 8,
    pairs: Annotated[int, typer.Option(min=1, help="Most pairs made ahead.")] = 80_000,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of each stage, instead of a time.")] = None,
    rate: Annotated[float, typer.Option(min=1e-6, max=1e-1, help="Learning rate.")] = 1.2e-3,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Every number drawn follows from it.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the training in --out.")] = False,
    start: Annotated[Path | None, typer.Option("--from", help="A model to begin with.")] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda\\[:N] or mps.", autocompletion=complete.complete_devices)
    ] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="Threads of this process.")] = 1,
    jobs: Annotated[int, typer.Option(min=0, help="Other processes that decode and draw; 15 for a GPU.")] = 0,
    help_all: HelpAll = False,
) -> None:
    """Train the built-in model. The model file is printed."""
    from srcli.engines.runtime.device import choose_device
    from srcli.train.builtin.session import BuiltinTrainPlan, run_builtin_training

    plan = BuiltinTrainPlan(
        photos=data,
        out=out,
        seconds=_parse_budget(budget),
        device=choose_device(DeviceChoice(device=device, threads=threads)).torch,
        task=task,
        teachers=teachers,
        batch=batch,
        cells=cells,
        pairs=pairs,
        steps=steps,
        rate=rate,
        jobs=jobs,
        seed=seed,
        start=start,
    )
    forward_messages(print_message)
    typer.echo(run_builtin_training(plan, resume))


def _parse_budget(text: str) -> float:
    """Parse a duration such as 90s, 8m or 4h into seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if found is None or not float(found[1]):
        raise InputError(f"--budget {text!r} is not a length of time: give one such as 90s, 8m or 4h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


@train_app.command("preview")
def preview_degradation(
    data: Annotated[Path, typer.Option(help="Folder of pictures, searched with all its folders.")],
    out: Annotated[Path, typer.Option(help="The sheet, a PNG file.")],
    degradation: Annotated[
        str,
        typer.Option(
            help="pasd, stablesr, realesrgan, old-photo, or a TOML file that changes one.",
            autocompletion=complete.complete_degradations,
        ),
    ] = "pasd",
    count: Annotated[int, typer.Option(min=1, max=64, help="Pictures on the sheet.")] = 6,
    side: Annotated[int, typer.Option(min=64, help="Side of the square cut from each picture, in pixels.")] = 256,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Every number drawn follows from it.")] = 1,
) -> None:
    """Show what a degradation makes of your pictures: a sheet of pairs, sharp beside degraded."""
    from srcli.degrade.presets import find_degradation
    from srcli.train.preview import PreviewPlan, write_preview

    settings = find_degradation(degradation)
    plan = PreviewPlan(data=data, out=out, degradation=settings, count=count, side=side, seed=seed)
    forward_messages(print_message)
    write_preview(plan)
    typer.echo(out)
