"""How far a picture and a batch are, in shares that only grow, and what that says of the time left."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from srcli.batch.report import Tally
from srcli.imaging.printable import printable

PREPARING, SAMPLING, TILES, LOADING = "preparing", "sampling", "tiles", "loading"
PREPARED, SAMPLED = 0.1, 0.85  # shares of a block's work that lie behind it after these stages
EARLIEST, LEAST = 3.0, 0.04  # seconds and share of the work that an estimate needs
NAME = 24

Size = tuple[int, int]


@dataclass
class PictureProgress:
    """One picture's way through its stages."""

    name: str = ""
    size: Size | None = None
    target: Size | None = None
    stage: str = LOADING
    share: float = 0.0  # of all the work on it; never smaller than it was
    detail: str = ""
    began: float = field(default_factory=time.monotonic)
    _blocks: int = 1
    _step: tuple[int, int] = (0, 1)
    _sampled: bool = False  # whether the stage before was sampling

    def move(self, stage: str, done: int, total: int) -> bool:
        """Take in what the pipeline tells. Whether a stage began that was not the last one."""
        if stage == LOADING:
            self.began = time.monotonic()
            return done == 0
        if stage == TILES:
            self.detail = f"step {self._step[0] + 1}/{self._step[1]}, tile {done}/{total}"
            self._grow(SAMPLING, self._step[0] + done / total, self._step[1])
            return False
        changed, self.stage = stage != self.stage, stage
        self.detail = f"{done}/{total}" if total > 1 else ""
        if stage == PREPARING:
            self._blocks = total
        self._step = (done, total)
        self._grow(stage, done, total)
        return changed

    def _grow(self, stage: str, done: float, total: int) -> None:
        whole, within = divmod(done / total * self._blocks, 1)
        reached = {PREPARING: 0.0, SAMPLING: PREPARED + (SAMPLED - PREPARED) * within}
        if stage == SAMPLING and done and not within:  # the last step of a block is not yet the next block
            whole, reached[SAMPLING] = whole - 1, SAMPLED
        finishing = SAMPLED if self._sampled else PREPARED
        self.share = max(self.share, min(1.0, (whole + reached.get(stage, finishing)) / self._blocks))
        self._sampled = stage == SAMPLING

    def left(self) -> float | None:
        """Seconds, once there is something to tell them by."""
        return seconds_left(time.monotonic() - self.began, self.share)

    def describe(self, longest: int = NAME) -> str:
        """Name, sizes, stage and steps."""
        parts = [shorten(printable(self.name), longest)] if self.name else []
        if self.size and self.target:
            parts.append(f"{_sides(self.size)} to {_sides(self.target)}")
        return " ".join((*parts, f"{self.stage} {self.detail}".rstrip()))


@dataclass
class BatchProgress:
    """All pictures of a run. What was skipped took no time, and says nothing about the rest."""

    total: int = 0
    ended: int = 0
    worked: int = 0
    failed: int = 0
    began: float | None = None
    _share: float = 0.0

    def start(self) -> None:
        """Work on a picture begins."""
        self.began = self.began or time.monotonic()

    def count(self, tally: Tally) -> None:
        self.ended, self.worked, self.failed = tally.ended, tally.done + tally.failed, tally.failed

    def left(self, current: float = 0.0) -> float | None:
        """Seconds; `current` is how far the picture in work is."""
        if self.began is None:
            return None
        worked = self.worked + current
        rest = max(0.0, self.total - self.ended - current)
        return seconds_left(time.monotonic() - self.began, worked / (worked + rest)) if worked else None

    def share(self, current: float = 0.0) -> float:
        """Of all pictures, the part that is over; not less where one is still being written."""
        self._share = max(self._share, min(1.0, (self.ended + current) / max(1, self.total)))
        return self._share

    def describe(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.ended} of {self.total} pictures{failed}{self._rate()}"

    def _rate(self) -> str:
        spent = time.monotonic() - self.began if self.began else 0.0
        return f", {self.worked / spent * 60:.1f}/min" if self.worked and spent > EARLIEST else ""


def seconds_left(spent: float, share: float) -> float | None:
    """How long the rest takes if it goes as so far; None as long as that is a guess."""
    return spent / share * (1 - share) if spent >= EARLIEST and share >= LEAST else None


def format_left(seconds: float | None) -> str:
    """For a narrow column: "2 min left"."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} left"
    return f"{seconds:.0f} s left"


def shorten(text: str, longest: int) -> str:
    """A name with its middle left out, so that its beginning and its suffix stay."""
    if len(text) <= longest:
        return text
    tail = longest // 2 - 1
    return f"{text[: longest - tail - 3]}...{text[-tail:]}"


def _sides(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
