"""`srcli train`: teach the built-in model from a folder of photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srcli.cli.boundary import say
from srcli.settings import DeviceChoice

app = typer.Typer(help="Train models from your own photographs.", no_args_is_help=True)


@app.callback()
def train() -> None:
    """Train models from your own photographs."""


@app.command()
def builtin(
    data: Annotated[Path, typer.Option(help="Folder of sharp photographs.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, metrics, sheet and the model.")],
    minutes: Annotated[float, typer.Option(min=0.01, help="Length of the training.")] = 240.0,
    steps: Annotated[int | None, typer.Option(min=3, help="Or: steps in all.")] = None,
    task: Annotated[str, typer.Option(help="upscale or restore.")] = "upscale",
    cells: Annotated[int, typer.Option("--patch", min=4, help="Side of a patch, in cells of 4x4 result pixels.")] = 32,
    batch: Annotated[int, typer.Option(min=1, help="Patches per step.")] = 8,
    seed: Annotated[int, typer.Option(help="Every number drawn follows from it.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the training in --out.")] = False,
    peer: Annotated[Path | None, typer.Option(help="--out of a process to average weights with.")] = None,
    start: Annotated[Path | None, typer.Option("--from", help="A model to begin with.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda\\[:N] or mps.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="Threads of this process.")] = 1,
    jobs: Annotated[int, typer.Option(min=0, help="Other processes that make patches ahead; for a GPU.")] = 0,
) -> None:
    """Train the built-in model: predictor, edge head, denoiser. The model file is printed."""
    from srcli.train.session import Plan, train

    plan = Plan(
        photos=data,
        out=out,
        task=task,
        minutes=minutes,
        steps=float("inf") if steps is None else steps,
        cells=cells,
        batch=batch,
        seed=seed,
        peer=peer,
        start=start,
        device=DeviceChoice(device=device, threads=threads),
        jobs=jobs,
    )
    model = train(plan, resume, lambda text: typer.echo(text, err=True))
    typer.echo(model)


@app.command()
def preview(
    data: Annotated[Path, typer.Option(help="Folder of pictures, searched with all its folders.")],
    out: Annotated[Path, typer.Option(help="The sheet, a PNG file.")],
    degradation: Annotated[
        str, typer.Option(help="pasd, stablesr, realesrgan, old-photo, or a TOML file that changes one.")
    ] = "pasd",
    count: Annotated[int, typer.Option(min=1, max=64, help="Pictures on the sheet.")] = 6,
    side: Annotated[int, typer.Option(min=64, help="Side of the square cut from each picture, in pixels.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Every number drawn follows from it.")] = 1,
) -> None:
    """Show what a degradation makes of your pictures: a sheet of pairs, sharp beside degraded."""
    from srcli.degrade.presets import find_degradation
    from srcli.train.preview import PreviewPlan, write_preview

    settings = find_degradation(degradation)
    plan = PreviewPlan(data=data, out=out, degradation=settings, count=count, side=side, seed=seed)
    write_preview(plan, say)
    typer.echo(out)
