"""`srcli degrade`: make a test set from sharp pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from srcli import settings
from srcli.batch.report import choose_exit_code
from srcli.cli import complete
from srcli.cli.boundary import print_error, write_line


def write_test_set(
    source: Annotated[Path, typer.Argument(help="Folder of sharp pictures, or one picture.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the small ones, as NAME.png.")],
    preset: Annotated[
        str,
        typer.Option(
            help="bicubic-xN, pasd, stablesr, realesrgan, old-photo, or a TOML file that changes one.",
            autocompletion=complete.complete_test_sets,
        ),
    ] = "bicubic-x4",
    seed: Annotated[int, typer.Option(min=0, max=settings.MAX_SEED, help="Same seed, same pictures.")] = settings.SEED,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace pictures that exist.")] = False,
) -> None:
    """Make small pictures from sharp ones, to measure methods on; prints their paths."""
    from srcli.evaluate.testset import make_test_set

    done = failed = 0
    for outcome in make_test_set(source, output, preset, seed, overwrite):
        if outcome.target is not None:
            done += 1
            write_line(os.fsencode(outcome.target))
        else:
            failed += 1
            print_error(outcome.message)
    raise typer.Exit(choose_exit_code(done, failed))
