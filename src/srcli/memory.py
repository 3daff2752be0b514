"""Out of memory: less at a time, by stated steps, before anything fails."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from srcli.errors import MachineError

T = TypeVar("T")

MMAP_THRESHOLD = -3  # glibc's number for it
LARGE = 4 << 20

WORDS = (  # of errors that have no class of their own
    "out of memory",
    "alloc_failed",
    "bad_alloc",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "failed to allocate",
)


class TooLarge(MachineError):
    """One picture does not fit; a smaller one may."""


@dataclass(frozen=True, slots=True)
class MemorySavings:
    """How much is done at a time. The first is all at once; none of it but `tile` changes the result."""

    share: float = 1.0  # of the tiles that would share a call; 0: one tile a call
    split_guidance: bool = False  # guidance: the halves one after the other
    band: float = 1.0  # of the VAE's band
    tile: float = 1.0  # of the tile's side
    offload: bool = False  # networks wait in host memory for their turn

    def batch(self, planned: int) -> int:
        """Tiles in one call, where `planned` would be best."""
        return max(1, int(planned * self.share))


# What of MemorySavings changes, how that is said, and to what.
STEPS: tuple[tuple[str, str, Any], ...] = (
    ("share", "half the tiles at once", 0.5),
    ("share", "one tile at a time", 0.0),
    ("split_guidance", "guidance in two calls", True),
    ("band", "the VAE in narrower bands", 0.25),
    ("tile", "smaller tiles", 0.75),
    ("offload", "networks waiting in host memory", True),
)
ALL_SAVINGS = frozenset(name for name, _, _ in STEPS)


class OomFallback:
    """Goes down a step at each failure of an allocation, and stays there: the next picture would fail again.

    Only steps that mean something to the engine (`able`) are taken: another would do the same work once more.
    """

    def __init__(self, tell: Callable[[str], None], able: Collection[str] = ALL_SAVINGS) -> None:
        self._tell = tell
        self._steps = [step for step in STEPS if step[0] in able]
        self._level = 0
        self.savings = MemorySavings()

    def run(self, work: Callable[[MemorySavings], T]) -> T:
        """The result of `work`, which is tried again with less at a time until it fits. TooLarge at the bottom."""
        while True:
            try:
                return work(self.savings)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = _first_line(error)
            # Only here is the error gone, and with it the frames that hold what was allocated.
            release_memory()
            self._step_down(reason)

    def _step_down(self, reason: str) -> None:
        if self._level == len(self._steps):
            raise TooLarge(
                f"the picture does not fit into memory, with the least at a time ({reason}):"
                " close other programs, make it smaller, or use another --device"
            )
        name, words, value = self._steps[self._level]
        self._level += 1
        self.savings = replace(self.savings, **{name: value})
        self._tell(f"out of memory: going on with {words}")


def is_out_of_memory(error: BaseException) -> bool:
    """Libraries say it in many ways; accelerate's list of them misses some."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in WORDS)


def tune_allocator() -> None:
    """Have every large piece of memory come from the system, in large pages, and go back when it is free.

    Left to itself the C library keeps pieces of up to 32 MiB for later ones, of other sizes, that do not fit.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by torch when it first allocates
    with suppress(OSError, TypeError, AttributeError):  # no C library by this name, or one that cannot
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, LARGE)


def release_memory() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().split("\n")[0][:120]
