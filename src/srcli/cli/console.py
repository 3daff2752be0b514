"""What a user sees of a run: results on stdout, everything else on stderr."""

from __future__ import annotations

import base64
import json
import os
import sys
import traceback
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from srcli.batch.listener import Listener
from srcli.batch.report import FAILED, Outcome, Report, Tally
from srcli.cli.boundary import complain, emit, say
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


class Plain(Listener):
    """Failures, notes and a summary, a line each: for logs, and for terminals that are none."""

    def __init__(self, results: Paths | Objects | None, *, quiet: bool, verbose: bool) -> None:
        self.results, self.quiet, self.verbose = results, quiet, verbose
        self.said: set[str] = set()

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
        if self.results is not None:
            self.results.ended(outcome)

    def finished(self, report: Report) -> None:
        if self.results is not None:
            self.results.finished(report)
        if not self.quiet and (report.total > 1 or report.skipped or self.verbose):
            self.line(_summary(report))
        if self.verbose and report.times:
            self.line("time went to " + ", ".join(f"{name} {spent:.1f} s" for name, spent in report.times.items()))

    def line(self, text: str) -> None:
        say("\n".join(printable(part) for part in text.rstrip().split("\n")))

    def complain(self, text: str) -> None:
        complain(text)

    def __enter__(self) -> Plain:
        forward_messages(self.note)
        return self

    def __exit__(self, *_: object) -> None:
        forward_messages(None)


class Bar(Plain):
    """One moving line on a terminal: stage, steps and time left of a picture, or of a batch."""

    def __init__(self, results: Paths | Objects | None, *, quiet: bool, verbose: bool) -> None:
        super().__init__(results, quiet=quiet, verbose=verbose)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        self.progress = Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
        )
        self.task = self.progress.add_task("loading", total=None)
        self.many = False

    def planned(self, total: int, left_out: int) -> None:
        self.many = total > 1
        if self.many:
            self.progress.update(self.task, description="pictures", total=total)

    def step(self, source: Path, stage: str, done: int, total: int) -> None:
        if not self.many:
            self.progress.update(self.task, description=stage, completed=done, total=total)

    def ended(self, outcome: Outcome, tally: Tally) -> None:
        super().ended(outcome, tally)
        if self.many:
            failed = f", {tally.failed} failed" if tally.failed else ""
            self.progress.update(self.task, description=f"pictures{failed}", completed=tally.ended)

    def line(self, text: str) -> None:
        self.progress.console.print(Text("\n".join(printable(part) for part in text.rstrip().split("\n"))))

    def complain(self, text: str) -> None:
        self.line(f"srcli: {text}")

    def __enter__(self) -> Bar:
        forward_messages(self.note)
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
        forward_messages(None)


def watch(*, as_json: bool, to_stdout: bool, quiet: bool, verbose: bool, null: bool = False) -> Plain:
    """Who shall watch this run. A picture on stdout leaves no room there for anything else."""
    results = None if to_stdout else Objects() if as_json else Paths(null=null)
    kind = Bar if sys.stderr.isatty() and not quiet else Plain
    return kind(results, quiet=quiet, verbose=verbose)


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
