"""Downloads of weights: their size, the user's consent, and progress."""

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
from srcli.cli.boundary import is_on_terminal, print_message
from srcli.errors import WeightsError
from srcli.imaging.printable import format_bytes, printable
from srcli.messages import Tell
from srcli.weights.lock import Entry
from srcli.weights.store import Store, describe_licence

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from srcli.weights.pull import OnPulled, PullPlan

ASK_ABOVE = 1_000_000_000  # bytes; larger downloads are confirmed on a terminal
FILE_WIDTH = 32  # columns of a file's name
LINE_INTERVAL = 30.0  # seconds between two lines of progress where there is no terminal

Plans = Sequence[tuple[Entry, "PullPlan"]]


def fetch_weights(store: Store, plans: Plans, *, yes: bool, quiet: bool = False) -> None:
    """Print what will be fetched, ask before a large download, and fetch it."""
    from srcli.weights.pull import check_pull_space

    total = sum(planned.bytes for _, planned in plans)
    tell: Tell = _discard if quiet else print_message
    _print_plan(plans, total, tell)
    confirm_download(total, yes)
    check_pull_space([planned for _, planned in plans], store.places.hub)
    messages: list[str] = []  # printed once the bars are gone
    try:
        with show_download_progress(total, quiet=quiet) as report:
            for entry, planned in plans:
                replace(store, report=prefix_report(entry.name, report), tell=messages.append).fetch(entry, planned)
    finally:
        for line in messages:
            tell(line)


def prefix_report(name: str, report: OnPulled) -> OnPulled:
    """Prefix paths with the entry's name: files of two entries may have the same path."""
    return lambda path, present, size: report(f"{name}/{path}", present, size)


def _discard(text: str) -> None:
    """Print nothing."""


def _print_plan(plans: Plans, total: int, tell: Tell) -> None:
    for entry, planned in plans:
        if planned.missing:
            files = f"{len(planned.missing)} files, {format_bytes(planned.bytes)}"
            tell(f"{entry.name}: {files}; licence: {describe_licence(entry)}")
    if len(plans) > 1:
        tell(f"{format_bytes(total)} in all")


def confirm_download(size: int, yes: bool) -> None:
    """Ask before a large download, if there is a terminal."""
    if size <= ASK_ABOVE or yes or not is_on_terminal():
        return
    if not typer.confirm(f"Fetch {format_bytes(size)}?", err=True):
        raise WeightsError("nothing was fetched: give --yes to fetch without being asked")


@contextmanager
def show_download_progress(total: int, *, quiet: bool = False) -> Iterator[OnPulled]:
    """Show the progress of downloads: bars on a terminal, else a line now and then. Yields the report function."""
    if quiet or not sys.stderr.isatty():
        yield _LineProgress(total, _discard if quiet else print_message).report
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
        yield _BarProgress(progress, total).report


class _ByteCounter:
    """Counts the bytes received of all files. Safe to call from several threads."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.received = 0
        self._lock = threading.Lock()

    def add(self, path: str, present: int) -> int:
        """Count what this file received since its last report, and return it; what was here before does not count."""
        with self._lock:
            received = present - self.seen.get(path, present)
            self.seen[path] = present
            self.received += received
        return received


class _BarProgress:
    """A bar for each file being fetched, and one for all together."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.sum = progress, _ByteCounter()
        self.all = progress.add_task("all", total=total, visible=total > 0)
        self.tasks: dict[str, TaskID] = {}

    def report(self, path: str, present: int, size: int) -> None:
        if path not in self.tasks:
            name = shorten_name(printable(path), FILE_WIDTH)
            self.tasks[path] = self.progress.add_task(name, total=size, completed=present)
        self.progress.update(self.tasks[path], completed=present, visible=present < size)
        self.progress.update(self.all, advance=self.sum.add(path, present))


class _LineProgress:
    """Now and then a line with bytes, speed and time left."""

    def __init__(self, total: int, tell: Tell) -> None:
        self.total, self.tell, self.sum = total, tell, _ByteCounter()
        self.began = self.told = time.monotonic()

    def report(self, path: str, present: int, size: int) -> None:
        self.sum.add(path, present)
        now = time.monotonic()
        if now - self.told >= LINE_INTERVAL:
            self.told = now
            self.tell(self._line(now - self.began))

    def _line(self, seconds: float) -> str:
        speed = max(1.0, self.sum.received / seconds)
        left = format_left(max(0, self.total - self.sum.received) / speed)
        received, total = format_bytes(self.sum.received), format_bytes(self.total)
        return f"fetched {received} of {total}, {format_bytes(round(speed))}/s, {left}"
