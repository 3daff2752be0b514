"""`srcli compare`: an HTML page that compares pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from srcli.cli.boundary import print_error, write_line
from srcli.settings import MAX_PIXELS


def write_comparison(
    pictures: Annotated[list[Path], typer.Argument(metavar="A B...", help="Pictures of one motif, or folders.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="HTML file, or a folder for folders; compare.html, compare/."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", "-r", help="The true picture, or a folder of such.")
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option("--input", help="What the pictures were made from, or a folder of such.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Picture of crops at 100 %, where A and B differ most; no page without -o.")
    ] = None,
    crops: Annotated[int, typer.Option(help="Rows on the sheet.")] = 6,
    crop_side: Annotated[int, typer.Option(help="Side of a crop, in pixels.")] = 256,
    max_pixels: Annotated[int, typer.Option(min=1, help="Largest picture to open, in pixels.")] = MAX_PIXELS,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Lay pictures over each other in one HTML file: slider, zoom, blink, difference, metadata, metrics."""
    from srcli.compare.run import Comparison, build_comparison
    from srcli.files import is_dir

    if output is None and sheet is None:
        output = Path("compare") if is_dir(pictures[0]) else Path("compare.html")
    wanted = Comparison(
        places=tuple(pictures),
        reference=reference,
        inputs=inputs,
        page=output,
        sheet=sheet,
        crops=crops,
        side=crop_side,
        max_pixels=max_pixels,
        overwrite=overwrite,
    )
    done = build_comparison(wanted, print_error)
    for path in done.written:
        write_line(os.fsencode(path))
    raise typer.Exit(done.exit_code)
