"""Out of memory: do less at a time, in fixed steps, before a picture fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from srcli.errors import TooLarge
from srcli.memory import is_out_of_memory, release_memory

T = TypeVar("T")
log = logging.getLogger(__name__)


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


# What of Thrift changes, how that is said, and to what.
SAVING_STEPS: tuple[tuple[str, str, Any], ...] = (
    ("share", "half the tiles at once", 0.5),
    ("share", "one tile at a time", 0.0),
    ("split_guidance", "guidance in two calls", True),
    ("band", "the VAE in narrower bands", 0.25),
    ("tile", "smaller tiles", 0.75),
    ("offload", "networks waiting in host memory", True),
)
ALL_SAVINGS = frozenset(name for name, _, _ in SAVING_STEPS)


class OomFallback:
    """Goes down a step at each failure of an allocation, and stays there: the next picture would fail again.

    Only steps that mean something to the engine (`able`) are taken: another would do the same work once more.
    """

    def __init__(self, able: Collection[str] = ALL_SAVINGS) -> None:
        self._steps = [step for step in SAVING_STEPS if step[0] in able]
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
                " close other programs, make it smaller, or use another `device`"
            )
        name, words, value = self._steps[self._level]
        self._level += 1
        self.savings = replace(self.savings, **{name: value})
        log.warning(f"out of memory: going on with {words}")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().split("\n")[0][:120]
