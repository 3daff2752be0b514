"""What a user sees of a run: results on stdout, everything else on stderr."""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import traceback
from pathlib import Path

from srcli.batch.listener import Listener
from srcli.batch.report import FAILED, Outcome, Report, Tally
from srcli.cli.boundary import complain, emit, say
from srcli.cli.progress import LOADING, BatchProgress, PictureProgress, Size, format_left
from srcli.imaging.printable import printable
from srcli.messages import forward_messages, name_flags


class Paths:
    """Results on stdout as scripts want them: one output path a line, byte for byte; also of those that were there.

    On a terminal names are shown harmless: they may hold what a terminal obeys.
    """

    def __init__(self, *, null: bool = False) -> None:
        self._end = b"\0" if null else b"\n"
        self._escaped = not null and sys.stdout is not None and sys.stdout.isatty()

    def ended(self, outcome: Outcome) -> None:
        if outcome.status != FAILED and outcome.target is not None:
            name = printable(outcome.target).encode() if self._escaped else os.fsencode(outcome.target)
            emit(name, self._end)

    def finished(self, report: Report) -> None:
        """Paths are all there is to say."""


class Objects:
    """Results on stdout as one JSON object a line."""

    def ended(self, outcome: Outcome) -> None:
        said = {
            "event": outcome.status,
            **_path("input", outcome.source),
            **(_path("output", outcome.target) if outcome.target else {}),
            "kind": outcome.kind,
            "message": outcome.message,
            "size": outcome.size,
            "seconds": round(outcome.seconds, 3),
        }
        self._say({name: value for name, value in said.items() if value is not None})

    def finished(self, report: Report) -> None:
        counts = {name: getattr(report, name) for name in ("total", "done", "skipped", "failed", "left")}
        self._say({"event": "finished", **counts, "seconds": round(report.seconds, 3), "exit": report.exit_code})

    def _say(self, said: dict[str, object]) -> None:
        emit(json.dumps(said, ensure_ascii=True).encode())


DUMB = (None, "", "dumb", "unknown")  # terminals that cannot move their cursor
EVERY = 30.0  # seconds between two lines of progress


class Plain(Listener):
    """Failures, notes, progress and a summary, a line each: for logs, and for terminals that cannot do more."""

    def __init__(self, results: Paths | Objects | None, *, quiet: bool, verbose: bool) -> None:
        self.results, self.quiet, self.verbose = results, quiet, verbose
        self.said: set[str] = set()
        self.batch, self.picture = BatchProgress(), PictureProgress()
        self._source: Path | None = None  # of the picture in work
        self._stages: set[str] = set()
        self._over = threading.Event()

    def planned(self, total: int, left_out: int) -> None:
        self.batch.total = total

    def begun(self, source: Path, size: Size, target: Size) -> None:
        self.batch.start()
        self._source, self.picture = source, PictureProgress(source.name, size, target)

    def step(self, source: Path, stage: str, done: int, total: int) -> None:
        """A line at the first sight of each stage; of many pictures that would be too many.

        Not of loading, so that what cannot be loaded is one line.
        """
        self.picture.move(stage, done, total)
        if stage == LOADING:
            return
        if self.batch.total == 1 and not self.quiet and self.picture.stage not in self._stages:
            self._stages.add(self.picture.stage)
            self.line(self.progress_line())

    @property
    def current(self) -> float:
        """How much of a picture is done besides those that are counted."""
        return 0.0 if self._source is None else self.picture.share

    def progress_line(self) -> str:
        """How far the run is."""
        left = self.batch.left(self.current)
        if self.batch.total == 1:
            left = self.picture.left()
            parts = [f"{self.picture.share:.0%}", self.picture.describe(len(self.picture.name))]
        else:
            parts = [f"{self.batch.share(self.current):.0%}", self.batch.describe()]
        return ", ".join(filter(None, (*parts, format_left(left))))

    def _tell_regularly(self) -> None:
        while not self._over.wait(EVERY):
            if self.batch.began is not None:
                self.line(self.progress_line())

    def note(self, text: str) -> None:
        text = name_flags(text)
        if not self.quiet and text not in self.said:
            self.said.add(text)
            self.line(text)

    def ended(self, outcome: Outcome, tally: Tally) -> None:
        if outcome.status == FAILED:
            name, message = printable(outcome.source), str(outcome.message)
            self.complain(message if name in message else f"{name}: {message}")
            if self.verbose and outcome.error is not None:
                self.line("".join(traceback.format_exception(outcome.error)))
        self.batch.count(tally)
        if outcome.source == self._source:
            self._source = None
        self.tell_result(outcome)

    def tell_result(self, outcome: Outcome) -> None:
        if self.results is not None:
            self.results.ended(outcome)

    def finished(self, report: Report) -> None:
        self._over.set()
        if self.results is not None:
            self.results.finished(report)
        if not self.quiet and (report.total > 1 or report.skipped or self.verbose):
            self.line(_summary(report))
        if not self.quiet and report.signal is not None and report.left:
            self.line("interrupted: run the same command again to do what is left")
        if self.verbose and report.times:
            self.line("time went to " + ", ".join(f"{name} {spent:.1f} s" for name, spent in report.times.items()))

    def line(self, text: str) -> None:
        say("\n".join(printable(part) for part in text.rstrip().split("\n")))

    def complain(self, text: str) -> None:
        complain(text)

    def __enter__(self) -> Plain:
        forward_messages(self.note)
        if not self.quiet:
            threading.Thread(target=self._tell_regularly, name="progress", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        forward_messages(None)


def watch(*, as_json: bool, to_stdout: bool, quiet: bool, verbose: bool, null: bool = False) -> Plain:
    """Who shall watch this run. A picture on stdout leaves no room there for anything else."""
    results = None if to_stdout else Objects() if as_json else Paths(null=null)
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") in DUMB:
        return Plain(results, quiet=quiet, verbose=verbose)
    from srcli.cli.bars import Bars

    return Bars(results, quiet=quiet, verbose=verbose)


def _summary(report: Report) -> str:
    parts = [f"{report.done} done", f"{report.skipped} skipped", f"{report.failed} failed"]
    if report.left:
        parts.append(f"{report.left} left")
    return f"{', '.join(parts)} of {report.total} in {report.seconds:.1f} s"


def _path(name: str, path: Path) -> dict[str, str]:
    """A path for JSON; where its bytes are not UTF-8 they follow in base64."""
    raw = os.fsencode(path)
    text = raw.decode("utf-8", "backslashreplace")
    exact = {} if text.encode() == raw else {f"{name}_base64": base64.b64encode(raw).decode()}
    return {name: text, **exact}
