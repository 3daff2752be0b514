"""The out-of-memory fallback: process less at a time, in fixed steps, before a picture fails."""

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
    """How much is processed at a time; by default as much as planned. Only `tile` changes the result."""

    share: float = 1.0  # of the planned tiles per call; 0: one tile per call
    split_guidance: bool = False  # the two halves of classifier-free guidance in separate calls
    band: float = 1.0  # of the VAE's band height
    tile: float = 1.0  # of the tile's side
    offload: bool = False  # VAE and text encoder wait in host memory

    def batch(self, planned: int) -> int:
        """Tiles per call, from the `planned` number."""
        return max(1, int(planned * self.share))


# Field of MemorySavings, words for the log, new value.
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
    """Takes one more step each time an allocation fails, and keeps it: the next picture would fail again.

    Steps that the engine cannot apply (not in `supported`) are skipped: they would only repeat the same work.
    """

    def __init__(self, supported: Collection[str] = ALL_SAVINGS) -> None:
        self._steps = [step for step in SAVING_STEPS if step[0] in supported]
        self._level = 0
        self.savings = MemorySavings()

    def run(self, work: Callable[[MemorySavings], T]) -> T:
        """The result of `work`, retried with more savings until it fits; TooLarge after the last step."""
        while True:
            try:
                return work(self.savings)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = (str(error) or type(error).__name__).strip().split("\n")[0][:120]
            # Outside the except block the error is gone, and with it the frames that hold the allocated tensors.
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
