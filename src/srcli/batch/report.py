"""Outcomes of pictures, their counts, and the exit code that follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from srcli.errors import MachineError, PictureError, SrcliError, TooLarge
from srcli.messages import name_flags

DONE, SKIPPED, FAILED = "done", "skipped", "failed"
ALL_FAILED, SOME_FAILED, SIGNAL_EXIT = 1, 3, 128
ERROR_KINDS: Mapping[type, str] = {MachineError: "machine", TooLarge: "memory"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one picture."""

    source: Path
    status: str
    target: Path | None = None
    kind: str | None = None  # class of the failure, or reason for skipping
    message: str | None = None
    seconds: float = 0.0
    exit_code: int = 0  # exit code if this were the only picture
    size: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()
    error: BaseException | None = None
    frame: int = 0  # of the source, if it has several


def outcome_of_error(source: Path, error: BaseException, seconds: float = 0.0, frame: int = 0) -> Outcome:
    """The outcome of a picture that failed. Errors other than SrcliError are bugs and keep their traceback."""
    kind = error.kind if isinstance(error, PictureError) else ERROR_KINDS.get(type(error), type(error).__name__)
    text = name_flags(str(error)) or type(error).__name__
    known = isinstance(error, SrcliError)
    message = text if known else f"{type(error).__name__}: {text}"
    code = error.exit_code if isinstance(error, SrcliError) else ALL_FAILED
    return Outcome(source, FAILED, None, kind, message, seconds, code, error=None if known else error, frame=frame)


def choose_exit_code(done: int, failed: int) -> int:
    """The exit code for these counts of pictures."""
    return 0 if not failed else SOME_FAILED if done else ALL_FAILED


@dataclass
class Tally:
    """Counts of a batch, while it runs."""

    total: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0
    codes: frozenset[int] = frozenset()  # exit codes of the failures

    @property
    def ended(self) -> int:
        return self.done + self.skipped + self.failed

    @property
    def left(self) -> int:
        """Pictures that were not started, because the run was interrupted or stopped at its first failure."""
        return self.total - self.ended

    @property
    def exit_code(self) -> int:
        code = choose_exit_code(self.done + self.skipped, self.failed)
        return next(iter(self.codes)) if code == ALL_FAILED and len(self.codes) == 1 else code

    def add(self, outcome: Outcome) -> None:
        setattr(self, outcome.status, getattr(self, outcome.status) + 1)
        if outcome.status == FAILED:
            self.codes |= {outcome.exit_code}

    def add_counts(self, other: Tally) -> None:
        for name in ("total", "done", "skipped", "failed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.codes |= other.codes


@dataclass
class Report(Tally):
    """The end of a batch."""

    seconds: float = 0.0
    signal: int | None = None
    journal: Path | None = None
    times: Mapping[str, float] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        if self.signal is not None and self.left:  # a signal after the last picture changes nothing
            return SIGNAL_EXIT + self.signal
        return super().exit_code
