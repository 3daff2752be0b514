"""The command line. Commands turn options into frozen settings; the work is done by the packages below."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from srcli import __version__, messages
from srcli.cli import compare, config, degrade, doctor, evaluate, models, pictures, report, serve, train, watch
from srcli.cli.boundary import INTERRUPTED, ErrorBoundary, flush_stdout, open_streams, print_error
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
def handle_root_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Enlarge, restore, stylize and colorize photographs with diffusion models."""


pictures.add_picture_commands(app)
watch.add_watch_command(app)
COMMANDS: dict[str, Callable[..., None]] = {
    "doctor": doctor.print_diagnosis,
    "report": report.print_report,
    "evaluate": evaluate.print_evaluation,
    "degrade": degrade.write_test_set,
    "compare": compare.write_comparison,
    "serve": serve.run_page_server,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(models.models_app, name="models")
app.add_typer(config.config_app, name="config")
app.add_typer(train.train_app, name="train")


def main() -> None:
    """Entry point of the `srcli` program."""
    open_streams()
    messages.owns_stderr = True
    sleep_when_idle()
    try:
        app()
    except KeyboardInterrupt:  # Ctrl-C before the error boundary is active: building the commands takes a moment
        print_error("interrupted")
        sys.exit(INTERRUPTED)
    finally:
        flush_stdout()
