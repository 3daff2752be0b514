"""Weights that are about to be fetched: how much, whether the user agrees, and how far it is."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from srcli.batch.progress import format_left, shorten_name
from srcli.cli.boundary import print_message
from srcli.errors import WeightsError
from srcli.imaging.printable import format_bytes, printable
from srcli.messages import Tell
from srcli.weights.lock import Entry
from srcli.weights.store import Store, describe_licence

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from srcli.weights.pull import OnPulled, PullPlan

UNASKED = 1_000_000_000  # bytes that are fetched without asking
FILE_WIDTH = 32  # columns of a file's name
LINE_INTERVAL = 30.0  # seconds between two lines of progress where there is no terminal

Plans = Sequence[tuple[Entry, "PullPlan"]]


def bring_weights(store: Store, plans: Plans, *, yes: bool, quiet: bool = False) -> None:
    """Say what is to come, ask where it is much, and fetch it."""
    from srcli.weights.pull import check_pull_space

    total = sum(planned.bytes for _, planned in plans)
    tell: Tell = _say_nothing if quiet else print_message
    _announce(plans, total, tell)
    confirm_download(total, yes)
    check_pull_space([planned for _, planned in plans], store.places.hub)
    said: list[str] = []  # messages are printed after the bars are gone
    try:
        with show_download_progress(total, quiet=quiet) as report:
            for entry, planned in plans:
                replace(store, report=under_name(entry.name, report), tell=said.append).fetch(entry, planned)
    finally:
        for line in said:
            tell(printable(line))


def under_name(name: str, report: OnPulled) -> OnPulled:
    """Files of two entries may have the same path."""
    return lambda path, here, size: report(f"{name}/{path}", here, size)


def _say_nothing(text: str) -> None:
    """For who asked for quiet."""


def _announce(plans: Plans, total: int, tell: Tell) -> None:
    for entry, planned in plans:
        if planned.lacking:
            licence = printable(describe_licence(entry))
            files = f"{len(planned.lacking)} files, {format_bytes(planned.bytes)}"
            tell(f"{printable(entry.name)}: {files}; licence: {licence}")
    if len(plans) > 1:
        tell(f"{format_bytes(total)} in all")


def confirm_download(size: int, yes: bool) -> None:
    """Ask on a terminal before much is fetched."""
    if size <= UNASKED or yes or not is_on_terminal():
        return
    if not typer.confirm(f"Fetch {format_bytes(size)}?", err=True):
        raise WeightsError("nothing was fetched: give --yes to fetch without being asked")


def is_on_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


@contextmanager
def show_download_progress(total: int, *, quiet: bool = False) -> Iterator[OnPulled]:
    """Show how far a download is: bars on a terminal, else a line from time to time. Yields whom to report to."""
    if quiet or not sys.stderr.isatty():
        yield _Lines(total, _say_nothing if quiet else print_message).report
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.table import Column

    from srcli.cli.bars import NARROW

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=10 if console.width < NARROW else 24),
        DownloadColumn(table_column=Column(no_wrap=True)),
        TransferSpeedColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bars(progress, total).report


class _Sum:
    """Bytes of all files so far, and those of them that came just now."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.came = 0
        self._turn = threading.Lock()  # files come side by side

    def add(self, path: str, here: int) -> int:
        """The bytes that came since the last report of this file; what lay here before is not counted."""
        with self._turn:
            came = here - self.seen.get(path, here)
            self.seen[path] = here
            self.came += came
        return came


class _Bars:
    """A bar for each file that is on its way, and one for all together."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.sum = progress, _Sum()
        self.all = progress.add_task("all", total=total, visible=total > 0)
        self.tasks: dict[str, TaskID] = {}

    def report(self, path: str, here: int, size: int) -> None:
        if path not in self.tasks:
            name = shorten_name(printable(path), FILE_WIDTH)
            self.tasks[path] = self.progress.add_task(name, total=size, completed=here)
        self.progress.update(self.tasks[path], completed=here, visible=here < size)
        self.progress.update(self.all, advance=self.sum.add(path, here))


class _Lines:
    """A line from time to time: bytes, speed, time left."""

    def __init__(self, total: int, tell: Tell) -> None:
        self.total, self.tell, self.sum = total, tell, _Sum()
        self.began = self.told = time.monotonic()

    def report(self, path: str, here: int, size: int) -> None:
        self.sum.add(path, here)
        now = time.monotonic()
        if now - self.told >= LINE_INTERVAL:
            self.told = now
            self.tell(self._line(now - self.began))

    def _line(self, seconds: float) -> str:
        speed = max(1.0, self.sum.came / seconds)
        left = format_left(max(0, self.total - self.sum.came) / speed)
        came, total = format_bytes(self.sum.came), format_bytes(self.total)
        return f"fetched {came} of {total}, {format_bytes(round(speed))}/s, {left}"
