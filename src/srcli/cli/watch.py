"""`srcli watch`: the picture commands on folders, whenever pictures come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srcli.cli.boundary import print_message
from srcli.cli.config import drop_overridden
from srcli.cli.help import DEFAULT_TASK, TaskName, WatchCommand
from srcli.cli.pictures import EXTRA_PARAMETERS, give_signature, run_task
from srcli.tasks import TASKS

if TYPE_CHECKING:
    from srcli.batch.journal.previous_runs import PreviousRuns
    from srcli.batch.report import Report
    from srcli.batch.settings import BatchSettings
    from srcli.cli.console import PlainListener

LOOK_INTERVAL = 2.0  # seconds
ABOUT_WATCH = "Watch folders, and process each picture once it is complete. Ctrl-C ends it."


def add_watch_command(app: typer.Typer) -> None:
    app.command("watch", cls=WatchCommand, help=ABOUT_WATCH)(_make_command())


def _make_command() -> Callable[..., None]:
    def run(
        ctx: typer.Context,
        task: TaskName = DEFAULT_TASK,
        every: float = LOOK_INTERVAL,
        config: Path | None = None,
        help_all: bool = False,
        **values: Any,
    ) -> None:
        def watch(settings: BatchSettings, open_listener: Callable[[], PlainListener]) -> int:
            return _watch(settings, every, open_listener, quiet=values["quiet"])

        run_task(TASKS[task], drop_overridden(ctx, values), watch)

    task_option = Annotated[TaskName, typer.Option("--task", is_eager=True, help="The command to run on each picture.")]
    every_option = Annotated[float, typer.Option("--every", help="Seconds between two looks at the folders.")]
    return give_signature(
        run, {**EXTRA_PARAMETERS, "task": (DEFAULT_TASK, task_option), "every": (LOOK_INTERVAL, every_option)}
    )


def _watch(settings: BatchSettings, every: float, open_listener: Callable[[], PlainListener], *, quiet: bool) -> int:
    from srcli.batch.run import run_batch
    from srcli.batch.watch import watch_folders

    def run_round(settings: BatchSettings, only: Callable[[Path], bool], previous: PreviousRuns) -> Report:
        with open_listener() as listener:
            return run_batch(settings, listener, only, previous)

    return watch_folders(settings, every, run_round, print_message if not quiet else lambda text: None)
