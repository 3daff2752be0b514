"""Processes that train the same stage side by side and now and then meet half way.

Two processes of one thread each do twice the work of one; two threads on a busy processor do not. Each writes its
weights beside its checkpoint; whoever finds newer ones of the other moves half way to them.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from srcli.train.loops import Run, load, save

STALE = 90.0
"""Seconds after which the other one counts as gone."""


@dataclass
class Peer:
    """The other process's folder, and which of its weights were met last."""

    own: Path
    other: Path
    met: float = 0.0

    def exchange(self, run: Run) -> bool:
        """Leave our weights for the other one; take its own if they are new."""
        name = f"{run.recipe.stage}.shared"
        save({"weights": run.part.state_dict(), "average": run.average}, self.own / name)
        theirs = self.other / name
        written = theirs.stat().st_mtime if theirs.exists() else 0.0
        if written <= self.met or time.time() - written > STALE:
            return False
        state = load(theirs)
        run.meet(state["weights"], state["average"])
        self.met = written
        return True
