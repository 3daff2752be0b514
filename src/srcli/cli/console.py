"""Output of a run: results on stdout, everything else on stderr."""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import time
import traceback
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from srcli.batch.listener import Listener
from srcli.batch.progress import BatchProgress, PictureProgress, format_left
from srcli.batch.report import FAILED, Outcome, Report, Tally
from srcli.cli.boundary import print_error, print_message, write_line
from srcli.engines.base import PixelSize
from srcli.errors import SrcliError
from srcli.imaging.printable import prefix_name, printable
from srcli.messages import forward_messages, name_flags
from srcli.tasks import LOADING


class NoResults:
    """Prints nothing to stdout, where the picture itself goes."""

    def planned(self, total: int) -> None: ...
    def progressed(self, source: Path, picture: PictureProgress, batch: BatchProgress) -> None: ...
    def ended(self, outcome: Outcome) -> None: ...
    def finished(self, report: Report) -> None: ...


class PathResults(NoResults):
    """Results on stdout for scripts: one output path per line, as raw bytes, also for skipped pictures.

    On a terminal, control characters in names are escaped.
    """

    def __init__(self, *, null: bool = False) -> None:
        self._end = b"\0" if null else b"\n"
        self._escaped = not null and sys.stdout is not None and sys.stdout.isatty()

    def ended(self, outcome: Outcome) -> None:
        if outcome.status != FAILED and outcome.target is not None:
            name = printable(outcome.target).encode() if self._escaped else os.fsencode(outcome.target)
            write_line(name, self._end)


class JsonResults(NoResults):
    """Events on stdout as one JSON object per line; docs/scripts.md describes them."""

    def __init__(self) -> None:
        self._next, self._stage = 0.0, ""

    def planned(self, total: int) -> None:
        self._write_event({"event": "planned", "total": total})

    def progressed(self, source: Path, picture: PictureProgress, batch: BatchProgress) -> None:
        """Print at the start of each stage, and once a second."""
        now = time.monotonic()
        if picture.stage == self._stage and now < self._next:
            return
        self._next, self._stage, left = now + 1.0, picture.stage, picture.left()
        event = {"event": "progress", **_path_fields("input", source), "stage": picture.stage}
        numbers = {"percent": round(100 * picture.share, 1), "ended": batch.tally.ended, "total": batch.tally.total}
        self._write_event({**event, **numbers, **({} if left is None else {"seconds_left": round(left, 1)})})

    def ended(self, outcome: Outcome) -> None:
        event = {
            "event": outcome.status,
            **_path_fields("input", outcome.source),
            **(_path_fields("output", outcome.target) if outcome.target else {}),
            "kind": outcome.kind,
            "message": outcome.message,
            "size": outcome.size,
            "seconds": round(outcome.seconds, 3),
        }
        self._write_event({name: value for name, value in event.items() if value is not None})

    def finished(self, report: Report) -> None:
        counts = {name: getattr(report, name) for name in ("total", "done", "skipped", "failed", "left")}
        self._write_event(
            {"event": "finished", **counts, "seconds": round(report.seconds, 3), "exit": report.exit_code}
        )

    def _write_event(self, event: dict[str, object]) -> None:
        write_line(json.dumps(event, ensure_ascii=True).encode())


DUMB_TERMINALS = (None, "", "dumb", "unknown")  # values of TERM without cursor movement
PROGRESS_INTERVAL = 30.0  # seconds between two lines of progress


class PlainListener(Listener):
    """Failures, notes, progress and a summary as lines, for logs and non-interactive stderr."""

    def __init__(self, results: NoResults, *, quiet: bool, verbose: bool) -> None:
        self.results, self.quiet, self.verbose = results, quiet, verbose
        self.printed: set[str] = set()
        self.batch, self.picture = BatchProgress(), PictureProgress()
        self._source: Path | None = None  # of the current picture
        self._stages: set[str] = set()
        self._shrink_noted = False
        self._over = threading.Event()
        # Notes, until the plan is made, so that no hint precedes a usage error.
        self._early_notes: list[str] | None = []

    def planned(self, total: int, left_out: int) -> None:
        self.batch.tally.total = total
        self._print_early_notes()
        self.results.planned(total)

    def _print_early_notes(self) -> None:
        early, self._early_notes = self._early_notes or [], None
        for text in early:
            self.note(text)

    def begun(self, source: Path, size: PixelSize, target: PixelSize) -> None:
        self.batch.start()
        if target[0] * target[1] < size[0] * size[1] and not self._shrink_noted:
            self._shrink_noted = True  # noted once, for the first picture
            self.note(f"{printable(source.name)} is made smaller: {size[0]}x{size[1]} to {target[0]}x{target[1]}")
        self._source, self.picture = source, PictureProgress(source.name, size, target)

    def step(self, source: Path, stage: str, done: int, total: int) -> None:
        """Print a line when a stage begins, if there is only one picture.

        No line for loading, so that a loading error is the only line.
        """
        self.picture.update(stage, done, total)
        self.results.progressed(source, self.picture, self.batch)
        if self.picture.stage == LOADING:
            return
        if self.batch.tally.total == 1 and not self.quiet and self.picture.stage not in self._stages:
            self._stages.add(self.picture.stage)
            self.print_line(self.progress_line())

    @property
    def current(self) -> float:
        """Share of the current picture that is done, 0 to 1."""
        return 0.0 if self._source is None else self.picture.share

    def progress_line(self) -> str:
        """Progress of the run as text."""
        left = self.batch.left(self.current)
        if self.batch.tally.total == 1:
            left = self.picture.left()
            parts = [f"{self.picture.share:.0%}", self.picture.describe(len(self.picture.name))]
        else:
            parts = [f"{self.batch.share(self.current):.0%}", self.batch.describe()]
        return ", ".join(filter(None, (*parts, format_left(left))))

    def _refresh_regularly(self) -> None:
        while not self._over.wait(PROGRESS_INTERVAL):
            if self.batch.began is not None:
                self.print_line(self.progress_line())

    def note(self, text: str) -> None:
        if self._early_notes is not None:
            self._early_notes.append(text)
            return
        text = name_flags(text)
        if not self.quiet and text not in self.printed:
            self.printed.add(text)
            self.print_line(text)

    def ended(self, outcome: Outcome, tally: Tally) -> None:
        if outcome.status == FAILED:
            self.print_failure(prefix_name(outcome.source, str(outcome.message)))
            if self.verbose and outcome.error is not None:
                self.print_line("".join(traceback.format_exception(outcome.error)))
        self.batch.tally = tally
        if outcome.source == self._source:
            self._source = None
        self.print_result(outcome)

    def print_result(self, outcome: Outcome) -> None:
        self.results.ended(outcome)

    def finished(self, report: Report) -> None:
        self._over.set()
        self.results.finished(report)
        if not self.quiet and (report.total > 1 or report.skipped or self.verbose):
            self.print_line(_format_summary(report))
        if not self.quiet and report.signal is not None and report.left:
            self.print_line("interrupted: run the same command again to do what is left")
        if self.verbose and report.times:
            times = ", ".join(f"{name} {spent:.1f} s" for name, spent in report.times.items())
            self.print_line(f"time went to {times}")

    def pause_display(self) -> AbstractContextManager[None]:
        """Pause the display while something else uses the terminal."""
        return nullcontext()

    def print_line(self, text: str) -> None:
        print_message(text)

    def print_failure(self, text: str) -> None:
        print_error(text)

    def __enter__(self) -> PlainListener:
        forward_messages(self.note)
        if not self.quiet:
            threading.Thread(target=self._refresh_regularly, name="progress", daemon=True).start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._over.set()
        if not isinstance(error, SrcliError):
            self._print_early_notes()
        forward_messages(None)


def choose_listener(*, as_json: bool, to_stdout: bool, quiet: bool, verbose: bool, null: bool = False) -> PlainListener:
    """Return the listener for this run. With a picture on stdout, no results are printed there."""
    results = NoResults() if to_stdout else JsonResults() if as_json else PathResults(null=null)
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") in DUMB_TERMINALS:
        return PlainListener(results, quiet=quiet, verbose=verbose)
    from srcli.cli.bars import BarListener

    return BarListener(results, quiet=quiet, verbose=verbose)


def _format_summary(report: Report) -> str:
    parts = [f"{report.done} done", f"{report.skipped} skipped", f"{report.failed} failed"]
    if report.left:
        parts.append(f"{report.left} left")
    return f"{', '.join(parts)} of {report.total} in {report.seconds:.1f} s"


def _path_fields(name: str, path: Path) -> dict[str, str]:
    """A path for JSON; if it is not valid UTF-8, its bytes are added in base64."""
    raw = os.fsencode(path)
    text = raw.decode("utf-8", "backslashreplace")
    exact = {} if text.encode() == raw else {f"{name}_base64": base64.b64encode(raw).decode()}
    return {name: text, **exact}
