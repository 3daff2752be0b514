"""The command line. Commands only translate: what is typed becomes frozen settings, and the work is done below."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from srcli import __version__, messages
from srcli.cli import compare, degrade, doctor, evaluate, models, pictures, report, train
from srcli.cli.boundary import INTERRUPTED, ErrorBoundary, complain, open_streams
from srcli.threads import sleep_when_idle

app = typer.Typer(
    name="srcli",
    cls=ErrorBoundary,
    help="Enlarge, restore, stylize and colorize photographs with diffusion models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"srcli {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Enlarge, restore, stylize and colorize photographs with diffusion models."""


for command in (pictures.upscale, pictures.stylize, pictures.restore_old_photo, pictures.colorize):
    app.command()(command)
app.command()(doctor.doctor)
app.command()(report.report)
app.command()(evaluate.evaluate)
app.command()(degrade.degrade)
app.command()(compare.compare)
app.add_typer(models.app, name="models")
app.add_typer(train.app, name="train")


def main() -> None:
    """Entry point of the `srcli` program."""
    open_streams()
    messages.owns_stderr = True
    sleep_when_idle()
    try:
        app()
    except KeyboardInterrupt:  # before there is a boundary: building the commands takes a moment
        complain("interrupted")
        sys.exit(INTERRUPTED)
