"""Progress of a picture and of a batch as a share that never decreases, and the estimated time left."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from srcli.batch.report import Tally
from srcli.engines.base import PixelSize
from srcli.imaging.printable import printable
from srcli.tasks import FILLING, LOADING, PASS, PREPARING, SAMPLING, TILES, VERSION

MAPPING = "mapping"  # the stage that is shown while other versions than the result are made
PREPARED, SAMPLED = 0.1, 0.85  # shares of a block's work done after these stages
FILLED = 0.2  # share of a picture's work done once its damage is filled, if it has any
LEAST_SECONDS, LEAST_SHARE = 3.0, 0.04  # seconds and share of the work that an estimate of the time left needs
NAME_WIDTH = 24
PASS_GROWTH = 16  # each pass has this many times the pixels of the one before: its sides are four times longer


@dataclass
class PictureProgress:
    """Progress of one picture through its stages."""

    name: str = ""
    size: PixelSize | None = None
    target: PixelSize | None = None
    stage: str = LOADING
    share: float = 0.0  # of all its work, 0 to 1; never decreases
    detail: str = ""
    began: float = field(default_factory=time.monotonic)
    _moved: float = 0.0  # when the share last grew
    _filled: float = 0.0  # share of filling damage
    _blocks: int = 1
    _before: float = 0.0  # share of the finished passes, of the work of all passes
    _within: float = 1.0  # share of the current pass
    _version: tuple[int, int] = (0, 1)  # index and number of runs: a map needs several
    _step: tuple[int, int] = (0, 1)
    _sampled: bool = False  # whether the previous stage was sampling

    def update(self, stage: str, done: int, total: int) -> bool:
        """Update from an event of the pipeline. Returns whether a new stage began."""
        if stage == LOADING:
            self.began = time.monotonic()
            return done == 0
        if stage == FILLING:
            changed, self.stage, self.detail = self.stage != stage, stage, f"{done}/{total}"
            self._filled = FILLED
            self._move_to(FILLED * done / total)
            return changed
        if stage == VERSION:
            self._version = (done, total)
            self._begin_pass(0, 1)
            return False
        if stage == PASS:
            self._begin_pass(done, total)
            return False
        if stage == TILES:
            self.detail = self._describe_version() + f"step {self._step[0] + 1}/{self._step[1]}, tile {done}/{total}"
            self._grow_share(SAMPLING, self._step[0] + done / total, self._step[1])
            return False
        shown = MAPPING if self._version[0] else stage
        changed, self.stage = shown != self.stage, shown
        self.detail = self._describe_version() + (f"{done}/{total}" if total > 1 else "")
        if stage == PREPARING:
            self._blocks = total
        self._step = (done, total)
        self._grow_share(stage, done, total)
        return changed

    def _describe_version(self) -> str:
        index, count = self._version
        return f"version {index}/{count - 1} " if index else ""

    def _grow_share(self, stage: str, done: float, total: int) -> None:
        whole, within = divmod(done / total * self._blocks, 1)
        reached = {PREPARING: 0.0, SAMPLING: PREPARED + (SAMPLED - PREPARED) * within}
        if stage == SAMPLING and done and not within:  # the last step of a block still belongs to it
            whole, reached[SAMPLING] = whole - 1, SAMPLED
        finishing = SAMPLED if self._sampled else PREPARED
        share = min(1.0, (whole + reached.get(stage, finishing)) / self._blocks)
        self._move_to(self._filled + (1 - self._filled) * (self._before + self._within * share))
        self._sampled = stage == SAMPLING

    def _move_to(self, share: float) -> None:
        if share > self.share:
            self.share, self._moved = share, time.monotonic()

    def _begin_pass(self, index: int, count: int) -> None:
        """A pass takes the result of the one before as input, and so takes longer; all versions take the same time."""
        works = [PASS_GROWTH**number for number in range(count)]
        version, versions = self._version
        self._before = (version + sum(works[:index]) / sum(works)) / versions
        self._within = works[index] / sum(works) / versions
        self._blocks, self._sampled = 1, False

    def left(self) -> float | None:
        """Seconds left, or None while there is no estimate."""
        left = seconds_left(self._moved - self.began, self.share)
        since = time.monotonic() - self._moved  # between events the estimate counts down, until it is used up
        return None if left is None or left <= since else left - since

    def describe(self, longest: int = NAME_WIDTH) -> str:
        """Name, sizes, stage and steps as text."""
        parts = [shorten_name(printable(self.name), longest)] if self.name else []
        if self.size and self.target:
            parts.append(f"{_format_sides(self.size)} to {_format_sides(self.target)}")
        return " ".join((*parts, f"{self.stage} {self.detail}".rstrip()))


@dataclass
class BatchProgress:
    """Progress of all pictures of a run; skipped ones do not count for the estimate."""

    tally: Tally = field(default_factory=Tally)
    began: float | None = None
    _share: float = 0.0

    def start(self) -> None:
        """Start the clock when the first picture begins."""
        self.began = self.began or time.monotonic()

    @property
    def worked(self) -> int:
        return self.tally.done + self.tally.failed

    def left(self, current: float = 0.0) -> float | None:
        """Seconds left, or None; `current` is the share of the current picture that is done."""
        if self.began is None:
            return None
        worked = self.worked + current
        rest = max(0.0, self.tally.left - current)
        return seconds_left(time.monotonic() - self.began, worked / (worked + rest)) if worked else None

    def share(self, current: float = 0.0) -> float:
        """Share of all pictures that is done, 0 to 1; never decreases."""
        self._share = max(self._share, min(1.0, (self.tally.ended + current) / max(1, self.tally.total)))
        return self._share

    def describe(self) -> str:
        tally = self.tally
        failed = f", {tally.failed} failed" if tally.failed else ""
        return f"{tally.ended} of {tally.total} pictures{failed}{self._format_rate()}"

    def _format_rate(self) -> str:
        spent = time.monotonic() - self.began if self.began else 0.0
        return f", {self.worked / spent * 60:.1f}/min" if self.worked and spent > LEAST_SECONDS else ""


def seconds_left(spent: float, share: float) -> float | None:
    """Estimate of the seconds left from the speed so far; None while it would be too uncertain."""
    return spent / share * (1 - share) if spent >= LEAST_SECONDS and share >= LEAST_SHARE else None


def format_left(seconds: float | None) -> str:
    """Format seconds for a narrow column: "2 min left"."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} left"
    return f"{seconds:.0f} s left"


def shorten_name(text: str, longest: int) -> str:
    """Shorten a name in the middle, keeping its beginning and suffix."""
    if len(text) <= longest:
        return text
    tail = longest // 2 - 1
    return f"{text[: longest - tail - 3]}...{text[-tail:]}"


def _format_sides(size: PixelSize) -> str:
    return f"{size[0]}x{size[1]}"
