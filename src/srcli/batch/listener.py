"""What a batch tells while it runs. All of it is told from the thread that called run_batch()."""

from __future__ import annotations

from pathlib import Path

from srcli.batch.report import Outcome, Report, Tally


class Listener:
    """Hears everything and says nothing: override what is to be shown."""

    def planned(self, total: int, left_out: int) -> None:
        """The inputs are known. `left_out` counts what folders hold besides pictures, and our own outputs."""

    def note(self, text: str) -> None:
        """A sentence for the user."""

    def begun(self, source: Path, size: tuple[int, int], target: tuple[int, int]) -> None:
        """A picture's turn came; width and height, of itself and of its result."""

    def step(self, source: Path, stage: str, done: int, total: int) -> None:
        """A picture moved on: its stage, and steps of it that are done."""

    def ended(self, outcome: Outcome, tally: Tally) -> None:
        """A picture is finished, in one of three ways."""

    def finished(self, report: Report) -> None:
        """The batch is over, in whatever way."""

    def cut_off(self) -> None:
        """The process ends at this moment: give back what would outlive it. Called from a signal handler."""
