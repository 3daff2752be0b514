"""`srcli evaluate`: metrics of results against references and inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srcli.cli import complete
from srcli.cli.boundary import print_error, write_line
from srcli.errors import InputError
from srcli.settings import MAX_PIXELS


def print_evaluation(
    results: Annotated[Path, typer.Argument(help="Folder of results, or one picture.")],
    reference: Annotated[
        Path | None, typer.Option("--reference", "-r", help="Folder of true pictures, paired by name.")
    ] = None,
    inputs: Annotated[Path | None, typer.Option("--input", help="Folder of what the results were made from.")] = None,
    against: Annotated[list[Path] | None, typer.Option(help="Results of another method; repeatable.")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Only this metric; repeatable.", autocompletion=complete.complete_metrics),
    ] = None,
    border: Annotated[int | None, typer.Option(help="Pixels left out at the edges; the scale if left out.")] = None,
    per_picture: Annotated[bool, typer.Option("--per-picture", help="A row a picture too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="A line a picture.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Markdown tables.")] = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Largest picture to open, in pixels.")] = MAX_PIXELS,
    jobs: Annotated[int, typer.Option(help="Pictures measured at a time.")] = 2,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Convert a metric's weights that are a pickle.")
    ] = False,
) -> None:
    """Measure results against references, inputs or another method, by the protocol of published tables."""
    if as_json + as_csv + as_markdown > 1:
        raise InputError("--json, --csv and --markdown exclude each other: give one")
    from srcli.evaluate import tables
    from srcli.evaluate.run import EvaluationRequest, evaluate_methods

    request = EvaluationRequest(
        results=results,
        against=tuple(against or ()),
        reference=reference,
        inputs=inputs,
        metrics=tuple(metric or ()),
        border=border,
        max_pixels=max_pixels,
        jobs=jobs,
        allow_pickle=allow_pickle,
    )
    found = evaluate_methods(request, print_error)
    if as_json:
        text = tables.json_text(found)
    elif as_csv:
        text = tables.csv_text(found)
    else:
        text = (tables.format_markdown if as_markdown else tables.plain_text)(found, pictures=per_picture)
    write_line(text.encode("utf-8", "backslashreplace"))
    raise typer.Exit(found.exit_code)
