"""Events of a running batch. All are called from the thread that called run_batch()."""

from __future__ import annotations

from pathlib import Path

from srcli.batch.report import Outcome, Report, Tally


class Listener:
    """Receives every event and ignores it; subclasses override what they show."""

    def planned(self, total: int, left_out: int) -> None:
        """The inputs are known. `left_out` counts files in folders that are not pictures or are earlier results."""

    def note(self, text: str) -> None:
        """A message for the user."""

    def begun(self, source: Path, size: tuple[int, int], target: tuple[int, int]) -> None:
        """Computing a picture begins. `size` and `target` are (width, height) of the picture and of its result."""

    def step(self, source: Path, stage: str, done: int, total: int) -> None:
        """Progress within a picture: its stage, and the steps done and in total."""

    def ended(self, outcome: Outcome, tally: Tally) -> None:
        """A picture is done, skipped or failed."""

    def finished(self, report: Report) -> None:
        """The batch has ended, also when it was interrupted."""

    def cut_off(self) -> None:
        """The process is about to exit: restore the terminal. Called from a signal handler."""
