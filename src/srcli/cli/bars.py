"""Progress on a terminal: a bar for the batch, a bar for the current picture, and messages above them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.constrain import Constrain
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from srcli.batch.progress import NAME_WIDTH, format_left
from srcli.batch.report import Outcome, Report, Tally
from srcli.cli.console import JsonResults, NoResults, PlainListener
from srcli.engines.base import PixelSize

NARROW = 100  # columns; on narrower terminals bars and names are shorter
SHOW_CURSOR = b"\x1b[?25h\r\n"


class BarListener(PlainListener):
    """Progress bars on stderr, hidden while anything is printed on either stream."""

    def __init__(self, results: NoResults, *, quiet: bool, verbose: bool) -> None:
        super().__init__(results, quiet=quiet, verbose=verbose)
        self._lock = threading.RLock()  # messages come from several threads
        console = Console(stderr=True)
        self._narrow = console.width < NARROW
        columns = (
            TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
            BarColumn(bar_width=10 if self._narrow else 24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[left]:>11}", markup=False),
        )
        self.progress = Progress(*columns, console=console, expand=True)
        self._live: Live | None = None
        self._batch_bar = self.progress.add_task("", total=1.0, visible=False, left="")
        self._picture_bar = self.progress.add_task(self.picture.stage, total=1.0, left="")

    def planned(self, total: int, left_out: int) -> None:
        super().planned(total, left_out)
        self._update_bars()

    def begun(self, source: Path, size: PixelSize, target: PixelSize) -> None:
        super().begun(source, size, target)
        self._update_bars()

    def step(self, source: Path, stage: str, done: int, total: int) -> None:
        self.picture.update(stage, done, total)
        if isinstance(self.results, JsonResults):
            with self.pause_display():
                self.results.progressed(source, self.picture, self.batch)
        self._update_bars()

    def ended(self, outcome: Outcome, tally: Tally) -> None:
        super().ended(outcome, tally)
        self._update_bars()

    def finished(self, report: Report) -> None:
        self._stop_bars()
        super().finished(report)

    def print_result(self, outcome: Outcome) -> None:
        with self.pause_display():
            super().print_result(outcome)

    def print_line(self, text: str) -> None:
        with self.pause_display():
            super().print_line(text)

    def print_failure(self, text: str) -> None:
        with self.pause_display():
            super().print_failure(text)

    def cut_off(self) -> None:
        os.write(sys.stderr.fileno(), SHOW_CURSOR)

    def _update_bars(self) -> None:
        picture, batch = self.picture, self.batch
        left = format_left(picture.left())
        text = picture.describe(NAME_WIDTH // 2 if self._narrow else NAME_WIDTH)
        self.progress.update(self._picture_bar, description=text, completed=picture.share, left=left)
        if batch.tally.total > 1:
            left, share = format_left(batch.left(self.current)), batch.share(self.current)
            self.progress.update(
                self._batch_bar, description=batch.describe(), completed=share, left=left, visible=True
            )

    @contextmanager
    def pause_display(self) -> Iterator[None]:
        """Hide the bars while something else is on the terminal."""
        with self._lock:
            was_shown = self._live is not None
            self._stop_bars()
            try:
                yield
            finally:
                if was_shown:
                    self._start_bars()

    def _start_bars(self) -> None:
        """Show the bars with a new Live: a used one would overwrite what was printed after it."""
        console = self.progress.console
        bars = Constrain(self.progress, console.width - len("^C"))  # the echo of Ctrl-C must not wrap to a new line
        self._live = Live(bars, console=console, transient=True, redirect_stdout=False)
        self._live.start()

    def _stop_bars(self) -> None:
        with self._lock:
            if self._live is not None:
                self._live.stop()
                self._live = None

    def _refresh_regularly(self) -> None:
        """Update the time left while a step takes long."""
        while not self._over.wait(1.0):
            self._update_bars()

    def __enter__(self) -> BarListener:
        self._start_bars()
        super().__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._stop_bars()
        super().__exit__(kind, error, trace)
